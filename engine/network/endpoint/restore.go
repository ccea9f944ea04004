package endpoint

import (
	"context"
	"errors"
	"slices"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/fdstore"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/engine/network/sandbox"
)

// Restore takes over the sandboxes of running containers after a start of the daemon,
// applies the firewall, switches forwarding on and removes interfaces that no record
// knows. Records of networks that are gone are skipped.
func (s *Service) Restore(ctx context.Context, records []sandbox.Record) error {
	s.mu.Lock()
	if s.restored {
		s.mu.Unlock()
		return errors.New("networks are restored already")
	}
	s.mu.Unlock()
	known := map[string]bool{}
	sockets := fdstore.Restore(s.cfg.FDStore, ports.NamePrefix, s.log)
	dnsSockets := fdstore.Restore(s.cfg.FDStore, dnsPrefix, s.log)
	for _, r := range records {
		for _, e := range r.Endpoints {
			known[e.HostIf] = true
		}
		s.adopt(r, sockets)
	}
	for _, r := range records {
		s.adoptResolver(r, dnsSockets)
	}
	sockets.DropRest()
	dnsSockets.DropRest()
	if err := s.relink(); err != nil {
		return err
	}
	s.replayAddresses(ctx)
	ipv6 := false
	for _, n := range s.nets.All() {
		ipv6 = ipv6 || n.EnableIPv6
		if d, ok := n.Driver.(driver.LinkOwner); ok {
			for _, name := range d.Links(n.View()) {
				known[name] = true
			}
		}
	}
	if err := s.host.EnableForwarding(ipv6); err != nil {
		return err
	}
	if err := s.host.ApplyFirewall(); err != nil {
		return err
	}
	s.host.Sweep(known)
	s.locked(func() { s.restored = true })
	return nil
}

// adopt takes one running container's endpoints and ports back.
func (s *Service) adopt(r sandbox.Record, sockets *fdstore.Restored) {
	c := &container{id: r.ContainerID, links: links{r.LinkedTo, r.Exposed}}
	for _, er := range r.Endpoints {
		n := s.nets.ByID(er.NetworkID)
		if n == nil {
			s.log.Warn("a running container's network is gone", "container", r.ContainerID, "network", er.NetworkID)
			continue
		}
		e := &endpoint{Endpoint: er, containerID: r.ContainerID, n: n}
		e.Ports = slices.Clone(e.Ports)
		for _, err := range n.Adopt(r.ContainerID, &e.Endpoint) {
			s.log.Error("taking a running container's address back", "container", r.ContainerID, "network", n.Name, "error", err)
		}
		n.Announce(&e.Endpoint)
		n.Driver.Adopt(n.View(), e.view())
		c.name = er.Name
		c.ends = append(c.ends, e)
		s.ports.Adopt(r.ContainerID, &e.Endpoint, sockets)
	}
	ends := c.ends
	s.locked(func() { s.containers[r.ContainerID] = c })
	if err := s.ports.Apply(c.id, published(ends)); err != nil {
		s.log.Error("publishing a running container's ports", "container", c.id, "error", err)
	}
}
