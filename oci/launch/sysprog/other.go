//go:build !amd64 && !arm64

package sysprog

import (
	"syscall"
	"unsafe"

	"github.com/containerd/errdefs"
)

// Block does not exist here: starting code on a stack of its own takes a few
// instructions for each architecture. Works says so.
type Block struct{}

// Works tells whether programs run here: they do not.
func Works() bool { return false }

// New answers ErrNotImplemented.
func New(uintptr) (*Block, error) { return nil, errdefs.ErrNotImplemented }

// Free does nothing.
func (*Block) Free() {}

// Alloc returns n zero bytes of the heap.
func (*Block) Alloc(n uintptr) unsafe.Pointer { return unsafe.Pointer(&make([]uint64, n/8+1)[0]) }

// Load answers ErrNotImplemented.
func (*Block) Load(*Program) error { return errdefs.ErrNotImplemented }

// Start answers ENOSYS.
func (*Block) Start() (int, syscall.Errno) { return 0, syscall.ENOSYS }

// StartIn answers ENOSYS.
func (*Block) StartIn(uintptr, int) (int, syscall.Errno) { return 0, syscall.ENOSYS }
