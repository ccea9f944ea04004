package ociinit

import (
	"errors"
	"path"

	"github.com/gantry/gantry/oci/launch/hook"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// firstPreserved is the number of the first descriptor that a program gets
// beyond its streams (sd_listen_fds(3)).
const firstPreserved = 3

// preserve gives the descriptors to pass on their final numbers and makes them
// survive execve. Ours that are in the way move first.
func preserve(c *conn, e *initmsg.Extra) error {
	n := len(e.Preserve)
	if n == 0 {
		return nil
	}
	above := firstPreserved + n
	move := func(fd int) (int, error) {
		to, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, above)
		if err != nil {
			return -1, fail("preserve descriptors", err)
		}
		return to, nil
	}
	var err error
	if c.fd, err = move(c.fd); err != nil {
		return err
	}
	if e.StartFD != 0 {
		to, err := move(int(e.StartFD))
		if err != nil {
			return err
		}
		unix.Close(int(e.StartFD)) // only one may be left, or nobody sees when we are gone
		e.StartFD = uint32(to)
	}
	tmp := make([]int, n)
	for i, fd := range e.Preserve {
		if tmp[i], err = move(int(fd)); err != nil {
			return err
		}
	}
	for i, fd := range tmp {
		if err := unix.Dup3(fd, firstPreserved+i, 0); err != nil {
			return fail("preserve descriptors", err)
		}
	}
	return nil
}

// awaitStart waits for the process that starts the container. One that goes away
// without saying so changes nothing.
func (c *conn) awaitStart(listener int) error {
	for {
		fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
			continue
		}
		if err != nil {
			return fail("wait for the start", err)
		}
		starter := &conn{fd: fd}
		if err := starter.readGo(); err != nil {
			unix.Close(fd)
			continue
		}
		unix.Close(c.fd)
		unix.Close(listener)
		c.fd = fd
		return nil
	}
}

// hooksBeforePivot lets the runtime run its hooks and runs ours, while paths
// still are the host's.
func hooksBeforePivot(c *conn, m *initmsg.Message) error {
	if m.Extra.HookSync {
		if err := c.frame(initmsg.FrameHooks, nil, -1); err != nil {
			return err
		}
		if err := c.readGo(); err != nil {
			return err
		}
	}
	if len(m.Extra.CreateContainer) == 0 {
		return nil
	}
	old := unix.Umask(0o022)
	defer unix.Umask(old)
	return runHooks("createContainer", m.Extra.CreateContainer, m.Extra.StateCreating)
}

// attachRoot mounts tree over the old root; when hooks before the change of the
// root look for the container's mounts, over the directory that it is a copy of.
func attachRoot(m *initmsg.Message, tree int) error {
	at := "/"
	if (m.Extra.HookSync || len(m.Extra.CreateContainer) != 0) && len(m.Root.Lower) == 0 {
		at = m.Root.Path
		if err := privateAround(at); err != nil {
			return err
		}
	}
	if err := unix.MoveMount(tree, "", unix.AT_FDCWD, at, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fail("mount the root", err)
	}
	return nil
}

// privateAround makes the mount that p is in private: what is mounted there must
// not travel to the host, and pivot_root(2) wants it so.
func privateAround(p string) error {
	for {
		err := setPropagation(unix.AT_FDCWD, p, unix.MS_PRIVATE, false)
		if !errors.Is(err, unix.EINVAL) || p == "/" {
			if err != nil {
				return fail("make "+p+" private", err)
			}
			return nil
		}
		p = path.Dir(p) // not a mount point
	}
}

func runHooks(kind string, hooks []initmsg.Hook, state []byte) error {
	return hook.RunAll(kind, hooks, state, nil)
}

// chroot makes tree, mounted over the old root, the root without pivot_root(2),
// which refuses on an initial ramdisk. The old root stays below it, covered.
func chroot(tree int) error {
	if err := unix.Fchdir(tree); err != nil {
		return fail("enter the root", err)
	}
	// It may be somewhere below, for hooks; where it is already, this is refused.
	err := unix.MoveMount(tree, "", unix.AT_FDCWD, "/", unix.MOVE_MOUNT_F_EMPTY_PATH)
	if err != nil && !errors.Is(err, unix.ELOOP) {
		return fail("mount the root", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fail("chroot", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fail("chdir /", err)
	}
	return nil
}
