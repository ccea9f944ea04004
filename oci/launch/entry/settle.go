package entry

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Settle gives the calling thread the timer slack that the program was started with, for
// what it starts, which inherits it. The goroutine must be locked to its thread.
//
// That of a thread may be another one, also where Start has done nothing: package
// internal/sysmon raises the slack of Go's sysmon thread, whose own threads inherit it.
func Settle() {
	if s := started(); s != 0 {
		_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_TIMERSLACK, s, 0)
	}
}

// started is the timer slack that the program was started with, in nanoseconds; 0: unknown.
var started = sync.OnceValue(func() uintptr {
	if slack != 0 {
		return uintptr(slack)
	}
	b, err := os.ReadFile("/proc/self/timerslack_ns") // the first thread's, which nobody changes
	if err != nil {
		return 0
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(b)), 10, 64)
	if err != nil {
		return 0
	}
	return uintptr(n)
})
