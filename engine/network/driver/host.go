package driver

import (
	"net/netip"
	"os"

	"github.com/gantry/gantry/internal/rtnl"
)

// Host is what a driver may do to the machine: everything that a network makes outside of
// its containers' namespaces goes through here. Calls work in the host's network namespace,
// from any goroutine. Errors are the system's (unix.ENODEV for an interface that is not
// there), unless said otherwise. Nothing is to be closed.
type Host interface {
	// Do sends netlink requests, in order, and returns the answers to those that asked for
	// one. The first that fails ends it; what went before stays.
	Do(reqs ...*rtnl.Request) ([]rtnl.Reply, error)
	// LinkByName finds an interface.
	LinkByName(name string) (rtnl.Link, error)
	// Addrs lists the addresses of an interface.
	Addrs(index int) ([]rtnl.Addr, error)
	// AwaitAddrs returns when the kernel answers for an interface's IPv6 addresses, or after
	// a moment without an error.
	AwaitAddrs(index int, addrs []netip.Prefix) error
	// Sysctl writes a setting below /proc/sys. One that the kernel has not is no error.
	Sysctl(path, value string) error
	// BridgeFiltered tells whether bridged packets pass the IP hooks (br_netfilter). It may
	// change at any time.
	BridgeFiltered() bool
	// Netns is the host's network namespace, for requests that name one. It is not closed.
	Netns() *os.File
	// Protect puts a bridge under the firewall, or changes what was said of the bridge of
	// that name before; connections from 127.0.0.1 reach its published ports. When it fails
	// the bridge is not under the firewall.
	Protect(b Bridge) error
	// Unprotect takes it back; an unknown name is no error.
	Unprotect(name string) error
}

// Bridge is one bridge network as the firewall sees it.
type Bridge struct {
	Name  string
	Index int // of the interface
	// Subnets of the network, both families.
	Subnets      []netip.Prefix
	ICC          bool
	Internal     bool
	Masq4, Masq6 bool
	Mode4, Mode6 GatewayMode
	// SNAT4 and SNAT6 replace masquerading by a fixed address (host_ipv4, host_ipv6).
	SNAT4, SNAT6 netip.Addr
	// Trusted interfaces may reach published ports by the containers' own addresses.
	Trusted []string
}
