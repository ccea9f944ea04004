package ports

import (
	"os"
	"strconv"
	"strings"
)

// Ephemeral is the kernel's own idea of which ports nobody chose by number, in the calling
// thread's network namespace (ip(7), ip_local_port_range); the kernel's default when it
// cannot be read.
func Ephemeral() (first, last uint16) {
	first, last = 32768, 60999
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range")
	if err != nil {
		return first, last
	}
	f := strings.Fields(string(data))
	if len(f) != 2 {
		return first, last
	}
	a, errA := strconv.ParseUint(f[0], 10, 16)
	b, errB := strconv.ParseUint(f[1], 10, 16)
	if errA != nil || errB != nil || a == 0 || a > b {
		return first, last
	}
	return uint16(a), uint16(b)
}

// HostHasIPv6 tells whether sockets on [::] can be had.
func HostHasIPv6() bool {
	data, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && strings.TrimSpace(string(data)) == "0"
}
