package fsm

import (
	"errors"
	"time"
)

// The restart policy's delays, as Docker's.
const (
	firstDelay = 100 * time.Millisecond
	maxDelay   = time.Minute
	// healthyRun is how long a run must last for the delay to begin anew.
	healthyRun = 10 * time.Second
	// killPatience is how long SIGKILL may take until requests are told it failed.
	killPatience = 10 * time.Second
	sigKill      = 9
)

// State is everything Step decides by. Copies are independent: Step never changes
// what its argument points to.
type State struct {
	Phase      Phase
	Run        uint64 // the number of the last run
	Policy     Policy
	AutoRemove bool

	// Last is how the last run ended (Code also of a failed start), Error what a failed
	// start or removal said.
	Last  Exit
	Error string
	// Ran: some run has started. ManualStop: the last run was ended by a request, which
	// unless-stopped remembers over daemon starts.
	Ran        bool
	ManualStop bool
	// Restarts counts the restart policy's runs in a row.
	Restarts int
	// ByPolicy: the restart policy asked for the run that is starting.
	ByPolicy bool
	// ShimGone: the shim died and its successor has not reported.
	ShimGone bool

	delay      time.Duration
	cancelled  bool // no restart by policy after this run
	tellStop   bool // a stop request ended this run: tell so
	tellAgain  bool // a restart request asked for the run that is starting: tell so when it runs
	freezing   bool // a Freeze or Thaw is on its way
	earlyExit  *HasExited
	starters   []Ticket // start and restart requests of the run that is starting
	stoppers   []Ticket // answered when the run has ended
	restarters []Ticket // start anew when the run has ended
	removers   []Ticket // answered by removal
	remove     bool     // remove when the run has ended
	waiters    []waiter
	deferred   []Event // requests to look at when the phase has settled
}

type waiter struct {
	t    Ticket
	cond Condition
}

// stepper is one Step in progress: the state that becomes the answer, and its effects.
type stepper struct {
	State
	out []Effect
}

// Step is the state machine: what comes next, and what is to be done.
func Step(s State, ev Event) (State, []Effect) {
	p := &stepper{State: s}
	p.step(ev)
	return p.State, p.out
}

func (p *stepper) do(e ...Effect) { p.out = append(p.out, e...) }

func (p *stepper) answer(t Ticket, err error) {
	if t != 0 {
		p.do(Answer{T: t, Code: p.Last.Code, Err: err})
	}
}

func (p *stepper) answerAll(ts []Ticket, err error) {
	for _, t := range ts {
		p.answer(t, err)
	}
}

// add appends without writing into an array that an older State may share.
func add[T any](s []T, v T) []T { return append(s[:len(s):len(s)], v) }

func (p *stepper) step(ev Event) {
	switch ev := ev.(type) {
	case Wait:
		p.wait(ev)
		return
	case CancelWait:
		p.cancelWait(ev.T)
		return
	case SetPolicy:
		p.Policy, p.AutoRemove = ev.Policy, ev.AutoRemove
		return
	case ShimLost:
		p.ShimGone = true
		return
	case Unhealthy:
		p.unhealthy(ev)
		return
	case Started, StartFailed, HasExited, TornDown, Signaled, Froze, Thawed, Fired, Deleted, ShimBack:
		p.result(ev)
		return
	}
	switch p.Phase {
	case Starting, Exiting:
		p.deferred = add(p.deferred, ev)
	case Removing, Removed:
		p.refuse(ev)
	default:
		p.request(ev)
	}
}

// refuse answers a request during or after removal.
func (p *stepper) refuse(ev Event) {
	err := ErrRemoving
	if p.Phase == Removed {
		err = ErrGone
	}
	p.answer(ticket(ev), err)
}

func ticket(ev Event) Ticket {
	switch ev := ev.(type) {
	case Start:
		return ev.T
	case Stop:
		return ev.T
	case Kill:
		return ev.T
	case Restart:
		return ev.T
	case Pause:
		return ev.T
	case Unpause:
		return ev.T
	case Remove:
		return ev.T
	}
	return 0
}

// replay looks again at requests that came while the phase was not settled.
func (p *stepper) replay() {
	evs := p.deferred
	p.deferred = nil
	for _, ev := range evs {
		p.step(ev)
	}
}

func (p *stepper) request(ev Event) {
	switch ev := ev.(type) {
	case Start:
		p.start(ev)
	case Stop:
		p.stop(ev)
	case Kill:
		p.kill(ev)
	case Restart:
		p.restart(ev)
	case Pause:
		p.pause(ev)
	case Unpause:
		p.unpause(ev)
	case Remove:
		p.removeRequest(ev)
	case Boot:
		p.boot()
	}
}

func (p *stepper) start(ev Start) {
	switch p.Phase {
	case Running, Stopping:
		p.answer(ev.T, ErrAlready)
	case Paused:
		p.answer(ev.T, ErrPaused)
	case Dead:
		p.answer(ev.T, ErrDead)
	default:
		p.Restarts, p.delay = 0, 0
		p.begin(ev.T)
	}
}

// begin starts a new run.
func (p *stepper) begin(ts ...Ticket) {
	p.Run++
	p.Phase = Starting
	p.ManualStop, p.cancelled, p.tellStop, p.freezing, p.ByPolicy = false, false, false, false, false
	p.earlyExit = nil
	p.Error = ""
	for _, t := range ts {
		p.starters = add(p.starters, t)
	}
	p.do(Run{Run: p.Run})
}

func (p *stepper) stop(ev Stop) {
	switch p.Phase {
	case Running, Paused, Stopping:
		p.tellStop = true
		p.stoppers = add(p.stoppers, ev.T)
		p.end(ev.Signal, ev.Timeout)
	case Restarting:
		p.Phase, p.ManualStop = Exited, true
		p.answer(ev.T, nil)
		p.afterRest()
	default:
		p.answer(ev.T, ErrAlready)
	}
}

// end makes the run end: signal, and SIGKILL after the timeout.
func (p *stepper) end(signal int, timeout time.Duration) {
	p.ManualStop, p.cancelled = true, true
	p.do(Tell{What: "kill", Signal: signal}, Signal{Run: p.Run, Signal: signal})
	if p.Phase == Paused {
		p.freezing = true
		p.do(Thaw{Run: p.Run})
	}
	p.Phase = Stopping
	switch {
	case signal == sigKill:
		p.do(Timer{Run: p.Run, Kind: KillTimer, After: killPatience})
	case timeout >= 0:
		p.do(Timer{Run: p.Run, Kind: StopTimer, After: timeout})
	}
}

func (p *stepper) kill(ev Kill) {
	switch p.Phase {
	case Running, Paused, Stopping:
	case Restarting:
		p.Phase, p.ManualStop = Exited, true
		p.answer(ev.T, nil)
		p.afterRest()
		return
	default:
		p.answer(ev.T, ErrNotRunning)
		return
	}
	if ev.Final {
		p.stoppers = add(p.stoppers, ev.T)
		p.end(ev.Signal, 0)
		return
	}
	p.ManualStop = true
	p.cancelled = p.cancelled || ev.Cancel
	p.do(Signal{Run: p.Run, T: ev.T, Signal: ev.Signal}, Tell{What: "kill", Signal: ev.Signal})
}

func (p *stepper) restart(ev Restart) {
	switch p.Phase {
	case Running, Paused, Stopping:
		p.restarters = add(p.restarters, ev.T)
		p.tellStop = true
		p.end(ev.Signal, ev.Timeout)
	case Dead:
		p.answer(ev.T, ErrDead)
	default:
		p.begin(ev.T)
		p.tellAgain = p.Phase == Starting
	}
}

func (p *stepper) unhealthy(ev Unhealthy) {
	if ev.Run != p.Run || p.Phase != Running {
		return // it is being seen to already
	}
	switch ev.Do {
	case StopIt:
		p.stop(Stop{Signal: ev.Signal, Timeout: ev.Timeout})
	case RestartIt:
		p.restart(Restart{Signal: ev.Signal, Timeout: ev.Timeout})
	case KillIt:
		p.do(Tell{What: "kill", Signal: sigKill}, Signal{Run: p.Run, Signal: sigKill})
	}
}

func (p *stepper) pause(ev Pause) {
	switch {
	case p.Phase == Paused:
		p.answer(ev.T, ErrPaused)
	case p.Phase == Restarting:
		p.answer(ev.T, ErrRestarting)
	case p.Phase != Running:
		p.answer(ev.T, ErrNotRunning)
	case p.freezing:
		p.deferred = add(p.deferred, Event(ev))
	default:
		p.freezing = true
		p.do(Freeze{Run: p.Run, T: ev.T})
	}
}

func (p *stepper) unpause(ev Unpause) {
	switch {
	case p.freezing && (p.Phase == Running || p.Phase == Paused):
		p.deferred = add(p.deferred, Event(ev))
	case p.Phase != Paused:
		p.answer(ev.T, ErrNotPaused)
	default:
		p.freezing = true
		p.do(Thaw{Run: p.Run, T: ev.T})
	}
}

func (p *stepper) removeRequest(ev Remove) {
	switch p.Phase {
	case Running, Paused, Stopping:
		if !ev.Force {
			err := ErrRunning
			if p.Phase == Paused {
				err = ErrIsPaused
			}
			p.answer(ev.T, err)
			return
		}
		p.removers = add(p.removers, ev.T)
		p.remove = true
		p.end(sigKill, 0)
	case Restarting:
		if !ev.Force {
			p.answer(ev.T, ErrRestarting)
			return
		}
		p.removers = add(p.removers, ev.T)
		p.delete()
	default:
		p.removers = add(p.removers, ev.T)
		p.delete()
	}
}

func (p *stepper) delete() {
	p.Phase = Removing
	p.do(Delete{})
}

// boot applies the restart policy to a container that does not run when the daemon comes up.
func (p *stepper) boot() {
	if p.Phase != Exited {
		return
	}
	again := p.Policy.Mode == Always ||
		p.Policy.Mode == UnlessStopped && !p.ManualStop ||
		// Its delay, or its run, was cut off with the daemon or the machine.
		p.Policy.Mode == OnFailure && p.Last.Code != 0 && !p.ManualStop && (p.Policy.Max == 0 || p.Restarts < p.Policy.Max)
	switch {
	case again:
		p.begin()
	case p.AutoRemove:
		p.delete()
	}
}

// afterRest removes a container that came to rest and is to remove itself.
func (p *stepper) afterRest() {
	p.wakeStopped(nil)
	if p.AutoRemove {
		p.delete()
	}
}

func (p *stepper) wait(ev Wait) {
	up := p.Phase.Up() || p.Phase == Starting || p.Phase == Exiting || p.Phase == Restarting
	switch {
	case p.Phase == Removed:
		p.answer(ev.T, nil)
	case ev.Cond == NotRunning && !up && p.Error != "":
		p.answer(ev.T, errors.New(p.Error)) // it could not be started
	case ev.Cond == NotRunning && !up:
		p.answer(ev.T, nil)
	default:
		p.waiters = add(p.waiters, waiter{ev.T, ev.Cond})
	}
}

func (p *stepper) cancelWait(t Ticket) {
	var rest []waiter
	for _, w := range p.waiters {
		if w.t == t {
			p.answer(t, nil)
			continue
		}
		rest = append(rest, w)
	}
	p.waiters = rest
}

// wake answers the waiters that match.
func (p *stepper) wake(match func(Condition) bool, err error) {
	var rest []waiter
	for _, w := range p.waiters {
		if match(w.cond) {
			p.answer(w.t, err)
			continue
		}
		rest = append(rest, w)
	}
	p.waiters = rest
}

func (p *stepper) wakeStopped(err error) {
	p.wake(func(c Condition) bool { return c != OnRemoval }, err)
}
