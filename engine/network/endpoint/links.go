package endpoint

import (
	"cmp"
	"slices"

	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/gantry/gantry/engine/network/store"
	"github.com/moby/moby/api/types/network"
)

// links is what a container has to do with links on the default bridge. They open ports
// only where containers may not talk (icc off); elsewhere it stays empty.
type links struct {
	to      []string // the containers it links to
	exposed []network.Port
}

// linksOf is what a request says about links.
func linksOf(r sandbox.Request, icc bool) (l links) {
	if icc {
		return l
	}
	l.to = slices.Clone(r.LinkedTo)
	for p := range r.Exposed {
		l.exposed = append(l.exposed, p)
	}
	for p := range r.Ports {
		if _, both := r.Exposed[p]; !both {
			l.exposed = append(l.exposed, p)
		}
	}
	slices.SortFunc(l.exposed, func(a, b network.Port) int {
		return cmp.Or(cmp.Compare(a.Num(), b.Num()), cmp.Compare(a.Proto(), b.Proto()))
	})
	return l
}

// SetLinks replaces the containers that a running one links to on the default bridge. A
// container without a sandbox is no error: the next start says what it links to.
func (s *Service) SetLinks(containerID string, to []string) error {
	s.locked(func() {
		if c := s.containers[containerID]; c != nil && !s.cfg.ICC {
			c.links.to = slices.Clone(to)
		}
	})
	return s.relink()
}

// relink has the firewall open what links ask for, and no more.
func (s *Service) relink() error {
	if s.cfg.ICC {
		return nil
	}
	s.linking.Lock() // what was computed last is applied last
	defer s.linking.Unlock()
	n := s.nets.DefaultBridge()
	if n == nil || n.Publishing == nil {
		return nil
	}
	var open []firewall.Link
	s.locked(func() {
		var users map[string]store.User
		for _, from := range s.containers {
			if len(from.links.to) > 0 && users == nil {
				users = n.Users()
			}
			for _, id := range from.links.to {
				open = append(open, linksBetween(users, from, s.containers[id])...)
			}
		}
	})
	if !s.host.BridgeFiltered() {
		// The bridge keeps its ports apart itself: only the host, which answers for both ends
		// (RFC 3069), can carry what a link allows.
		on := "0"
		if len(open) > 0 {
			on = "1"
		}
		if err := s.host.Sysctl("net/ipv4/conf/"+n.Publishing.Interface+"/proxy_arp_pvlan", on); err != nil {
			return err
		}
	}
	return s.host.SetLinks(open)
}

// linksBetween are the ports of one container that another may reach; to may be nil.
func linksBetween(users map[string]store.User, from, to *container) []firewall.Link {
	if to == nil {
		return nil
	}
	a, b := users[from.id], users[to.id] // zero where one is not on the network
	if !a.IPv4.IsValid() || !b.IPv4.IsValid() {
		return nil
	}
	var out []firewall.Link
	for _, p := range to.links.exposed {
		out = append(out, firewall.Link{From: a.IPv4.Addr(), To: b.IPv4.Addr(), Proto: string(p.Proto()), Port: p.Num()})
	}
	return out
}
