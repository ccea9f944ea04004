package endpoint

import (
	"cmp"
	"context"
	"maps"
	"slices"

	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/gantry/gantry/engine/network/store"
	"github.com/gantry/gantry/engine/network/validate"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// The options of endpoints, in Docker's words.
const (
	optMAC     = validate.OptMAC
	optIfName  = "com.docker.network.endpoint.ifname"
	optSysctls = validate.OptSysctls
)

// joining is one endpoint while it is being made.
type joining struct {
	*endpoint
	settings *network.EndpointSettings
	iface    *netns.Interface // nil where the network gives none
	view     driver.Endpoint  // what its driver was told
	prefix   string           // of the interface's name; "" is eth
}

// Acquire makes the network side of a container: namespace, endpoints, ports. When it
// fails nothing is left. The caller owns Sandbox.NetNS; it is nil when the container
// has no network but loopback (the runtime then makes the namespace) or uses the
// host's. Safe to call for many containers at once. Errors: NotFound for an unknown
// network, Conflict when the container has a sandbox, Invalid, Forbidden when
// addresses ran out, Internal for taken ports, as Docker answers.
func (s *Service) Acquire(ctx context.Context, r sandbox.Request) (_ *sandbox.Sandbox, err error) {
	if s.cfg.NoDefault {
		// Without a default network who wants it has none, as with Docker.
		r.Endpoints = maps.Clone(r.Endpoints)
		delete(r.Endpoints, store.NameBridge)
	}
	c, err := s.open(r)
	if err != nil {
		return nil, err
	}
	var u undo.List
	u.Add(func() error { s.forget(c); return nil })
	defer func() {
		defer c.busy.Unlock()
		if uerr := u.Run(); uerr != nil {
			s.log.Error("undoing a failed start of a sandbox", "container", r.ContainerID, "error", uerr)
		}
	}()
	joins, err := s.join(r)
	if err != nil {
		return nil, err
	}
	u.Add(func() error { leave(r.ContainerID, joins); return nil })
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.attach(ctx, joins, nil, &u); err != nil {
		return nil, err
	}
	ends := endpointsOf(joins)
	gws := elect(ends)
	for _, j := range joins {
		j.routeIfElected(gws)
	}
	at := gws.published()
	if err := s.ports.Publish(at, r); err != nil {
		return nil, err
	}
	u.Add(func() error { s.ports.Release(recordsOf(ends)...); return nil })
	if err := s.ports.OpenRouted(at, r, published(ends)...); err != nil {
		return nil, err
	}
	byDriver := programs(joins, gws)
	out, err := s.describe(r, joins)
	if err != nil {
		return nil, err
	}
	if err := s.makeNamespace(r, c, joins, out, &u); err != nil {
		return nil, err
	}
	if err := s.program(ctx, byDriver, out.Ports, &u); err != nil {
		return nil, err
	}
	if err := s.ports.Apply(r.ContainerID, published(ends)); err != nil {
		return nil, err
	}
	s.ports.Flush(true, at.Each())
	u.Keep()
	s.mu.Lock()
	c.ends = append(c.ends, ends...)
	c.links = linksOf(r, s.cfg.ICC)
	out.Record.LinkedTo, out.Record.Exposed = c.links.to, c.links.exposed
	s.mu.Unlock()
	for _, e := range ends {
		e.n.Announce(&e.Endpoint)
	}
	if err := s.relink(); err != nil {
		s.log.Error("opening the ports of linked containers", "container", r.ContainerID, "error", err)
	}
	s.refreshView(c)
	for _, e := range ends {
		e.n.Emit(s.bus, events.ActionConnect, map[string]string{"container": r.ContainerID})
	}
	return out, nil
}

func endpointsOf(joins []*joining) []*endpoint {
	out := make([]*endpoint, 0, len(joins))
	for _, j := range joins {
		out = append(out, j.endpoint)
	}
	return out
}

// makeNamespace makes the network namespace with what belongs into it; none where no network
// gives an interface.
func (s *Service) makeNamespace(r sandbox.Request, c *container, joins []*joining, out *sandbox.Sandbox, u *undo.List) (err error) {
	var ifs []netns.Interface
	for _, j := range joins {
		if j.iface != nil {
			ifs = append(ifs, *j.iface)
		}
	}
	if len(ifs) == 0 {
		return nil
	}
	var socks dns.Sockets
	listen := func() (err error) {
		if named(joins) {
			socks, err = dns.Listen(true)
		}
		return err
	}
	out.NetNS, err = netns.New(s.host.NS(), s.host.Conn(), ifs, listen)
	defer func() { socks.Close() }()
	if err != nil {
		return err
	}
	u.Add(out.NetNS.Close)
	if !named(joins) {
		return nil
	}
	out.Record.DNS = s.dnsRecord(r)
	if err := s.resolve(c, socks, out.Record.DNS); err != nil {
		return err
	}
	u.Add(func() error { s.stopResolving(c); return nil })
	return nil
}

// join takes addresses on every network of the request. Nothing is taken when it fails.
func (s *Service) join(r sandbox.Request) (joins []*joining, err error) {
	defer func() {
		if err != nil {
			leave(r.ContainerID, joins)
			joins = nil
		}
	}()
	for ref, es := range r.Endpoints {
		n, err := s.nets.Find(ref)
		if err != nil && es != nil && es.NetworkID != "" {
			n, err = s.nets.Find(es.NetworkID)
		}
		if err == nil && slices.ContainsFunc(joins, func(j *joining) bool { return j.n == n }) {
			err = errclass.Invalid("network %s is named twice", ref)
		}
		if err != nil {
			return joins, err
		}
		j, err := joinOne(r, n, es)
		if err != nil {
			return joins, err
		}
		joins = append(joins, j)
	}
	// Interfaces are numbered by gateway priority, then name, as Docker does.
	slices.SortFunc(joins, func(a, b *joining) int {
		return cmp.Or(-cmp.Compare(a.settings.GwPriority, b.settings.GwPriority), cmp.Compare(a.n.Name, b.n.Name))
	})
	return joins, nil
}

// joinOne takes the addresses of one endpoint.
func joinOne(r sandbox.Request, n *store.Network, es *network.EndpointSettings) (*joining, error) {
	if es == nil {
		es = &network.EndpointSettings{}
	}
	es = es.Copy()
	if err := n.Open(); err != nil {
		return nil, err
	}
	if err := validate.CheckEndpoint(n.Subnets(), n.Name, es); err != nil {
		return nil, err
	}
	e := &endpoint{n: n, containerID: r.ContainerID, Endpoint: sandbox.Endpoint{ID: id.New(), NetworkID: n.ID, Name: r.Name, Aliases: es.Aliases, Priority: es.GwPriority}}
	if n.Zone != nil {
		e.DNSNames = dns.Names(r.Name, es.Aliases, id.Short(r.ContainerID), r.Hostname)
		var err error
		if e.Links, err = validate.Links(es.Links); err != nil {
			return nil, err
		}
	}
	var want network.EndpointIPAMConfig
	if es.IPAMConfig != nil {
		want = *es.IPAMConfig
	}
	if err := n.Join(r.ContainerID, &e.Endpoint, want); err != nil {
		return nil, err
	}
	j := &joining{endpoint: e, settings: es, view: driver.Endpoint{Ports: r.Ports, Exposed: r.Exposed}}
	if !n.Facts.HasInterfaces {
		return j, nil
	}
	n.Edit(func() { e.MAC = chooseMAC(e, es).String() })
	j.iface = &netns.Interface{MAC: []byte(parseMAC(e.MAC)), IfName: es.DriverOpts[optIfName]}
	if name := j.iface.IfName; name != "" {
		if err := driver.CheckIfName(name); err != nil {
			n.Leave(r.ContainerID, &e.Endpoint)
			return nil, err
		}
	}
	return j, nil
}

// leave takes endpoints off their networks.
func leave(containerID string, joins []*joining) {
	for _, j := range joins {
		j.n.Leave(containerID, &j.Endpoint)
	}
}

// numberInterfaces names the interfaces inside: a requested name, else the network's
// prefix and the next free number. Names in has are used already.
func numberInterfaces(joins []*joining, has map[string]bool) error {
	var named []netns.Named
	for _, j := range joins {
		if j.iface != nil {
			named = append(named, netns.Named{Interface: j.iface, Prefix: j.prefix, Sysctls: j.settings.DriverOpts[optSysctls]})
		}
	}
	if err := netns.Name(named, has); err != nil {
		return err
	}
	for _, j := range joins {
		if j.iface != nil {
			j.IfName = j.iface.IfName
		}
	}
	return nil
}
