// Package caps translates capabilities(7) to masks with one bit for each, and reads those of
// this process and of this kernel.
package caps

import (
	"sync"

	"golang.org/x/sys/unix"
)

// Held are the capabilities that this process may give: its permitted set.
func Held() uint64 {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return 0
	}
	return uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32
}

// Count is how many capabilities this kernel has, at most 64.
func Count() uintptr { return count() }

var count = sync.OnceValue(func() uintptr {
	for c := range uintptr(64) {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c, 0, 0, 0); err != nil {
			return c
		}
	}
	return 64
})
