package network

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"

	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/flows"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/engine/network/proxy"
	"github.com/gantry/gantry/engine/network/records"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// publisher takes host ports for containers and gives them back.
type publisher struct {
	cfg   *Config
	table *ports.Table
	proxy *proxy.Set
	nl    *rtnl.Conn
	log   *slog.Logger
}

// way is how a container's published ports reach it in one family: the endpoint that
// has the default route.
type way struct {
	n *netw
	e *endpoint
}

// ways are a container's, by family; one without network is none.
type ways struct{ v4, v6 way }

// what is done for one host address of a wish.
type portAction int

const (
	portSkip  portAction = iota // there is no way
	portBind                    // take the host's port
	portOpen                    // open the container's own port: gateway mode routed
	portProxy                   // take the host's port and forward it in the daemon
)

// waysOf are the ways out of a container that joins networks; either may be nil.
func waysOf(gw4, gw6 *joining) (ws ways) {
	for _, f := range []struct {
		j *joining
		w *way
	}{{gw4, &ws.v4}, {gw6, &ws.v6}} {
		if f.j != nil && f.j.n.net.Driver == "bridge" {
			*f.w = way{f.j.n, f.j.e}
		}
	}
	return ws
}

// action decides, for a host address, how a port is published and on which endpoint.
func (pb *publisher) action(a netip.Addr, ws ways) (portAction, way) {
	// An IPv6 address of the host without IPv6 behind it: the daemon forwards to IPv4.
	if a.Is6() && ws.v6.n == nil {
		if ws.v4.n == nil || !ws.v4.n.bridge.Mode4.Translates() || !pb.cfg.UserlandProxy {
			return portSkip, way{}
		}
		return portProxy, ws.v4
	}
	w := ws.v4
	if a.Is6() {
		w = ws.v6
	}
	if w.n == nil {
		return portSkip, way{}
	}
	mode := w.n.bridge.Mode4
	if a.Is6() {
		mode = w.n.bridge.Mode6
	}
	switch {
	case mode == firewall.ModeRouted:
		return portOpen, w
	case !mode.Translates():
		return portSkip, way{}
	}
	return portBind, w
}

// publish takes the host ports of a container. On failure nothing is taken.
func (pb *publisher) publish(ws ways, r SandboxRequest) (bs []ports.Binding, err error) {
	wishes, err := pb.wishes(ws, r)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			pb.unbind(bs)
			bs, err = nil, endpointError(ws, r, err)
		}
	}()
	for _, w := range wishes {
		got, err := pb.publishOne(ws, r.Name, w)
		bs = append(bs, got...)
		if err != nil {
			return bs, err
		}
	}
	return bs, nil
}

// openRouted opens a container's published ports on its other endpoints whose networks
// route to it: there the container's own address is the published one, whichever way it
// takes out.
func (pb *publisher) openRouted(ws ways, r SandboxRequest, ends ...way) error {
	for _, w := range ends {
		if w.n == nil || w.n.net.Driver != "bridge" || w.n.net.Internal {
			continue
		}
		for _, f := range []struct {
			on  netip.Addr
			has netip.Prefix
			m   firewall.GatewayMode
			way *endpoint
		}{{netip.IPv4Unspecified(), w.e.IPv4, w.n.bridge.Mode4, ws.v4.e}, {netip.IPv6Unspecified(), w.e.IPv6, w.n.bridge.Mode6, ws.v6.e}} {
			if f.m != firewall.ModeRouted || !f.has.IsValid() || f.way == w.e {
				continue
			}
			wishes, err := ports.Wishes(r.Ports, r.Exposed, r.PublishAll, netip.Addr{}, false, true)
			if err != nil {
				return err
			}
			w.e.Open(wishes, f.on)
		}
	}
	return nil
}

// wishes are what a container wants published; none without a way.
func (pb *publisher) wishes(ws ways, r SandboxRequest) ([]ports.Wish, error) {
	first := ws.first()
	if first.n == nil {
		return nil, nil
	}
	bind := pb.cfg.DefaultBindIP
	if first.n.bridge.BindIP.IsValid() {
		bind = first.n.bridge.BindIP
	}
	v6 := ports.HostHasIPv6()
	// What the daemon forwards for many ports in a row comes to one socket by a rule.
	inRows := !pb.cfg.UserlandProxy || pb.cfg.Firewall && (pb.cfg.Firewall6 || !v6)
	return ports.Wishes(r.Ports, r.Exposed, r.PublishAll, bind, v6, inRows)
}

// endpointError words that a container's ports could not be published, as Docker does.
func endpointError(ws ways, r SandboxRequest, err error) error {
	return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", r.Name, ws.first().e.ID, err)
}

// publishOne takes one wish's host ports; what it returns is taken also when it fails.
func (pb *publisher) publishOne(ws ways, owner string, w ports.Wish) ([]ports.Binding, error) {
	var addrs []netip.Addr
	var to netip.Addr
	on := map[netip.Addr]way{}
	for _, a := range w.Addrs {
		do, way := pb.action(a, ws)
		switch do {
		case portOpen:
			unspecified := netip.IPv4Unspecified()
			if a.Is6() {
				unspecified = netip.IPv6Unspecified()
			}
			way.e.Open([]ports.Wish{w}, unspecified)
		case portBind, portProxy:
			addrs = append(addrs, a)
			on[a] = way
			if !to.IsValid() {
				to = way.e.Target(a.Is6())
			}
		}
	}
	if len(addrs) == 0 {
		return nil, nil
	}
	got, err := pb.table.Take(owner, ports.Request{
		Proto: string(w.Port.Proto()), Addrs: addrs, First: w.First, Last: w.Last, Count: w.Count,
		Gate: pb.cfg.UserlandProxy, To: netip.AddrPortFrom(to, w.Port.Num()).String(),
	})
	for _, b := range got {
		e := on[b.Addr].e
		pr := PortRecord{Proto: b.Proto, HostIP: b.Addr, HostPort: b.Port, ContainerPort: w.Port.Num(), Count: b.Count}
		e.Ports = append(e.Ports, pr)
		if err := pb.hold(b, e, pr); err != nil {
			return got, err
		}
	}
	return got, err
}

// first is the way that names the container's endpoint in messages.
func (ws ways) first() way {
	if ws.v4.n != nil {
		return ws.v4
	}
	return ws.v6
}

// endpoints are the endpoints of the ways, each once.
func (ws ways) endpoints() []way {
	var out []way
	for _, w := range []way{ws.v4, ws.v6} {
		if w.n != nil && !slices.ContainsFunc(out, func(o way) bool { return o.e == w.e }) {
			out = append(out, w)
		}
	}
	return out
}

// hold keeps a binding's socket beyond our life, and forwards from it what the kernel
// cannot.
func (pb *publisher) hold(b ports.Binding, e *endpoint, pr PortRecord) error {
	if b.Socket == nil {
		return nil
	}
	if pb.cfg.Keeper != nil {
		if err := pb.cfg.Keeper.Store(b.Name(), b.Socket); err != nil {
			pb.log.Warn("keeping a published port's socket", "port", b.Name(), "error", err)
		}
	}
	if pb.cfg.UserlandProxy && (b.Addr.Is6() || !pb.cfg.Firewall) {
		return pb.proxy.Start(b.Name(), b.Proto, b.Socket, proxy.Target{
			To: netip.AddrPortFrom(e.Target(b.Addr.Is6()), pr.ContainerPort), First: b.Port, Count: b.Count,
		})
	}
	return nil
}

// netOf is an endpoint's network, nil when it is gone.
func (s *Service) netOf(e *endpoint) *netw {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nets[e.NetworkID]
}

// move gives an endpoint's ports to the endpoints that have the ways out now. Host ports
// that nobody can have any more are given back.
func (pb *publisher) move(sb *sandbox, from *endpoint, ws ways) {
	records := from.Ports
	from.Ports = nil
	for _, p := range records {
		if p.HostPort == 0 { // open on its own address, whoever is the way out
			from.Ports = append(from.Ports, p)
			continue
		}
		do, w := pb.action(p.HostIP, ws)
		i := slices.IndexFunc(sb.bindings, func(b ports.Binding) bool {
			return b.Proto == p.Proto && b.Addr == p.HostIP && b.Port == p.HostPort
		})
		if i < 0 {
			continue
		}
		b := sb.bindings[i]
		if do != portBind && do != portProxy {
			pb.unbind([]ports.Binding{b})
			sb.bindings = slices.Delete(sb.bindings, i, i+1)
			continue
		}
		w.e.Ports = append(w.e.Ports, p)
		pb.proxy.End(b.Name())
		if err := pb.hold(b, w.e, p); err != nil {
			pb.log.Error("moving a published port", "container", sb.id, "port", b.Name(), "error", err)
		}
	}
}

// adopt takes back the ports of an endpoint whose container runs.
func (pb *publisher) adopt(sb *sandbox, e *endpoint, take func(string) *os.File) {
	for _, p := range e.Ports {
		if p.HostPort == 0 {
			continue
		}
		b := ports.Binding{Proto: p.Proto, Addr: p.HostIP, Port: p.HostPort, Count: p.Count}
		b.Socket = take(b.Name())
		b, err := pb.table.Adopt(e.Name, b, pb.cfg.UserlandProxy)
		if err == nil {
			err = pb.hold(b, e, p)
		}
		if err != nil {
			pb.log.Error("taking a published port back", "container", sb.id, "port", b.Name(), "error", err)
			continue
		}
		sb.bindings = append(sb.bindings, b)
	}
}

// unbind gives host ports back.
func (pb *publisher) unbind(bs []ports.Binding) {
	for _, b := range bs {
		pb.proxy.End(b.Name())
		if pb.cfg.Keeper != nil && b.Socket != nil {
			if err := pb.cfg.Keeper.Drop(b.Name()); err != nil {
				pb.log.Warn("dropping a published port's socket", "port", b.Name(), "error", err)
			}
		}
	}
	pb.table.Release(bs)
}

// firewallPorts are the published ports of some endpoints as the firewall sees them.
func (pb *publisher) firewallPorts(on ...way) []firewall.Port {
	var out []firewall.Port
	for _, w := range on {
		if w.n != nil {
			out = append(out, w.e.FirewallPorts(w.n.bridge.Name, pb.cfg.UserlandProxy, pb.cfg.Firewall6)...)
		}
	}
	return out
}

// forgetFlows has UDP clients of ports that have just come (opened) or gone start anew.
func (pb *publisher) forgetFlows(opened bool, on ...way) {
	flows.Forget(pb.nl, pb.log, opened, pb.firewallPorts(on...))
}

// portMap is what inspect shows: bindings as taken, and exposed ports without one.
func portMap(r SandboxRequest, ends []*endpoint) network.PortMap {
	var taken []PortRecord
	for _, e := range ends {
		taken = append(taken, e.Ports...)
	}
	return records.Shown(r.Exposed, r.Ports, taken)
}
