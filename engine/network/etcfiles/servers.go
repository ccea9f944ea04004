package etcfiles

import (
	"net/netip"
	"sync"
	"time"
)

// serversAge is how long the host's list of resolvers serves before its file is
// looked at again.
const serversAge = time.Second

// Servers returns a function that names the resolvers of a resolv.conf (as ReadResolvConf
// finds it), also those on loopback: for a host that asks by itself. It follows changes
// of the file and is safe for concurrent use.
func Servers(path string) func() []netip.Addr {
	var mu sync.Mutex
	var read time.Time
	var servers []netip.Addr
	return func() []netip.Addr {
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(read) > serversAge {
			read = now
			if rc, err := ReadResolvConf(path); err == nil {
				servers = rc.Servers
			}
		}
		return servers
	}
}
