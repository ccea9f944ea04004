package network

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/engine/network/remote"
	"github.com/gantry/gantry/engine/network/vlan"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/network"
)

// drivers is the table of all there are. Its methods need no lock of the service.
type drivers struct {
	bridge bridgeDriver
	vlan   *vlan.Driver
	remote *remote.Driver
	ipam   *remote.IPAM
	log    *slog.Logger
}

// get returns the driver of a name; nil when there is none.
func (d *drivers) get(name string) driver.Driver {
	switch name {
	case "bridge":
		return d.bridge
	case "macvlan", "ipvlan":
		return d.vlan
	case "host", "null":
		return driver.Bare{}
	case "overlay": // comes with the swarm
		return nil
	}
	return d.remote
}

func noDriver(name string) error {
	return errclass.NotFound("could not find plugin %s in v1 plugin registry: plugin %q not found", name, name)
}

// view is a network as its driver sees it.
func (n *netw) view() driver.Network {
	v := driver.Network{
		ID: n.net.ID, Name: n.net.Name, Driver: n.net.Driver, Options: n.net.Options,
		Internal: n.net.Internal, IPv4: n.net.EnableIPv4, IPv6: n.net.EnableIPv6,
	}
	for _, c := range n.net.IPAM.Config {
		v.Subnets = append(v.Subnets, driver.Subnet{Prefix: c.Subnet, Gateway: c.Gateway, Aux: c.AuxAddress})
	}
	return v
}

// otherViews are the networks beside one that its driver may stumble over: of bridges
// those with the same bridge, else those that are no bridges. A thousand bridges must not
// cost every create and remove a thousand copies. s.mu is held.
func otherViews(nets map[string]*netw, not *netw) []driver.Network {
	var out []driver.Network
	for _, n := range nets {
		if n == not || n.net.ConfigOnly {
			continue
		}
		if isBridge := n.net.Driver == "bridge"; isBridge != (not.net.Driver == "bridge") || isBridge && n.bridge.Name != not.bridge.Name {
			continue
		}
		out = append(out, n.view())
	}
	return out
}

// checkDriverOptions has the driver refuse what it must. s.mu is held.
func (s *Service) checkDriverOptions(n *netw) error {
	if n.net.Driver == "bridge" {
		var err error
		if n.bridge, err = bridge.Parse(n.net.ID, n.net.Options); err != nil {
			return err
		}
	}
	if n.net.ConfigOnly {
		return nil
	}
	d := s.drivers.get(n.net.Driver)
	if d == nil {
		return noDriver(n.net.Driver)
	}
	return d.Check(n.view(), otherViews(s.nets, n))
}

// start makes what a network needs in the kernel before containers join.
func (d *drivers) start(ctx context.Context, n *netw, again bool) error {
	dr := d.get(n.net.Driver)
	if dr == nil {
		return noDriver(n.net.Driver)
	}
	return dr.Start(ctx, n.view(), again)
}

// stopDriver removes what startDriver made; what is gone already is no error. A bridge
// that somebody else made stays.
func (s *Service) stopDriver(ctx context.Context, n *netw) error {
	d := s.drivers.get(n.net.Driver)
	if d == nil {
		return nil
	}
	s.mu.Lock()
	others := otherViews(s.nets, n)
	s.mu.Unlock()
	return d.Stop(ctx, n.view(), others)
}

// view is an endpoint as its driver sees it.
func (e *endpoint) view() driver.Endpoint {
	return driver.Endpoint{ID: e.ID, ContainerID: e.containerID, IPv4: e.IPv4, IPv6: e.IPv6, MAC: []byte(parseMAC(e.MAC))}
}

// attach has the drivers say how interfaces are made, and names them. used are the names
// that the container has already. What was begun is in u.
func (d *drivers) attach(ctx context.Context, joins []*joining, used map[string]bool, u *undo.List) error {
	for _, j := range joins {
		if j.plug == nil {
			continue
		}
		if err := d.attachOne(ctx, j, u); err != nil {
			return err
		}
	}
	return numberInterfaces(joins, used)
}

func (d *drivers) attachOne(ctx context.Context, j *joining, u *undo.List) error {
	dr := d.get(j.n.net.Driver)
	if dr == nil {
		return noDriver(j.n.net.Driver)
	}
	chosenMAC := len(j.settings.MacAddress) > 0 || j.settings.DriverOpts[optEndpointMAC] != ""
	if j.n.elsewhere() {
		if err := d.addresses(ctx, j, u); err != nil {
			return err
		}
		if !chosenMAC && (j.e.IPv4.IsValid() || j.e.IPv6.IsValid()) && !d.ipam.KnowsMAC(ctx, j.n.net.IPAM.Driver) {
			mac := macOf(j.e)
			j.e.MAC, j.plug.MAC = mac.String(), []byte(mac)
		}
	}
	net, end := j.n.view(), j.e.view()
	end.Options, end.Ports, end.Exposed = j.settings.DriverOpts, j.view.Ports, j.view.Exposed
	end.MACChosen = chosenMAC
	j.view = end
	i, err := dr.Join(ctx, net, end)
	if err != nil {
		return err
	}
	// The request may have been given up by then: what was begun is ended all the same.
	u.Add(func() error { return dr.Leave(context.WithoutCancel(ctx), net, end) })
	e, p := j.e, j.plug
	if i.IPv4.IsValid() {
		e.IPv4 = i.IPv4
	}
	if i.IPv6.IsValid() {
		e.IPv6 = i.IPv6
	}
	if i.MAC != nil {
		e.MAC, p.MAC = i.MAC.String(), i.MAC
	}
	if i.SharedMAC {
		p.MAC = nil
	}
	e.GW4, e.GW6, e.Direct = i.Gateway4, i.Gateway6, i.Direct
	e.HostIf, e.SrcIf = i.Port.HostIf, i.Move
	p.HostIf, p.Bridge, p.Isolated, p.Filtered = i.Port.HostIf, i.Port.Bridge, i.Port.Isolated, i.Port.Filtered
	p.Child, p.Move, p.Announce = i.Child, i.Move, i.Announce
	for _, r := range i.Routes {
		p.Routes = append(p.Routes, plumb.Route{To: r.To, Via: r.Via})
	}
	j.prefix = i.Prefix
	p.Addrs = j.addrs()
	return nil
}

// addrs are what the interface gets.
func (j *joining) addrs() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{j.e.IPv4, j.e.IPv6} {
		if p.IsValid() {
			out = append(out, p)
		}
	}
	if c := j.settings.IPAMConfig; c != nil {
		for _, ll := range c.LinkLocalIPs {
			out = append(out, netip.PrefixFrom(ll, map[bool]int{true: 16, false: 64}[ll.Is4()]))
		}
	}
	return out
}

// programs are those of some endpoints, nil among them, whose drivers publish ports
// themselves, each once. Their records say so.
func (d *drivers) programs(ways ...*joining) (out []*joining) {
	for _, j := range ways {
		if j == nil || slices.Contains(out, j) {
			continue
		}
		if _, ok := d.get(j.n.net.Driver).(driver.Publisher); ok {
			j.e.Programmed = true
			out = append(out, j)
		}
	}
	return out
}

// program has drivers publish the ports of endpoints that are ways out; shown gets what they
// did. What was begun is in u.
func (d *drivers) program(ctx context.Context, joins []*joining, shown network.PortMap, u *undo.List) error {
	for _, j := range joins {
		p, ok := d.get(j.n.net.Driver).(driver.Publisher)
		if !ok {
			continue
		}
		n := j.n.view()
		u.Add(func() error { return p.Unpublish(context.WithoutCancel(ctx), n, j.view) })
		got, err := p.Publish(ctx, n, j.view)
		if err != nil {
			return err
		}
		for _, b := range got {
			if port, ok := network.PortFrom(b.Port, network.IPProtocol(b.Proto)); ok && shown != nil {
				shown[port] = append(shown[port], network.PortBinding{HostIP: b.HostIP, HostPort: strconv.Itoa(int(b.HostPort))})
			}
		}
	}
	return nil
}

// unprogram ends what program began; that it cannot is logged.
func (d *drivers) unprogram(ctx context.Context, n *netw, e *endpoint) {
	p, ok := d.get(n.net.Driver).(driver.Publisher)
	if !ok || !e.Programmed {
		return
	}
	e.Programmed = false
	if err := p.Unpublish(ctx, n.view(), e.view()); err != nil {
		d.log.Error("a network's driver taking back published ports", "network", n.net.Name, "endpoint", e.ID, "error", err)
	}
}

// detach has a driver give an endpoint up; that it cannot is logged.
func (d *drivers) detach(ctx context.Context, n *netw, e *endpoint) {
	defer d.giveBack(ctx, n, e)
	d.unprogram(ctx, n, e)
	dr := d.get(n.net.Driver)
	if dr == nil {
		return
	}
	if err := dr.Leave(ctx, n.view(), e.view()); err != nil {
		d.log.Error("a network's driver giving up an endpoint", "network", n.net.Name, "endpoint", e.ID, "error", err)
	}
}

// gateway is what an endpoint routes through: the driver's word, else the network's.
// Invalid: nothing.
func (n *netw) gateway(e *endpoint, v6 bool) netip.Addr {
	own, addr := e.GW4, e.IPv4.Addr()
	if v6 {
		own, addr = e.GW6, e.IPv6.Addr()
	}
	if own.IsValid() {
		return own
	}
	// A network may have several subnets of one family, each with its gateway.
	for _, sp := range n.spaces {
		if sp.Subnet().Contains(addr) {
			return sp.gateway
		}
	}
	return own
}

// hasInterfaces tells whether containers get an interface on the network.
func (n *netw) hasInterfaces() bool { return n.net.Driver != "host" && n.net.Driver != "null" }

// wayOut tells whether an endpoint on this network gives a default route; a network
// that is gone gives none.
func (d *drivers) wayOut(n *netw, e *endpoint, v6 bool) bool {
	if n == nil {
		return false
	}
	addr := e.IPv4
	if v6 {
		addr = e.IPv6
	}
	dr := d.get(n.net.Driver)
	return dr != nil && addr.IsValid() && (e.Direct || n.gateway(e, v6).IsValid()) && dr.Out(n.view(), v6)
}

// gateways are the endpoints that give the default routes: of the networks that have
// a way out, in order of priority.
func (d *drivers) gateways(joins []*joining) (gw4, gw6 *joining) {
	for _, j := range joins {
		if gw4 == nil && d.wayOut(j.n, j.e, false) {
			gw4 = j
		}
		if gw6 == nil && d.wayOut(j.n, j.e, true) {
			gw6 = j
		}
	}
	return gw4, gw6
}
