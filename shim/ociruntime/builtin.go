package ociruntime

import (
	"context"
	"errors"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Builtin is our own runtime, in this process. It keeps no state: everything is in the
// cgroup.
type Builtin struct{}

var _ Runtime = Builtin{}

// Start makes a container.
func (Builtin) Start(ctx context.Context, o *StartOpts) (*oci.Process, error) {
	return oci.Create(ctx, &oci.CreateOpts{
		ID: o.ID, Spec: o.Spec, Rootfs: o.Rootfs, Seccomp: o.Seccomp, SeccompFlags: o.SeccompFlags,
		Namespaces: o.Namespaces, Stdio: o.Stdio, ConsoleSize: o.ConsoleSize, InitReaper: o.InitReaper,
		SystemdCgroup: o.SystemdCgroup,
	})
}

// Exec runs a further process.
func (Builtin) Exec(ctx context.Context, c *Container, o *ExecOpts) (*oci.Process, error) {
	p, err := oci.Exec(ctx, &oci.ExecOpts{
		ContainerID: c.ID, Init: c.Init, InitPid: c.Pid, Process: o.Process, Cgroup: c.Cgroup,
		Seccomp: o.Seccomp, SeccompFlags: o.SeccompFlags, Stdio: o.Stdio, ConsoleSize: o.ConsoleSize,
	})
	if err == nil {
		p.Cgroup = c.Cgroup
	}
	return p, err
}

// Kill sends a signal to the first process.
func (Builtin) Kill(_ context.Context, c *Container, sig syscall.Signal) error {
	if c.Init == nil {
		return ended(c.ID)
	}
	rc, err := c.Init.SyscallConn()
	if err != nil {
		return ended(c.ID)
	}
	var kerr error
	if err := rc.Control(func(fd uintptr) { kerr = unix.PidfdSendSignal(int(fd), sig, nil, 0) }); err != nil {
		return ended(c.ID)
	}
	switch {
	case kerr == nil:
		return nil
	case errors.Is(kerr, unix.ESRCH):
		return ended(c.ID)
	case errors.Is(kerr, unix.EINVAL):
		return errclass.Invalid("signal %d does not exist", sig)
	}
	return errclass.Internal("signal container %s: %v", c.ID, kerr)
}

func ended(id string) error { return errclass.NotFound("container %s has ended", id) }

// KillAll sends a signal to every process of the cgroup.
func (Builtin) KillAll(_ context.Context, c *Container, sig syscall.Signal) error {
	return oci.KillAll(c.Cgroup, sig)
}

// Pause freezes the cgroup.
func (Builtin) Pause(_ context.Context, c *Container) error { return oci.Pause(c.Cgroup) }

// Resume thaws it.
func (Builtin) Resume(_ context.Context, c *Container) error { return oci.Resume(c.Cgroup) }

// Update writes the limits.
func (Builtin) Update(_ context.Context, c *Container, r *specs.LinuxResources) error {
	return oci.Update(c.Cgroup, r)
}

// Delete ends what is left in the cgroup and removes it.
func (Builtin) Delete(_ context.Context, c *Container) error { return deleteCgroup(c.Cgroup) }

func deleteCgroup(ref oci.CgroupRef) error {
	err := oci.DeleteCgroup(ref)
	if errors.Is(err, errdefs.ErrFailedPrecondition) {
		// What outlived the first process, in a shared pid namespace.
		_ = oci.KillAll(ref, syscall.SIGKILL)
		err = oci.DeleteCgroup(ref)
	}
	return err
}
