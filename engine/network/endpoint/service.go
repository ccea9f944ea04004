// Package endpoint connects containers to networks. It allocates addresses, asks the networks'
// drivers how to make interfaces, elects the endpoint that provides the default route, publishes
// ports and serves names. After a restart of the daemon it adopts the endpoints of running
// containers. Package network owns the networks themselves.
package endpoint

import (
	"log/slog"
	"net/netip"
	"sync"

	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/gantry/gantry/engine/network/fdstore"
	"github.com/gantry/gantry/engine/network/host"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/publish"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/gantry/gantry/engine/network/store"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/id"
)

// Config is what the daemon's settings say about containers on networks.
type Config struct {
	// NoDefault tells that there is no default network: who wants it has none.
	NoDefault bool
	// ICC lets containers of the default bridge talk to each other: links need not be opened.
	ICC bool
	// HostGatewayIPs are what "host-gateway" means in --add-host; empty: the addresses of the
	// host on the default bridge.
	HostGatewayIPs []netip.Addr
	// DNS, DNSSearch and DNSOptions are the daemon-wide settings of containers' resolvers.
	DNS        []netip.Addr
	DNSSearch  []string
	DNSOptions []string
	// ResolvConf is the host's resolver configuration; "" is /etc/resolv.conf (or
	// systemd-resolved's own when that names only its stub).
	ResolvConf string
	// Publish is about published ports.
	Publish publish.Config
	// FDStore may be nil.
	FDStore fdstore.Store
	// Log must be set.
	Log *slog.Logger
}

// Service owns the endpoints of all containers. Safe for concurrent use.
type Service struct {
	cfg   Config
	bus   *event.Bus
	log   *slog.Logger
	nets  *store.Store
	host  *host.Host
	ipam  ipam.Driver
	ports *publish.Publisher
	dns   *dns.Forwarder

	linking sync.Mutex // held while links are computed and applied

	mu         sync.Mutex
	restored   bool
	containers map[string]*container // by ID
}

// container is one container's side in memory. Service.mu guards the fields but busy.
type container struct {
	// busy is held while its endpoints are made, changed or taken down.
	busy     sync.Mutex
	id, name string
	gone     bool
	ends     []*endpoint // in order of gateway priority
	links    links
	// resolver serves it at 127.0.0.11 once it has been on a user-defined network.
	resolver *dns.Resolver
	dns      *sandbox.DNS
}

// endpoint is one container on one network.
type endpoint struct {
	sandbox.Endpoint
	containerID string
	n           *store.Network
}

// published is the endpoint as something that ports are published on.
func (e *endpoint) published() publish.Endpoint {
	return publish.Endpoint{Endpoint: &e.Endpoint, On: e.n.Publishing}
}

// view is the endpoint as its driver sees it.
func (e *endpoint) view() driver.Endpoint {
	return driver.Endpoint{ID: e.ID, ContainerID: e.containerID, IPv4: e.IPv4, IPv6: e.IPv6, MAC: []byte(parseMAC(e.MAC)), HostIf: e.HostIf}
}

// published are endpoints as something that ports are published on.
func published(ends []*endpoint) []publish.Endpoint {
	out := make([]publish.Endpoint, 0, len(ends))
	for _, e := range ends {
		out = append(out, e.published())
	}
	return out
}

// recordsOf are what is written down of endpoints.
func recordsOf(ends []*endpoint) []*sandbox.Endpoint {
	out := make([]*sandbox.Endpoint, 0, len(ends))
	for _, e := range ends {
		out = append(out, &e.Endpoint)
	}
	return out
}

// New makes a service over the networks of nets on the host h, which stay the caller's, in
// the calling thread's network namespace; ip manages the addresses of networks that name a
// plugin for it. Restore must be called once before Acquire, also when there is nothing to
// restore. Close it.
func New(cfg Config, nets *store.Store, h *host.Host, ip ipam.Driver, bus *event.Bus) *Service {
	s := &Service{
		cfg: cfg, bus: bus, log: cfg.Log, nets: nets, host: h, ipam: ip,
		ports: publish.New(cfg.Publish, h), dns: dns.NewForwarder(etcfiles.Servers(cfg.ResolvConf)),
		containers: map[string]*container{},
	}
	s.dns.Enter = h.NS().Inside
	return s
}

// Close ends forwarding and the serving of names; endpoints, ports and sockets stay as they
// are. It may be called more than once.
func (s *Service) Close() {
	s.ports.Close()
	s.closeResolvers()
}

// PublishedPorts is how many ports of the host are taken.
func (s *Service) PublishedPorts() int { return s.ports.Len() }

// locked runs do with mu held.
func (s *Service) locked(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

// open enters a container into the table, busy.
func (s *Service) open(r sandbox.Request) (*container, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.restored {
		return nil, errclass.Unavailable("networks are not restored yet")
	}
	if _, ok := s.containers[r.ContainerID]; ok {
		return nil, errclass.Conflict("container %s already has a network sandbox", id.Short(r.ContainerID))
	}
	c := &container{id: r.ContainerID, name: r.Name}
	c.busy.Lock()
	s.containers[r.ContainerID] = c
	return c, nil
}

// claim finds a container and makes it busy.
func (s *Service) claim(containerID string) (*container, error) {
	s.mu.Lock()
	c := s.containers[containerID]
	s.mu.Unlock()
	if c != nil {
		c.busy.Lock()
		if !c.gone {
			return c, nil
		}
		c.busy.Unlock()
	}
	return nil, errclass.NotFound("container %s has no network sandbox", id.Short(containerID))
}

// forget takes a container out of the table.
func (s *Service) forget(c *container) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c.gone = true
	if s.containers[c.id] == c {
		delete(s.containers, c.id)
	}
}

func (c *container) record() sandbox.Record {
	r := sandbox.Record{ContainerID: c.id, DNS: c.dns, LinkedTo: c.links.to, Exposed: c.links.exposed}
	for _, e := range c.ends {
		r.Endpoints = append(r.Endpoints, e.Endpoint)
	}
	return r
}
