//go:build cgo && (amd64 || arm64)

package sysprog

import (
	"os"

	"golang.org/x/sys/unix"
)

// keepsThread tells that processes get some of a thread's own memory.
const keepsThread = true

// keepThread keeps what the C library has about this thread: in it is what the
// kernel writes to on every return from a call (rseq(2)), in such a process too.
func keepThread() {
	const reach = 16 << 10
	page := uintptr(os.Getpagesize())
	tp := threadPointer()
	for at := (tp - reach) &^ (page - 1); at < tp+reach; at += page {
		_ = madvise(at, page, unix.MADV_DOFORK) // holes are told
	}
}

// threadPointer is where the thread's own data are.
func threadPointer() uintptr
