package network

import (
	"cmp"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/engine/network/proxy"
	"github.com/gantry/gantry/engine/network/rtnl"
	"github.com/gantry/gantry/internal/errclass"
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

// portWish is one -p: a container port, the host addresses it is wanted on, and the
// numbers allowed there.
type portWish struct {
	port        network.Port
	addrs       []netip.Addr
	first, last uint16 // 0, 0: any
	count       uint16 // above 1: as many ports in a row, first is the first
}

// rowMin is how many ports in a row are taken as one: below it each has a socket, which
// shows other programs that it is taken and serves what the kernel cannot translate.
const rowMin = 64

// portWishes turns what was asked for into wishes, those with a fixed number first: an
// arbitrary choice must not take a number that somebody named. Errors are of class
// Invalid.
func portWishes(r SandboxRequest, bind netip.Addr, v6 bool) ([]portWish, error) {
	var out []portWish
	for port, bindings := range r.Ports {
		if len(bindings) == 0 {
			continue // exposed only
		}
		for _, b := range bindings {
			w := portWish{port: port}
			var err error
			if w.first, w.last, err = parseHostPort(b.HostPort); err != nil {
				return nil, err
			}
			w.addrs = hostAddrs(b.HostIP, bind, v6)
			out = append(out, w)
		}
	}
	if r.PublishAll {
		for port := range r.Exposed {
			if len(r.Ports[port]) == 0 {
				out = append(out, portWish{port: port, addrs: hostAddrs(netip.Addr{}, bind, v6)})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b portWish) int {
		return cmp.Or(cmp.Compare(a.freedom(), b.freedom()), cmp.Compare(a.port.Num(), b.port.Num()),
			cmp.Compare(a.port.Proto(), b.port.Proto()), cmp.Compare(a.first, b.first))
	})
	return rows(out), nil
}

// rows puts wishes together that ask for many ports in a row, the same on both sides or
// shifted; the others stay, in order.
func rows(in []portWish) []portWish {
	if len(in) < rowMin {
		return in
	}
	type line struct {
		proto network.IPProtocol
		addrs string
		shift int
	}
	lines := map[line][]int{} // indexes of in, ascending by port
	for i, w := range in {
		if w.first != 0 && w.first == w.last {
			k := line{w.port.Proto(), fmt.Sprint(w.addrs), int(w.first) - int(w.port.Num())}
			lines[k] = append(lines[k], i)
		}
	}
	merged := map[int]uint16{} // index of a row's first wish: its length; 0: part of a row
	for _, at := range lines {
		for i := 0; i < len(at); {
			n := 1
			for i+n < len(at) && in[at[i+n]].first == in[at[i]].first+uint16(n) {
				n++
			}
			for k := range n {
				if n >= rowMin {
					merged[at[i+k]] = 0
				}
			}
			if n >= rowMin {
				merged[at[i]] = uint16(n)
			}
			i += n
		}
	}
	var out []portWish
	for i, w := range in {
		n, ok := merged[i]
		if ok && n == 0 {
			continue
		}
		w.count = n
		out = append(out, w)
	}
	return out
}

// freedom orders fixed numbers before ranges before any.
func (w portWish) freedom() int {
	if w.first == 0 {
		return 1 << 17
	}
	return int(w.last - w.first)
}

func hostAddrs(want, bind netip.Addr, v6 bool) []netip.Addr {
	if !want.IsValid() && bind.IsValid() && !bind.IsUnspecified() {
		want = bind
	}
	switch {
	case want.IsValid():
		return []netip.Addr{want.Unmap()}
	case v6:
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	default:
		return []netip.Addr{netip.IPv4Unspecified()}
	}
}

// parseHostPort reads a host port: "", "8080" or "8000-8010".
func parseHostPort(s string) (first, last uint16, err error) {
	if s == "" || s == "0" {
		return 0, 0, nil
	}
	lo, hi, isRange := strings.Cut(s, "-")
	if !isRange {
		hi = lo
	}
	a, errA := strconv.ParseUint(lo, 10, 16)
	b, errB := strconv.ParseUint(hi, 10, 16)
	if errA != nil || errB != nil || a > b || a == 0 {
		return 0, 0, errclass.Invalid("invalid port specification: %q", s)
	}
	return uint16(a), uint16(b), nil
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
		if ws.v4.n == nil || !natMode(ws.v4.n.bridge.mode4) || !pb.cfg.UserlandProxy {
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
	mode := w.n.bridge.mode4
	if a.Is6() {
		mode = w.n.bridge.mode6
	}
	switch {
	case mode == firewall.ModeRouted:
		return portOpen, w
	case !natMode(mode):
		return portSkip, way{}
	}
	return portBind, w
}

// publish takes the host ports of a container. On failure nothing is taken.
func (pb *publisher) publish(ws ways, r SandboxRequest) (bs []ports.Binding, err error) {
	first := ws.first()
	if first.n == nil {
		return nil, nil
	}
	bind := pb.cfg.DefaultBindIP
	if first.n.bridge.bindIP.IsValid() {
		bind = first.n.bridge.bindIP
	}
	wishes, err := portWishes(r, bind, hostHasIPv6())
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			pb.unbind(bs)
			bs = nil
			err = fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", r.Name, first.e.ID, err)
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

// publishOne takes one wish's host ports; what it returns is taken also when it fails.
func (pb *publisher) publishOne(ws ways, owner string, w portWish) ([]ports.Binding, error) {
	var addrs []netip.Addr
	var to netip.Addr
	on := map[netip.Addr]way{}
	for _, a := range w.addrs {
		do, way := pb.action(a, ws)
		switch do {
		case portOpen:
			unspecified := netip.IPv4Unspecified()
			if a.Is6() {
				unspecified = netip.IPv6Unspecified()
			}
			way.e.Ports = append(way.e.Ports, PortRecord{Proto: string(w.port.Proto()), ContainerPort: w.port.Num(), HostIP: unspecified, Count: w.count})
		case portBind, portProxy:
			if do == portProxy && w.count > 1 {
				continue // without sockets nobody forwards
			}
			addrs = append(addrs, a)
			on[a] = way
			if !to.IsValid() {
				to = way.e.target(a.Is6())
			}
		}
	}
	if len(addrs) == 0 {
		return nil, nil
	}
	got, err := pb.table.Take(owner, ports.Request{Proto: string(w.port.Proto()), Addrs: addrs, First: w.first, Last: w.last, Count: w.count,
		To: netip.AddrPortFrom(to, w.port.Num()).String()})
	for _, b := range got {
		e := on[b.Addr].e
		pr := PortRecord{Proto: b.Proto, HostIP: b.Addr, HostPort: b.Port, ContainerPort: w.port.Num(), Count: b.Count}
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

// target is the endpoint's address for packets of a family, else the one it has.
func (e *endpoint) target(v6 bool) netip.Addr {
	if v6 && e.IPv6.IsValid() || !e.IPv4.IsValid() {
		return e.IPv6.Addr()
	}
	return e.IPv4.Addr()
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
	if pb.cfg.UserlandProxy && b.Addr.Is6() {
		return pb.proxy.Start(b.Name(), b.Proto, b.Socket, netip.AddrPortFrom(e.target(true), pr.ContainerPort))
	}
	return nil
}

// netOf is an endpoint's network, nil when it is gone.
func (s *Service) netOf(e *endpoint) *netw {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nets[e.NetworkID]
}

// moveBindings forwards a container's ports to another endpoint of it, which has their
// records.
func (pb *publisher) moveBindings(sb *sandbox, to *endpoint) {
	for _, b := range sb.bindings {
		pb.proxy.End(b.Name())
		for _, p := range to.Ports {
			if p.Proto == b.Proto && p.HostIP == b.Addr && p.HostPort == b.Port {
				if err := pb.hold(b, to, p); err != nil {
					pb.log.Error("moving a published port", "container", sb.id, "port", b.Name(), "error", err)
				}
			}
		}
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

// kept returns how to get at the sockets a keeper holds for us, and what to do
// when all containers have theirs: sockets of a start that was never recorded go.
func (pb *publisher) kept(prefix string) (take func(name string) *os.File, dropRest func()) {
	k := pb.cfg.Keeper
	if k == nil {
		return func(string) *os.File { return nil }, func() {}
	}
	l, ok := k.(KeeperLister)
	if !ok {
		return func(name string) *os.File {
			f, err := k.Take(name)
			if err != nil {
				pb.log.Warn("taking a published port's socket back", "port", name, "error", err)
			}
			return f
		}, func() {}
	}
	all, err := l.TakeAll(prefix)
	if err != nil {
		pb.log.Warn("taking published ports' sockets back", "error", err)
	}
	return func(name string) *os.File {
			f := all[name]
			delete(all, name)
			return f
		}, func() {
			for name, f := range all {
				f.Close()
				if err := k.Drop(name); err != nil {
					pb.log.Warn("dropping a socket that no container has", "port", name, "error", err)
				}
			}
		}
}

// firewallPorts are the published ports of some endpoints as the firewall sees them.
func (pb *publisher) firewallPorts(on ...way) []firewall.Port {
	var out []firewall.Port
	for _, w := range on {
		out = append(out, pb.endpointPorts(w.n, w.e)...)
	}
	return out
}

func (pb *publisher) endpointPorts(n *netw, e *endpoint) []firewall.Port {
	if n == nil {
		return nil
	}
	var out []firewall.Port
	for _, p := range e.Ports {
		to := e.IPv4.Addr()
		if p.HostIP.Is6() {
			to = e.IPv6.Addr()
		}
		if !to.IsValid() || to.Is6() && !pb.cfg.Firewall6 {
			continue // forwarded in the daemon
		}
		out = append(out, firewall.Port{Bridge: n.bridge.name, Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort,
			IP: to, Port: p.ContainerPort, Count: p.Count})
	}
	return out
}

func natMode(m firewall.GatewayMode) bool {
	return m == "" || m == firewall.ModeNAT || m == firewall.ModeNATUnprotected
}

// hostHasIPv6 tells whether sockets on [::] can be had.
func hostHasIPv6() bool {
	data, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && strings.TrimSpace(string(data)) == "0"
}

// portMap is what inspect shows: bindings as taken, and exposed ports without one.
func portMap(r SandboxRequest, ends []*endpoint) network.PortMap {
	out := network.PortMap{}
	for p := range r.Exposed {
		out[p] = nil
	}
	for p := range r.Ports {
		out[p] = nil
	}
	for _, e := range ends {
		for _, p := range e.Ports {
			for i := range max(p.Count, 1) {
				port, ok := network.PortFrom(p.ContainerPort+i, network.IPProtocol(p.Proto))
				if ok && p.HostPort != 0 {
					out[port] = append(out[port], network.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort + i))})
				}
			}
		}
	}
	return out
}
