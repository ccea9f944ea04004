// Package publish publishes containers' ports on the host: by the host's firewall, or by the
// userland proxy where the kernel cannot forward. A socket on each port shows other programs that
// the port is taken; it outlives the daemon.
package publish

import (
	"fmt"
	"log/slog"
	"net/netip"
	"slices"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/fdstore"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/engine/network/proxy"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/moby/moby/api/types/network"
)

// Config is what the daemon's settings say about published ports.
type Config struct {
	// UserlandProxy forwards in the daemon what the kernel cannot.
	UserlandProxy bool
	// Firewall tells that there is one, Firewall6 that it does IPv6.
	Firewall, Firewall6 bool
	// BindIP is the host address ports are published on when none is named; invalid is all.
	BindIP netip.Addr
	// FDStore may be nil.
	FDStore fdstore.Store
	// Log must be set.
	Log *slog.Logger
}

// Host is what publishing does to the machine (engine/network/host).
type Host interface {
	// Publish makes a container's published ports these; when it fails they are what they were.
	Publish(containerID string, now []ports.Mapping) error
	// Unpublish removes a container's; an unknown container is no error.
	Unpublish(containerID string) error
	// FlushUDP flushes conntrack entries so that UDP flows to ports that have just come
	// (opened) or gone are re-evaluated.
	FlushUDP(opened bool, published []ports.Mapping)
}

// Publisher publishes ports. Which ones a container has is in its endpoints' Ports. Safe for
// concurrent use, but calls about one container come one at a time.
type Publisher struct {
	cfg   Config
	host  Host
	table *ports.Table
	proxy *proxy.Set
	log   *slog.Logger
}

// New makes a publisher for the calling thread's network namespace. Close it.
func New(cfg Config, h Host) *Publisher {
	first, last := ports.Ephemeral()
	return &Publisher{cfg: cfg, host: h, table: ports.NewTable(ports.Bind, first, last), proxy: proxy.NewSet(cfg.Log), log: cfg.Log}
}

// Close ends forwarding and closes the sockets here; ports, sockets in the FD store and rules
// stay.
func (pb *Publisher) Close() {
	pb.proxy.Close()
	pb.table.Close()
}

// Len is how many host ports are taken.
func (pb *Publisher) Len() int { return pb.table.Len() }

// Endpoint is a container's endpoint as something that ports are published on. The zero
// Endpoint is none.
type Endpoint struct {
	*sandbox.Endpoint
	// On is how the host publishes on its network; nil: it does not.
	On *driver.Publishing
}

// Gateways are the endpoints that give a container's default routes, by family: published
// ports reach it there. One whose network the host does not publish on is none.
type Gateways struct{ V4, V6 Endpoint }

func (gws Gateways) of(v6 bool) Endpoint {
	if v6 {
		return gws.V6
	}
	return gws.V4
}

// First is the endpoint that names the container's endpoint in messages.
func (gws Gateways) First() Endpoint {
	if gws.V4.On != nil {
		return gws.V4
	}
	return gws.V6
}

// Each are the endpoints, each once.
func (gws Gateways) Each() []Endpoint {
	var out []Endpoint
	for _, w := range []Endpoint{gws.V4, gws.V6} {
		if w.On != nil && !slices.ContainsFunc(out, func(o Endpoint) bool { return o.Endpoint == w.Endpoint }) {
			out = append(out, w)
		}
	}
	return out
}

// action is what is done for one host address of a request.
type action int

const (
	skip    action = iota // there is no endpoint
	bind                  // take the host's port
	open                  // open the container's own port: gateway mode routed
	forward               // take the host's port and forward it in the daemon
)

// action decides, for a host address, how a port is published and on which endpoint.
func (pb *Publisher) action(a netip.Addr, gws Gateways) (action, Endpoint) {
	// An IPv6 address of the host without IPv6 behind it: the daemon forwards to IPv4.
	if a.Is6() && gws.V6.On == nil {
		if gws.V4.On == nil || !gws.V4.On.Mode4.Translates() || !pb.cfg.UserlandProxy {
			return skip, Endpoint{}
		}
		return forward, gws.V4
	}
	w := gws.of(a.Is6())
	if w.On == nil {
		return skip, Endpoint{}
	}
	mode := w.On.Mode(a.Is6())
	switch {
	case mode == driver.ModeRouted:
		return open, w
	case !mode.Translates():
		return skip, Endpoint{}
	}
	return bind, w
}

// Publish takes the host ports of a container. On failure nothing is taken. Errors: Invalid
// for invalid ports, Internal for taken ones, as with Docker.
func (pb *Publisher) Publish(gws Gateways, r sandbox.Request) error {
	_, err := pb.PublishMissing(gws, r, nil)
	return err
}

// PublishMissing takes the host ports that a container's endpoints do not have yet: of a
// family that had no gateway. A port taken already in the other family gets the same number.
// GiveBack undoes it. Errors are as Publish's.
func (pb *Publisher) PublishMissing(gws Gateways, r sandbox.Request, ends []*sandbox.Endpoint) (taken []ports.Mapping, err error) {
	wanted, err := pb.requests(gws, r)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			pb.GiveBack(taken, slices.Concat(ends, gws.endpoints()))
			taken, err = nil, EndpointError(gws.First().Endpoint, err)
		}
	}()
	for _, w := range wanted {
		var missing []netip.Addr
		for _, a := range w.HostIPs {
			if have := published(w, a, ends, gws); have == nil {
				missing = append(missing, a)
			} else if have.HostPort != 0 && w.Count < 2 {
				w.First, w.Last = have.HostPort, have.HostPort
			}
		}
		if w.HostIPs = missing; len(missing) == 0 {
			continue
		}
		got, err := pb.publishOne(gws, r.Name, w)
		taken = append(taken, got...)
		if err != nil {
			return taken, err
		}
	}
	return taken, nil
}

func (gws Gateways) endpoints() (out []*sandbox.Endpoint) {
	for _, w := range gws.Each() {
		out = append(out, w.Endpoint)
	}
	return out
}

// published is what a request got on a host address; nil: nothing. Ports that are open on a
// container's own address count on the gateway only.
func published(r ports.PortRequest, a netip.Addr, ends []*sandbox.Endpoint, gws Gateways) *ports.Mapping {
	out := gws.of(a.Is6()).Endpoint
	for _, e := range ends {
		for i, m := range e.Ports {
			if m.Answers(r, a, e == out) {
				return &e.Ports[i]
			}
		}
	}
	return nil
}

// OpenRouted opens a container's published ports on its other endpoints whose networks
// route to it: there the container's own address is the published one, whichever
// endpoint is the gateway. Errors are of class Invalid.
func (pb *Publisher) OpenRouted(gws Gateways, r sandbox.Request, ends ...Endpoint) error {
	for _, w := range ends {
		if w.On == nil || w.On.Internal {
			continue
		}
		for _, v6 := range []bool{false, true} {
			has := w.IPv4
			if v6 {
				has = w.IPv6
			}
			if w.On.Mode(v6) != driver.ModeRouted || !has.IsValid() || gws.of(v6).Endpoint == w.Endpoint {
				continue
			}
			wanted, err := ports.Requests(r.Ports, r.Exposed, r.PublishAll, netip.Addr{}, false, true)
			if err != nil {
				return err
			}
			openOn(w.Endpoint, v6, wanted...)
		}
	}
	return nil
}

// openOn records ports that are open on an endpoint's own address.
func openOn(e *sandbox.Endpoint, v6 bool, wanted ...ports.PortRequest) {
	unspecified := netip.IPv4Unspecified()
	if v6 {
		unspecified = netip.IPv6Unspecified()
	}
	for _, r := range wanted {
		e.Ports = append(e.Ports, ports.Mapping{Proto: r.Proto, ContainerPort: r.ContainerPort, HostIP: unspecified, Count: r.Count})
	}
}

// requests are what a container wants published; none without a gateway.
func (pb *Publisher) requests(gws Gateways, r sandbox.Request) ([]ports.PortRequest, error) {
	first := gws.First()
	if first.On == nil {
		return nil, nil
	}
	bind := pb.cfg.BindIP
	if first.On.BindIP.IsValid() {
		bind = first.On.BindIP
	}
	v6 := ports.HostHasIPv6()
	// What the daemon forwards for many ports in a row comes to one socket by a rule.
	inRows := !pb.cfg.UserlandProxy || pb.cfg.Firewall && (pb.cfg.Firewall6 || !v6)
	return ports.Requests(r.Ports, r.Exposed, r.PublishAll, bind, v6, inRows)
}

// EndpointError is Docker's message that a container's ports could not be published.
func EndpointError(e *sandbox.Endpoint, err error) error {
	return fmt.Errorf("driver failed programming external connectivity on endpoint %s (%s): %w", e.Name, e.ID, err)
}

// publishOne takes one request's host ports; what it returns is taken also when it fails.
func (pb *Publisher) publishOne(gws Gateways, container string, r ports.PortRequest) ([]ports.Mapping, error) {
	var addrs []netip.Addr
	on := map[netip.Addr]Endpoint{}
	for _, a := range r.HostIPs {
		switch do, at := pb.action(a, gws); do {
		case open:
			openOn(at.Endpoint, a.Is6(), r)
		case bind, forward:
			addrs = append(addrs, a)
			on[a] = at
			if !r.ContainerIP.IsValid() {
				r.ContainerIP = at.Target(a.Is6())
			}
		}
	}
	if len(addrs) == 0 {
		return nil, nil
	}
	r.HostIPs, r.Gate = addrs, pb.cfg.UserlandProxy
	got, err := pb.table.Take(container, r)
	for _, m := range got {
		e := on[m.HostIP].Endpoint
		m.Gate = false // follows from the settings of the day
		e.Ports = append(e.Ports, m)
		if err := pb.hold(m, e); err != nil {
			return got, err
		}
	}
	return got, err
}

// hold keeps a port's socket beyond our life, and forwards from it what the kernel cannot.
func (pb *Publisher) hold(m ports.Mapping, e *sandbox.Endpoint) error {
	socket := pb.table.Socket(m)
	if socket == nil {
		return nil
	}
	if pb.cfg.FDStore != nil {
		if err := pb.cfg.FDStore.Store(m.Name(), socket); err != nil {
			pb.log.Warn("storing a published port's socket", "port", m.Name(), "error", err)
		}
	}
	if pb.cfg.UserlandProxy && (m.HostIP.Is6() || !pb.cfg.Firewall) {
		m.ContainerIP = e.Target(m.HostIP.Is6())
		return pb.proxy.Start(m, socket)
	}
	return nil
}

// Move gives an endpoint's ports to the endpoints that are the gateways now. Host ports
// that nobody can have any more are given back.
func (pb *Publisher) Move(containerID string, from *sandbox.Endpoint, gws Gateways) {
	had := from.Ports
	from.Ports = nil
	for _, m := range had {
		if m.HostPort == 0 { // open on its own address, whoever is the gateway
			from.Ports = append(from.Ports, m)
			continue
		}
		do, w := pb.action(m.HostIP, gws)
		if do != bind && do != forward {
			pb.release([]ports.Mapping{m})
			continue
		}
		w.Ports = append(w.Ports, m)
		pb.proxy.End(m)
		if err := pb.hold(m, w.Endpoint); err != nil {
			pb.log.Error("moving a published port", "container", containerID, "port", m.Name(), "error", err)
		}
	}
}

// Adopt takes back the ports of an endpoint whose container runs, with their sockets from the
// store. One that another container has is logged, and is the endpoint's no more.
func (pb *Publisher) Adopt(containerID string, e *sandbox.Endpoint, sockets *fdstore.Restored) {
	e.Ports = slices.DeleteFunc(slices.Clone(e.Ports), func(m ports.Mapping) bool {
		if m.HostPort == 0 {
			return false
		}
		m.Gate = pb.cfg.UserlandProxy
		err := pb.table.Adopt(e.Name, m, sockets.Take(m.Name()))
		if err != nil {
			pb.log.Error("taking a published port back", "container", containerID, "port", m.Name(), "error", err)
			return true
		}
		if err := pb.hold(m, e); err != nil {
			pb.log.Error("taking a published port back", "container", containerID, "port", m.Name(), "error", err)
		}
		return false
	})
}

// Release gives back the host ports of endpoints that end. Their Ports still tell which.
func (pb *Publisher) Release(ends ...*sandbox.Endpoint) {
	for _, e := range ends {
		pb.release(e.Ports)
	}
}

// GiveBack takes ports out of the endpoints that have them, and gives them back. Those that no
// endpoint has are given back already.
func (pb *Publisher) GiveBack(taken []ports.Mapping, ends []*sandbox.Endpoint) {
	var back []ports.Mapping
	for _, e := range ends {
		e.Ports = slices.DeleteFunc(e.Ports, func(m ports.Mapping) bool {
			ours := slices.ContainsFunc(taken, ports.Same(m))
			if ours {
				back = append(back, m)
			}
			return ours
		})
	}
	pb.release(back)
}

func (pb *Publisher) release(ms []ports.Mapping) {
	ms = slices.DeleteFunc(slices.Clone(ms), func(m ports.Mapping) bool { return m.HostPort == 0 })
	for _, m := range ms {
		pb.proxy.End(m)
		if pb.cfg.FDStore != nil && pb.table.Socket(m) != nil {
			if err := pb.cfg.FDStore.Drop(m.Name()); err != nil {
				pb.log.Warn("dropping a published port's socket", "port", m.Name(), "error", err)
			}
		}
	}
	pb.table.Release(ms)
}

// rules are the published ports of some endpoints as the firewall has them.
func (pb *Publisher) rules(on []Endpoint) []ports.Mapping {
	var out []ports.Mapping
	for _, w := range on {
		if w.On == nil {
			continue
		}
		for _, m := range w.Ports {
			m.Interface, m.ContainerIP = w.On.Interface, w.IPv4.Addr()
			if m.HostIP.Is6() {
				m.ContainerIP = w.IPv6.Addr()
			}
			m.Gate = m.Row() && m.HostPort != 0 && m.HostIP.Is6() && pb.cfg.UserlandProxy
			// Without an address of the family the daemon forwards.
			if m.HostIP.Is6() && !pb.cfg.Firewall6 || !m.ContainerIP.IsValid() && !m.Gate {
				continue
			}
			out = append(out, m)
		}
	}
	return out
}

// Apply has the firewall have what some endpoints of a container publish, and nothing else of
// the container.
func (pb *Publisher) Apply(containerID string, on []Endpoint) error {
	return pb.host.Publish(containerID, pb.rules(on))
}

// Withdraw takes what a container publishes out of the firewall.
func (pb *Publisher) Withdraw(containerID string, on []Endpoint) error {
	err := pb.host.Unpublish(containerID)
	pb.Flush(false, on)
	return err
}

// Flush flushes conntrack entries so that UDP flows to ports that have just come (opened) or gone
// are re-evaluated.
func (pb *Publisher) Flush(opened bool, on []Endpoint) { pb.host.FlushUDP(opened, pb.rules(on)) }

// Shown is what inspect shows of some endpoints' ports: as taken, and exposed ones without.
func Shown(r sandbox.Request, ends []*sandbox.Endpoint) network.PortMap {
	var taken []ports.Mapping
	for _, e := range ends {
		taken = append(taken, e.Ports...)
	}
	return ports.Shown(r.Exposed, r.Ports, taken)
}
