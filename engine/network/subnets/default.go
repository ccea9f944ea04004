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
	bip := d.BIP
	if !bip.IsValid() {
		if l, err := s.nl.LinkByName(d.Bridge); err == nil {
			have, err := s.nl.Addrs(l.Index)
			if err != nil {
				return nil, nil, err
			}
			for _, a := range have {
				if a.Prefix.Addr().Is4() && !bip.IsValid() {
					bip = a.Prefix
				}
			}
		}
	}
	if !bip.IsValid() {
		if !d.Ours {
			return nil, nil, errclass.Invalid("bridge %s has no IPv4 address, and no bip is configured", d.Bridge)
		}
		sub, err := s.Next(false)
		if err != nil {
			return nil, nil, err
		}
		bip = netip.PrefixFrom(ipam.First(sub), sub.Bits())
	}
	gw := bip.Addr()
	if d.Gateway.IsValid() {
		gw = d.Gateway
	}
	conf := []network.IPAMConfig{{Subnet: bip.Masked(), IPRange: d.FixedCIDR, Gateway: gw}}
	own := []netip.Prefix{bip}
	if d.IPv6 {
		bip6 := d.BIP6
		if !bip6.IsValid() && d.FixedCIDR6.IsValid() {
			bip6 = netip.PrefixFrom(ipam.First(d.FixedCIDR6), d.FixedCIDR6.Bits())
		}
		if !bip6.IsValid() {
			sub := s.ULA()
			bip6 = netip.PrefixFrom(ipam.First(sub), 64)
		}
		gw6 := bip6.Addr()
		if d.Gateway6.IsValid() {
			gw6 = d.Gateway6
		}
		conf = append(conf, network.IPAMConfig{Subnet: bip6.Masked(), IPRange: d.FixedCIDR6, Gateway: gw6})
		own = append(own, bip6)
	}
	for _, c := range conf {
		if err := ipam.CheckConfig(c.Subnet, c.IPRange, c.Gateway); err != nil {
			return nil, nil, err
		}
	}
	return conf, own, nil
}
