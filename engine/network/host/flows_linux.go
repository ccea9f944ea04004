package host

import (
	"net/netip"
	"os"
	"strings"

	"github.com/gantry/gantry/engine/network/conntrack"
	"github.com/gantry/gantry/engine/network/ports"
)

// FlushUDP flushes conntrack entries so that UDP flows to published ports that have just come
// (opened) or gone are re-evaluated: until its entry ends, a flow's packets go where the
// rules said when it began. What fails is logged: the ports work for new flows either way.
//
// It asks the kernel once for each family: a list costs milliseconds, because the kernel
// walks its whole table for it.
func (h *Host) FlushUDP(opened bool, published []ports.Mapping) {
	var byFamily [2][]ports.Mapping
	for _, p := range published {
		if p.Proto == "udp" && p.HostPort != 0 {
			i := 0
			if p.HostIP.Is6() {
				i = 1
			}
			byFamily[i] = append(byFamily[i], p)
		}
	}
	for i, ports := range byFamily {
		if len(ports) == 0 || nothingTracked() {
			continue
		}
		only := ports[0].HostPort
		if len(ports) > 1 || ports[0].Row() {
			only = 0
		}
		local := map[netip.Addr]bool{}
		if opened {
			local = h.localAddrs()
		}
		_, err := conntrack.FlushUDP(i == 1, only, func(f conntrack.Flow) bool {
			for _, p := range ports {
				if stale(f, p, opened, local) {
					return true
				}
			}
			return false
		})
		if err != nil {
			h.log.Debug("flushing UDP flows", "error", err)
		}
	}
}

// stale tells whether a flow began under rules that a port's coming or going changed.
func stale(f conntrack.Flow, p ports.Mapping, opened bool, local map[netip.Addr]bool) bool {
	if i := int(f.Dst.Port()) - int(p.HostPort); i < 0 || i >= int(max(p.Count, 1)) {
		return false
	}
	if !p.HostIP.IsUnspecified() && f.Dst.Addr() != p.HostIP {
		return false
	}
	if opened {
		return !f.Translated && local[f.Dst.Addr()]
	}
	if !p.ContainerIP.IsValid() { // led to the daemon
		return f.Translated && f.From.Port() == p.HostPort
	}
	return f.Translated && f.From.Addr() == p.ContainerIP
}

// nothingTracked tells whether the namespace tracks nothing.
func nothingTracked() bool {
	n, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	return err != nil || strings.TrimSpace(string(n)) == "0"
}

// localAddrs are the host's own addresses.
func (h *Host) localAddrs() map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	addrs, err := h.nl.Addrs(0)
	if err != nil {
		h.log.Debug("listing addresses", "error", err)
	}
	for _, a := range addrs {
		out[a.Prefix.Addr()] = true
	}
	return out
}
