package remote

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/plugin"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/network"
)

// IPAM has plugins manage subnets and addresses (github.com/moby/moby,
// libnetwork/docs/ipam.md). It implements ipam.Driver and keeps nothing in memory.
type IPAM struct{ plugins plugin.Source }

// NewIPAM makes one of plugins.
func NewIPAM(p plugin.Source) *IPAM { return &IPAM{p} }

// Options of requests, in the protocol's words.
const (
	optAddressType = "RequestAddressType"
	addressGateway = "com.docker.network.gateway"
	optMAC         = "com.docker.network.endpoint.macaddress"
)

type capabilities struct{ RequiresMACAddress, RequiresRequestReplay bool }

func (i *IPAM) call(ctx context.Context, name, method string, in, out any) error {
	c, err := i.plugins.Find(name)
	if err != nil {
		return err
	}
	return c.Call(ctx, "IpamDriver."+method, in, out)
}

// capabilities are optional in the protocol.
func (i *IPAM) capabilities(ctx context.Context, name string) (c capabilities, err error) {
	if err = i.call(ctx, name, "GetCapabilities", nil, &c); errdefs.IsNotFound(err) {
		err = nil
	}
	return c, err
}

// Open asks for a network's subnets, their gateways and auxiliary addresses, and enters
// what the plugin chose into p. Nothing is held when it fails.
func (i *IPAM) Open(ctx context.Context, p *ipam.Pools) (err error) {
	c, err := i.plugins.Find(p.Driver)
	if err != nil {
		return err
	}
	if err := c.Activate(ctx, "IpamDriver"); err != nil {
		return err
	}
	have4, have6 := false, false
	for _, s := range p.Config {
		have4, have6 = have4 || s.Subnet.Addr().Is4(), have6 || s.Subnet.Addr().Is6()
	}
	ask := p.Config
	for _, missing := range []struct{ want, v6 bool }{{p.IPv4 && !have4, false}, {p.IPv6 && !have6, true}} {
		if missing.want {
			// The family is all that is said: an invalid subnet has none, a zero one of IPv6 has.
			ask = append(ask, network.IPAMConfig{Subnet: netip.PrefixFrom(map[bool]netip.Addr{false: netip.IPv4Unspecified(), true: netip.IPv6Unspecified()}[missing.v6], -1)})
		}
	}
	p.Config, p.IDs = nil, nil
	defer func() {
		if err != nil {
			err = errors.Join(err, i.Close(context.WithoutCancel(ctx), *p))
		}
	}()
	var space struct{ LocalDefaultAddressSpace string }
	if err := i.call(ctx, p.Driver, "GetDefaultAddressSpaces", nil, &space); err != nil {
		return err
	}
	for _, s := range ask {
		if err := i.openOne(ctx, p, space.LocalDefaultAddressSpace, s); err != nil {
			return err
		}
	}
	return nil
}

// openOne asks for one subnet; what it got is in p also when it fails.
func (i *IPAM) openOne(ctx context.Context, p *ipam.Pools, space string, s network.IPAMConfig) error {
	v6 := s.Subnet.Addr().Is6()
	in := map[string]any{"AddressSpace": space, "Pool": "", "SubPool": "", "Options": p.Options, "V6": v6}
	if s.Subnet.IsValid() {
		in["Pool"] = s.Subnet.String()
	}
	if s.IPRange.IsValid() {
		in["SubPool"] = s.IPRange.String()
	}
	var got struct {
		PoolID, Pool string
		Data         map[string]string
	}
	if err := i.call(ctx, p.Driver, "RequestPool", in, &got); err != nil {
		return err
	}
	asked := s.Gateway
	s.Gateway = netip.Addr{}
	aux := s.AuxAddress
	s.AuxAddress = nil
	subnet, err := netip.ParsePrefix(got.Pool)
	if err != nil || subnet.Addr().Is6() != v6 || got.PoolID == "" {
		err = errclass.Unavailable("IPAM plugin %s answered with pool %q of id %q", p.Driver, got.Pool, got.PoolID)
	}
	s.Subnet = subnet.Masked()
	p.Config, p.IDs = append(p.Config, s), append(p.IDs, got.PoolID)
	mine := &p.Config[len(p.Config)-1]
	if err != nil {
		return err
	}
	if gw := got.Data[addressGateway]; gw != "" && !asked.IsValid() {
		pfx, err := netip.ParsePrefix(gw)
		if err != nil {
			return fmt.Errorf("IPAM plugin %s: gateway: %w", p.Driver, err)
		}
		mine.Gateway = pfx.Addr()
	} else {
		pfx, err := i.request(ctx, p.Driver, got.PoolID, asked, map[string]string{optAddressType: addressGateway})
		if err != nil {
			return err
		}
		mine.Gateway = pfx.Addr()
	}
	for name, a := range aux {
		if _, err := i.request(ctx, p.Driver, got.PoolID, a, nil); err != nil {
			return err
		}
		if mine.AuxAddress == nil {
			mine.AuxAddress = map[string]netip.Addr{}
		}
		mine.AuxAddress[name] = a
	}
	return nil
}

// Close gives a network's subnets back. A plugin that is gone holds nobody's network.
func (i *IPAM) Close(ctx context.Context, p ipam.Pools) error {
	var errs []error
	for k, s := range p.Config {
		id := p.IDs[k]
		for _, a := range s.AuxAddress {
			errs = append(errs, i.release(ctx, p.Driver, id, a))
		}
		if s.Gateway.IsValid() {
			errs = append(errs, i.release(ctx, p.Driver, id, s.Gateway))
		}
		errs = append(errs, i.call(ctx, p.Driver, "ReleasePool", map[string]string{"PoolID": id}, nil))
	}
	for k, err := range errs {
		if errdefs.IsNotFound(err) {
			errs[k] = nil
		}
	}
	return errors.Join(errs...)
}

// Replay tells a plugin that keeps nothing itself what a network has, and what its
// endpoints have, after a restart.
func (i *IPAM) Replay(ctx context.Context, p ipam.Pools, used []ipam.Used) error {
	can, err := i.capabilities(ctx, p.Driver)
	if err != nil || !can.RequiresRequestReplay {
		return err
	}
	now := p
	if err := i.Open(ctx, &now); err != nil {
		return err
	}
	for k, id := range now.IDs {
		if k >= len(p.IDs) || id != p.IDs[k] {
			return errclass.Unavailable("IPAM plugin %s knows subnet %s by another id than before", p.Driver, now.Config[k].Subnet)
		}
	}
	var errs []error
	for _, e := range used {
		for _, a := range e.Addrs {
			if id, ok := p.ID(a.Addr()); ok {
				_, err := i.address(ctx, p.Driver, id, a.Addr(), e.MAC)
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// Addresses asks for an endpoint's addresses, IPv4 first: those of want, or any of the first
// subnet of the family where that is invalid. mac is what the endpoint's interface will
// have; a plugin that does not need to know it is not told. Nothing is held when it fails.
func (i *IPAM) Addresses(ctx context.Context, p ipam.Pools, want [2]netip.Addr, mac net.HardwareAddr) (got [2]netip.Prefix, err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, i.GiveBack(context.WithoutCancel(ctx), p, got))
		}
	}()
	for f, want := range want {
		in := slices.IndexFunc(p.Config, func(c network.IPAMConfig) bool {
			return c.Subnet.Addr().Is6() == (f == 1) && (!want.IsValid() || c.Subnet.Contains(want))
		})
		switch {
		case in < 0 && !want.IsValid():
			continue
		case in < 0 || in >= len(p.IDs):
			return got, errclass.Invalid("no configured subnet or ip-range contain the IP address %s", want)
		}
		a, err := i.address(ctx, p.Driver, p.IDs[in], want, mac)
		if err != nil {
			return got, err
		}
		if !p.Config[in].Subnet.Contains(a.Addr()) {
			return got, errors.Join(errclass.Unavailable("IPAM plugin %s gave %s, which is not of subnet %s", p.Driver, a, p.Config[in].Subnet),
				i.release(ctx, p.Driver, p.IDs[in], a.Addr()))
		}
		got[f] = a
	}
	return got, nil
}

// GiveBack returns an endpoint's addresses. A plugin that is gone wants none.
func (i *IPAM) GiveBack(ctx context.Context, p ipam.Pools, addrs [2]netip.Prefix) error {
	var errs []error
	for _, a := range addrs {
		if id, ok := p.ID(a.Addr()); ok {
			if err := i.release(ctx, p.Driver, id, a.Addr()); !errdefs.IsNotFound(err) {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// KnowsMAC tells whether the plugin is told hardware addresses, which then do not follow
// from what it gives. It is false for a plugin that does not answer.
func (i *IPAM) KnowsMAC(ctx context.Context, name string) bool {
	can, err := i.capabilities(ctx, name)
	return err == nil && can.RequiresMACAddress
}

// address asks for one address: want, or any where that is invalid.
func (i *IPAM) address(ctx context.Context, name, pool string, want netip.Addr, mac net.HardwareAddr) (netip.Prefix, error) {
	can, err := i.capabilities(ctx, name)
	if err != nil {
		return netip.Prefix{}, err
	}
	var opts map[string]string
	if can.RequiresMACAddress {
		opts = map[string]string{optMAC: mac.String()}
	}
	return i.request(ctx, name, pool, want, opts)
}

func (i *IPAM) request(ctx context.Context, name, pool string, want netip.Addr, opts map[string]string) (netip.Prefix, error) {
	in := map[string]any{"PoolID": pool, "Address": "", "Options": opts}
	if want.IsValid() {
		in["Address"] = want.String()
	}
	var got struct{ Address string }
	if err := i.call(ctx, name, "RequestAddress", in, &got); err != nil {
		return netip.Prefix{}, err
	}
	if got.Address == "" && opts[optAddressType] == addressGateway {
		return netip.Prefix{}, nil // a network without gateway
	}
	p, err := netip.ParsePrefix(got.Address)
	if err != nil || want.IsValid() && p.Addr() != want {
		return p, errclass.Unavailable("IPAM plugin %s answered with address %q, asked for %q", name, got.Address, cmp.Or(fmt.Sprint(in["Address"]), "any"))
	}
	return p, nil
}

func (i *IPAM) release(ctx context.Context, name, pool string, a netip.Addr) error {
	return i.call(ctx, name, "ReleaseAddress", map[string]string{"PoolID": pool, "Address": a.String()}, nil)
}
