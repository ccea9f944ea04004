package network

import (
	"context"
	"net/netip"

	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/remote"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/network"
)

// elsewhere tells whether a plugin manages the network's addresses.
func (n *netw) elsewhere() bool {
	d := n.net.IPAM.Driver
	return d != "" && d != "default" && d != ipam.DriverNull && !n.net.ConfigOnly && n.hasInterfaces()
}

// pools are the network's subnets as its IPAM plugin knows them.
func (n *netw) pools() remote.Pools {
	return remote.Pools{
		Driver: n.net.IPAM.Driver, Options: n.net.IPAM.Options, Config: n.net.IPAM.Config, IDs: n.poolIDs,
		IPv4: n.net.EnableIPv4, IPv6: n.net.EnableIPv6,
	}
}

// openPools has a plugin give the network its subnets.
func (d *drivers) openPools(ctx context.Context, n *netw, u *undo.List) error {
	p := n.pools()
	p.IDs = nil
	if err := d.ipam.Open(ctx, &p); err != nil {
		return err
	}
	u.Add(func() error { return d.ipam.Close(context.WithoutCancel(ctx), p) })
	for _, c := range p.Config[min(len(n.net.IPAM.Config), len(p.Config)):] {
		n.pooled = append(n.pooled, c.Subnet)
	}
	n.net.IPAM.Config, n.poolIDs = p.Config, p.IDs
	return nil
}

// closePools gives them back; that it cannot is logged.
func (d *drivers) closePools(ctx context.Context, n *netw) {
	if !n.elsewhere() {
		return
	}
	if err := d.ipam.Close(ctx, n.pools()); err != nil {
		d.log.Error("an IPAM plugin taking a network's subnets back", "network", n.net.Name, "error", err)
	}
}

// replay tells an IPAM plugin without memory what a network and the running containers'
// endpoints on it have. What fails is logged: the addresses are in use either way.
func (d *drivers) replay(ctx context.Context, n *netw, ends []*endpoint) {
	if !n.elsewhere() {
		return
	}
	var used []remote.Used
	for _, e := range ends {
		used = append(used, remote.Used{Addrs: [2]netip.Prefix{e.IPv4, e.IPv6}, MAC: []byte(parseMAC(e.MAC))})
	}
	err := d.ipam.Replay(ctx, n.pools(), used)
	if err != nil {
		d.log.Error("telling an IPAM plugin what is in use", "network", n.net.Name, "error", err)
	}
}

// addresses asks the network's IPAM plugin for an endpoint's addresses.
func (d *drivers) addresses(ctx context.Context, j *joining, u *undo.List) error {
	var want [2]netip.Addr
	if c := j.settings.IPAMConfig; c != nil {
		want = [2]netip.Addr{c.IPv4Address, c.IPv6Address}
	}
	p, e := j.n.pools(), j.e
	got, err := d.ipam.Addresses(ctx, p, want, []byte(parseMAC(e.MAC)))
	if err != nil {
		return err
	}
	u.Add(func() error { return d.ipam.GiveBack(context.WithoutCancel(ctx), p, got) })
	e.IPv4, e.IPv6 = got[0], got[1]
	return nil
}

// giveBack returns an endpoint's addresses to the network's IPAM plugin.
func (d *drivers) giveBack(ctx context.Context, n *netw, e *endpoint) {
	if !n.elsewhere() {
		return
	}
	if err := d.ipam.GiveBack(ctx, n.pools(), [2]netip.Prefix{e.IPv4, e.IPv6}); err != nil {
		d.log.Error("an IPAM plugin taking addresses back", "network", n.net.Name, "endpoint", e.ID, "error", err)
	}
}

// macOf is the hardware address that goes with an endpoint's addresses.
func macOf(e *endpoint) network.HardwareAddr {
	from := e.IPv4.Addr()
	if !from.IsValid() {
		from = e.IPv6.Addr()
	}
	m := ipam.MAC(from)
	return m[:]
}

// claims are the ranges of the host that the network takes: what a plugin manages is
// the plugin's, unless the host is on it.
func (n *netw) claims() []netip.Prefix {
	if n.elsewhere() && n.net.Driver != "bridge" {
		return nil
	}
	var out []netip.Prefix
	for _, sp := range n.spaces {
		out = append(out, sp.Subnet())
	}
	return out
}
