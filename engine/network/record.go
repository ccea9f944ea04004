package network

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/moby/moby/api/types/network"
)

// The options of bridge networks, in Docker's words.
const (
	optDefault     = "com.docker.network.bridge.default_bridge"
	optName        = "com.docker.network.bridge.name"
	optICC         = "com.docker.network.bridge.enable_icc"
	optMasq        = "com.docker.network.bridge.enable_ip_masquerade"
	optBindIP      = "com.docker.network.bridge.host_binding_ipv4"
	optMTU         = driver.OptMTU
	optMode4       = "com.docker.network.bridge.gateway_mode_ipv4"
	optMode6       = "com.docker.network.bridge.gateway_mode_ipv6"
	optTrusted     = "com.docker.network.bridge.trusted_host_interfaces"
	optInhibit     = "com.docker.network.bridge.inhibit_ipv4"
	optHostIPv4    = "com.docker.network.host_ipv4"
	optHostIPv6    = "com.docker.network.host_ipv6"
	optIfPrefix    = driver.OptIfPrefix
	optEndpointMAC = "com.docker.network.endpoint.macaddress"
	optIfName      = "com.docker.network.endpoint.ifname"
	optSysctls     = "com.docker.network.endpoint.sysctls"
)

// netw is one network in memory. Service.mu guards it.
type netw struct {
	net    network.Network
	spaces []*space
	bridge bridgeOptions  // of bridge networks
	index  int            // of the bridge's interface
	zone   *dns.Zone      // nil where names are not served: default bridge, host, none
	pooled []netip.Prefix // subnets that came from the pools
	// users are the containers' endpoints by container ID.
	users map[string]*endpoint
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

func (n *netw) isDefault() bool { return n.net.Options[optDefault] == "true" }

func (n *netw) driver() string { return n.net.Driver }

// space4 and space6 return the first subnet of a family, nil without one.
func (n *netw) space4() *space { return n.space(false) }
func (n *netw) space6() *space { return n.space(true) }

func (n *netw) space(v6 bool) *space {
	for _, s := range n.spaces {
		if s.Subnet().Addr().Is6() == v6 {
			return s
		}
	}
	return nil
}

// bridgeOptions are the decoded options of a bridge network.
type bridgeOptions struct {
	name             string
	icc, masq        bool
	bindIP           netip.Addr
	mtu              int
	mode4, mode6     firewall.GatewayMode
	trusted          []string
	inhibit          bool
	hostIP4, hostIP6 netip.Addr
	ifPrefix         string
}

// parseBridgeOptions decodes a bridge network's options. Errors are of class Invalid.
func parseBridgeOptions(networkID string, o map[string]string) (bridgeOptions, error) {
	b := bridgeOptions{name: "br-" + id.Short(networkID), icc: true, masq: true, ifPrefix: "eth"}
	var err error
	for _, k := range slices.Sorted(maps.Keys(o)) {
		v := o[k]
		switch k {
		case optName:
			b.name = v
			err = checkIfName(v)
		case optICC:
			b.icc, err = parseBool(k, v)
		case optMasq:
			b.masq, err = parseBool(k, v)
		case optInhibit:
			b.inhibit, err = parseBool(k, v)
		case optBindIP:
			b.bindIP, err = parseIP(k, v)
		case optHostIPv4:
			b.hostIP4, err = parseIP(k, v)
		case optHostIPv6:
			b.hostIP6, err = parseIP(k, v)
		case optMTU:
			if b.mtu, err = strconv.Atoi(v); err != nil || b.mtu < 0 || b.mtu > 65535 {
				err = errclass.Invalid("failed to parse %s value: %q is no MTU", k, v)
			}
		case optMode4:
			b.mode4, err = parseMode(k, v)
		case optMode6:
			b.mode6, err = parseMode(k, v)
		case optTrusted:
			b.trusted = strings.FieldsFunc(v, func(r rune) bool { return r == ':' })
			for _, name := range b.trusted {
				err = errors.Join(err, checkIfName(name))
			}
		case optIfPrefix:
			b.ifPrefix = v
			err = checkIfName(v + "0")
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

func parseBool(k, v string) (bool, error) {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, errclass.Invalid("failed to parse %s value: %q (%v)", k, v, err)
	}
	return on, nil
}

func parseIP(k, v string) (netip.Addr, error) {
	a, err := netip.ParseAddr(v)
	if err != nil || a.Zone() != "" {
		return a, errclass.Invalid("failed to parse %s value: %q is no IP address", k, v)
	}
	return a.Unmap(), nil
}

func parseMode(k, v string) (firewall.GatewayMode, error) {
	switch m := firewall.GatewayMode(v); m {
	case "", firewall.ModeNAT, firewall.ModeNATUnprotected, firewall.ModeRouted, firewall.ModeIsolated:
		return m, nil
	}
	return "", errclass.Invalid("unknown gateway mode %s for %s", v, k)
}

func checkIfName(s string) error { return driver.CheckIfName(s) }

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
		Name: o.name, Subnets: subnets, ICC: o.icc, Internal: n.net.Internal, Masq4: o.masq, Masq6: o.masq && n.net.EnableIPv6,
		Mode4: o.mode4, Mode6: o.mode6, SNAT4: o.hostIP4, SNAT6: o.hostIP6, Trusted: o.trusted,
	}
	if !v6 {
		b.Masq6, b.SNAT6, b.Mode6 = false, netip.Addr{}, firewall.ModeNATUnprotected
	}
	return b
}
