package endpoint

import (
	"context"
	"net"
	"net/netip"

	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/network"
)

// askAddresses asks the network's IPAM plugin for an endpoint's addresses.
func (s *Service) askAddresses(ctx context.Context, j *joining, u *undo.List) error {
	var want [2]netip.Addr
	if c := j.settings.IPAMConfig; c != nil {
		want = [2]netip.Addr{c.IPv4Address, c.IPv6Address}
	}
	p := j.n.Pools()
	got, err := s.ipam.Addresses(ctx, p, want, []byte(parseMAC(j.MAC)))
	if err != nil {
		return err
	}
	u.Add(func() error { return s.ipam.GiveBack(context.WithoutCancel(ctx), p, got) })
	j.n.Edit(func() { j.IPv4, j.IPv6 = got[0], got[1] })
	return nil
}

// giveBack returns an endpoint's addresses to the network's IPAM plugin.
func (s *Service) giveBack(ctx context.Context, e *endpoint) {
	if !e.n.IPAMPlugin() {
		return
	}
	if err := s.ipam.GiveBack(ctx, e.n.Pools(), [2]netip.Prefix{e.IPv4, e.IPv6}); err != nil {
		s.log.Error("an IPAM plugin taking addresses back", "network", e.n.Name, "endpoint", e.ID, "error", err)
	}
}

// replayAddresses tells IPAM plugins without memory what networks and the running containers
// on them have. What fails is logged: the addresses are in use either way.
func (s *Service) replayAddresses(ctx context.Context) {
	for _, n := range s.nets.All() {
		if !n.IPAMPlugin() {
			continue
		}
		var used []ipam.Used
		for _, e := range n.Users() {
			used = append(used, ipam.Used{Addrs: [2]netip.Prefix{e.IPv4, e.IPv6}, MAC: []byte(parseMAC(e.MAC))})
		}
		if err := s.ipam.Replay(ctx, n.Pools(), used); err != nil {
			s.log.Error("telling an IPAM plugin what is in use", "network", n.Name, "error", err)
		}
	}
}

// chooseMAC is the hardware address of an endpoint: the user's, else one that goes with its
// addresses, else any.
func chooseMAC(e *endpoint, es *network.EndpointSettings) network.HardwareAddr {
	mac := es.MacAddress
	if opt := es.DriverOpts[optMAC]; len(mac) == 0 && opt != "" {
		mac = parseMAC(opt)
	}
	switch {
	case len(mac) > 0:
		return mac
	case e.IPv4.IsValid() || e.IPv6.IsValid():
		return macOf(e)
	}
	return network.HardwareAddr(netns.RandomMAC())
}

// macOf is the hardware address that goes with an endpoint's addresses.
func macOf(e *endpoint) network.HardwareAddr {
	from := e.IPv4.Addr()
	if !from.IsValid() {
		from = e.IPv6.Addr()
	}
	m := ipam.MAC(from)
	return m[:]
}

func parseMAC(s string) network.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		return nil
	}
	return network.HardwareAddr(m)
}
