package network

import (
	"context"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/forwarding"
	"github.com/gantry/gantry/engine/network/keep"
	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/engine/network/vlan"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/events"
)

// Release gives back what Acquire or Restore took for a container: addresses, ports
// and firewall elements at once, interfaces beside the request. Unknown containers are
// no error: it may be called again. What cannot be undone is logged, not returned:
// the container is gone either way.
func (s *Service) Release(ctx context.Context, containerID string) error {
	s.mu.Lock()
	sb := s.sandboxes[containerID]
	s.mu.Unlock()
	if sb == nil {
		return nil
	}
	sb.busy.Lock()
	defer sb.busy.Unlock()
	if sb.gone {
		return nil
	}
	if err := s.fw.Unpublish(containerID); err != nil {
		s.log.Error("removing published ports from the firewall", "container", containerID, "error", err)
	}
	var on []way
	for _, e := range sb.ends {
		on = append(on, way{s.netOf(e), e})
	}
	s.pub.forgetFlows(false, on...)
	s.pub.unbind(sb.bindings)
	sb.bindings = nil
	s.stopResolving(sb)
	s.mu.Lock()
	ends := sb.ends
	sb.ends, sb.gone = nil, true
	delete(s.sandboxes, containerID)
	var nets []*netw // nil where it is gone
	for _, e := range ends {
		n := s.nets[e.NetworkID]
		nets = append(nets, n)
		if n == nil {
			continue
		}
		n.unaddress(e)
		withdraw(n, e)
		if n.users[containerID] == e {
			delete(n.users, containerID)
		}
	}
	s.mu.Unlock()
	if err := relink(s); err != nil {
		s.log.Error("closing the ports of linked containers", "container", containerID, "error", err)
	}
	for i, e := range ends {
		if e.HostIf != "" {
			s.reaper.Later(e.HostIf)
		}
		if nets[i] != nil {
			s.drivers.detach(ctx, nets[i], e)
		}
	}
	for _, n := range nets {
		if n == nil {
			continue
		}
		emit(s.bus, events.ActionDisconnect, n, map[string]string{"container": containerID})
	}
	return nil
}

// Restore takes over the sandboxes of running containers after a start of the daemon,
// applies the firewall, switches forwarding on and removes interfaces that no record
// knows. Records of networks that are gone are skipped.
func (s *Service) Restore(ctx context.Context, records []Record) error {
	s.mu.Lock()
	if s.restored {
		s.mu.Unlock()
		return errors.New("networks are restored already")
	}
	s.mu.Unlock()
	known := map[string]bool{}
	take, dropRest := keep.Kept(s.cfg.Keeper, ports.NamePrefix, s.log)
	takeDNS, dropRestDNS := keep.Kept(s.cfg.Keeper, dnsPrefix, s.log)
	for _, r := range records {
		for _, e := range r.Endpoints {
			known[e.HostIf] = true
		}
		s.adopt(r, take)
	}
	for _, r := range records {
		s.adoptResolver(r, takeDNS)
	}
	dropRest()
	dropRestDNS()
	if err := relink(s); err != nil {
		return err
	}
	replayAddresses(ctx, s)
	if err := s.forwarding(); err != nil {
		return err
	}
	if err := s.watchBridges(); err != nil {
		return err
	}
	if err := s.fw.Apply(); err != nil {
		return err
	}
	if s.nft != nil {
		var err error
		if s.watch, err = s.nft.Watch(s.fw.Ruleset(), s.repair); err != nil {
			return err
		}
	}
	if s.nft == nil {
		if err := firewall.RemoveLeft(); err != nil {
			return err
		}
	}
	// Only now: the table keeps the wire away from 127.0.0.0/8.
	for _, n := range bridgesOf(s) {
		s.openLocalnet(n)
	}
	plumb.Sweep(s.nl, s.log, func(name string) bool { return known[name] || strings.HasPrefix(name, vlan.OwnPrefix) })
	s.mu.Lock()
	s.restored = true
	s.mu.Unlock()
	return nil
}

// watchBridges keeps the firewall told of the host's other bridges.
func (s *Service) watchBridges() (err error) {
	if s.nft == nil {
		return nil
	}
	s.others, err = rtnl.WatchBridges(s.nl, func(names map[int]string) {
		if err := s.fw.SetForeign(slices.Sorted(maps.Values(names))); err != nil {
			s.log.Error("telling the firewall of other bridges", "error", err)
		}
	})
	return err
}

// repair makes our table again after somebody changed, removed or flushed it. As long as
// that fails, nothing keeps the wire away from 127.0.0.0/8: then the bridges do not
// route there.
func (s *Service) repair() error {
	err := s.fw.Apply()
	if err != nil {
		s.log.Error("repairing the firewall", "error", err)
	} else {
		s.log.Warn("somebody changed our nftables table: made it again")
	}
	for _, n := range bridgesOf(s) {
		if err == nil {
			s.openLocalnet(n)
		} else if cerr := plumb.OptionalSysctl("net/ipv4/conf/"+n.bridge.Name+"/route_localnet", "0"); cerr != nil {
			s.log.Error("closing 127.0.0.0/8", "network", n.net.Name, "error", cerr)
		}
	}
	return err
}

// bridgesOf are the networks that have a bridge.
func bridgesOf(s *Service) []*netw {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*netw
	for _, n := range s.nets {
		if n.index != 0 && n.bridge.Name != "" {
			out = append(out, n)
		}
	}
	return out
}

// replayAddresses tells IPAM plugins what is in use.
func replayAddresses(ctx context.Context, s *Service) {
	users := map[*netw][]*endpoint{}
	s.locked(func() {
		for _, n := range s.nets {
			if n.elsewhere() {
				users[n] = slices.Collect(maps.Values(n.users))
			}
		}
	})
	for n, ends := range users {
		s.drivers.replay(ctx, n, ends)
	}
}

// adopt takes one running container's endpoints and ports back.
func (s *Service) adopt(r Record, take func(string) *os.File) {
	sb := &sandbox{id: r.ContainerID, links: linking{r.LinkedTo, r.Exposed}}
	s.mu.Lock()
	s.sandboxes[r.ContainerID] = sb
	for _, er := range r.Endpoints {
		n := s.nets[er.NetworkID]
		if n == nil {
			s.log.Warn("a running container's network is gone", "container", r.ContainerID, "network", er.NetworkID)
			continue
		}
		e := &endpoint{EndpointRecord: er, containerID: r.ContainerID}
		for _, sp := range n.spaces {
			for _, a := range []bool{e.IPv4.IsValid() && sp.Subnet().Contains(e.IPv4.Addr()), e.IPv6.IsValid() && sp.Subnet().Contains(e.IPv6.Addr())} {
				if !a {
					continue
				}
				addr := e.IPv4.Addr()
				if sp.Subnet().Addr().Is6() {
					addr = e.IPv6.Addr()
				}
				if err := sp.Take(addr); err != nil {
					s.log.Error("taking a running container's address back", "container", r.ContainerID, "address", addr, "error", err)
				}
			}
		}
		sb.name = er.Name
		sb.ends = append(sb.ends, e)
		n.users[r.ContainerID] = e
		s.announce(n, e)
	}
	ends := slices.Clone(sb.ends)
	s.mu.Unlock()
	var on []way
	for _, e := range ends {
		if len(e.Ports) > 0 {
			s.pub.adopt(sb, e, take)
			on = append(on, way{s.netOf(e), e})
		}
	}
	if err := s.fw.Publish(sb.id, s.pub.firewallPorts(on...)); err != nil {
		s.log.Error("publishing a running container's ports", "container", sb.id, "error", err)
	}
}

// openLocalnet lets connections from 127.0.0.1 reach a bridge's published ports: the kernel
// routes such sources onto a bridge only when told to. The firewall must be applied:
// without its guard 127.0.0.0/8 would be open to the wire.
func (s *Service) openLocalnet(n *netw) {
	on := "1"
	if s.nft == nil {
		on = "0" // an earlier daemon's table may have been its guard
	}
	if err := plumb.OptionalSysctl("net/ipv4/conf/"+n.bridge.Name+"/route_localnet", on); err != nil {
		s.log.Warn("published ports will not answer on 127.0.0.1", "network", n.net.Name, "error", err)
	}
}

// forwarding switches the kernel's forwarding on when it is off and may be switched.
func (s *Service) forwarding() error {
	sw := forwarding.Switch{Dir: s.store.Dir, Allowed: s.cfg.IPForward, NoDrop: s.cfg.ForwardNoDrop, Firewall: s.fw, Log: s.log}
	s.mu.Lock()
	for _, n := range s.nets {
		sw.IPv6 = sw.IPv6 || n.net.EnableIPv6
	}
	s.mu.Unlock()
	return sw.On()
}
