package network

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// bridgeDriver joins containers by a bridge on the host.
type bridgeDriver struct{ s *Service }

// Check implements driver.Driver.
func (d bridgeDriver) Check(n driver.Network, others []driver.Network) error {
	b, err := bridge.Parse(n.ID, n.Options)
	if err != nil {
		return err
	}
	if !n.Internal && (b.Mode4 == firewall.ModeIsolated || b.Mode6 == firewall.ModeIsolated) {
		return errclass.Invalid("gateway mode 'isolated' can only be used for an internal network")
	}
	i := slices.IndexFunc(others, func(o driver.Network) bool {
		if o.Driver != "bridge" {
			return false
		}
		other, err := bridge.Parse(o.ID, o.Options)
		return err == nil && other.Name == b.Name
	})
	if i < 0 {
		return nil
	}
	return errclass.Forbidden("cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name",
		n.ID, b.Name, others[i].ID, b.Name)
}

// mine finds what the service knows of a network.
func (d bridgeDriver) mine(n driver.Network) (*netw, error) {
	d.s.mu.Lock()
	defer d.s.mu.Unlock()
	nw := d.s.nets[n.ID]
	if nw == nil {
		return nil, errclass.NotFound("network %s not found", n.Name)
	}
	return nw, nil
}

// Start implements driver.Driver.
func (d bridgeDriver) Start(_ context.Context, n driver.Network, _ bool) error {
	nw, err := d.mine(n)
	if err != nil {
		return err
	}
	var own []netip.Prefix
	for _, sp := range nw.spaces {
		mode := nw.bridge.Mode4
		if sp.Subnet().Addr().Is6() {
			mode = nw.bridge.Mode6
		}
		// inhibit_ipv4 is about IPv4 only, as its name says.
		inhibited := nw.bridge.Inhibit && sp.Subnet().Addr().Is4() || mode == firewall.ModeIsolated
		if sp.own.IsValid() && !inhibited {
			own = append(own, netip.PrefixFrom(sp.own, sp.Subnet().Bits()))
		}
	}
	mtu := nw.bridge.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	index, err := plumb.EnsureBridge(d.s.nl, nw.bridge.Name, mtu, nw.net.EnableIPv6, own, true)
	if err != nil {
		return err
	}
	d.s.locked(func() { nw.index = index })
	return d.s.fw.SetBridge(nw.firewallBridge(d.s.cfg.Firewall6))
}

// standing returns the index of a network's bridge. One that somebody deleted is made
// again, with the running containers' interfaces in it; not one that the daemon was given
// ready made (option bridge).
func (d bridgeDriver) standing(nw *netw) (int, error) {
	nw.remake.Lock()
	defer nw.remake.Unlock()
	var index int
	d.s.locked(func() { index = nw.index })
	if _, err := d.s.nl.Do(rtnl.GetLinkIndex(index)); err == nil || !errors.Is(err, unix.ENODEV) || nw.isDefault() && d.s.cfg.Bridge != "" {
		return index, nil
	}
	d.s.log.Warn("somebody deleted a network's bridge: making it again", "network", nw.net.Name, "bridge", nw.bridge.Name)
	if err := d.Start(context.Background(), nw.view(), true); err != nil {
		return 0, err
	}
	d.s.openLocalnet(nw)
	var ports []string
	d.s.locked(func() {
		index = nw.index
		for _, e := range nw.users {
			if e.HostIf != "" {
				ports = append(ports, e.HostIf)
			}
		}
	})
	for _, name := range ports {
		if err := plumb.Replug(d.s.nl, name, index, !nw.bridge.ICC); err != nil && !errors.Is(err, unix.ENODEV) {
			d.s.log.Error("plugging a container into its bridge again", "interface", name, "error", err)
		}
	}
	return index, nil
}

// Stop implements driver.Driver.
func (d bridgeDriver) Stop(_ context.Context, n driver.Network, _ []driver.Network) error {
	nw, err := d.mine(n)
	if err != nil {
		return err
	}
	err = d.s.fw.RemoveBridge(nw.bridge.Name)
	l, lerr := d.s.nl.LinkByName(nw.bridge.Name)
	if lerr == nil && l.Group == rtnl.Group {
		_, lerr = d.s.nl.Do(rtnl.DelLink(nw.bridge.Name))
	}
	if lerr != nil && !errors.Is(lerr, unix.ENODEV) {
		err = errors.Join(err, lerr)
	}
	return err
}

// Out implements driver.Driver.
func (d bridgeDriver) Out(n driver.Network, v6 bool) bool {
	key := bridge.OptMode4
	if v6 {
		key = bridge.OptMode6
	}
	return !n.Internal && n.Options[key] != string(firewall.ModeIsolated)
}

// Join implements driver.Driver.
func (d bridgeDriver) Join(_ context.Context, n driver.Network, _ driver.Endpoint) (driver.Interface, error) {
	nw, err := d.mine(n)
	if err != nil {
		return driver.Interface{}, err
	}
	index, err := d.standing(nw)
	if err != nil {
		return driver.Interface{}, err
	}
	return driver.Interface{Prefix: nw.bridge.IfPrefix, Port: driver.Port{
		HostIf: plumb.NewHostIf(), Bridge: index, Isolated: !nw.bridge.ICC, Filtered: plumb.BridgeFiltered(),
	}}, nil
}

// Leave implements driver.Driver.
func (d bridgeDriver) Leave(context.Context, driver.Network, driver.Endpoint) error { return nil }
