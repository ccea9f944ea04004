package endpoint

import (
	"os"
	"slices"
	"strings"

	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/gantry/gantry/engine/network/fdstore"
	"github.com/gantry/gantry/engine/network/sandbox"
)

// dnsPrefix starts the names of what the FD store holds for resolvers.
const dnsPrefix = "dns/"

func dnsKeys(containerID string) (udp, tcp string) {
	return dnsPrefix + containerID + "/udp", dnsPrefix + containerID + "/tcp"
}

// named tells whether one of the networks serves names.
func named(joins []*joining) bool {
	return slices.ContainsFunc(joins, func(j *joining) bool { return j.n.Zone != nil })
}

// dnsRecord is what the request says about the resolver.
func (s *Service) dnsRecord(r sandbox.Request) *sandbox.DNS {
	set := etcfiles.ResolvConf{}.Override(s.cfg.DNS, nil, s.cfg.DNSOptions).Override(r.DNS, nil, r.DNSOptions)
	return &sandbox.DNS{Servers: set.Servers, Ndots: slices.ContainsFunc(set.Options, func(o string) bool {
		n, ok := strings.CutPrefix(o, "ndots:")
		return ok && n != "0"
	})}
}

// view is what a container's resolver answers from. s.mu is held.
func (c *container) view() *dns.View {
	v := &dns.View{}
	if c.dns != nil {
		v.Servers, v.Ndots = c.dns.Servers, c.dns.Ndots
	}
	for _, e := range c.ends {
		// Nobody on networks without a way out gets data out by asking for names.
		v.Forward = v.Forward || e.n.ProvidesGateway(&e.Endpoint, false) || e.n.ProvidesGateway(&e.Endpoint, true)
		if e.n.Zone != nil {
			v.Networks = append(v.Networks, dns.NetworkView{Zone: e.n.Zone, Links: e.Links})
		}
	}
	return v
}

func (s *Service) refreshView(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.resolver != nil {
		c.resolver.SetView(c.view())
	}
}

// resolve starts a container's resolver on its sockets, which stay the caller's, and has
// them kept. The container is busy.
func (s *Service) resolve(c *container, socks dns.Sockets, rec *sandbox.DNS) error {
	if fds := s.cfg.FDStore; fds != nil {
		udp, tcp := dnsKeys(c.id)
		for name, f := range map[string]*os.File{udp: socks.UDP, tcp: socks.TCP} {
			if f == nil {
				continue
			}
			if err := fds.Store(name, f); err != nil {
				s.log.Warn("storing a resolver's socket", "container", c.id, "error", err)
			}
		}
	}
	return s.serveNames(c, socks, rec)
}

func (s *Service) serveNames(c *container, socks dns.Sockets, rec *sandbox.DNS) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.dns = rec
	r, err := dns.Serve(socks, c.view(), s.dns)
	if err != nil {
		c.dns = nil
		return err
	}
	c.resolver = r
	return nil
}

// resolveLate gives a running container a resolver.
func (s *Service) resolveLate(c *container, ns *os.File, rec *sandbox.DNS) error {
	var socks dns.Sockets
	err := s.host.NS().Inside(ns, func() (err error) {
		socks, err = dns.Listen(false)
		return err
	})
	defer socks.Close()
	if err != nil {
		return err
	}
	return s.resolve(c, socks, rec)
}

// stopResolving ends a container's resolver for good.
func (s *Service) stopResolving(c *container) {
	s.mu.Lock()
	r := c.resolver
	c.resolver, c.dns = nil, nil
	s.mu.Unlock()
	if r == nil {
		return
	}
	r.Close()
	if fds := s.cfg.FDStore; fds != nil {
		udp, tcp := dnsKeys(c.id)
		for _, name := range []string{udp, tcp} {
			if err := fds.Drop(name); err != nil {
				s.log.Warn("dropping a resolver's socket", "container", c.id, "error", err)
			}
		}
	}
}

// adoptResolver serves a running container again, on the sockets that were kept; when
// those are lost (daemon and shim both died) on new ones.
func (s *Service) adoptResolver(r sandbox.Record, sockets *fdstore.Restored) {
	if r.DNS == nil {
		return
	}
	s.mu.Lock()
	c := s.containers[r.ContainerID]
	s.mu.Unlock()
	udp, tcp := dnsKeys(r.ContainerID)
	socks := dns.Sockets{UDP: sockets.Take(udp), TCP: sockets.Take(tcp)}
	defer func() { socks.Close() }()
	var err error
	if socks.UDP != nil {
		err = s.serveNames(c, socks, r.DNS)
	} else if r.NetNS != nil {
		var ns *os.File
		if ns, err = r.NetNS(); err == nil {
			err = s.resolveLate(c, ns, r.DNS)
			ns.Close()
		}
	}
	if err != nil {
		s.log.Error("serving a running container's names again", "container", r.ContainerID, "error", err)
	}
}

// closeResolvers ends serving; the sockets stay kept.
func (s *Service) closeResolvers() {
	s.mu.Lock()
	var all []*dns.Resolver
	for _, c := range s.containers {
		if c.resolver != nil {
			all = append(all, c.resolver)
		}
	}
	s.mu.Unlock()
	for _, r := range all {
		r.Close()
	}
}
