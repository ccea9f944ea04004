package network

import (
	"cmp"
	"slices"

	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/moby/moby/api/types/network"
)

// linking is what a sandbox has to do with links on the default bridge. They open ports
// only where containers may not talk (icc off); elsewhere it stays empty.
type linking struct {
	to      []string // the containers it links to
	exposed []network.Port
}

// linkingOf is what a request says about links.
func linkingOf(r SandboxRequest, icc bool) (l linking) {
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
		if sb := s.sandboxes[containerID]; sb != nil && !s.cfg.ICC {
			sb.links.to = slices.Clone(to)
		}
	})
	return relink(s)
}

// relink has the firewall open what links ask for, and no more.
func relink(s *Service) error {
	if s.cfg.ICC {
		return nil
	}
	s.linking.Lock() // what was computed last is applied last
	defer s.linking.Unlock()
	var links []firewall.Link
	var bridge string
	s.locked(func() {
		n := s.nets[s.names[NameBridge]]
		if n == nil {
			return
		}
		bridge = n.bridge.Name
		for _, from := range s.sandboxes {
			for _, id := range from.links.to {
				links = append(links, n.linksBetween(from, s.sandboxes[id])...)
			}
		}
	})
	if bridge == "" {
		return nil
	}
	if !plumb.BridgeFiltered() {
		// The bridge keeps its ports apart itself: only the host, which answers for both ends
		// (RFC 3069), can carry what a link allows.
		on := "0"
		if len(links) > 0 {
			on = "1"
		}
		if err := plumb.OptionalSysctl("net/ipv4/conf/"+bridge+"/proxy_arp_pvlan", on); err != nil {
			return err
		}
	}
	return s.fw.SetLinks(links)
}

// linksBetween are the ports of one container that another may reach; to may be nil.
func (n *netw) linksBetween(from, to *sandbox) []firewall.Link {
	if to == nil {
		return nil
	}
	a, b := n.users[from.id], n.users[to.id]
	if a == nil || b == nil || !a.IPv4.IsValid() || !b.IPv4.IsValid() {
		return nil
	}
	var out []firewall.Link
	for _, p := range to.links.exposed {
		out = append(out, firewall.Link{From: a.IPv4.Addr(), To: b.IPv4.Addr(), Proto: string(p.Proto()), Port: p.Num()})
	}
	return out
}
