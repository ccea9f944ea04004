//go:build amd64 || arm64

package filelimit

// prlimit64 reads a limit of this process; 0, or minus an errno.
//
//go:noescape
func prlimit64(resource uintptr, to *[2]uint64) uintptr
