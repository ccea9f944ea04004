package nft

import (
	"encoding/hex"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
)

// offline are the sets of a ruleset, without a kernel.
func offline(r Ruleset) sets {
	ss := sets{}
	for i, s := range r.Sets {
		ss[s.Name] = &nftables.Set{Name: s.Name, ID: uint32(i + 1)}
	}
	return ss
}

// dump writes expressions one a line, with the fields that are set; bytes are hexadecimal.
func dump(es []expr.Any) string {
	var b strings.Builder
	for _, e := range es {
		v := reflect.ValueOf(e).Elem()
		fmt.Fprintf(&b, "  %s", strings.ToLower(v.Type().Name()))
		for i := range v.NumField() {
			if f := v.Field(i); !f.IsZero() {
				val := fmt.Sprint(f.Interface())
				if raw, ok := f.Interface().([]byte); ok {
					val = hex.EncodeToString(raw)
				}
				fmt.Fprintf(&b, " %s=%s", v.Type().Field(i).Name, val)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// What the kernel gets for each statement. Registers and offsets are where an error is
// silent: the packet just does not match.
func TestExpressions(t *testing.T) {
	ss := offline(every())
	dnat, snat := translations()
	var all strings.Builder
	for _, list := range [][]statement{matches(), verdicts(), dnat, snat} {
		for _, s := range list {
			t.Run(s.name, func(t *testing.T) {
				es, err := ss.exprs(Rule{s.stmt})
				if err != nil {
					t.Fatal(err)
				}
				fmt.Fprintf(&all, "%s\n%s", s.stmt.text(), dump(es))
			})
		}
	}
	golden(t, "expressions.golden", all.String())
}

type unknown struct{}

func (unknown) text() string { return "unknown" }

func TestExpressionsRefused(t *testing.T) {
	ss := offline(Ruleset{})
	for _, c := range []struct {
		name string
		stmt Stmt
		want string
	}{
		{"set that is not there", InIf{Set: "none"}, "no set none"},
		{"pair", IfPair{Set: "none"}, "no set none"},
		{"source", SrcIn{Family: V4, Set: "none"}, "no set none"},
		{"ports", PortSet{Family: V4, Set: "none"}, "no set none"},
		{"map", DNATByAddr{Family: V6, Map: "none"}, "no set none"},
		{"source map", SNATByIf{Family: V4, Map: "none"}, "no set none"},
		{"protocol", L4{Proto: "gre"}, `unknown protocol "gre"`},
		{"statement", unknown{}, "unknown statement nft.unknown"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := ss.exprs(Rule{c.stmt}); err == nil || err.Error() != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}

// Elements as the kernel's registers have them.
func TestElements(t *testing.T) {
	ports := Set{Key: []Type{IPv4, Proto, Service}}
	ranges := Set{Key: ports.Key, Interval: true}
	to := Set{Key: []Type{Proto, Service}, Data: []Type{IPv6, Service}}
	for _, c := range []struct {
		name string
		set  Set
		elem Elem
		want string // key[-end][:value][!] for each; ! marks the end of an interval. Or an error.
	}{
		{"interface", Set{Key: []Type{IfName}}, Elem{Key: []Value{"br0"}}, "62723000000000000000000000000000"},
		{"longest interface", Set{Key: []Type{IfName}}, Elem{Key: []Value{"123456789012345"}}, "31323334353637383930313233343500"},
		{"interface too long", Set{Key: []Type{IfName}}, Elem{Key: []Value{"1234567890123456"}}, `element "1234567890123456": value 1234567890123456 does not fit type ifname`},
		{"address", Set{Key: []Type{IPv4}}, Elem{Key: []Value{addr("10.0.0.1")}}, "0a000001"},
		{"IPv6 for IPv4", Set{Key: []Type{IPv4}}, Elem{Key: []Value{addr("::1")}}, "element ::1: value ::1 does not fit type ipv4_addr"},
		{"IPv4 for IPv6", Set{Key: []Type{IPv6}}, Elem{Key: []Value{addr("10.0.0.1")}}, "element 10.0.0.1: value 10.0.0.1 does not fit type ipv6_addr"},
		{"zone", Set{Key: []Type{IPv6}}, Elem{Key: []Value{addr("fe80::1%eth0")}}, "element fe80::1%eth0: value fe80::1%eth0 does not fit type ipv6_addr"},
		{"padded", ports, Elem{Key: []Value{addr("10.0.0.1"), "tcp", uint16(80)}}, "0a0000010600000000500000"},
		{"too few", ports, Elem{Key: []Value{addr("10.0.0.1")}}, "element 10.0.0.1: 1 values for 3 types"},
		{"no protocol", ports, Elem{Key: []Value{addr("10.0.0.1"), "gre", uint16(80)}}, `element 10.0.0.1 . "gre" . 80: value gre does not fit type inet_proto`},
		{"no port", ports, Elem{Key: []Value{addr("10.0.0.1"), "tcp", 80}}, "element 10.0.0.1 . tcp . 80: value 80 does not fit type inet_service"},
		{
			"data", to,
			Elem{Key: []Value{"udp", uint16(53)}, Data: []Value{addr("fd00::2"), uint16(5353)}},
			"1100000000350000:fd00000000000000000000000000000214e90000",
		},
		{"key alone, to remove it", to, Elem{Key: []Value{"udp", uint16(53)}}, "1100000000350000"},
		{"data that does not fit", to, Elem{Key: []Value{"udp", uint16(53)}, Data: []Value{addr("10.0.0.2"), uint16(1)}}, "element udp . 53 : 10.0.0.2 . 1: value 10.0.0.2 does not fit type ipv6_addr"},
		{
			"prefix and range", ranges,
			Elem{Key: []Value{prefix("10.1.2.3/9"), "sctp", PortRange{First: 256, Last: 511}}},
			"0a0000008400000001000000-0a7fffff8400000001ff0000",
		},
		{"single in a range", ranges, Elem{Key: []Value{addr("10.0.0.1"), "tcp", uint16(80)}}, "0a0000010600000000500000-0a0000010600000000500000"},
		{"prefix", Set{Key: []Type{IPv4}, Interval: true}, Elem{Key: []Value{prefix("10.1.2.3/16")}}, "0a010000 0a020000!"},
		{"whole space", Set{Key: []Type{IPv4}, Interval: true}, Elem{Key: []Value{prefix("0.0.0.0/0")}}, "00000000"},
		{"end of the space", Set{Key: []Type{IPv4}, Interval: true}, Elem{Key: []Value{prefix("255.255.255.255/32")}}, "ffffffff"},
		{"no prefix", Set{Key: []Type{IPv4}, Interval: true}, Elem{Key: []Value{addr("10.0.0.1")}}, "element 10.0.0.1 is no prefix"},
		{"unknown type", Set{Key: []Type{"mark"}}, Elem{Key: []Value{uint16(1)}}, "element 1: value 1 does not fit type mark"},
	} {
		t.Run(c.name, func(t *testing.T) {
			es, err := encodeElems(c.set, []Elem{c.elem})
			var got []string
			for _, e := range es {
				s := hex.EncodeToString(e.Key)
				if e.KeyEnd != nil {
					s += "-" + hex.EncodeToString(e.KeyEnd)
				}
				if e.Val != nil {
					s += ":" + hex.EncodeToString(e.Val)
				}
				if e.IntervalEnd {
					s += "!"
				}
				got = append(got, s)
			}
			if err != nil {
				got = []string{err.Error()}
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("%s, want %s", s, c.want)
			}
		})
	}
}

func TestConcatRefuses(t *testing.T) {
	if _, err := concat([]Type{IPv4, "mark"}); err == nil || err.Error() != `unknown type "mark"` {
		t.Error(err)
	}
}
