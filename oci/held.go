package oci

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// ListenStart makes a socket file called name in the directory dir, for
// CreateOpts.StartSocket, and returns it listening. Whoever may connect to it may
// start the container: dir must be private. The caller closes it after Create
// and removes the file after the start.
func ListenStart(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start socket: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	addr, err := startAddr(dir, name)
	if err == nil {
		err = unix.Bind(fd, addr)
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("start socket: %w", err)
	}
	return f, nil
}

// startAddr names the file by descriptor: addresses are limited to 108 bytes.
func startAddr(dir *os.File, name string) (*unix.SockaddrUnix, error) {
	fd, err := rawFD(dir)
	if err != nil {
		return nil, err
	}
	return &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", fd, name)}, nil
}

// StartHeld starts the program of a container that was created with the socket
// name in dir, and returns once it runs or with the reason why it does not. Class
// ErrFailedPrecondition when no init waits there any more.
func StartHeld(dir *os.File, name string) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("start socket: %w", err)
	}
	addr, err := startAddr(dir, name)
	if err == nil {
		err = unix.Connect(fd, addr)
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ECONNREFUSED) {
			return precondition("no process waits for the start of the container")
		}
		return fmt.Errorf("start socket: %w", err)
	}
	c := &initConn{f: os.NewFile(uintptr(fd), name)}
	defer c.close()
	if err := c.sendGo(); err != nil {
		return err
	}
	return c.awaitExec()
}

// Frozen tells whether the cgroup is paused, or about to be.
func Frozen(ref CgroupRef) (bool, error) {
	g, err := openCgroup(ref)
	if err != nil {
		return false, err
	}
	return g.Frozen()
}

// CgroupOf tells where Create will put a container's cgroup, without making it.
// bySystemd is CreateOpts.SystemdCgroup. Class ErrInvalidArgument or
// ErrNotImplemented for invalid paths.
func CgroupOf(ctx context.Context, id string, spec *specs.Spec, bySystemd bool) (CgroupRef, error) {
	sys, err := cgroups()
	if err != nil {
		return CgroupRef{}, err
	}
	ref, _, err := locateCgroup(ctx, sys, id, spec, bySystemd)
	return ref, err
}

// CapabilityNames are the capabilities this runtime knows, in the kernel's order.
func CapabilityNames() []string {
	out := make([]string, len(plan.CapabilityNames()))
	for i, n := range plan.CapabilityNames() {
		out[i] = "CAP_" + n
	}
	return out
}

// planPreserve hands descriptors to init, after those that are there already.
func planPreserve(files []*os.File, m *initmsg.Message, so *spawnOpts) error {
	for _, f := range files {
		fd, err := rawFD(f)
		if err != nil {
			return errclass.Invalid("preserved descriptor: %w", err)
		}
		m.Extra.Preserve = append(m.Extra.Preserve, uint32(initmsg.FDFirst+len(so.extra)))
		so.extra = append(so.extra, fd)
	}
	return nil
}

// planExtra digests what only a start from the command line asks for.
func planExtra(o *CreateOpts, m *initmsg.Message, so *spawnOpts) error {
	m.Extra.NoPivot, m.Extra.NoNewKeyring = o.NoPivot, o.NoNewKeyring
	if o.InitReaper && len(o.Preserve) != 0 {
		return errclass.Invalid("descriptors cannot be preserved through the init reaper")
	}
	if o.StartSocket != nil {
		fd, err := rawFD(o.StartSocket)
		if err != nil {
			return errclass.Invalid("start socket: %w", err)
		}
		m.Extra.StartFD = uint32(initmsg.FDFirst + len(so.extra))
		so.extra = append(so.extra, fd)
	}
	return planPreserve(o.Preserve, m, so)
}
