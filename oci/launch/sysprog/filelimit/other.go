//go:build !amd64 && !arm64

package filelimit

func prlimit64(uintptr, *[2]uint64) uintptr { return 1 }
