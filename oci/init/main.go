// Package ociinit runs inside a container before its program does: the process assembles the
// root, gives up its privileges and executes the program.
//
// It is a fresh Go process at every start, so it imports little, allocates little
// and never runs more than one goroutine. Everything that the kernel keeps per
// thread (namespaces, credentials, seccomp) is done on one locked thread, which is
// also the one that calls execve: all others vanish then.
package ociinit

import (
	"os"
	"runtime"

	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// Main runs the part of a container's start that happens inside it, when the
// process was started for that, and never returns then. Otherwise it returns at
// once. It must be the first call of main, and of TestMain in tests that start
// containers.
func Main() {
	switch {
	case len(os.Args) == 2 && os.Args[0] == initmsg.Arg0 && (os.Args[1] == initmsg.Arg1 || os.Args[1] == initmsg.Arg1Unmapped):
		runtime.LockOSThread()
		run(os.Args[1] == initmsg.Arg1Unmapped)
		os.Exit(1)
	case len(os.Args) > 3 && os.Args[0] == initmsg.ReaperArg0 && os.Args[1] == "--":
		os.Exit(reap(os.Args[2], os.Args[3:]))
	}
}

// run does the work; it returns only when something failed, which it has
// reported then.
func run(unmapped bool) {
	c := &conn{fd: initmsg.FDSocket}
	// Before anything else: nobody who shares a namespace with us may trace us or
	// open our descriptors, and no descriptor survives execve. Only a runtime that is
	// an ordinary user must first write our mappings, which are files of root as soon
	// as we are not dumpable; the message comes when it has. Until then nobody but
	// that user may trace us.
	private := func() bool {
		err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
		if err != nil {
			c.fail(fail("prctl", err))
		}
		return err == nil
	}
	if !unmapped && !private() {
		return
	}
	if err := closeOnExec(initmsg.FDSocket); err != nil {
		c.fail(err)
		return
	}
	m, err := c.message()
	if err != nil {
		c.fail(err)
		return
	}
	if unmapped && !private() {
		return
	}
	c.fail(start(c, m))
}

func start(c *conn, m *initmsg.Message) error {
	if err := enter(m); err != nil {
		return err
	}
	var rootFD int
	var err error
	if m.Exec {
		rootFD, err = unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fail("open /", err)
		}
	} else if rootFD, err = setUpRoot(c, m); err != nil {
		return err
	}
	switch fd := int(m.Extra.HostMountFD); {
	case fd == 0:
	case m.Exec:
		rootFD, err = changeRoot(fd)
	default:
		rootFD, err = returnToHost(fd)
	}
	if err != nil {
		return err
	}
	if !m.Exec {
		if err := settings(m); err != nil {
			return err
		}
	}
	return become(c, m, root{rootFD})
}

// enter joins the namespaces that exist already and makes those that must be made
// from inside.
func enter(m *initmsg.Message) error {
	if err := setCPUs(m.Process.Tuning.CPUsInitial); err != nil {
		return err
	}
	if m.TakeRoot {
		if err := takeRoot(); err != nil {
			return err
		}
	}
	if m.Exec || len(m.Join) != 0 {
		// setns into a mount namespace wants an fs_struct of our own.
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return fail("unshare fs", err)
		}
	}
	for _, j := range m.Join {
		if err := unix.Setns(int(j.FD), int(j.Flags)); err != nil {
			return fail("join namespaces", err)
		}
	}
	if m.NewCgroupNS {
		if err := unix.Unshare(unix.CLONE_NEWCGROUP); err != nil {
			return fail("unshare cgroup namespace", err)
		}
	}
	if m.NewTimeNS {
		if err := newTime(m.TimeOffsets); err != nil {
			return err
		}
	}
	if m.LoopbackUp {
		if err := loopbackUp(); err != nil {
			return fail("bring lo up", err)
		}
	}
	return nil
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	r, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	r.SetUint16(unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, r)
}

// settings are names and sysctls of the new namespaces.
func settings(m *initmsg.Message) error {
	if m.Hostname != "" {
		if err := unix.Sethostname([]byte(m.Hostname)); err != nil {
			return fail("sethostname", err)
		}
	}
	if m.Domainname != "" {
		if err := unix.Setdomainname([]byte(m.Domainname)); err != nil {
			return fail("setdomainname", err)
		}
	}
	if len(m.Sysctl) == 0 {
		return nil
	}
	p, err := openProc()
	if err != nil {
		return err
	}
	defer p.close()
	for _, kv := range m.Sysctl {
		if err := p.write("sys/"+kv.Key, kv.Value); err != nil {
			return fail("write sysctl key "+kv.Key, err)
		}
	}
	return nil
}
