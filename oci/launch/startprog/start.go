// Package startprog starts containers without init: what init does (oci/init) in a fresh Go
// process is done by a prepared list of system calls in a copy of this one, which has
// none of its memory (oci/launch/sysprog).
//
// Common starts skip init; Possible tells which. When a step fails before the program
// runs, the new process ends, Start returns the error, and the caller falls back to init,
// which starts the container from the beginning and has the messages for what is wrong. So
// every step here may be repeated: all that it makes in the container's tree are missing
// mount targets.
//
// The process is born in the container's new namespaces. Nobody is there yet who
// could look at it; where it joins namespaces of others, or stays in the host's pid
// namespace, it is not dumpable, as init.
package startprog

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/oci/launch/become"
	"github.com/gantry/gantry/oci/launch/nsenter"
	"github.com/gantry/gantry/oci/launch/selfexe"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// Start is a container's first process to start. All descriptors and files stay the
// caller's.
type Start struct {
	Message *initmsg.Message
	Streams [3]*os.File // nil: /dev/null
	// Flags are the new namespaces (CLONE_NEW*) but for the cgroup namespace, Joins those
	// to enter.
	Flags uintptr
	Joins []nsenter.Join
	// Procs are of the cgroups to be in.
	Procs []cgroup.Procs
	// OOMScore is the score to have; nil: 0, if that can be.
	OOMScore *int
	// StartFD is a listening socket over which another process starts the program; -1: none.
	StartFD int
	// Exe is our executable, for a message with Reaper.
	Exe int
}

// Started is a process whose program runs, or, when the message says WaitGo, waits. The
// caller reaps it and closes the files; with Held it calls Release or closes that.
type Started struct {
	Pid      int
	PidFD    *os.File
	Console  *os.File // non-blocking; nil without a terminal
	Held     *Held    // nil unless it waits, for us
	Warnings []string
}

// Possible tells whether the container of s can be started without init. Whether sysprog
// works on this machine the start itself shows: a trial would cost as much as a third of it.
func Possible(s *Start) bool {
	return expressible(s) && selfexe.Runs() && sysprog.OpenFiles() != nil
}

// joinable are the namespaces that the new process may enter, fresh those that it may be born in.
const (
	joinable = unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWCGROUP
	fresh    = unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWIPC | unix.CLONE_NEWUTS | unix.CLONE_NEWPID
)

// expressible tells whether a program can express what s asks for.
func expressible(s *Start) bool {
	m := s.Message
	p, x := &m.Process, &m.Extra
	switch {
	case m.Exec, m.TakeRoot, m.NewTimeNS, len(x.Preserve) != 0, x.NoPivot, x.HookSync, x.HostMountFD != 0, len(x.CreateContainer)+len(x.StartContainer) != 0:
		return false
	case p.AppArmor != "", p.SELinux != "", p.SeccompFlags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0, p.NoGroups, !p.Tuning.None():
		return false
	case s.Flags&^fresh != 0, s.Flags&unix.CLONE_NEWNS == 0, len(m.Root.Lower) != 0 && !overlayByFD():
		return false
	}
	for _, j := range s.Joins {
		if j.Flags&^joinable != 0 {
			return false
		}
	}
	return !slices.ContainsFunc(m.Mounts, func(mt initmsg.Mount) bool { return mt.CopyUp || mt.SourceFD != 0 })
}

// Start starts the process. Its end by ctx kills what has been started. After an error
// nothing is left but what Start's package comment says.
func (s *Start) Start(ctx context.Context) (*Started, error) {
	conn, out, err := become.Socket()
	if err != nil {
		return nil, err
	}
	f, err := s.plan(out)
	if err != nil {
		unix.Close(out)
		conn.Close()
		return nil, err
	}
	cgroup := -1
	for i := range s.Procs {
		if s.Procs[i].Into {
			cgroup = s.Procs[i].FD
		}
	}
	pid, errno := f.Block.StartIn(s.Flags, cgroup)
	unix.Close(out)
	f.Close()
	runtime.KeepAlive(s)
	if errno != 0 {
		conn.Close()
		return nil, fmt.Errorf("fork: %w", errno)
	}
	pidfd, err := sysprog.PidFD(pid)
	if err != nil {
		conn.Close()
		return nil, err
	}
	w := &follower{plan: f, conn: conn, started: Started{Pid: pid, PidFD: pidfd}}
	stop := context.AfterFunc(ctx, func() { sysprog.Kill(pidfd) })
	err = w.follow()
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		w.abandon()
		return nil, err
	}
	if !w.held || s.StartFD >= 0 {
		conn.Close()
		return &w.started, nil
	}
	w.started.Held = &Held{w}
	return &w.started, nil
}

// follower reads the reports.
type follower struct {
	plan    *become.Plan
	conn    *os.File
	started Started
	ready   bool
	held    bool
	failure error
}

func (w *follower) abandon() {
	sysprog.Kill(w.started.PidFD)
	sysprog.Reap(w.started.Pid)
	w.started.PidFD.Close()
	if w.started.Console != nil {
		w.started.Console.Close()
	}
	w.conn.Close()
}

// follow returns when the process waits, when it has executed the program or when it has
// ended: the last two close the socket's other end. One that is killed between its last
// report and execve cannot be told from a program that ended at once.
func (w *follower) follow() error {
	for {
		r, fd, err := become.Receive(w.conn)
		switch {
		case err != nil:
			return fmt.Errorf("follow the start: %w", err)
		case r == nil && w.failure != nil:
			return w.failure
		case r == nil && !w.ready:
			return initmsg.ErrEndedEarly
		case r == nil:
			return nil
		case r.Kind == sysprog.ReportHeld:
			w.held = true
			return nil
		}
		if err := w.report(r, fd); err != nil {
			return err
		}
	}
}

func (w *follower) report(r *sysprog.Report, fd int) error {
	switch r.Kind {
	case sysprog.ReportReady:
		w.ready = true
	case sysprog.ReportFD:
		if w.ready && fd >= 0 { // nothing of ours sends one any more
			unix.Close(fd)
			fd = -1
		}
		return become.TakeTerminal(&w.started.Console, fd)
	case sysprog.ReportError:
		if !w.plan.Soft(r) {
			w.failure = w.plan.Err(r)
		} else if t := w.plan.Warning(r); t != "" {
			w.started.Warnings = append(w.started.Warnings, t)
		}
	}
	return nil
}

// Held is a process that waits before execve. It is for one goroutine.
type Held struct{ w *follower }

// Close lets go of the socket, which ends a process that still waits.
func (h *Held) Close() { h.w.conn.Close() }

// Release has the process execute its program and returns when that runs, or with the
// reason why it does not; the process ends then. Class ErrFailedPrecondition when it is
// gone. It closes.
func (h *Held) Release() error {
	defer h.Close()
	h.w.held = false
	if _, err := h.w.conn.Write([]byte{initmsg.GoByte}); err != nil {
		if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
			return initmsg.ErrEndedEarly
		}
		return err
	}
	return h.w.follow()
}
