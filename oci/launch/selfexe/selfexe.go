// Package selfexe makes this process run from a copy of its executable that nobody can
// change. A container that reaches the runtime through /proc/PID/exe then cannot write to a file
// of the host (CVE-2019-5736).
package selfexe

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"

	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// seals are those that make a memfd one that nobody can change ever again.
const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE

// openSelf opens our own executable and tells whether it is a sealed copy already.
func openSelf() (fd int, sealed bool, err error) {
	fd, err = unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, false, fmt.Errorf("open own executable: %w", err)
	}
	s, err := unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0)
	return fd, err == nil && s&seals == seals, nil
}

// Runs tells whether what this process runs from cannot be changed by anybody, so that its
// forks may come near a container: it is a sealed copy, or a file seen through a mount that
// is read-only and nobody's (detached). Only the kernel is asked.
func Runs() bool { return runs() }

var runs = sync.OnceValue(func() bool {
	fd, sealed, err := openSelf()
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return sealed || detached(fd)
})

// Run makes this process one that runs from a sealed copy of its executable,
// by executing that with the same arguments and environment; it returns at once in
// such a process, and with an error where that cannot be. Execs without init need it: a
// program in a container whose interpreter is /proc/self/exe executes what the child
// ran from, and reaches the file by that (CVE-2019-5736).
func Run() error {
	fd, sealed, err := openSelf()
	if err == nil {
		unix.Close(fd)
	}
	if sealed {
		// What the kernel has taken for the name is a descriptor's number.
		_ = os.WriteFile("/proc/self/comm", []byte(initmsg.Arg0), 0)
		return nil
	}
	exe, err := sealedSelf()
	if err != nil {
		return err
	}
	return fmt.Errorf("execute a copy of the own executable: %w", syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", exe), os.Args, os.Environ()))
}

// Exe is our own executable, for others to run from that may come near a container,
// made once per process, which keeps the descriptor: through a mount that is
// read-only and nobody's, or, where such a mount cannot be made, as a sealed memfd.
func Exe() (int, error) { return exe() }

var exe = sync.OnceValues(func() (int, error) {
	if Runs() {
		fd, _, err := openSelf() // for reading: through the same mount
		return fd, err
	}
	if fd, err := readOnlySelf(); err == nil {
		return fd, nil
	}
	return sealedSelf()
})

// sealedSelf makes a copy; a process that runs from one gets that.
func sealedSelf() (int, error) {
	exe, sealed, err := openSelf()
	if err != nil || sealed {
		return exe, err
	}
	defer unix.Close(exe)
	fd, err := unix.MemfdCreate(initmsg.Arg0, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(initmsg.Arg0, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("copy own executable: %w", err)
	}
	for {
		n, err := unix.Sendfile(fd, exe, nil, 1<<30)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("copy own executable: %w", err)
		}
		if n == 0 {
			break
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal own executable: %w", err)
	}
	// A memfd that is open for writing cannot be executed (ETXTBSY).
	ro, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	unix.Close(fd)
	if err != nil {
		return -1, fmt.Errorf("open the copy of the own executable: %w", err)
	}
	return ro, nil
}
