// Package fsm is a container's life as a pure function: Step takes a state and an
// event and answers the next state and the effects to carry out. It knows no clock, no
// process and no file; the task of a container runs the effects beside it and feeds
// their results back as events that carry the number of the run they belong to.
//
// Rules the task keeps: every Run effect is answered by exactly one Started or
// StartFailed, every Teardown by one TornDown, every Delete by one Deleted, every
// Signal, Freeze and Thaw by one Signaled, Froze, Thawed, a Timer by at most one Fired.
// What Step guarantees in turn: never two runs at once, every ticket answered exactly
// once (a waiter's at the latest by Deleted), nothing leaves the phase Removed.
package fsm

import (
	"errors"
	"time"
)

// Phase is where a container is in its life.
type Phase uint8

// The phases. Stopping still has a process; Exiting has none any more, but its
// resources are being given back.
const (
	Created Phase = iota
	Starting
	Running
	Paused
	Stopping
	Exiting
	Restarting // waiting for the restart policy's delay
	Exited
	Removing
	Removed
	Dead // removal failed; it can be tried again
)

// String is the phase's name for logs and records.
func (p Phase) String() string {
	names := [...]string{
		"created", "starting", "running", "paused", "stopping", "exiting",
		"restarting", "exited", "removing", "removed", "dead",
	}
	if int(p) < len(names) {
		return names[p]
	}
	return "unknown"
}

// Up reports whether a process may exist in this phase.
func (p Phase) Up() bool {
	return p == Running || p == Paused || p == Stopping
}

// Refusals. The facade puts them into words.
var (
	// ErrNotRunning refuses what needs a running container.
	ErrNotRunning = errors.New("container is not running")
	// ErrAlready answers a request whose aim is reached: start of a running container,
	// stop of a stopped one.
	ErrAlready = errors.New("container is already in that state")
	// ErrPaused refuses pause and start of a paused container.
	ErrPaused = errors.New("container is paused")
	// ErrNotPaused refuses unpause.
	ErrNotPaused = errors.New("container is not paused")
	// ErrRunning, ErrIsPaused and ErrRestarting refuse removal without force.
	ErrRunning    = errors.New("container is running")
	ErrIsPaused   = errors.New("container is paused and cannot be removed")
	ErrRestarting = errors.New("container is restarting")
	// ErrRemoving refuses everything once removal began.
	ErrRemoving = errors.New("container is marked for removal")
	// ErrDead refuses start of a container whose removal failed.
	ErrDead = errors.New("container is dead")
	// ErrGone answers everything after removal.
	ErrGone = errors.New("no such container")
	// ErrUnkillable answers when the process did not end after SIGKILL.
	ErrUnkillable = errors.New("container did not exit after SIGKILL")
)

// Ticket numbers a request that wants an answer; 0 wants none.
type Ticket uint64

// Exit tells how a run ended.
type Exit struct {
	Code    int
	OOM     bool
	Unknown bool // nobody could learn the code
	At      time.Time
	Ran     time.Duration // how long the run lasted, for the restart policy
}

// Policy is a restart policy. Max is for OnFailure; 0 is without limit.
type Policy struct {
	Mode Mode
	Max  int
}

// Mode is the kind of a restart policy.
type Mode uint8

// The restart policies.
const (
	No Mode = iota
	OnFailure
	Always
	UnlessStopped
)

// Condition is what a waiter waits for.
type Condition uint8

// The conditions of Docker's wait.
const (
	NotRunning Condition = iota
	NextExit
	OnRemoval
)

// TimerKind tells timers apart.
type TimerKind uint8

// The timers.
const (
	StopTimer TimerKind = iota // the stop signal had its time
	KillTimer                  // SIGKILL had its time
	Backoff                    // the restart policy's delay
)

// Remedy is what is done with a run that is unhealthy.
type Remedy uint8

// The remedies. KillIt counts as an end of its own: the restart policy decides.
const (
	StopIt Remedy = iota
	KillIt
	RestartIt
)

// Event is a request or a result.
type Event interface{ event() }

// Requests.
type (
	// Start asks for a run.
	Start struct{ T Ticket }
	// Stop asks for Signal, then after Timeout for SIGKILL; a negative Timeout waits for ever.
	Stop struct {
		T       Ticket
		Signal  int
		Timeout time.Duration
	}
	// Kill sends a signal. Final is set for SIGKILL: the answer comes when the container
	// has ended. Cancel takes the restart policy out of force for this run.
	Kill struct {
		T      Ticket
		Signal int
		Final  bool
		Cancel bool
	}
	// Restart is stop and start in one.
	Restart struct {
		T       Ticket
		Signal  int
		Timeout time.Duration
	}
	// Pause freezes the container.
	Pause struct{ T Ticket }
	// Unpause thaws it.
	Unpause struct{ T Ticket }
	// Remove deletes the container, with Force after killing it.
	Remove struct {
		T     Ticket
		Force bool
	}
	// Wait asks for an answer when Cond holds.
	Wait struct {
		T    Ticket
		Cond Condition
	}
	// CancelWait answers a waiter at once.
	CancelWait struct{ T Ticket }
	// SetPolicy changes restart policy and auto-removal.
	SetPolicy struct {
		Policy     Policy
		AutoRemove bool
	}
	// Unhealthy says that run Run failed its health checks, and what is to be done about it.
	// Signal and Timeout are the container's own, for StopIt and RestartIt.
	Unhealthy struct {
		Run     uint64
		Do      Remedy
		Signal  int
		Timeout time.Duration
	}
	// Boot is given once after the daemon restored a container that does not run.
	Boot struct{}
)

// Results of effects, and what the shim tells.
type (
	// Started says that the program of run Run runs.
	Started struct{ Run uint64 }
	// StartFailed says that nothing of run Run is left. Code is the exit code to show.
	StartFailed struct {
		Run  uint64
		Err  error
		Code int
	}
	// HasExited says that the program of run Run ended; its output is in the log.
	HasExited struct {
		Run uint64
		Exit
	}
	// TornDown says that everything run Run held is given back.
	TornDown struct{ Run uint64 }
	// Signaled answers Signal.
	Signaled struct {
		Run uint64
		T   Ticket
		Err error
	}
	// Froze answers Freeze.
	Froze struct {
		Run uint64
		T   Ticket
		Err error
	}
	// Thawed answers Thaw.
	Thawed struct {
		Run uint64
		T   Ticket
		Err error
	}
	// Fired says that a timer ran out.
	Fired struct {
		Run  uint64
		Kind TimerKind
	}
	// Deleted answers Delete.
	Deleted struct{ Err error }
	// ShimLost says that the process that holds the containers died.
	ShimLost struct{}
	// ShimBack says that its successor is there, and holds run Run's process or not.
	ShimBack struct {
		Run  uint64
		Held bool
		At   time.Time
	}
)

func (Start) event()       {}
func (Stop) event()        {}
func (Kill) event()        {}
func (Restart) event()     {}
func (Pause) event()       {}
func (Unpause) event()     {}
func (Remove) event()      {}
func (Wait) event()        {}
func (CancelWait) event()  {}
func (SetPolicy) event()   {}
func (Unhealthy) event()   {}
func (Boot) event()        {}
func (Started) event()     {}
func (StartFailed) event() {}
func (HasExited) event()   {}
func (TornDown) event()    {}
func (Signaled) event()    {}
func (Froze) event()       {}
func (Thawed) event()      {}
func (Fired) event()       {}
func (Deleted) event()     {}
func (ShimLost) event()    {}
func (ShimBack) event()    {}

// Effect is something the task shall do.
type Effect interface{ effect() }

// The effects.
type (
	// Run starts run number Run.
	Run struct{ Run uint64 }
	// Signal sends a signal to the run's first process; T is answered through Signaled.
	Signal struct {
		Run    uint64
		T      Ticket
		Signal int
	}
	// Freeze pauses the run.
	Freeze struct {
		Run uint64
		T   Ticket
	}
	// Thaw resumes the run.
	Thaw struct {
		Run uint64
		T   Ticket
	}
	// Timer asks for Fired after a while.
	Timer struct {
		Run   uint64
		Kind  TimerKind
		After time.Duration
	}
	// Teardown gives back what a run held.
	Teardown struct{ Run uint64 }
	// Forget lets the shim drop the end of a run that never counted: its start had been
	// given up.
	Forget struct{ Run uint64 }
	// Delete removes the container from disk and memory.
	Delete struct{}
	// Answer answers a ticket. Code is the exit code for waiters and stoppers.
	Answer struct {
		T    Ticket
		Code int
		Err  error
	}
	// Tell publishes an event about the container.
	Tell struct {
		What       string // Docker's action: "start", "die", "stop", …
		Signal     int    // for "kill"
		Restarting bool   // for "die": another run is to follow
	}
)

func (Run) effect()      {}
func (Signal) effect()   {}
func (Freeze) effect()   {}
func (Thaw) effect()     {}
func (Timer) effect()    {}
func (Teardown) effect() {}
func (Forget) effect()   {}
func (Delete) effect()   {}
func (Answer) effect()   {}
func (Tell) effect()     {}
