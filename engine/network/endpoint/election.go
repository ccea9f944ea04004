package endpoint

import (
	"cmp"
	"net/netip"
	"os"
	"slices"

	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/publish"
)

// gateways are the endpoints that give a container's default routes: v4 and v6, nil without.
// Published ports follow them.
type gateways [2]*endpoint

// elect chooses among a container's endpoints, which are in order of gateway priority: the
// first whose network provides one in a family.
func elect(ends []*endpoint) (g gateways) {
	for _, e := range ends {
		for i := range g {
			if g[i] == nil && e.n.ProvidesGateway(&e.Endpoint, i == 1) {
				g[i] = e
			}
		}
	}
	return g
}

func (g gateways) has(e *endpoint) bool { return g[0] == e || g[1] == e }

// published are the gateways that ports are published on: those on whose networks the host
// publishes.
func (g gateways) published() (out publish.Gateways) {
	for i, w := range []*publish.Endpoint{&out.V4, &out.V6} {
		if e := g[i]; e != nil && e.n.Publishing != nil {
			*w = e.published()
		}
	}
	return out
}

// routeIfElected has the interface make the default routes for which it was elected.
func (j *joining) routeIfElected(g gateways) {
	for i, e := range g {
		if e == j.endpoint {
			j.route(i == 1)
		}
	}
}

// route makes the interface the default route of one address family.
func (j *joining) route(v6 bool) {
	gw, all := &j.iface.GW4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if v6 {
		gw, all = &j.iface.GW6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if j.Direct {
		j.iface.Routes = append(j.iface.Routes, netns.Route{To: all})
		return
	}
	*gw = j.n.Gateway(&j.Endpoint, v6)
}

// election is a running container's change of its gateways.
type election struct {
	ends     []*endpoint // those there are afterwards, in order of priority
	was, now gateways
	// only is the endpoint that comes or goes: routes that are not its stay as they are.
	only *endpoint
}

// electWith tells what changes when an endpoint joins. It has the endpoint's interface make
// the default routes that nobody has yet.
func electWith(ends []*endpoint, j *joining) election {
	t := election{only: j.endpoint, was: elect(ends), ends: append(slices.Clone(ends), j.endpoint)}
	slices.SortStableFunc(t.ends, func(a, b *endpoint) int {
		return cmp.Or(-cmp.Compare(a.Priority, b.Priority), cmp.Compare(a.n.Name, b.n.Name))
	})
	t.now = elect(t.ends)
	for i, e := range t.now {
		if e == j.endpoint && t.was[i] == nil {
			j.route(i == 1)
		}
	}
	return t
}

// won tells whether the endpoint has a say in where ports are published.
func (t election) won() bool { return t.now.has(t.only) }

// losers are the endpoints that are gateways no more.
func (t election) losers() []*endpoint {
	var out []*endpoint
	for i, e := range t.was {
		// A change in one family may move the other's ports: those that the daemon forwards.
		if e != nil && (t.now[i] != e || t.now[1-i] != t.was[1-i]) && !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return out
}

// moveRoutes gives the default routes that were another endpoint's to those that are
// gateways now; what cannot be moved is logged.
func (s *Service) moveRoutes(ns *os.File, c *container, t election) {
	for i, to := range t.now {
		was := t.was[i]
		if was == nil || to == nil || was == to || to.Direct || was != t.only && to != t.only {
			continue
		}
		if err := netns.MoveRoute(s.host.NS(), ns, to.IfName, to.n.Gateway(&to.Endpoint, i == 1)); err != nil {
			s.log.Error("moving a container's default route", "container", c.id, "error", err)
		}
	}
}
