package shimd

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/shim/ociruntime"
	"golang.org/x/sys/unix"
)

// runtime is what makes a container; one for each, so that what it keeps ends with it.
func (s *Server) runtime(r *ociruntime.Ref) ociruntime.Runtime {
	return ociruntime.Of(r, filepath.Join(s.root, shim.RuntimesName))
}

// container names p to its runtime. init may be nil where the runtime wants none.
func (p *proc) container(init *os.File) *ociruntime.Container {
	return &ociruntime.Container{ID: p.key.Container, Cgroup: p.started.Cgroup, Init: init, Pid: p.started.Pid}
}

// change makes a call of the runtime that may have child processes meanwhile: they are
// not to be taken for strangers.
func (p *proc) change(call func(*ociruntime.Container) error) error {
	p.s.spawning.RLock()
	defer p.s.lookForStrangers()
	defer p.s.spawning.RUnlock()
	return call(p.container(nil))
}

// signal sends a signal to the process: to a container's by its runtime, since the process
// that we see need not be the one that is meant, to an exec's by its pidfd.
func (p *proc) signal(ctx context.Context, sig syscall.Signal) error {
	if p.key.Exec == "" && p.runtimeRef != nil {
		return p.change(func(c *ociruntime.Container) error { return p.rt.Kill(ctx, c, sig) })
	}
	switch err := unix.PidfdSendSignal(p.pidfd, sig, nil, 0); {
	case errors.Is(err, unix.ESRCH):
		return gone(p.key)
	case errors.Is(err, unix.EINVAL):
		return errclass.Invalid("signal %d does not exist", sig)
	case err != nil:
		return errclass.Internal("signal %s: %v", name(p.key), err)
	}
	return nil
}
