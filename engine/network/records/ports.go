package records

import (
	"net/netip"
	"slices"

	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/ports"
)

// Target is the endpoint's address for packets of a family, else the one it has.
func (e *Endpoint) Target(v6 bool) netip.Addr {
	if v6 && e.IPv6.IsValid() || !e.IPv4.IsValid() {
		return e.IPv6.Addr()
	}
	return e.IPv4.Addr()
}

// FirewallPorts are the endpoint's ports on a bridge as the firewall sees them, without those
// that the daemon forwards: proxy tells whether it does, v6 whether the firewall does IPv6.
func (e *Endpoint) FirewallPorts(bridge string, proxy, v6 bool) []firewall.Port {
	var out []firewall.Port
	for _, p := range e.Ports {
		to := e.IPv4.Addr()
		if p.HostIP.Is6() {
			to = e.IPv6.Addr()
		}
		gate := p.Count > 1 && p.HostPort != 0 && p.HostIP.Is6() && proxy
		if p.HostIP.Is6() && !v6 || !to.IsValid() && !gate {
			continue
		}
		out = append(out, firewall.Port{
			Bridge: bridge, Proto: p.Proto, HostIP: p.HostIP, HostPort: p.HostPort,
			IP: to, Port: p.ContainerPort, Count: p.Count, Gate: gate,
		})
	}
	return out
}

// Published is the record of what a wish got on a host address; nil: nothing. open tells
// whether ports that are open on the container's own address count.
func (e *Endpoint) Published(w ports.Wish, a netip.Addr, open bool) *Port {
	for i, p := range e.Ports {
		if (p.HostPort != 0 || open) && p.Proto == string(w.Port.Proto()) && p.ContainerPort == w.Port.Num() && p.Count == w.Count &&
			p.HostIP == a && (w.First == 0 || p.HostPort == 0 || w.First <= p.HostPort && p.HostPort <= w.Last) {
			return &e.Ports[i]
		}
	}
	return nil
}

// Open records ports that are open on the endpoint's own address, of on's family.
func (e *Endpoint) Open(wishes []ports.Wish, on netip.Addr) {
	for _, w := range wishes {
		e.Ports = append(e.Ports, Port{Proto: string(w.Port.Proto()), ContainerPort: w.Port.Num(), HostIP: on, Count: w.Count})
	}
}

// Forget takes bindings out of the record.
func (e *Endpoint) Forget(bs []ports.Binding) {
	e.Ports = slices.DeleteFunc(e.Ports, func(p Port) bool {
		return slices.ContainsFunc(bs, func(b ports.Binding) bool {
			return b.Proto == p.Proto && b.Addr == p.HostIP && b.Port == p.HostPort
		})
	})
}
