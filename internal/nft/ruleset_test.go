package nft

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s differs (run with -update and look at the change):\n%s", name, got)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }
func addr(s string) netip.Addr     { return netip.MustParseAddr(s) }

// statement is one of each kind that there is, and the chain type it fits in.
type statement struct {
	name string
	stmt Stmt
	text string
}

// matches are the statements that look at a packet.
func matches() []statement {
	return []statement{
		{"in", InIf{Name: "eth0"}, `iifname "eth0"`},
		{"not in", InIf{Name: "eth0", Not: true}, `iifname != "eth0"`},
		{"in a set", InIf{Set: "ifs"}, "iifname @ifs"},
		{"not in a set", InIf{Set: "ifs", Not: true}, "iifname != @ifs"},
		{"out", OutIf{Name: "eth0"}, `oifname "eth0"`},
		{"not out", OutIf{Name: "eth0", Not: true}, `oifname != "eth0"`},
		{"out in a set", OutIf{Set: "ifs"}, "oifname @ifs"},
		{"pair", IfPair{Set: "pairs"}, "iifname . oifname @pairs"},
		{"IPv4", IsFamily{Family: V4}, "meta nfproto ipv4"},
		{"IPv6", IsFamily{Family: V6}, "meta nfproto ipv6"},
		{"to an address", Dst{Prefix: prefix("10.1.2.3/32")}, "ip daddr 10.1.2.3"},
		{"to a network", Dst{Prefix: prefix("10.1.0.0/17")}, "ip daddr 10.1.0.0/17"},
		{"not to a network", Dst{Prefix: prefix("fd00::/61"), Not: true}, "ip6 daddr != fd00::/61"},
		{"from an address", Src{Prefix: prefix("fd00::1/128")}, "ip6 saddr fd00::1"},
		{"not from a network", Src{Prefix: prefix("127.0.0.0/8"), Not: true}, "ip saddr != 127.0.0.0/8"},
		{"from a set", SrcIn{Family: V4, Set: "nets4"}, "ip saddr @nets4"},
		{"from a set, IPv6", SrcIn{Family: V6, Set: "nets6"}, "ip6 saddr @nets6"},
		{"to this host", DstLocal{}, "fib daddr type local"},
		{"established", Established{}, "ct state established,related"},
		{"translated", Translated{}, "ct status dnat"},
		{"mark", Mark{Value: 1, Mask: 0xff}, "meta mark & 0x000000ff == 0x00000001"},
		{"tcp", L4{Proto: "tcp"}, "meta l4proto tcp"},
		{"udp", L4{Proto: "udp"}, "meta l4proto udp"},
		{"sctp", L4{Proto: "sctp"}, "meta l4proto sctp"},
		{"icmp", L4{Proto: "icmp"}, "meta l4proto icmp"},
		{"icmp6", L4{Proto: "ipv6-icmp"}, "meta l4proto ipv6-icmp"},
		{"ports", PortSet{Family: V4, Set: "ports4"}, "ip daddr . meta l4proto . th dport @ports4"},
		{"ports, IPv6", PortSet{Family: V6, Set: "ports6"}, "ip6 daddr . meta l4proto . th dport @ports6"},
		{"pair and port", PairPort{Family: V4, Set: "pairport4"}, "ip saddr . ip daddr . meta l4proto . th dport @pairport4"},
		{"pair and port, IPv6", PairPort{Family: V6, Set: "pairport6"}, "ip6 saddr . ip6 daddr . meta l4proto . th dport @pairport6"},
	}
}

func verdicts() []statement {
	return []statement{
		{"accept", Accept{}, "accept"},
		{"drop", Drop{}, "drop"},
		{"return", Return{}, "return"},
		{"jump", Jump{Chain: "other"}, "jump other"},
	}
}

func translations() (dnat, snat []statement) {
	dnat = []statement{
		{"by port", DNATByPort{Family: V4, Map: "byport4"}, "meta nfproto ipv4 dnat ip to meta l4proto . th dport map @byport4"},
		{"by port, IPv6", DNATByPort{Family: V6, Map: "byport6"}, "meta nfproto ipv6 dnat ip6 to meta l4proto . th dport map @byport6"},
		{"by address", DNATByAddr{Family: V4, Map: "byaddr4"}, "dnat ip to ip daddr . meta l4proto . th dport map @byaddr4"},
		{"by address, IPv6", DNATByAddr{Family: V6, Map: "byaddr6"}, "dnat ip6 to ip6 daddr . meta l4proto . th dport map @byaddr6"},
		{"by range", DNATByRange{Family: V4, Map: "byrange4"}, "dnat ip to ip daddr . meta l4proto . th dport map @byrange4"},
		{"the port", DNATPort{Family: V4, Map: "port4"}, "dnat to :ip daddr . meta l4proto . th dport map @port4"},
	}
	snat = []statement{
		{"source by interface", SNATByIf{Family: V4, Map: "source4"}, "meta nfproto ipv4 snat ip to iifname map @source4"},
		{"masquerade", Masquerade{}, "masquerade"},
	}
	return dnat, snat
}

// every is a ruleset with one rule for each statement, and every kind of set.
func every() Ruleset {
	dnat, snat := translations()
	rules := func(list []statement, before ...Stmt) (out []Rule) {
		for _, s := range list {
			r := Rule{}
			if _, ok := s.stmt.(DNATPort); ok {
				r = append(r, L4{Proto: "tcp"})
			}
			out = append(out, append(append(r, before...), s.stmt))
		}
		return out
	}
	var filter []Rule
	for _, s := range matches() {
		filter = append(filter, Rule{s.stmt, Accept{}})
	}
	filter = append(filter, rules(verdicts(), InIf{Name: "x"})...)
	tcp := func(a string, p uint16) []Value { return []Value{addr(a), "tcp", p} }
	return Ruleset{
		Table: "every",
		Sets: []Set{
			{Name: "ifs", Key: []Type{IfName}, Elems: []Elem{{Key: []Value{"docker0"}}, {Key: []Value{"br-1"}}}},
			{Name: "pairs", Key: []Type{IfName, IfName}, Elems: []Elem{{Key: []Value{"a", "b"}}}},
			{Name: "nets4", Key: []Type{IPv4}, Interval: true, Elems: []Elem{{Key: []Value{prefix("10.0.0.0/8")}}, {Key: []Value{prefix("224.0.0.0/3")}}}},
			{Name: "nets6", Key: []Type{IPv6}, Interval: true, Elems: []Elem{{Key: []Value{prefix("fd00::/64")}}}},
			{Name: "ports4", Key: []Type{IPv4, Proto, Service}, Elems: []Elem{{Key: tcp("10.0.0.1", 80)}}},
			{Name: "ports6", Key: []Type{IPv6, Proto, Service}, Interval: true, Elems: []Elem{{Key: []Value{prefix("fd00::/64"), "udp", PortRange{First: 1, Last: 9}}}}},
			{Name: "pairport4", Key: []Type{IPv4, IPv4, Proto, Service}, Elems: []Elem{{Key: []Value{addr("10.0.0.1"), addr("10.0.0.2"), "tcp", uint16(5)}}}},
			{Name: "pairport6", Key: []Type{IPv6, IPv6, Proto, Service}},
			{Name: "byport4", Key: []Type{Proto, Service}, Data: []Type{IPv4, Service}, Elems: []Elem{{Key: []Value{"tcp", uint16(80)}, Data: []Value{addr("10.0.0.2"), uint16(8080)}}}},
			{Name: "byport6", Key: []Type{Proto, Service}, Data: []Type{IPv6, Service}},
			{Name: "byaddr4", Key: []Type{IPv4, Proto, Service}, Data: []Type{IPv4, Service}, Elems: []Elem{{Key: tcp("192.0.2.1", 443), Data: []Value{addr("10.0.0.2"), uint16(8443)}}}},
			{Name: "byaddr6", Key: []Type{IPv6, Proto, Service}, Data: []Type{IPv6, Service}},
			{Name: "byrange4", Key: []Type{IPv4, Proto, Service}, Data: []Type{IPv4}, Interval: true, Elems: []Elem{
				{Key: []Value{prefix("0.0.0.0/0"), "tcp", PortRange{First: 1000, Last: 1999}}, Data: []Value{addr("10.0.0.3")}},
			}},
			{Name: "port4", Key: []Type{IPv4, Proto, Service}, Data: []Type{Service}, Interval: true, Elems: []Elem{
				{Key: []Value{prefix("0.0.0.0/0"), "tcp", PortRange{First: 5, Last: 5}}, Data: []Value{uint16(6)}},
			}},
			{Name: "source4", Key: []Type{IfName}, Data: []Type{IPv4}, Elems: []Elem{{Key: []Value{"docker0"}, Data: []Value{addr("192.0.2.7")}}}},
		},
		Chains: []Chain{
			{Name: "user", Foreign: true},
			{Name: "other", Rules: []Rule{{Drop{}}}},
			{Name: "forward", Hook: &Hook{Type: "filter", Hook: "forward", Priority: -1, Drop: true}, Rules: filter},
			{Name: "input", Hook: &Hook{Type: "filter", Hook: "input"}},
			{Name: "output", Hook: &Hook{Type: "nat", Hook: "output", Priority: -100}},
			{Name: "destination", Hook: &Hook{Type: "nat", Hook: "prerouting", Priority: -100}, Rules: rules(dnat)},
			{Name: "source", Hook: &Hook{Type: "nat", Hook: "postrouting", Priority: 100}, Rules: rules(snat)},
		},
	}
}

func TestStatementText(t *testing.T) {
	dnat, snat := translations()
	for _, list := range [][]statement{matches(), verdicts(), dnat, snat} {
		for _, s := range list {
			t.Run(s.name, func(t *testing.T) {
				if got := (Rule{s.stmt}).String(); got != s.text {
					t.Errorf("%q, want %q", got, s.text)
				}
			})
		}
	}
}

func TestRulesetText(t *testing.T) { golden(t, "every.nft", every().String()) }

func TestElemText(t *testing.T) {
	for _, c := range []struct {
		name, want string
		elem       Elem
	}{
		{"interface", `"br-1"`, Elem{Key: []Value{"br-1"}}},
		{"port", "10.0.0.1 . tcp . 80", Elem{Key: []Value{addr("10.0.0.1"), "tcp", uint16(80)}}},
		{"range", "10.0.0.0/8 . udp . 1-9", Elem{Key: []Value{prefix("10.0.0.0/8"), "udp", PortRange{First: 1, Last: 9}}}},
		{"of a map", "sctp . 80 : fd00::2 . 8080", Elem{Key: []Value{"sctp", uint16(80)}, Data: []Value{addr("fd00::2"), uint16(8080)}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.elem.String(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// All whose name begins with a foreign chain's belongs to the user.
func TestTheirs(t *testing.T) {
	r := Ruleset{Chains: []Chain{{Name: "user", Foreign: true}, {Name: "forward"}}}
	for name, want := range map[string]bool{"user": true, "user-web": true, "username": true, "use": false, "forward": false, "": false, "my-user": false} {
		t.Run(name, func(t *testing.T) {
			if got := r.theirs(name); got != want {
				t.Errorf("%t, want %t", got, want)
			}
		})
	}
}

func TestChangesEmpty(t *testing.T) {
	elems := []SetElems{{Set: "s"}}
	for _, c := range []struct {
		name string
		ch   Changes
		want bool
	}{{"nothing", Changes{}, true}, {"additions", Changes{Add: elems}, false}, {"removals", Changes{Del: elems}, false}} {
		t.Run(c.name, func(t *testing.T) {
			if got := c.ch.Empty(); got != c.want {
				t.Errorf("%t, want %t", got, c.want)
			}
		})
	}
}
