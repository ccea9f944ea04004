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
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/network"
)

// publisher takes host ports for containers and gives them back.
type publisher struct {
	cfg   *Config
	table *ports.Table
	proxy *proxy.Set
	log   *slog.Logger
}

// portWish is one -p: a container port, the host addresses it is wanted on, and the
// numbers allowed there.
type portWish struct {
	port        network.Port
	addrs       []netip.Addr
	first, last uint16 // 0, 0: any
}

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
	return out, nil
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

// publish takes the host ports of one endpoint. On failure nothing is taken.
func (pb *publisher) publish(n *netw, e *endpoint, r SandboxRequest) (bs []ports.Binding, err error) {
	bind := pb.cfg.DefaultBindIP
	if n.bridge.bindIP.IsValid() {
		bind = n.bridge.bindIP
	}
	v6 := hostHasIPv6() && (e.IPv6.IsValid() && natMode(n.bridge.mode6) || pb.cfg.UserlandProxy)
	wishes, err := portWishes(r, bind, v6)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			pb.unbind(bs)
			bs = nil
			err = fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", r.Name, e.ID, err)
		}
	}()
	for _, w := range wishes {
		if !natMode(n.bridge.mode4) {
			w.addrs = slices.DeleteFunc(w.addrs, netip.Addr.Is4)
		}
		if !natMode(n.bridge.mode4) || !e.IPv4.IsValid() && !e.IPv6.IsValid() {
			// Routed: the port is open on the container's own address, nothing is taken here.
			e.Ports = append(e.Ports, PortRecord{Proto: string(w.port.Proto()), ContainerPort: w.port.Num(), HostIP: netip.IPv4Unspecified()})
		}
		if len(w.addrs) == 0 {
			continue
		}
		got, err := pb.table.Take(r.Name, ports.Request{Proto: string(w.port.Proto()), Addrs: w.addrs, First: w.first, Last: w.last,
			To: netip.AddrPortFrom(e.IPv4.Addr(), w.port.Num()).String()})
		if err != nil {
			return bs, err
		}
		bs = append(bs, got...)
		for _, b := range got {
			pr := PortRecord{Proto: b.Proto, HostIP: b.Addr, HostPort: b.Port, ContainerPort: w.port.Num()}
			e.Ports = append(e.Ports, pr)
			if err := pb.hold(b, e, pr); err != nil {
				return bs, err
			}
		}
	}
	return bs, nil
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
		to := netip.AddrPortFrom(e.IPv4.Addr(), pr.ContainerPort)
		if !e.IPv4.IsValid() {
			to = netip.AddrPortFrom(e.IPv6.Addr(), pr.ContainerPort)
		}
		return pb.proxy.Start(b.Name(), b.Proto, b.Socket, to)
	}
	return nil
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

// firewallPorts are an endpoint's published ports as the firewall sees them.
func (pb *publisher) firewallPorts(n *netw, e *endpoint) []firewall.Port {
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
			IP: to, Port: p.ContainerPort})
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
			port, ok := network.PortFrom(p.ContainerPort, network.IPProtocol(p.Proto))
			if ok && p.HostPort != 0 {
				out[port] = append(out[port], network.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort))})
			}
		}
	}
	return out
}
