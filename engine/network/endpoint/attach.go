package endpoint

import (
	"context"
	"net/netip"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/publish"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/network"
)

// attach has the drivers say how interfaces are made, and names them. used are the names
// that the container has already. What was begun is in u.
func (s *Service) attach(ctx context.Context, joins []*joining, used map[string]bool, u *undo.List) error {
	for _, j := range joins {
		if j.iface == nil {
			continue
		}
		if err := s.attachOne(ctx, j, u); err != nil {
			return err
		}
	}
	return numberInterfaces(joins, used)
}

func (s *Service) attachOne(ctx context.Context, j *joining, u *undo.List) error {
	chosenMAC := len(j.settings.MacAddress) > 0 || j.settings.DriverOpts[optMAC] != ""
	if j.n.IPAMPlugin() {
		if err := s.askAddresses(ctx, j, u); err != nil {
			return err
		}
		if !chosenMAC && (j.IPv4.IsValid() || j.IPv6.IsValid()) && !s.ipam.KnowsMAC(ctx, j.n.IPAM.Driver) {
			mac := macOf(j.endpoint)
			j.n.Edit(func() { j.MAC, j.iface.MAC = mac.String(), []byte(mac) })
		}
	}
	net, end := j.n.View(), driver.Endpoint{
		ID: j.ID, ContainerID: j.containerID, IPv4: j.IPv4, IPv6: j.IPv6, MAC: []byte(parseMAC(j.MAC)),
		Options: j.settings.DriverOpts, Ports: j.view.Ports, Exposed: j.view.Exposed, MACChosen: chosenMAC,
	}
	j.view = end
	i, err := j.n.Driver.Join(ctx, net, end)
	if err != nil {
		return err
	}
	// The request may have been given up by then: what was begun is ended all the same.
	u.Add(func() error { return j.n.Driver.Leave(context.WithoutCancel(ctx), net, end) })
	j.n.Edit(func() { j.take(i) })
	return nil
}

// take enters what the driver said of the interface.
func (j *joining) take(i driver.Interface) {
	e, p := j.endpoint, j.iface
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
	p.HostIf, p.MTU, p.Bridge, p.Isolated, p.Filtered = i.Port.HostIf, i.Port.MTU, i.Port.Bridge, i.Port.Isolated, i.Port.Filtered
	p.Child, p.Move, p.Announce = i.Child, i.Move, i.Announce
	for _, r := range i.Routes {
		p.Routes = append(p.Routes, netns.Route{To: r.To, Via: r.Via})
	}
	j.prefix = i.Prefix
	p.Addrs = j.addrs()
}

// addrs are what the interface gets.
func (j *joining) addrs() []netip.Prefix {
	var out []netip.Prefix
	for _, p := range []netip.Prefix{j.IPv4, j.IPv6} {
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

// programs are those of some endpoints that are gateways and whose drivers publish ports
// themselves. Their records say so.
func programs(joins []*joining, gws gateways) (out []*joining) {
	for _, j := range joins {
		if _, ok := j.n.Driver.(driver.Publisher); ok && gws.has(j.endpoint) {
			j.Programmed = true
			out = append(out, j)
		}
	}
	return out
}

// program has drivers publish the ports of endpoints that are gateways; shown, which may be
// nil, gets what they did. What was begun is in u.
func (s *Service) program(ctx context.Context, joins []*joining, shown network.PortMap, u *undo.List) error {
	for _, j := range joins {
		p, ok := j.n.Driver.(driver.Publisher)
		if !ok {
			continue
		}
		n := j.n.View()
		u.Add(func() error { return p.Unpublish(context.WithoutCancel(ctx), n, j.view) })
		got, err := p.Publish(ctx, n, j.view)
		if err != nil {
			return publish.EndpointError(&j.Endpoint, err)
		}
		for _, m := range got {
			m.Show(shown)
		}
	}
	return nil
}

// unprogram ends what program began; that it cannot is logged.
func (s *Service) unprogram(ctx context.Context, e *endpoint) {
	p, ok := e.n.Driver.(driver.Publisher)
	if !ok || !e.Programmed {
		return
	}
	e.Programmed = false
	if err := p.Unpublish(ctx, e.n.View(), e.view()); err != nil {
		s.log.Error("a network's driver taking back published ports", "network", e.n.Name, "endpoint", e.ID, "error", err)
	}
}

// detach has a driver give an endpoint up; that it cannot is logged.
func (s *Service) detach(ctx context.Context, e *endpoint) {
	defer s.giveBack(ctx, e)
	s.unprogram(ctx, e)
	if err := e.n.Driver.Leave(ctx, e.n.View(), e.view()); err != nil {
		s.log.Error("a network's driver giving up an endpoint", "network", e.n.Name, "endpoint", e.ID, "error", err)
	}
}
