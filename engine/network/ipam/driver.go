package ipam

import (
	"context"
	"net"
	"net/netip"

	"github.com/moby/moby/api/types/network"
)

// Driver manages the subnets and addresses of networks that name it as their IPAM driver:
// plugins do. Safe for concurrent use; calls come without locks held and may take as long as
// a plugin takes. Errors are what the plugin says, NotFound without it, Unavailable when it
// cannot be reached; giving back is no error where the plugin is gone, and may be repeated.
type Driver interface {
	// Open asks for a network's subnets, their gateways and auxiliary addresses, and enters
	// what was chosen into p. Nothing is held when it fails; Close ends it.
	Open(ctx context.Context, p *Pools) error
	// Close gives a network's subnets back.
	Close(ctx context.Context, p Pools) error
	// Replay tells a driver that keeps nothing itself what a network has, and what its
	// endpoints have, after a restart of the daemon.
	Replay(ctx context.Context, p Pools, used []Used) error
	// Addresses asks for an endpoint's addresses, IPv4 first: those of want, or any of the
	// first subnet of the family where that is invalid. Nothing is held when it fails.
	Addresses(ctx context.Context, p Pools, want [2]netip.Addr, mac net.HardwareAddr) ([2]netip.Prefix, error)
	// GiveBack returns an endpoint's addresses.
	GiveBack(ctx context.Context, p Pools, addrs [2]netip.Prefix) error
	// KnowsMAC reports whether a driver wants the hardware address with a request; the engine
	// then does not derive that from the IP address.
	KnowsMAC(ctx context.Context, name string) bool
}

// Pools are the subnets of one network: Config[i] is the driver's IDs[i].
type Pools struct {
	Driver  string
	Options map[string]string
	Config  []network.IPAMConfig
	IDs     []string
	// IPv6 tells Open that one more subnet is wanted where Config has none of the family;
	// IPv4 the same.
	IPv4, IPv6 bool
}

// ID is what the driver calls the subnet of an address.
func (p Pools) ID(a netip.Addr) (string, bool) {
	for k, c := range p.Config {
		if k < len(p.IDs) && a.IsValid() && c.Subnet.Contains(a) {
			return p.IDs[k], true
		}
	}
	return "", false
}

// Used are an endpoint's addresses, IPv4 first; invalid where it has none.
type Used struct {
	Addrs [2]netip.Prefix
	MAC   net.HardwareAddr
}
