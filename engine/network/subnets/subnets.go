// Package subnets knows which address ranges are in use and chooses those of new networks.
package subnets

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// Chooser knows which ranges are in use and chooses new ones. Not safe for concurrent use.
type Chooser struct {
	pools    *ipam.Search
	taken    *ipam.Taken // of our networks
	routes   *ipam.Taken // what foreign found at routesAt
	routesAt time.Time
	ours     func() map[int]bool
	owner    func(netip.Prefix) string
	nl       *rtnl.Conn
	log      *slog.Logger
	dataRoot string
}

// New makes a chooser of subnets from pools (nil: Docker's), in the network namespace of
// nl, which stays the caller's. ours names the interfaces whose routes are our networks',
// owner the network that has a range ("": none of ours);
// dataRoot is part of what the unique local prefix is made of. Errors are of class Invalid.
func New(pools []ipam.Pool, ours func() map[int]bool, owner func(netip.Prefix) string, nl *rtnl.Conn, log *slog.Logger, dataRoot string) (*Chooser, error) {
	for _, p := range pools {
		if err := p.Check(); err != nil {
			return nil, err
		}
	}
	if pools == nil {
		pools = ipam.DefaultPools()
	}
	return &Chooser{pools: ipam.NewSearch(pools), taken: ipam.NewTaken(), ours: ours, owner: owner, nl: nl, log: log, dataRoot: dataRoot}, nil
}

// Enter and Leave tell of a network's subnet that comes and goes.
func (s *Chooser) Enter(p netip.Prefix) { s.taken.Add(p) }

// Leave takes back one Enter.
func (s *Chooser) Leave(p netip.Prefix) {
	s.taken.Remove(p)
	s.pools.Freed(p)
}

// Free refuses a subnet that overlaps what is entered. The error is of class Forbidden.
func (s *Chooser) Free(p netip.Prefix) error {
	if _, hit := s.taken.Overlap(p); hit {
		return overlaps()
	}
	return nil
}

func overlaps() error {
	return errclass.Forbidden("invalid pool request: Pool overlaps with other one on this address space")
}

// Next chooses a free subnet. When there is none, the error is of class Forbidden and names the
// networks that use the first ones.
func (s *Chooser) Next(v6 bool) (netip.Prefix, error) {
	sub, err := s.pools.Next(v6, s.taken, s.foreign())
	var full *ipam.ExhaustedError
	if !errors.As(err, &full) || full.Tried == 0 {
		return sub, err
	}
	var who []string
	for _, p := range full.InWay {
		if name := s.owner(p); name != "" {
			who = append(who, p.String()+" by network "+name)
		} else {
			who = append(who, p.String()+" by a route of this host")
		}
	}
	if full.Tried > len(who) {
		who = append(who, "…")
	}
	return sub, errclass.Forbidden("%w: %s", full, strings.Join(who, ", "))
}

// foreignAge is how long the list of the host's routes serves: asking for a thousand of
// them again for every network of a compose project would cost more than the network.
const foreignAge = 2 * time.Second

// foreign are the prefixes that this host already routes somewhere else.
func (s *Chooser) foreign() *ipam.Taken {
	if s.routes != nil && time.Since(s.routesAt) < foreignAge {
		return s.routes
	}
	t := ipam.NewTaken()
	routes, err := s.nl.Routes()
	if err != nil {
		s.log.Warn("listing the host's routes", "error", err)
		return t
	}
	ours := s.ours()
	for _, r := range routes {
		if r.Dst.IsValid() && r.Dst.Bits() > 0 && !ours[r.OIF] {
			t.Add(r.Dst)
		}
	}
	s.routes, s.routesAt = t, time.Now()
	s.pools.Again()
	return t
}

// Plan checks a network's requested subnets, adds those that are missing, and gives every
// subnet its gateway where there are to be gateways. It returns the subnets that nobody chose. Errors: Invalid, Forbidden
// for what overlaps and for exhausted pools.
func (s *Chooser) Plan(n *network.Network, gateways bool) (pooled []netip.Prefix, err error) {
	have4, have6, err := s.check(n)
	if err != nil {
		return nil, err
	}
	n.IPAM.Config = slices.DeleteFunc(n.IPAM.Config, func(c network.IPAMConfig) bool {
		return c.Subnet.Addr().Is6() && !n.EnableIPv6 || c.Subnet.Addr().Is4() && !n.EnableIPv4
	})
	if n.EnableIPv4 && !have4 {
		sub, err := s.Next(false)
		if err != nil {
			return nil, err
		}
		pooled = append(pooled, sub)
	}
	if n.EnableIPv6 && !have6 {
		sub, err := s.Next(true)
		if err != nil {
			sub = s.ULA()
		}
		pooled = append(pooled, sub)
	}
	for _, sub := range pooled {
		n.IPAM.Config = append(n.IPAM.Config, network.IPAMConfig{Subnet: sub})
	}
	// IPv4 comes first, as with Docker: people and scripts look at the first.
	slices.SortStableFunc(n.IPAM.Config, func(a, b network.IPAMConfig) int {
		return cmp.Compare(a.Subnet.Addr().BitLen(), b.Subnet.Addr().BitLen())
	})
	if !gateways {
		return pooled, nil
	}
	return pooled, giveGateways(n)
}

// check validates a network's subnets and reports which address families they have.
func (s *Chooser) check(n *network.Network) (have4, have6 bool, err error) {
	mine := ipam.NewTaken()
	for _, c := range n.IPAM.Config {
		if !c.Subnet.IsValid() {
			return false, false, errclass.Invalid("invalid network config: invalid subnet: an IPAM config needs one")
		}
		if err := ipam.CheckConfig(c.Subnet, c.IPRange, c.Gateway); err != nil {
			return false, false, err
		}
		for name, aux := range c.AuxAddress {
			if !c.Subnet.Contains(aux) {
				return false, false, errclass.Invalid("invalid network config: invalid auxiliary address %s (%s): parent subnet %s doesn't contain this address", aux, name, c.Subnet)
			}
		}
		if err := s.Free(c.Subnet); err != nil {
			return false, false, err
		}
		if err := CheckTaken([]network.IPAMConfig{c}); err != nil {
			return false, false, err
		}
		if _, hit := mine.Overlap(c.Subnet); hit {
			return false, false, overlaps()
		}
		mine.Add(c.Subnet)
		have4, have6 = have4 || c.Subnet.Addr().Is4(), have6 || c.Subnet.Addr().Is6()
	}
	return have4, have6, nil
}

// CheckTaken refuses gateways and auxiliary addresses that two mean, or that no host can
// have. Errors are of class Forbidden.
func CheckTaken(configs []network.IPAMConfig) error {
	for _, c := range configs {
		sp, err := ipam.NewSpace(c.Subnet, c.IPRange)
		if err != nil {
			return err
		}
		if c.Gateway.IsValid() {
			if err := sp.Take(c.Gateway); err != nil {
				return errclass.Forbidden("failed to allocate gateway (%s): %w", c.Gateway, err)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(c.AuxAddress)) {
			if err := sp.Take(c.AuxAddress[name]); err != nil {
				return errclass.Forbidden("failed to allocate secondary ip address (%s:%s): %w", name, c.AuxAddress[name], err)
			}
		}
	}
	return nil
}

// Null gives a network of the IPAM driver null the ranges that it shows: all there is,
// for nothing is handed out. host tells that the host needs an address itself. Errors are of
// class Invalid.
func Null(n *network.Network, host bool) error {
	if host {
		return errclass.Invalid("ipv4 pool is empty")
	}
	if len(n.IPAM.Config) > 0 {
		return errclass.Invalid("null ipam driver does not handle specific address pool requests")
	}
	if n.EnableIPv4 {
		n.IPAM.Config = append(n.IPAM.Config, network.IPAMConfig{Subnet: netip.PrefixFrom(netip.IPv4Unspecified(), 0)})
	}
	if n.EnableIPv6 {
		n.IPAM.Config = append(n.IPAM.Config, network.IPAMConfig{Subnet: netip.PrefixFrom(netip.IPv6Unspecified(), 0)})
	}
	return nil
}

// giveGateways names a gateway in every subnet that has none.
func giveGateways(n *network.Network) error {
	for i, c := range n.IPAM.Config {
		if c.Gateway.IsValid() {
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
		n.IPAM.Config[i] = c
	}
	return nil
}

// ULA derives the host's unique local prefix from its machine id, so that it is the
// same at every start.
func (s *Chooser) ULA() netip.Prefix {
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
