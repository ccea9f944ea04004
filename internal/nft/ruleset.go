// Package nft holds an nftables table as plain data: it renders it in nft(8)'s own
// syntax (for golden files and people) and applies it through netlink in one atomic
// transaction. It knows only the few statements Gantry's firewall needs.
package nft

import (
	"fmt"
	"net/netip"
	"strings"
)

// Type names a data type of a set's key or a map's data, in nft's words.
type Type string

// The types known here.
const (
	IfName  Type = "ifname"
	IPv4    Type = "ipv4_addr"
	IPv6    Type = "ipv6_addr"
	Proto   Type = "inet_proto"
	Service Type = "inet_service"
)

// Value is one component of a key or of data: an interface name or protocol name
// (string), an address (netip.Addr), a port (uint16), or in a key of an Interval set a
// prefix (netip.Prefix) or a range of ports (PortRange).
type Value any

// PortRange are the ports from First to Last.
type PortRange struct{ First, Last uint16 }

// String renders the range as nft does.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Elem is one element of a set, or of a map when Data is not empty.
type Elem struct{ Key, Data []Value }

// String renders the element as nft does.
func (e Elem) String() string {
	s := joinValues(e.Key)
	if len(e.Data) > 0 {
		s += " : " + joinValues(e.Data)
	}
	return s
}

func joinValues(vs []Value) string {
	parts := make([]string, len(vs))
	for i, v := range vs {
		parts[i] = fmt.Sprint(v)
		if s, ok := v.(string); ok && !isProto(s) {
			parts[i] = `"` + s + `"`
		}
	}
	return strings.Join(parts, " . ")
}

func isProto(s string) bool { return s == "tcp" || s == "udp" || s == "sctp" }

// Set is a named set, or a map when Data is not empty.
type Set struct {
	Name      string
	Key, Data []Type
	// Interval sets hold prefixes, or concatenations with prefixes and ranges, which must
	// not overlap.
	Interval bool
	Elems    []Elem
}

// Hook places a base chain.
type Hook struct {
	Type     string // "filter" or "nat"
	Hook     string // "prerouting", "input", "forward", "output", "postrouting"
	Priority int
	Drop     bool // policy drop instead of accept
}

// Chain is a named chain. A Foreign chain belongs to the user: it is created when
// missing and never changed, as is all whose name begins with its name.
type Chain struct {
	Name    string
	Hook    *Hook
	Foreign bool
	Rules   []Rule
}

// Rule is a list of statements, all of which must match up to the one that acts.
type Rule []Stmt

// String renders the rule as nft does.
func (r Rule) String() string {
	parts := make([]string, len(r))
	for i, s := range r {
		parts[i] = s.text()
	}
	return strings.Join(parts, " ")
}

// Ruleset is one table of family inet.
type Ruleset struct {
	Table  string
	Sets   []Set
	Chains []Chain
}

// theirs tells whether a chain or set of the table is the user's, by its name.
func (r Ruleset) theirs(name string) bool {
	for _, c := range r.Chains {
		if c.Foreign && strings.HasPrefix(name, c.Name) {
			return true
		}
	}
	return false
}

// String renders the whole table in the syntax `nft -f` reads.
func (r Ruleset) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", r.Table)
	for _, s := range r.Sets {
		kind, typ := "set", joinTypes(s.Key)
		if len(s.Data) > 0 {
			kind, typ = "map", typ+" : "+joinTypes(s.Data)
		}
		fmt.Fprintf(&b, "\t%s %s {\n\t\ttype %s\n", kind, s.Name, typ)
		if s.Interval {
			fmt.Fprint(&b, "\t\tflags interval\n")
		}
		if len(s.Elems) > 0 {
			fmt.Fprint(&b, "\t\telements = {\n")
			for _, e := range s.Elems {
				fmt.Fprintf(&b, "\t\t\t%s,\n", e)
			}
			fmt.Fprint(&b, "\t\t}\n")
		}
		fmt.Fprint(&b, "\t}\n")
	}
	for _, c := range r.Chains {
		fmt.Fprintf(&b, "\tchain %s {\n", c.Name)
		if h := c.Hook; h != nil {
			policy := "accept"
			if h.Drop {
				policy = "drop"
			}
			fmt.Fprintf(&b, "\t\ttype %s hook %s priority %d; policy %s;\n", h.Type, h.Hook, h.Priority, policy)
		}
		for _, rule := range c.Rules {
			fmt.Fprintf(&b, "\t\t%s\n", rule)
		}
		fmt.Fprint(&b, "\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func joinTypes(ts []Type) string {
	parts := make([]string, len(ts))
	for i, t := range ts {
		parts[i] = string(t)
	}
	return strings.Join(parts, " . ")
}

// Family restricts a statement to IPv4 or IPv6.
type Family int

// The families.
const (
	V4 Family = 4
	V6 Family = 6
)

func (f Family) ip() string {
	if f == V4 {
		return "ip"
	}
	return "ip6"
}

// Stmt is one statement of a rule. The types below are all there are.
type Stmt interface{ text() string }

// InIf matches the incoming interface's name: one name, or a set by name.
type InIf struct {
	Name, Set string
	Not       bool
}

func (s InIf) text() string { return "iifname " + nameOrSet(s.Name, s.Set, s.Not) }

// OutIf matches the outgoing interface's name.
type OutIf struct {
	Name, Set string
	Not       bool
}

func (s OutIf) text() string { return "oifname " + nameOrSet(s.Name, s.Set, s.Not) }

func nameOrSet(name, set string, not bool) string {
	out := ""
	if not {
		out = "!= "
	}
	if set != "" {
		return out + "@" + set
	}
	return out + `"` + name + `"`
}

// IfPair matches incoming and outgoing interface together against a set of pairs.
type IfPair struct{ Set string }

func (s IfPair) text() string { return "iifname . oifname @" + s.Set }

// IsFamily matches packets of one family.
type IsFamily struct{ Family Family }

func (s IsFamily) text() string {
	if s.Family == V4 {
		return "meta nfproto ipv4"
	}
	return "meta nfproto ipv6"
}

// Dst matches the destination against a prefix.
type Dst struct {
	Prefix netip.Prefix
	Not    bool
}

func (s Dst) text() string { return addrText("daddr", s.Prefix, s.Not) }

// Src matches the source against a prefix.
type Src struct {
	Prefix netip.Prefix
	Not    bool
}

func (s Src) text() string { return addrText("saddr", s.Prefix, s.Not) }

func addrText(field string, p netip.Prefix, not bool) string {
	ip, op, v := "ip6", "", p.String()
	if p.Addr().Is4() {
		ip = "ip"
	}
	if p.IsSingleIP() {
		v = p.Addr().String()
	}
	if not {
		op = "!= "
	}
	return fmt.Sprintf("%s %s %s%s", ip, field, op, v)
}

// SrcIn matches the source against a set.
type SrcIn struct {
	Family Family
	Set    string
}

func (s SrcIn) text() string { return s.Family.ip() + " saddr @" + s.Set }

// DstLocal matches packets to an address of this host.
type DstLocal struct{}

func (DstLocal) text() string { return "fib daddr type local" }

// Established matches packets of connections already let through.
type Established struct{}

func (Established) text() string { return "ct state established,related" }

// Translated matches connections whose destination was translated.
type Translated struct{}

func (Translated) text() string { return "ct status dnat" }

// Mark matches the packet's mark under a mask.
type Mark struct{ Value, Mask uint32 }

func (s Mark) text() string { return fmt.Sprintf("meta mark & 0x%08x == 0x%08x", s.Mask, s.Value) }

// L4 matches the transport protocol by name: "tcp", "udp", "sctp", "icmp" or "ipv6-icmp".
type L4 struct{ Proto string }

func (s L4) text() string { return "meta l4proto " + s.Proto }

// PortSet matches destination address, protocol and port against a set.
type PortSet struct {
	Family Family
	Set    string
}

func (s PortSet) text() string {
	return s.Family.ip() + " daddr . meta l4proto . th dport @" + s.Set
}

// PairPort matches source, destination, protocol and port against a set.
type PairPort struct {
	Family Family
	Set    string
}

func (s PairPort) text() string {
	ip := s.Family.ip()
	return ip + " saddr . " + ip + " daddr . meta l4proto . th dport @" + s.Set
}

// DNATByPort translates the destination by a map keyed by protocol and port.
type DNATByPort struct {
	Family Family
	Map    string
}

func (s DNATByPort) text() string {
	return IsFamily{Family: s.Family}.text() + " dnat " + s.Family.ip() + " to meta l4proto . th dport map @" + s.Map
}

// DNATByAddr translates the destination by a map keyed by address, protocol and port.
type DNATByAddr struct {
	Family Family
	Map    string
}

func (s DNATByAddr) text() string {
	ip := s.Family.ip()
	return "dnat " + ip + " to " + ip + " daddr . meta l4proto . th dport map @" + s.Map
}

// DNATByRange translates the destination's address, and leaves the port, by an interval
// map keyed by address, protocol and port.
type DNATByRange struct {
	Family Family
	Map    string
}

func (s DNATByRange) text() string { return DNATByAddr(s).text() }

// DNATPort translates the destination's port, and leaves the address, by an interval map
// keyed by address, protocol and port. The rule must have matched the protocol before.
type DNATPort struct {
	Family Family
	Map    string
}

func (s DNATPort) text() string {
	return "dnat to :" + s.Family.ip() + " daddr . meta l4proto . th dport map @" + s.Map
}

// SNATByIf gives forwarded packets a fixed source by a map keyed by incoming interface.
type SNATByIf struct {
	Family Family
	Map    string
}

func (s SNATByIf) text() string {
	return IsFamily{Family: s.Family}.text() + " snat " + s.Family.ip() + " to iifname map @" + s.Map
}

// Masquerade gives packets the outgoing interface's address.
type Masquerade struct{}

func (Masquerade) text() string { return "masquerade" }

// What ends the rule's chain.
type (
	// Accept lets the packet go on.
	Accept struct{}
	// Drop ends it.
	Drop struct{}
	// Return goes back to the chain that this one was called from.
	Return struct{}
)

func (Accept) text() string { return "accept" }
func (Drop) text() string   { return "drop" }
func (Return) text() string { return "return" }

// Jump goes through another chain and comes back.
type Jump struct{ Chain string }

func (s Jump) text() string { return "jump " + s.Chain }

// Changes are additions to and removals from sets: one transaction.
type Changes struct{ Add, Del []SetElems }

// SetElems are elements of one set of the table.
type SetElems struct {
	Set   string
	Elems []Elem
}

// Empty reports whether there is nothing to do.
func (c Changes) Empty() bool { return len(c.Add) == 0 && len(c.Del) == 0 }
