package subnets

import (
	"net/netip"

	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/network"
)

// Default is what the configuration says about the default bridge's addresses.
type Default struct {
	// Bridge is the interface's name; Ours tells that it is not somebody else's.
	Bridge     string
	Ours, IPv6 bool
	BIP, BIP6  netip.Prefix // the bridge's own addresses
	// FixedCIDR and FixedCIDR6 are where containers' addresses come from.
	FixedCIDR, FixedCIDR6 netip.Prefix
	Gateway, Gateway6     netip.Addr // of containers
}

// Default decides the default bridge's subnets, and the bridge's own address in each: what
// the configuration says, else what the bridge has, else the first free pool. Errors are of
// class Invalid, or as Next's.
func (s *Chooser) Default(d Default) ([]network.IPAMConfig, []netip.Prefix, error) {
	have, err := s.has(d)
	if err != nil {
		return nil, nil, err
	}
	c, own, ok := choose(have, d.BIP, d.FixedCIDR, d.Ours, false)
	if !ok {
		sub, err := s.Next(false)
		if err != nil {
			return nil, nil, err
		}
		own = netip.PrefixFrom(ipam.First(sub), sub.Bits())
		c = network.IPAMConfig{Subnet: sub, Gateway: own.Addr()}
	}
	if d.Gateway.IsValid() {
		c.Gateway = d.Gateway
	}
	conf, owns := []network.IPAMConfig{c}, []netip.Prefix{own}
	if d.IPv6 {
		c, own, ok := choose(have, d.BIP6, d.FixedCIDR6, d.Ours, true)
		if !ok {
			sub := s.ULA()
			own = netip.PrefixFrom(ipam.First(sub), 64)
			c = network.IPAMConfig{Subnet: sub, Gateway: own.Addr()}
		}
		if d.Gateway6.IsValid() {
			c.Gateway = d.Gateway6
		}
		conf, owns = append(conf, c), append(owns, own)
	}
	for _, c := range conf {
		if err := ipam.CheckConfig(c.Subnet, c.IPRange, c.Gateway); err != nil {
			return nil, nil, err
		}
	}
	return conf, owns, nil
}

// has lists the addresses that the default bridge has already.
func (s *Chooser) has(d Default) ([]netip.Prefix, error) {
	l, err := s.nl.LinkByName(d.Bridge)
	if err != nil {
		if !d.Ours {
			return nil, errclass.Invalid("bridge device with non default name %s must be created manually", d.Bridge)
		}
		return nil, nil
	}
	addrs, err := s.nl.Addrs(l.Index)
	if err != nil {
		return nil, err
	}
	var out []netip.Prefix
	for _, a := range addrs {
		out = append(out, a.Prefix)
	}
	return out, nil
}

// choose decides one family of the default bridge by the addresses that the bridge has, its
// requested own address (bip) and where containers' addresses come from (fixed), as Docker
// does; false: nothing says anything. A gateway that is only the first address of fixed is
// not shown.
func choose(have []netip.Prefix, bip, fixed netip.Prefix, ours, v6 bool) (network.IPAMConfig, netip.Prefix, bool) {
	fixed = fixed.Masked()
	as := func(subnet, own netip.Prefix) (network.IPAMConfig, netip.Prefix, bool) {
		return network.IPAMConfig{Subnet: subnet.Masked(), IPRange: fixed, Gateway: own.Addr()}, netip.PrefixFrom(own.Addr(), subnet.Bits()), true
	}
	if bip.IsValid() {
		return as(bip, bip)
	}
	var first netip.Prefix
	for _, p := range have {
		// The kernel's own link-local address says nothing, unless the user wants such.
		if p.Addr().Is6() != v6 || p.Addr().IsLinkLocalUnicast() && (!fixed.IsValid() || !fixed.Addr().IsLinkLocalUnicast()) {
			continue
		}
		switch {
		case !fixed.IsValid():
			return as(p, p)
		case p.Bits() <= fixed.Bits() && p.Contains(fixed.Addr()):
			return as(p, p)
		case fixed.Contains(p.Addr()):
			return as(fixed, p)
		}
		if !first.IsValid() {
			first = p
		}
	}
	switch {
	case !ours && first.IsValid():
		return as(first, first) // it is the bridge's that somebody made, and is refused
	case fixed.IsValid():
		c, own, ok := as(fixed, netip.PrefixFrom(ipam.First(fixed), fixed.Bits()))
		c.Gateway = netip.Addr{}
		return c, own, ok
	}
	return network.IPAMConfig{}, netip.Prefix{}, false
}
