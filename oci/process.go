package oci

import (
	"os"
	"sync"
	"time"
)

// Process is a process that Create or Exec started. The caller of Create or
// Exec is its parent and must reap it (waitid(2) with P_PIDFD); it owns PidFD and
// Console and closes them. The fields are not changed after the call.
type Process struct {
	// Pid is the process id as the caller's pid namespace sees it.
	Pid int
	// PidFD is a pidfd (close-on-exec) of the process.
	PidFD *os.File
	// Cgroup names the container's cgroup, for the functions that take a CgroupRef.
	Cgroup CgroupRef
	// Console is the master side of the process's terminal, in non-blocking mode
	// (reads and writes go through the Go poller); nil without a terminal.
	Console *os.File
	// Started is when the program began to run (with Hold: when it was ready to).
	Started time.Time
	// Warnings are requests that could not be met and are not worth failing for: an
	// rlimit that may not be raised, a score that may not be lowered.
	Warnings []string

	direct  bool  // started without init; for tests
	refused error // why that was tried and not done; for tests

	mu   sync.Mutex
	held held // nil unless the process is held
}

// Release lets a process made with CreateOpts.Hold execute its program and
// returns once it runs, or with the reason why it does not (then the process ends
// by itself and the caller reaps it as any other). Without Hold, or the second
// time, it does nothing. It is safe for concurrent use.
func (p *Process) Release() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.held == nil {
		return nil
	}
	h := p.held
	p.held = nil
	if err := h.Release(); err != nil {
		return err
	}
	p.Started = time.Now()
	return nil
}
