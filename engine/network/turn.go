package network

import (
	"cmp"
	"net/netip"
	"os"
	"slices"

	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/engine/network/ports"
)

// turn is a running container's change of its ways out, each for IPv4 and IPv6.
type turn struct {
	ends     []*endpoint // those there are afterwards, in the order of the ways out
	was, now [2]*endpoint
	ways     ways // of the published ports, afterwards
	// only is the endpoint that brings or takes: routes that are not its stay as they are.
	only *endpoint
}

// turnTo tells what changes when an endpoint joins. It has the endpoint's interface make
// the default routes that nobody has yet.
func turnTo(s *Service, sb *sandbox, j *joining) turn {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := turn{only: j.e}
	t.was[0], t.was[1] = s.drivers.waysOut(s.nets, sb.ends)
	name := func(e *endpoint) string {
		if n := s.nets[e.NetworkID]; n != nil {
			return n.net.Name
		}
		return ""
	}
	t.ends = append(slices.Clone(sb.ends), j.e)
	slices.SortStableFunc(t.ends, func(a, b *endpoint) int {
		return cmp.Or(-cmp.Compare(a.Priority, b.Priority), cmp.Compare(name(a), name(b)))
	})
	t.now[0], t.now[1] = s.drivers.waysOut(s.nets, t.ends)
	for i, e := range t.now {
		if e == j.e && t.was[i] == nil {
			j.route(i == 1)
		}
	}
	for i, w := range []*way{&t.ways.v4, &t.ways.v6} {
		if e := t.now[i]; e != nil && s.nets[e.NetworkID].net.Driver == "bridge" {
			*w = way{s.nets[e.NetworkID], e}
		}
	}
	return t
}

// published tells whether the endpoint has a say in where ports are published.
func (t turn) published() bool { return t.now[0] == t.only || t.now[1] == t.only }

// losers are the endpoints that are the way out no more.
func (t turn) losers() []*endpoint {
	var out []*endpoint
	for i, e := range t.was {
		// A change in one family may move the other's ports: those that the daemon forwards.
		if e != nil && (t.now[i] != e || t.now[1-i] != t.was[1-i]) && !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

// waysOut are the endpoints of some that have the default routes, nil without.
// Service.mu is held.
func (d *drivers) waysOut(nets map[string]*netw, ends []*endpoint) (v4, v6 *endpoint) {
	for _, e := range ends {
		if v4 == nil && d.wayOut(nets[e.NetworkID], e, false) {
			v4 = e
		}
		if v6 == nil && d.wayOut(nets[e.NetworkID], e, true) {
			v6 = e
		}
	}
	return v4, v6
}

// moveRoutes gives the default routes that were another endpoint's to those that have the
// ways out now; what cannot be moved is logged.
func moveRoutes(s *Service, ns *os.File, sb *sandbox, t turn) {
	for i, to := range t.now {
		was := t.was[i]
		if was == nil || to == nil || was == to || to.Direct || was != t.only && to != t.only {
			continue
		}
		if err := plumb.MoveRoute(s.host, ns, to.IfName, s.netOf(to).gateway(to, i == 1)); err != nil {
			s.log.Error("moving a container's default route", "container", sb.id, "error", err)
		}
	}
}

// movePorts gives an endpoint's published ports to the ways out that are left, and those
// that have none back; the firewall then has what all endpoints publish.
func (s *Service) movePorts(sb *sandbox, from, v4, v6 *endpoint) {
	var ws ways
	for _, f := range []struct {
		e *endpoint
		w *way
	}{{v4, &ws.v4}, {v6, &ws.v6}} {
		if f.e == nil {
			continue
		}
		if n := s.netOf(f.e); n != nil && n.net.Driver == "bridge" {
			*f.w = way{n, f.e}
		}
	}
	s.pub.move(sb, from, ws)
	if err := s.publishAll(sb, sb.ends); err != nil {
		s.log.Error("moving published ports", "container", sb.id, "error", err)
	}
}

// publishAll has the firewall have what some endpoints publish, and nothing else of the
// container.
func (s *Service) publishAll(sb *sandbox, ends []*endpoint) error {
	var on []way
	for _, e := range ends {
		on = append(on, way{s.netOf(e), e})
	}
	return s.fw.Publish(sb.id, s.pub.firewallPorts(on...))
}

// publishMissing takes the host ports that endpoints do not have yet: of a family that had
// no way out. A port taken already in the other family gets the same number.
func (pb *publisher) publishMissing(ws ways, r SandboxRequest, ends []*endpoint) (bs []ports.Binding, err error) {
	wishes, err := pb.wishes(ws, r)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			pb.forgetRecords(bs, ends)
			pb.unbind(bs)
			bs, err = nil, endpointError(ws, r, err)
		}
	}()
	for _, w := range wishes {
		var missing []netip.Addr
		for _, a := range w.Addrs {
			if have := published(w, a, ends, ws); have == nil {
				missing = append(missing, a)
			} else if have.HostPort != 0 && w.Count < 2 {
				w.First, w.Last = have.HostPort, have.HostPort
			}
		}
		if w.Addrs = missing; len(missing) == 0 {
			continue
		}
		got, err := pb.publishOne(ws, r.Name, w)
		bs = append(bs, got...)
		if err != nil {
			return bs, err
		}
	}
	return bs, nil
}

// published is the record of what a wish got on a host address; nil: nothing. Ports that are
// open on a container's own address count on the way out only.
func published(w ports.Wish, a netip.Addr, ends []*endpoint, ws ways) *PortRecord {
	out := ws.v4.e
	if a.Is6() {
		out = ws.v6.e
	}
	for _, e := range ends {
		if p := e.Published(w, a, e == out); p != nil {
			return p
		}
	}
	return nil
}

// forgetRecords takes bindings out of the endpoints' records.
func (pb *publisher) forgetRecords(bs []ports.Binding, ends []*endpoint) {
	for _, e := range ends {
		e.Forget(bs)
	}
}
