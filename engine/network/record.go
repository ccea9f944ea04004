package network

import (
	"net/netip"
	"sync"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/checks"
	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/moby/moby/api/types/network"
)

// The options of endpoints, in Docker's words.
const (
	optEndpointMAC = checks.OptMAC
	optIfName      = "com.docker.network.endpoint.ifname"
	optSysctls     = checks.OptSysctls
)

// netw is one network in memory. Service.mu guards it.
type netw struct {
	net    network.Network
	spaces []*space
	bridge bridge.Options // of bridge networks
	index  int            // of the bridge's interface
	zone   *dns.Zone      // nil where names are not served: default bridge, host, none
	pooled []netip.Prefix // subnets that came from the pools
	// poolIDs are what an IPAM plugin calls the subnets, in their order.
	poolIDs []string
	// users are the containers' endpoints by container ID.
	users map[string]*endpoint
	// remake is held while a bridge that somebody deleted is looked for and made again.
	remake sync.Mutex
	// removing is set while the network is taken down: nothing may join.
	removing bool
}

// space is one subnet of a network.
type space struct {
	*ipam.Space
	gateway netip.Addr // what containers route through; invalid: none
	own     netip.Addr // the bridge's own address
}

// endpoint is one container on one network.
type endpoint struct {
	EndpointRecord
	containerID string
}

func (n *netw) isDefault() bool { return n.net.Options[bridge.OptDefault] == "true" }

// space is the first subnet of a family, nil without one.
func (n *netw) space(v6 bool) *space {
	for _, s := range n.spaces {
		if s.Subnet().Addr().Is6() == v6 {
			return s
		}
	}
	return nil
}

// firewallBridge is a bridge network as the firewall sees it. Without v6 ("ip6tables":
// false) nothing of ours touches its IPv6: no translation, no protection.
func (n *netw) firewallBridge(v6 bool) firewall.Bridge {
	o := n.bridge
	var subnets []netip.Prefix
	for _, sp := range n.spaces {
		if v6 || sp.Subnet().Addr().Is4() {
			subnets = append(subnets, sp.Subnet())
		}
	}
	b := firewall.Bridge{
		Name: o.Name, Subnets: subnets, ICC: o.ICC, Internal: n.net.Internal, Masq4: o.Masq, Masq6: o.Masq && n.net.EnableIPv6,
		Mode4: o.Mode4, Mode6: o.Mode6, SNAT4: o.HostIP4, SNAT6: o.HostIP6, Trusted: o.Trusted,
	}
	if !v6 {
		b.Masq6, b.SNAT6, b.Mode6 = false, netip.Addr{}, firewall.ModeNATUnprotected
	}
	return b
}
