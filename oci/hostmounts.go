package oci

import (
	"fmt"
	"os"

	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hostMounts has init go back into this process's mount namespace when the spec has
// none: its mounts are made in one of its own all the same, and taken along as a tree
// that belongs to none. In a user namespace it stays in its own: it may not enter ours.
func (s *starting) hostMounts(o *CreateOpts, m *initmsg.Message, so *spawnOpts) error {
	own := o.Namespaces[specs.MountNamespace] != nil || so.userNS != nil || confined()
	for _, ns := range o.Spec.Linux.Namespaces {
		own = own || ns.Type == specs.MountNamespace || ns.Type == specs.UserNamespace
	}
	if own {
		return nil
	}
	f, err := os.Open("/proc/self/ns/mnt")
	if err != nil {
		return err
	}
	return s.pass(f, m, so)
}

// execRoot has an exec change to the root of the container's first process, whose mount
// namespace is ours.
func (s *starting) execRoot(o *ExecOpts, m *initmsg.Message, so *spawnOpts) error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/root", o.InitPid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return precondition("container is not running")
	}
	// It was the container's process's when it was opened, if that lives now.
	f := os.NewFile(uintptr(fd), "root")
	pidfd, err := rawFD(o.Init)
	if err == nil {
		err = unix.PidfdSendSignal(pidfd, 0, nil, 0)
	}
	if err != nil {
		f.Close()
		return precondition("container is not running")
	}
	return s.pass(f, m, so)
}

func (s *starting) pass(f *os.File, m *initmsg.Message, so *spawnOpts) error {
	s.files = append(s.files, f)
	fd, err := rawFD(f)
	if err != nil {
		return err
	}
	m.Extra.HostMountFD = uint32(initmsg.FDFirst + len(so.extra))
	so.extra = append(so.extra, fd)
	return nil
}
