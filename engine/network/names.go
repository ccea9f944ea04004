package network

import (
	"os"
	"slices"
	"strings"

	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/etcfiles"
)

// dnsPrefix starts the names of what the keeper holds for resolvers.
const dnsPrefix = "dns/"

func dnsKeys(containerID string) (udp, tcp string) {
	return dnsPrefix + containerID + "/udp", dnsPrefix + containerID + "/tcp"
}

// named tells whether one of the networks serves names.
func named(joins []*joining) bool {
	return slices.ContainsFunc(joins, func(j *joining) bool { return j.n.zone != nil })
}

// dnsRecord is what the request says about the resolver.
func dnsRecord(c *Config, r SandboxRequest) *DNSRecord {
	set := etcfiles.ResolvConf{}.Override(c.DNS, nil, c.DNSOptions).Override(r.DNS, nil, r.DNSOptions)
	return &DNSRecord{Servers: set.Servers, Ndots: slices.ContainsFunc(set.Options, func(o string) bool {
		n, ok := strings.CutPrefix(o, "ndots:")
		return ok && n != "0"
	})}
}

// announce makes an endpoint's names known on its network. s.mu is held.
func (s *Service) announce(n *netw, e *endpoint) {
	if n.zone != nil {
		n.zone.Set(e.ID, e.DNSNames, e.IPv4.Addr(), e.IPv6.Addr())
	}
}

func withdraw(n *netw, e *endpoint) {
	if n.zone != nil {
		n.zone.Remove(e.ID)
	}
}

// view is what a sandbox's resolver answers from. s.mu is held.
func (s *Service) view(sb *sandbox) *dns.View {
	v := &dns.View{}
	if sb.dns != nil {
		v.Servers, v.Ndots = sb.dns.Servers, sb.dns.Ndots
	}
	for _, e := range sb.ends {
		n := s.nets[e.NetworkID]
		if n == nil {
			continue
		}
		// Nobody on networks without a way out gets data out by asking for names.
		v.Forward = v.Forward || s.drivers.wayOut(n, e, false) || s.drivers.wayOut(n, e, true)
		if n.zone != nil {
			v.Networks = append(v.Networks, dns.NetworkView{Zone: n.zone, Links: e.Links})
		}
	}
	return v
}

func (s *Service) refreshView(sb *sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sb.resolver != nil {
		sb.resolver.SetView(s.view(sb))
	}
}

// resolve starts a sandbox's resolver on its sockets, which stay the caller's, and has
// them kept. The sandbox is busy.
func (s *Service) resolve(sb *sandbox, socks dns.Sockets, rec *DNSRecord) error {
	if k := s.cfg.Keeper; k != nil {
		udp, tcp := dnsKeys(sb.id)
		for name, f := range map[string]*os.File{udp: socks.UDP, tcp: socks.TCP} {
			if f == nil {
				continue
			}
			if err := k.Store(name, f); err != nil {
				s.log.Warn("keeping a resolver's socket", "container", sb.id, "error", err)
			}
		}
	}
	return s.serveNames(sb, socks, rec)
}

func (s *Service) serveNames(sb *sandbox, socks dns.Sockets, rec *DNSRecord) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb.dns = rec
	r, err := dns.Serve(socks, s.view(sb), s.dns)
	if err != nil {
		sb.dns = nil
		return err
	}
	sb.resolver = r
	return nil
}

// resolveLate gives a running container a resolver.
func (s *Service) resolveLate(sb *sandbox, ns *os.File, rec *DNSRecord) error {
	var socks dns.Sockets
	err := s.host.Inside(ns, func() (err error) {
		socks, err = dns.Listen(false)
		return err
	})
	defer socks.Close()
	if err != nil {
		return err
	}
	return s.resolve(sb, socks, rec)
}

// stopResolving ends a sandbox's resolver for good.
func (s *Service) stopResolving(sb *sandbox) {
	s.mu.Lock()
	r := sb.resolver
	sb.resolver, sb.dns = nil, nil
	s.mu.Unlock()
	if r == nil {
		return
	}
	r.Close()
	if k := s.cfg.Keeper; k != nil {
		udp, tcp := dnsKeys(sb.id)
		for _, name := range []string{udp, tcp} {
			if err := k.Drop(name); err != nil {
				s.log.Warn("dropping a resolver's socket", "container", sb.id, "error", err)
			}
		}
	}
}

// adoptResolver serves a running container again, on the sockets that were kept; when
// those are lost (daemon and shim both died) on new ones.
func (s *Service) adoptResolver(r Record, take func(string) *os.File) {
	if r.DNS == nil {
		return
	}
	s.mu.Lock()
	sb := s.sandboxes[r.ContainerID]
	s.mu.Unlock()
	udp, tcp := dnsKeys(r.ContainerID)
	socks := dns.Sockets{UDP: take(udp), TCP: take(tcp)}
	defer func() { socks.Close() }()
	var err error
	if socks.UDP != nil {
		err = s.serveNames(sb, socks, r.DNS)
	} else if r.NetNS != nil {
		var ns *os.File
		if ns, err = r.NetNS(); err == nil {
			err = s.resolveLate(sb, ns, r.DNS)
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
	for _, sb := range s.sandboxes {
		if sb.resolver != nil {
			all = append(all, sb.resolver)
		}
	}
	s.mu.Unlock()
	for _, r := range all {
		r.Close()
	}
}
