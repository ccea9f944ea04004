// Package flows makes the kernel decide anew about UDP conversations with published ports
// that have just come or gone: it keeps sending a flow's packets where the rules said when
// the flow began.
package flows

import (
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/gantry/gantry/engine/network/conntrack"
	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/internal/rtnl"
)

// Forget forgets the UDP flows to published ports that have just come (opened) or gone.
// What fails is logged: the ports work for new flows either way. nl and the calling thread
// are in the host's network namespace.
//
// It asks the kernel once for each family: a list costs milliseconds, because the kernel
// walks its whole table for it.
func Forget(nl *rtnl.Conn, log *slog.Logger, opened bool, ports []firewall.Port) {
	var byFamily [2][]firewall.Port
	for _, p := range ports {
		if p.Proto == "udp" && p.HostPort != 0 {
			i := 0
			if p.HostIP.Is6() {
				i = 1
			}
			byFamily[i] = append(byFamily[i], p)
		}
	}
	for i, ports := range byFamily {
		if len(ports) == 0 || noFlows() {
			continue
		}
		only := ports[0].HostPort
		if len(ports) > 1 || ports[0].Count > 1 {
			only = 0
		}
		local := map[netip.Addr]bool{}
		if opened {
			local = localAddrs(nl, log)
		}
		_, err := conntrack.Forget(i == 1, only, func(f conntrack.Flow) bool {
			return slices.ContainsFunc(ports, func(p firewall.Port) bool { return stale(f, p, opened, local) })
		})
		if err != nil {
			log.Debug("forgetting UDP flows", "error", err)
		}
	}
}

// stale tells whether a flow began under rules that a port's coming or going changed.
func stale(f conntrack.Flow, p firewall.Port, opened bool, local map[netip.Addr]bool) bool {
	if i := int(f.Dst.Port()) - int(p.HostPort); i < 0 || i >= int(max(p.Count, 1)) {
		return false
	}
	if !p.HostIP.IsUnspecified() && f.Dst.Addr() != p.HostIP {
		return false
	}
	if opened {
		return !f.Translated && local[f.Dst.Addr()]
	}
	if !p.IP.IsValid() { // led to the daemon
		return f.Translated && f.From.Port() == p.HostPort
	}
	return f.Translated && f.From.Addr() == p.IP
}

// noFlows tells whether the namespace tracks nothing.
func noFlows() bool {
	n, err := os.ReadFile("/proc/sys/net/netfilter/nf_conntrack_count")
	return err != nil || strings.TrimSpace(string(n)) == "0"
}

// localAddrs are the host's own addresses.
func localAddrs(nl *rtnl.Conn, log *slog.Logger) map[netip.Addr]bool {
	out := map[netip.Addr]bool{}
	addrs, err := nl.Addrs(0)
	if err != nil {
		log.Debug("listing addresses", "error", err)
	}
	for _, a := range addrs {
		out[a.Prefix.Addr()] = true
	}
	return out
}
