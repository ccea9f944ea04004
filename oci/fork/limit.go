package fork

import (
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// OpenFiles is the limit of open files (RLIMIT_NOFILE) for a forked process that
// nobody set one for; nil when ours has been changed since. Go's runtime has raised
// our soft limit for itself at its start, which its own forks set back. To learn
// what it was takes a moment, the first time, in which our limit is the low one:
// who has many descriptors calls this at the start.
func OpenFiles() *syscall.Rlimit {
	l := openFiles()
	var now syscall.Rlimit
	if l == nil || syscall.Getrlimit(unix.RLIMIT_NOFILE, &now) != nil || now != l.own {
		return nil
	}
	return &l.inherited
}

type fileLimits struct{ own, inherited syscall.Rlimit }

var openFiles = sync.OnceValue(func() *fileLimits {
	var l fileLimits
	if syscall.Getrlimit(unix.RLIMIT_NOFILE, &l.own) != nil {
		return nil
	}
	// It sets the limit back before an execve, but only in its own Exec: make it do
	// so by one that cannot succeed.
	_ = syscall.Exec("", []string{""}, nil)
	err := syscall.Getrlimit(unix.RLIMIT_NOFILE, &l.inherited)
	// Not by Setrlimit, after which it would have nothing to set back any more.
	_, _, e := syscall.RawSyscall6(unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, uintptr(unsafe.Pointer(&l.own)), 0, 0, 0)
	if err != nil || e != 0 {
		return nil
	}
	return &l
})
