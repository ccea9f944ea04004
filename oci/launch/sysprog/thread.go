//go:build !cgo && (amd64 || arm64)

package sysprog

// keepsThread tells that processes get some of a thread's own memory.
const keepsThread = false

// keepThread keeps what the kernel needs of this thread: nothing, without a C
// library.
func keepThread() {}
