package network

import (
	"net/netip"

	"github.com/gantry/gantry/engine/network/conntrack"
)

// forgetFlows makes the kernel decide anew about UDP flows to published ports that have
// just come (opened) or gone: it keeps sending a flow's packets where the rules said when
// the flow began. What fails is logged: the ports work for new flows either way.
func (pb *publisher) forgetFlows(opened bool, on ...way) {
	var local map[netip.Addr]bool
	for _, w := range on {
		for _, p := range pb.endpointPorts(w.n, w.e) {
			if p.Proto != "udp" || p.HostPort == 0 {
				continue
			}
			if local == nil {
				local = pb.localAddrs()
			}
			only := p.HostPort
			if p.Count > 1 {
				only = 0
			}
			last := p.HostPort + max(p.Count, 1) - 1
			_, err := conntrack.Forget(p.IP.Is6(), only, func(f conntrack.Flow) bool {
				dst := f.Dst
				switch {
				case dst.Port() < p.HostPort || dst.Port() > last, !p.HostIP.IsUnspecified() && dst.Addr() != p.HostIP:
					return false
				case opened:
					return !f.Translated && local[dst.Addr()]
				}
				return f.Translated && f.From.Addr() == p.IP
			})
			if err != nil {
				pb.log.Debug("forgetting UDP flows", "port", p.HostPort, "error", err)
			}
		}
	}
}

// localAddrs are the host's own addresses.
func (pb *publisher) localAddrs() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	addrs, err := pb.nl.Addrs(0)
	if err != nil {
		pb.log.Debug("listing addresses", "error", err)
	}
	for _, a := range addrs {
		out[a.Prefix.Addr()] = true
	}
	return out
}
