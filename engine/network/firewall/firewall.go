// Package firewall computes, as a pure function, the one nftables table that lets
// containers talk as they should. Rules are constant: bridges and published ports are
// elements of sets, so that a thousand ports cost a packet one lookup.
//
// What the table does, in the order a packet meets it:
//
//   - guard (raw): packets for 127.0.0.0/8 from a wire are dropped before anything
//     can translate them, because route_localnet is on for our bridges.
//   - publish (nat): packets for an address of this host and a published port are sent
//     to the container, from outside, from the host itself and from containers; those
//     for a range of ports that the daemon must forward itself, to its one socket (gate).
//   - forward: the user's chain first; then what may enter a container's bridge:
//     answers, published ports, the same network when icc is on, nothing else.
//     Nothing enters or leaves an internal network.
//   - source (nat): containers' packets leave under the host's address; hairpin and
//     127.0.0.1 connections get the bridge's address so that answers come back here.
//
// Limits: another table's drop at any priority wins over our accept (nf_tables has no
// way around that); a foreign accept does not end our chains.
package firewall

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/internal/nft"
)

// Table and UserChain are the names a person meets in `nft list ruleset`. UserChain
// is theirs: it is created empty, is met first by everything forwarded, and is never
// changed by us.
const (
	Table     = "gantry"
	UserChain = "user"
)

// Names of the sets that Update changes one element at a time.
const (
	SetBridges  = "bridges"
	SetSame     = "same"
	SetICC      = "icc"
	SetInternal = "internal"
	SetForeign  = "foreign"
	SetOpen     = "open"
	SetTrusted  = "trusted"
	SetMasq4    = "masq4"
	SetMasq6    = "masq6"
	SetSNAT4    = "snat4"
	SetSNAT6    = "snat6"
	SetAny4     = "any4"
	SetAny6     = "any6"
	SetAddr4    = "addr4"
	SetAddr6    = "addr6"
	SetDirect4  = "direct4"
	SetDirect6  = "direct6"
	SetNets4    = "nets4"
	SetNets6    = "nets6"
	SetRange4   = "range4"
	SetRange6   = "range6"
	SetGate6    = "gate6"
	SetLinks4   = "links4"
)

// Link lets one container reach one port of another where icc is off (docker run --link).
type Link struct {
	From, To netip.Addr // IPv4
	Proto    string
	Port     uint16
}

// Settings are the daemon's, which do not change.
type Settings struct {
	// DirectRouting lets other hosts reach published ports by containers' addresses.
	DirectRouting bool
	// Mark and Mask, when the mask is not 0, let packets so marked into all networks but
	// internal ones.
	Mark, Mask uint32
}

// State is everything the table depends on.
type State struct {
	Bridges []driver.Bridge
	Ports   []ports.Mapping
	Settings
	// DropForward drops forwarded packets that are none of ours: for a host whose
	// forwarding was switched on by the daemon and that was no router before.
	DropForward bool
	// Foreign are the other bridges of the host. DropForward is not about what they bridge,
	// which passes the IP hooks too when br_netfilter is on: the host forwards nothing there.
	Foreign []string
	// Links are what containers of one bridge may reach of each other although icc is off.
	Links []Link
}

// Compute returns the table for a state. Equal states give equal tables, whatever
// their order.
func Compute(s State) nft.Ruleset {
	sets := newSets()
	for _, b := range s.Bridges {
		for _, se := range bridgeElems(b) {
			sets.add(se)
		}
	}
	for _, se := range foreignElems(s.Foreign) {
		sets.add(se)
	}
	for _, se := range linkElems(s.Links) {
		sets.add(se)
	}
	modes := s.modes()
	for _, p := range s.Ports {
		for _, se := range portElems(p, modes[p.Interface], s.DirectRouting) {
			sets.add(se)
		}
	}
	return nft.Ruleset{Table: Table, Sets: sets.sorted(), Chains: chains(s)}
}

func (s State) modes() map[string]driver.Bridge {
	m := make(map[string]driver.Bridge, len(s.Bridges))
	for _, b := range s.Bridges {
		m[b.Name] = b
	}
	return m
}

// bridgeElems are the elements that one bridge puts into the sets.
func bridgeElems(b driver.Bridge) []nft.SetElems {
	one := []nft.Value{b.Name}
	pair := []nft.Value{b.Name, b.Name}
	var out []nft.SetElems
	put := func(on bool, set string, e nft.Elem) {
		if on {
			out = append(out, nft.SetElems{Set: set, Elems: []nft.Elem{e}})
		}
	}
	put(true, SetBridges, nft.Elem{Key: one})
	put(true, SetSame, nft.Elem{Key: pair})
	put(b.ICC, SetICC, nft.Elem{Key: pair})
	put(b.Internal, SetInternal, nft.Elem{Key: one})
	nat4, nat6 := b.Mode4.Translates() && !b.Internal, b.Mode6.Translates() && !b.Internal
	put(nat4 && b.SNAT4.IsValid(), SetSNAT4, nft.Elem{Key: one, Data: []nft.Value{b.SNAT4}})
	put(nat6 && b.SNAT6.IsValid(), SetSNAT6, nft.Elem{Key: one, Data: []nft.Value{b.SNAT6}})
	put(nat4 && b.Masq4, SetMasq4, nft.Elem{Key: one})
	put(nat6 && b.Masq6, SetMasq6, nft.Elem{Key: one})
	put(b.Mode4 == driver.ModeNATUnprotected, SetOpen+"4", nft.Elem{Key: one})
	put(b.Mode6 == driver.ModeNATUnprotected, SetOpen+"6", nft.Elem{Key: one})
	put(b.Mode4 == driver.ModeRouted, "routed4", nft.Elem{Key: one})
	put(b.Mode6 == driver.ModeRouted, "routed6", nft.Elem{Key: one})
	for _, p := range b.Subnets {
		set := SetNets4
		if p.Addr().Is6() {
			set = SetNets6
		}
		put(true, set, nft.Elem{Key: []nft.Value{p}})
	}
	for _, t := range b.Trusted {
		put(true, SetTrusted, nft.Elem{Key: []nft.Value{t, b.Name}})
	}
	return out
}

// foreignElems are pairs: what enters by one bridge and leaves by another was routed.
func foreignElems(names []string) []nft.SetElems {
	var out []nft.SetElems
	for _, n := range names {
		out = append(out, nft.SetElems{Set: SetForeign, Elems: []nft.Elem{{Key: []nft.Value{n, n}}}})
	}
	return out
}

func linkElems(links []Link) []nft.SetElems {
	var out []nft.SetElems
	for _, l := range links {
		out = append(out, nft.SetElems{Set: SetLinks4, Elems: []nft.Elem{{Key: []nft.Value{l.From, l.To, l.Proto, l.Port}}}})
	}
	return out
}

// gateElems lead a row's ports to the one that has a socket: all of them, or what is sent
// to addresses that nobody routes.
func gateElems(p ports.Mapping) []nft.SetElems {
	one, local := netip.PrefixFrom(p.HostIP, p.HostIP.BitLen()), p.HostIP.IsLoopback() || p.HostIP.IsLinkLocalUnicast()
	var on []netip.Prefix
	switch all := p.HostIP.IsUnspecified(); {
	case !p.Gate:
	case p.ContainerIP.IsValid() && all:
		on = []netip.Prefix{loopback6, linkLocal6}
	case all:
		on = []netip.Prefix{netip.PrefixFrom(p.HostIP, 0)}
	case !p.ContainerIP.IsValid() || local:
		on = []netip.Prefix{one}
	}
	var out []nft.SetElems
	for _, a := range on {
		key := []nft.Value{a, p.Proto, nft.PortRange{First: p.HostPort, Last: p.HostPort + p.Count - 1}}
		out = append(out, nft.SetElems{Set: SetGate6, Elems: []nft.Elem{{Key: key, Data: []nft.Value{p.HostPort}}}})
	}
	return out
}

// portElems are the elements that one published port on a bridge puts into the sets.
func portElems(p ports.Mapping, b driver.Bridge, direct bool) []nft.SetElems {
	out := gateElems(p)
	if !p.ContainerIP.IsValid() {
		return out
	}
	v6 := p.ContainerIP.Is6()
	mode, every, addr, dir, rng := b.Mode4, SetAny4, SetAddr4, SetDirect4, SetRange4
	if v6 {
		mode, every, addr, dir, rng = b.Mode6, SetAny6, SetAddr6, SetDirect6, SetRange6
	}
	put := func(set string, key []nft.Value, data ...nft.Value) {
		out = append(out, nft.SetElems{Set: set, Elems: []nft.Elem{{Key: key, Data: data}}})
	}
	count := max(p.Count, 1)
	reachable := mode == driver.ModeRouted || direct || len(b.Trusted) > 0
	translated := mode.Translates() && !b.Internal
	if translated && count > 1 && p.HostPort == p.ContainerPort {
		// The same numbers on both sides: one element, whatever the count.
		on := netip.PrefixFrom(p.HostIP, p.HostIP.BitLen())
		if p.HostIP.IsUnspecified() {
			on = netip.PrefixFrom(p.HostIP, 0)
		}
		put(rng, []nft.Value{on, p.Proto, nft.PortRange{First: p.HostPort, Last: p.HostPort + count - 1}}, p.ContainerIP)
		translated = false
	}
	for i := range count {
		if reachable {
			put(dir, []nft.Value{p.ContainerIP, p.Proto, p.ContainerPort + i})
		}
		switch {
		case !translated:
		case p.HostIP.IsUnspecified():
			put(every, []nft.Value{p.Proto, p.HostPort + i}, p.ContainerIP, p.ContainerPort+i)
		default:
			put(addr, []nft.Value{p.HostIP, p.Proto, p.HostPort + i}, p.ContainerIP, p.ContainerPort+i)
		}
	}
	return out
}

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
	// Link-local addresses: the kernel forwards nothing from one, so the daemon does.
	linkLocal6 = netip.MustParsePrefix("fe80::/10")
)

func chains(s State) []nft.Chain {
	const raw, dstnat, filter, srcnat = -300, -100, 0, 100
	return []nft.Chain{
		{Name: UserChain, Foreign: true},
		{Name: "gate", Rules: []nft.Rule{
			{nft.L4{Proto: "tcp"}, nft.DNATPort{Family: nft.V6, Map: SetGate6}},
			{nft.L4{Proto: "udp"}, nft.DNATPort{Family: nft.V6, Map: SetGate6}},
		}},
		{Name: "publish", Rules: publishRules()},
		{Name: "in", Rules: inRules(s)},
		{Name: "guard", Hook: &nft.Hook{Type: "filter", Hook: "prerouting", Priority: raw}, Rules: []nft.Rule{
			{nft.InIf{Name: "lo", Not: true}, nft.Dst{Prefix: loopback4}, nft.Drop{}},
			{nft.InIf{Name: "lo", Not: true}, nft.Src{Prefix: loopback4}, nft.Drop{}},
		}},
		{Name: "from_outside", Hook: &nft.Hook{Type: "nat", Hook: "prerouting", Priority: dstnat}, Rules: []nft.Rule{
			{nft.DstLocal{}, nft.Jump{Chain: "publish"}},
		}},
		{Name: "from_host", Hook: &nft.Hook{Type: "nat", Hook: "output", Priority: dstnat}, Rules: []nft.Rule{
			// The kernel routes nothing from ::1 off the loopback: the daemon forwards it.
			{nft.Dst{Prefix: loopback6}, nft.Jump{Chain: "gate"}},
			{nft.Dst{Prefix: loopback6}, nft.Return{}},
			{nft.DstLocal{}, nft.Jump{Chain: "publish"}},
		}},
		{Name: "forward", Hook: &nft.Hook{Type: "filter", Hook: "forward", Priority: filter, Drop: s.DropForward}, Rules: forwardRules(s)},
		{Name: "source", Hook: &nft.Hook{Type: "nat", Hook: "postrouting", Priority: srcnat}, Rules: sourceRules()},
	}
}

func forwardRules(s State) []nft.Rule {
	rules := []nft.Rule{
		{nft.Jump{Chain: UserChain}},
		{nft.IfPair{Set: SetICC}, nft.Accept{}},
		{nft.InIf{Set: SetInternal}, nft.Drop{}},
		{nft.OutIf{Set: SetInternal}, nft.Drop{}},
		{nft.OutIf{Set: SetBridges}, nft.Jump{Chain: "in"}},
		{nft.InIf{Set: SetBridges}, nft.Accept{}},
	}
	if s.DropForward {
		rules = append(rules, nft.Rule{nft.IfPair{Set: SetForeign}, nft.Accept{}})
	}
	return rules
}

func publishRules() []nft.Rule {
	return []nft.Rule{
		{nft.DNATByAddr{Family: nft.V4, Map: SetAddr4}},
		{nft.DNATByPort{Family: nft.V4, Map: SetAny4}},
		{nft.DNATByRange{Family: nft.V4, Map: SetRange4}},
		{nft.Src{Prefix: linkLocal6}, nft.Jump{Chain: "gate"}},
		{nft.Src{Prefix: linkLocal6}, nft.Return{}},
		{nft.DNATByAddr{Family: nft.V6, Map: SetAddr6}},
		{nft.DNATByPort{Family: nft.V6, Map: SetAny6}},
		{nft.DNATByRange{Family: nft.V6, Map: SetRange6}},
		{nft.Jump{Chain: "gate"}},
	}
}

// inRules decide about packets towards a container's bridge.
func inRules(s State) []nft.Rule {
	rules := []nft.Rule{
		{nft.Established{}, nft.Accept{}},
		{nft.Translated{}, nft.Accept{}},
	}
	if s.Mask != 0 {
		rules = append(rules, nft.Rule{nft.Mark{Value: s.Mark, Mask: s.Mask}, nft.Accept{}})
	}
	rules = append(rules, []nft.Rule{
		{nft.PairPort{Family: nft.V4, Set: SetLinks4}, nft.Accept{}},
		// Neighbours that may not talk (icc off): no mode of the gateway opens that.
		{nft.IfPair{Set: SetSame}, nft.Drop{}},
		{nft.IsFamily{Family: nft.V4}, nft.OutIf{Set: SetOpen + "4"}, nft.Accept{}},
		{nft.IsFamily{Family: nft.V6}, nft.OutIf{Set: SetOpen + "6"}, nft.Accept{}},
		{nft.OutIf{Set: "routed4"}, nft.PortSet{Family: nft.V4, Set: SetDirect4}, nft.Accept{}},
		{nft.OutIf{Set: "routed6"}, nft.PortSet{Family: nft.V6, Set: SetDirect6}, nft.Accept{}},
		{nft.OutIf{Set: "routed4"}, nft.L4{Proto: "icmp"}, nft.Accept{}},
		{nft.OutIf{Set: "routed6"}, nft.L4{Proto: "ipv6-icmp"}, nft.Accept{}},
		{nft.IfPair{Set: SetTrusted}, nft.PortSet{Family: nft.V4, Set: SetDirect4}, nft.Accept{}},
		{nft.IfPair{Set: SetTrusted}, nft.PortSet{Family: nft.V6, Set: SetDirect6}, nft.Accept{}},
	}...)
	if s.DirectRouting {
		rules = append(rules,
			nft.Rule{nft.PortSet{Family: nft.V4, Set: SetDirect4}, nft.Accept{}},
			nft.Rule{nft.PortSet{Family: nft.V6, Set: SetDirect6}, nft.Accept{}})
	}
	return append(rules, nft.Rule{nft.Drop{}})
}

func sourceRules() []nft.Rule {
	return []nft.Rule{
		// Hairpin: from a container by a published port to one, perhaps in its own
		// network. The source decides, not the interface: with br_netfilter the packet
		// never leaves the bridge and has no incoming interface here.
		{nft.Translated{}, nft.SrcIn{Family: nft.V4, Set: SetNets4}, nft.OutIf{Set: SetBridges}, nft.Masquerade{}},
		{nft.Translated{}, nft.SrcIn{Family: nft.V6, Set: SetNets6}, nft.OutIf{Set: SetBridges}, nft.Masquerade{}},
		{nft.IfPair{Set: SetSame}, nft.Return{}},
		{nft.Src{Prefix: loopback4}, nft.OutIf{Set: SetBridges}, nft.Masquerade{}},
		{nft.SNATByIf{Family: nft.V4, Map: SetSNAT4}},
		{nft.SNATByIf{Family: nft.V6, Map: SetSNAT6}},
		{nft.IsFamily{Family: nft.V4}, nft.InIf{Set: SetMasq4}, nft.Masquerade{}},
		{nft.IsFamily{Family: nft.V6}, nft.InIf{Set: SetMasq6}, nft.Masquerade{}},
	}
}

// setList collects elements by set and renders them in a stable order.
type setList struct {
	sets []nft.Set
	at   map[string]int
}

func newSets() *setList {
	l := &setList{at: map[string]int{}}
	def := func(name string, key, data []nft.Type) {
		l.at[name] = len(l.sets)
		l.sets = append(l.sets, nft.Set{Name: name, Key: key, Data: data})
	}
	one, pair := []nft.Type{nft.IfName}, []nft.Type{nft.IfName, nft.IfName}
	port := []nft.Type{nft.Proto, nft.Service}
	def(SetBridges, one, nil)
	def(SetSame, pair, nil)
	def(SetICC, pair, nil)
	def(SetInternal, one, nil)
	def(SetForeign, pair, nil)
	def(SetTrusted, pair, nil)
	for _, f := range []struct {
		n string
		t nft.Type
	}{{"4", nft.IPv4}, {"6", nft.IPv6}} {
		byAddr := append([]nft.Type{f.t}, port...)
		to := []nft.Type{f.t, nft.Service}
		def(SetOpen+f.n, one, nil)
		def("routed"+f.n, one, nil)
		def("masq"+f.n, one, nil)
		def("snat"+f.n, one, []nft.Type{f.t})
		def("direct"+f.n, byAddr, nil)
		def("any"+f.n, port, to)
		def("addr"+f.n, byAddr, to)
		def("range"+f.n, byAddr, []nft.Type{f.t})
		l.sets[l.at["range"+f.n]].Interval = true
		def("nets"+f.n, []nft.Type{f.t}, nil)
		l.sets[l.at["nets"+f.n]].Interval = true
	}
	def(SetLinks4, append([]nft.Type{nft.IPv4, nft.IPv4}, port...), nil)
	def(SetGate6, append([]nft.Type{nft.IPv6}, port...), []nft.Type{nft.Service})
	l.sets[l.at[SetGate6]].Interval = true
	return l
}

func (l *setList) add(se nft.SetElems) {
	s := &l.sets[l.at[se.Set]]
	s.Elems = append(s.Elems, se.Elems...)
}

func (l *setList) sorted() []nft.Set {
	for i := range l.sets {
		slices.SortFunc(l.sets[i].Elems, func(a, b nft.Elem) int { return cmp.Compare(a.String(), b.String()) })
		l.sets[i].Elems = slices.CompactFunc(l.sets[i].Elems, func(a, b nft.Elem) bool { return a.String() == b.String() })
	}
	return l.sets
}
