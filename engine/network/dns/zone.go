package dns

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
)

// Zone is the names of one network. Safe for concurrent use: a lookup never waits for
// more than one entry's change.
type Zone struct {
	network string

	mu      sync.RWMutex
	members map[string]*member   // by endpoint
	names   map[string][]*member // by lower-case name; the slices are never changed
	addrs   map[netip.Addr]*member
}

// member is one endpoint's names. It is never changed.
type member struct {
	names  []string
	v4, v6 netip.Addr
	ptr    []byte // what a PTR query is told, as on the wire; nil when that cannot be said
}

// NewZone returns the empty zone of a network.
func NewZone(network string) *Zone {
	return &Zone{network: strings.ToLower(network), members: map[string]*member{}, names: map[string][]*member{}, addrs: map[netip.Addr]*member{}}
}

// Set makes an endpoint known by names (the first is its own), instead of what it was
// known by. Addresses may be invalid.
func (z *Zone) Set(endpoint string, names []string, v4, v6 netip.Addr) {
	m := &member{v4: v4, v6: v6}
	for _, n := range names {
		n = strings.ToLower(strings.TrimSuffix(n, "."))
		if n != "" && len(n) < maxName && !slices.Contains(m.names, n) {
			m.names = append(m.names, n)
		}
	}
	for _, n := range names {
		if wire, ok := encodeName(n + "." + z.network); ok {
			m.ptr = wire
			break
		}
	}
	z.mu.Lock()
	defer z.mu.Unlock()
	z.remove(endpoint)
	z.members[endpoint] = m
	for _, n := range m.names {
		z.names[n] = append(slices.Clip(z.names[n]), m)
	}
	for _, a := range []netip.Addr{v4, v6} {
		if a.IsValid() {
			z.addrs[a] = m
		}
	}
}

// Remove forgets an endpoint.
func (z *Zone) Remove(endpoint string) {
	z.mu.Lock()
	defer z.mu.Unlock()
	z.remove(endpoint)
}

func (z *Zone) remove(endpoint string) {
	m := z.members[endpoint]
	if m == nil {
		return
	}
	delete(z.members, endpoint)
	for _, n := range m.names {
		left := make([]*member, 0, len(z.names[n])-1)
		for _, o := range z.names[n] {
			if o != m {
				left = append(left, o)
			}
		}
		if len(left) == 0 {
			delete(z.names, n)
		} else {
			z.names[n] = left
		}
	}
	for _, a := range []netip.Addr{m.v4, m.v6} {
		if z.addrs[a] == m {
			delete(z.addrs, a)
		}
	}
}

// lookup returns who is known by a lower-case name. The result is not to be changed.
func (z *Zone) lookup(name []byte) []*member {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return z.names[string(name)]
}

func (z *Zone) reverse(a netip.Addr) *member {
	z.mu.RLock()
	defer z.mu.RUnlock()
	return z.addrs[a]
}

// Names are what a container is called on a network, without repetition: its name, its
// aliases there, its short ID and its hostname, where there is one.
func Names(name string, aliases []string, short, hostname string) []string {
	var out []string
	for _, n := range append(append([]string{name}, aliases...), short, hostname) {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
