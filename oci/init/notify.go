package ociinit

import (
	"runtime"
	"sync/atomic"

	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// The handover of a listener, between the two threads of init that do it.
const (
	handoverNone   = -1
	handoverDone   = -2
	handoverFailed = -3
)

// notifiedFilter loads a filter some of whose system calls an agent handles. The
// agent's descriptor must leave this process before any such call is made, and
// any call may be one. A filter is its thread's alone: so a second thread, which
// has none, sends the descriptor, while this one makes no call at all.
func (c *conn) notifiedFilter(p *initmsg.Process) error {
	if err := c.frame(initmsg.FrameAgent, []byte(p.Notify.Path), -1); err != nil {
		return err
	}
	if err := c.readGo(); err != nil {
		return err
	}
	state := new(atomic.Int64)
	state.Store(handoverNone)
	up := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(up)
		fd := waitFor(state)
		if fd < 0 {
			return
		}
		err := c.frame(initmsg.FrameListener, p.Notify.State, int(fd))
		if err == nil {
			err = c.readGo()
		}
		if err != nil {
			c.fail(err)
			state.Store(handoverFailed)
			return
		}
		state.Store(handoverDone)
	}()
	<-up
	fd, err := loadFilter(p.Seccomp, p.SeccompFlags)
	if err != nil {
		state.Store(handoverFailed)
		return err
	}
	if !handOver(state, int64(fd)) {
		// The reason has been told. The one call that is made here may be the agent's,
		// who is not there: then it answers ENOSYS, and the next one is a trap.
		for {
			_, _, _ = unix.RawSyscall(unix.SYS_EXIT_GROUP, 1, 0, 0)
		}
	}
	return nil
}

// waitFor waits until the first thread has something to say.
func waitFor(state *atomic.Int64) int64 {
	for {
		if v := state.Load(); v != handoverNone {
			return v
		}
		runtime.Gosched()
	}
}

// handOver waits for the other thread without a system call of its own. The
// runtime of Go is told (asyncpreemptoff) not to interrupt it with signals.
//
//go:nosplit
func handOver(state *atomic.Int64, fd int64) bool {
	state.Store(fd)
	for {
		switch state.Load() {
		case handoverDone:
			return true
		case handoverFailed:
			return false
		}
	}
}
