package network

import (
	"crypto/sha256"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/rtnl"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/network"
)

// subnets knows which ranges are in use and chooses new ones. Service.mu guards it.
type subnets struct {
	pools    []ipam.Pool
	taken    *ipam.Taken // of our networks
	routes   *ipam.Taken // what foreign found at routesAt
	routesAt time.Time
	nl       *rtnl.Conn
	log      *slog.Logger
	dataRoot string
}

// next chooses a subnet that is in nobody's use.
func (s *subnets) next(nets map[string]*netw, v6 bool) (netip.Prefix, error) {
	return ipam.NextSubnet(s.pools, v6, s.taken, s.foreign(nets))
}

// foreignAge is how long the list of the host's routes serves: asking for a thousand of
// them again for every network of a compose project would cost more than the network.
const foreignAge = 2 * time.Second

// foreign are the prefixes that this host already routes somewhere else. Service.mu is
// held, or nobody else knows the service yet.
func (s *subnets) foreign(nets map[string]*netw) *ipam.Taken {
	if s.routes != nil && time.Since(s.routesAt) < foreignAge {
		return s.routes
	}
	t := ipam.NewTaken()
	routes, err := s.nl.Routes()
	if err != nil {
		s.log.Warn("listing the host's routes", "error", err)
		return t
	}
	ours := map[int]bool{}
	for _, n := range nets {
		if n.index != 0 {
			ours[n.index] = true
		}
	}
	for _, r := range routes {
		if r.Dst.IsValid() && r.Dst.Bits() > 0 && !ours[r.OIF] {
			t.Add(r.Dst)
		}
	}
	s.routes, s.routesAt = t, time.Now()
	return t
}

// plan checks the wished subnets, adds what is missing, and gives every
// subnet its gateway. Service.mu is held.
func (s *subnets) plan(nets map[string]*netw, n *netw) error {
	have4, have6 := false, false
	mine := ipam.NewTaken()
	for i, c := range n.net.IPAM.Config {
		if !c.Subnet.IsValid() {
			return errclass.Invalid("invalid network config: invalid subnet: an IPAM config needs one")
		}
		if err := ipam.CheckConfig(c.Subnet, c.IPRange, c.Gateway); err != nil {
			return err
		}
		for name, aux := range c.AuxAddress {
			if !c.Subnet.Contains(aux) {
				return errclass.Invalid("invalid network config: invalid auxiliary address %s (%s): parent subnet %s doesn't contain this address", aux, name, c.Subnet)
			}
		}
		for _, t := range []*ipam.Taken{s.taken, mine} {
			if _, hit := t.Overlap(c.Subnet); hit {
				return errclass.Forbidden("invalid pool request: Pool overlaps with other one on this address space")
			}
		}
		mine.Add(c.Subnet)
		n.net.IPAM.Config[i] = c
		have4, have6 = have4 || c.Subnet.Addr().Is4(), have6 || c.Subnet.Addr().Is6()
	}
	if have6 && !n.net.EnableIPv6 || have4 && !n.net.EnableIPv4 {
		n.net.IPAM.Config = slices.DeleteFunc(n.net.IPAM.Config, func(c network.IPAMConfig) bool {
			return c.Subnet.Addr().Is6() && !n.net.EnableIPv6 || c.Subnet.Addr().Is4() && !n.net.EnableIPv4
		})
	}
	if n.net.EnableIPv4 && !have4 {
		sub, err := s.next(nets, false)
		if err != nil {
			return err
		}
		n.net.IPAM.Config = append(n.net.IPAM.Config, network.IPAMConfig{Subnet: sub})
		n.pooled = append(n.pooled, sub)
	}
	if n.net.EnableIPv6 && !have6 {
		sub, err := s.next(nets, true)
		if err != nil {
			sub = s.ula()
		}
		n.net.IPAM.Config = append(n.net.IPAM.Config, network.IPAMConfig{Subnet: sub})
		n.pooled = append(n.pooled, sub)
	}
	for i, c := range n.net.IPAM.Config {
		// Behind macvlan and ipvlan the gateway is somebody else, whom only the user can name.
		if c.Gateway.IsValid() || n.net.Driver == "macvlan" || n.net.Driver == "ipvlan" {
			continue
		}
		sp, err := ipam.NewSpace(c.Subnet, c.IPRange)
		if err != nil {
			return err
		}
		for _, aux := range c.AuxAddress {
			_ = sp.Take(aux)
		}
		if c.Gateway, err = sp.Next(); err != nil {
			return err
		}
		n.net.IPAM.Config[i] = c
	}
	return n.makeSpaces()
}

// ula derives the host's unique local prefix from its machine id, so that it is the
// same at every start.
func (s *subnets) ula() netip.Prefix {
	var gid [5]byte
	data, _ := os.ReadFile("/etc/machine-id")
	copy(gid[:], ulaHash(string(data), s.dataRoot))
	for n := range uint16(65535) {
		p := ipam.ULA(gid, n)
		if _, hit := s.taken.Overlap(p); !hit {
			return p
		}
	}
	return ipam.ULA(gid, 65535)
}

// ulaHash is the global ID of this installation (RFC 4193, section 3.2.2).
func ulaHash(machineID, dataRoot string) []byte {
	h := sha256.Sum256([]byte("gantry ula\x00" + strings.TrimSpace(machineID) + "\x00" + dataRoot))
	return h[:5]
}
