package ociinit

import (
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// takeRoot becomes root of the user namespace that this process was born in
// before that had mappings. Its capabilities came over execve as ambient ones.
func takeRoot() error {
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, 0, 0, 0); e != 0 {
		return fail("become root of the user namespace: setgid", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, 0, 0, 0); e != 0 {
		return fail("become root of the user namespace: setuid", e)
	}
	if _, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, 0); e != 0 {
		return fail("clear ambient capabilities", e)
	}
	all, err := permitted()
	if err != nil {
		return err
	}
	if err := newCapset(&initmsg.Caps{Effective: all, Permitted: all}).set(); err != nil {
		return err
	}
	// Another user than the one that executed us: only now are our files in procfs
	// root's own again.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fail("prctl", err)
	}
	return nil
}
