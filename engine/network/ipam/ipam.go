// Package ipam allocates addresses of a subnet, and subnets of pools. It only keeps books in
// memory: after a restart its callers tell it again what is in use. Nothing here is safe for
// concurrent use.
package ipam

import (
	"fmt"
	"math"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
)

// Space hands out the addresses of one subnet, lowest free first, as Docker does.
type Space struct {
	subnet, rng netip.Prefix
	last        netip.Addr // highest usable address of rng
	used        map[netip.Addr]struct{}
	hint        netip.Addr // nothing below is free in rng
}

// NewSpace returns a space over subnet whose automatic addresses come from rng (the
// whole subnet when invalid). The network's and, for IPv4, the broadcast address are
// never handed out.
func NewSpace(subnet, rng netip.Prefix) (*Space, error) {
	subnet = subnet.Masked()
	if !rng.IsValid() {
		rng = subnet
	}
	rng = rng.Masked()
	if rng.Bits() < subnet.Bits() || !subnet.Contains(rng.Addr()) {
		return nil, errclass.Invalid("allocatable range %s is not contained in subnet %s", rng, subnet)
	}
	s := &Space{subnet: subnet, rng: rng, last: Last(rng), used: map[netip.Addr]struct{}{}, hint: rng.Addr()}
	if usable := subnet.Addr().BitLen() - subnet.Bits(); usable > 1 {
		s.used[subnet.Addr()] = struct{}{}
		if subnet.Addr().Is4() {
			s.used[Last(subnet)] = struct{}{}
		}
	}
	return s, nil
}

// Subnet returns the subnet with its host bits zero.
func (s *Space) Subnet() netip.Prefix { return s.subnet }

// Next takes the lowest free address. ErrResourceExhausted class when there is none.
func (s *Space) Next() (netip.Addr, error) {
	for a := s.hint; a.IsValid() && a.Compare(s.last) <= 0; a = a.Next() {
		if _, taken := s.used[a]; !taken {
			s.used[a] = struct{}{}
			s.hint = a.Next()
			if !s.hint.IsValid() {
				s.hint = s.last
			}
			return a, nil
		}
	}
	return netip.Addr{}, errclass.Forbidden("no available IPv%d addresses on this network's address pools: %s",
		map[bool]int{true: 4, false: 6}[s.subnet.Addr().Is4()], s.rng)
}

// Take takes one address of the subnet. Invalid class outside, Forbidden when taken.
func (s *Space) Take(a netip.Addr) error {
	if !s.subnet.Contains(a) {
		return errclass.Invalid("address %s is not in subnet %s", a, s.subnet)
	}
	if _, taken := s.used[a]; taken {
		return errclass.Forbidden("Address already in use")
	}
	s.used[a] = struct{}{}
	return nil
}

// Release gives an address back; one that is free stays free.
func (s *Space) Release(a netip.Addr) {
	if _, ok := s.used[a]; !ok {
		return
	}
	delete(s.used, a)
	if s.rng.Contains(a) && a.Less(s.hint) {
		s.hint = a
	}
}

// Used returns how many addresses are taken, the reserved ones included.
func (s *Space) Used() int { return len(s.used) }

// Free returns how many addresses Next can still hand out, 2⁶⁴-1 where there are more.
func (s *Space) Free() uint64 {
	var used uint64
	for a := range s.used {
		if s.rng.Contains(a) {
			used++
		}
	}
	switch n := s.rng.Addr().BitLen() - s.rng.Bits(); {
	case n < 64:
		return 1<<n - used
	case n == 64 && used > 0:
		return -used // 2⁶⁴ less those, which fits
	}
	return math.MaxUint64
}

// Last returns the highest address of a prefix.
func Last(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// First returns the first address of a prefix that a host can have: what a gateway
// gets when nobody chose.
func First(p netip.Prefix) netip.Addr {
	p = p.Masked()
	if p.Addr().BitLen()-p.Bits() <= 1 {
		return p.Addr()
	}
	return p.Addr().Next()
}

// DriverNull is the name of the driver that gives no addresses: containers get theirs by
// other means, DHCP for one.
const DriverNull = "null"

// DriverDefault is the name of the engine's own IPAM driver.
const DriverDefault = "default"

// Pool is a range that subnets of Size bits are cut from.
type Pool struct {
	Base netip.Prefix
	Size int
}

// Check refuses pools that cannot be divided into subnets of their size.
func (p Pool) Check() error {
	if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
		return errclass.Invalid("invalid address pool %s size %d", p.Base, p.Size)
	}
	return nil
}

// DefaultPools are where subnets come from when nothing is configured: first the /16s
// everyone expects (172.17.0.0/16 is the default bridge's), then /20s, then /24s: more
// than three thousand networks in all.
func DefaultPools() []Pool {
	p := netip.MustParsePrefix
	return []Pool{
		{p("172.17.0.0/16"), 16},
		{p("172.18.0.0/16"), 16},
		{p("172.19.0.0/16"), 16},
		{p("172.20.0.0/14"), 16},
		{p("172.24.0.0/14"), 16},
		{p("172.28.0.0/14"), 16},
		{p("192.168.0.0/16"), 20},
		{p("10.200.0.0/13"), 24},
		{p("10.208.0.0/12"), 24},
	}
}

// Search finds free subnets in pools, the lowest first. It remembers how far it came: the
// thousandth network must not cost a look at all others.
type Search struct {
	pools []Pool
	from  []netip.Addr // in each pool: nothing below is free
}

// NewSearch makes one; pools have passed Check.
func NewSearch(pools []Pool) *Search {
	s := &Search{pools: pools}
	s.Again()
	return s
}

// Again forgets how far it came: ranges that were in the way may have gone.
func (s *Search) Again() {
	s.from = make([]netip.Addr, len(s.pools))
	for i, p := range s.pools {
		s.from[i] = p.Base.Masked().Addr()
	}
}

// Freed tells that a range is in use no more.
func (s *Search) Freed(p netip.Prefix) {
	for i, pool := range s.pools {
		if !pool.Base.Overlaps(p) {
			continue
		}
		if a := netip.PrefixFrom(p.Addr(), pool.Size).Masked().Addr(); a.Less(s.from[i]) {
			s.from[i] = maxAddr(a, pool.Base.Masked().Addr())
		}
	}
}

func maxAddr(a, b netip.Addr) netip.Addr {
	if a.Less(b) {
		return b
	}
	return a
}

// Next returns the first subnet of v6's family that overlaps nothing in any of taken.
// *ExhaustedError, of class Forbidden, tells that all are used.
func (s *Search) Next(v6 bool, taken ...*Taken) (netip.Prefix, error) {
	if sub, ok := s.scan(v6, nil, taken); ok {
		return sub, nil
	}
	// Before a user is refused, everything is searched once more.
	full := &ExhaustedError{}
	s.Again()
	if sub, ok := s.scan(v6, full, taken); ok {
		return sub, nil
	}
	return netip.Prefix{}, errclass.With(errdefs.ErrPermissionDenied, full)
}

// scan looks from where the last one ended; full, if any, gets what is in the way.
func (s *Search) scan(v6 bool, full *ExhaustedError, taken []*Taken) (netip.Prefix, bool) {
	for i, pool := range s.pools {
		if pool.Base.Addr().Is6() != v6 {
			continue
		}
		base := pool.Base.Masked()
		for s.from[i].IsValid() && base.Contains(s.from[i]) {
			sub := netip.PrefixFrom(s.from[i], pool.Size)
			over, hit := overlapAny(sub, taken)
			if !hit {
				return sub, true
			}
			if full != nil {
				if full.Tried++; len(full.InWay) < maxInWay {
					full.InWay = append(full.InWay, over)
				}
			}
			// Go on behind whichever is larger: the subnet or what is in its way.
			end := Last(sub)
			if e := Last(over); over.Bits() < sub.Bits() && end.Less(e) {
				end = e
			}
			s.from[i] = end.Next() // invalid behind the last address there is
		}
	}
	return netip.Prefix{}, false
}

// maxInWay bounds how many ranges an ExhaustedError names.
const maxInWay = 8

// ExhaustedError says that no pool has a free subnet.
type ExhaustedError struct {
	// Tried is how many ranges are in use; InWay names the first few.
	Tried int
	InWay []netip.Prefix
}

// Error is Docker's sentence and how many ranges are in use.
func (e *ExhaustedError) Error() string {
	return fmt.Sprintf("all predefined address pools have been fully subnetted (%d ranges are in use by networks or routes of this host)", e.Tried)
}

func overlapAny(p netip.Prefix, taken []*Taken) (netip.Prefix, bool) {
	for _, t := range taken {
		if over, hit := t.Overlap(p); hit {
			return over, true
		}
	}
	return netip.Prefix{}, false
}

// Taken is a set of prefixes that answers overlap questions in time independent of
// its size, by looking every possible length up. The zero value is not ready: use
// NewTaken.
type Taken struct {
	exact map[netip.Prefix]int
	// inside counts, for each prefix, how many taken ones it covers.
	inside map[netip.Prefix]int
}

// NewTaken returns a set of the given prefixes.
func NewTaken(ps ...netip.Prefix) *Taken {
	t := &Taken{map[netip.Prefix]int{}, map[netip.Prefix]int{}}
	for _, p := range ps {
		t.Add(p)
	}
	return t
}

// Add adds p; adding it twice needs removing it twice.
func (t *Taken) Add(p netip.Prefix) { t.count(p, 1) }

// Remove removes p, which Add added.
func (t *Taken) Remove(p netip.Prefix) { t.count(p, -1) }

func (t *Taken) count(p netip.Prefix, n int) {
	bump := func(m map[netip.Prefix]int, p netip.Prefix) {
		if m[p] += n; m[p] <= 0 {
			delete(m, p)
		}
	}
	p = p.Masked()
	bump(t.exact, p)
	for b := p.Bits(); b >= 0; b-- {
		bump(t.inside, netip.PrefixFrom(p.Addr(), b).Masked())
	}
}

// Overlap tells whether a taken prefix overlaps p, and returns one that covers p, or
// p itself when only parts of it are taken.
func (t *Taken) Overlap(p netip.Prefix) (netip.Prefix, bool) {
	p = p.Masked()
	for b := p.Bits(); b >= 0; b-- {
		q := netip.PrefixFrom(p.Addr(), b).Masked()
		if t.exact[q] > 0 {
			return q, true
		}
	}
	return p, t.inside[p] > 0
}

// ULA returns the unique local /64 number n of the 40-bit global id (RFC 4193).
func ULA(id [5]byte, n uint16) netip.Prefix {
	var b [16]byte
	b[0] = 0xfd
	copy(b[1:6], id[:])
	b[6], b[7] = byte(n>>8), byte(n)
	return netip.PrefixFrom(netip.AddrFrom16(b), 64)
}

// CheckConfig refuses a subnet, range and gateway that do not belong together.
func CheckConfig(subnet, rng netip.Prefix, gw netip.Addr) error {
	if subnet.Addr().Is4In6() {
		return errclass.Invalid("invalid network config: invalid subnet %s: IPv4 addresses in IPv6 form are no range of a network", subnet)
	}
	if subnet != subnet.Masked() {
		return errclass.Invalid("invalid network config: invalid subnet %s: it should be %s", subnet, subnet.Masked())
	}
	if rng.IsValid() && (rng.Bits() < subnet.Bits() || !subnet.Contains(rng.Addr())) {
		return errclass.Invalid("invalid network config: invalid ip-range %s: parent subnet %s doesn't contain ip-range", rng, subnet)
	}
	if gw.IsValid() && (!subnet.Contains(gw) || gw.Zone() != "") {
		return errclass.Invalid("invalid network config: invalid gateway %s: parent subnet %s doesn't contain this address", gw, subnet)
	}
	return nil
}

// MAC returns Docker's classic hardware address of an IPv4 address, 02:42 and its
// four bytes; of an IPv6 address its last four.
func MAC(a netip.Addr) [6]byte {
	b := a.AsSlice()
	m := [6]byte{0x02, 0x42}
	copy(m[2:], b[len(b)-4:])
	return m
}

// String describes the space for errors.
func (s *Space) String() string { return fmt.Sprintf("%s (%d used)", s.subnet, len(s.used)) }
