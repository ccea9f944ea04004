package sysprog

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Place copies v, which holds no pointers to the heap, into the block.
func Place[T any](b *Block, v []T) []T {
	if len(v) == 0 {
		return nil
	}
	to := unsafe.Slice((*T)(b.Alloc(uintptr(len(v))*unsafe.Sizeof(v[0]))), len(v))
	copy(to, v)
	return to
}

// Put is Place for what a system call takes: the address of the copies.
func Put[T any](b *Block, v ...T) uintptr {
	return uintptr(unsafe.Pointer(unsafe.SliceData(Place(b, v))))
}

// birth is struct clone_args of clone3(2), its third version.
type birth struct {
	flags, _, _, _, _, _, _, _, _, _, cgroup uint64
}

// Birth is what Again takes: the child begins in the cgroup (version 2) of a directory's
// descriptor.
func Birth(b *Block, dir int) uintptr {
	return Put(b, birth{flags: unix.CLONE_PARENT | unix.CLONE_INTO_CGROUP, cgroup: uint64(dir)})
}

// Str puts a string for the kernel into the block. It must not hold a zero byte.
func (b *Block) Str(s string) uintptr {
	p := b.Alloc(uintptr(len(s)) + 1)
	copy(unsafe.Slice((*byte)(p), len(s)), s)
	return uintptr(p)
}

// Strs puts strings for the kernel as execve(2) takes them into the block.
func (b *Block) Strs(in []string) uintptr {
	p := b.Alloc(uintptr(len(in)+1) * unsafe.Sizeof(uintptr(0)))
	v := unsafe.Slice((*uintptr)(p), len(in)+1)
	for i, s := range in {
		v[i] = b.Str(s)
	}
	return uintptr(p)
}

// Strings is the vector of n strings that Strs has put into the block, to be changed.
func (b *Block) Strings(vector uintptr, n int) []uintptr {
	return unsafe.Slice((*uintptr)(at(&vector)), n)
}
