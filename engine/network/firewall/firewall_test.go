package firewall

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files")

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestCompute(t *testing.T) {
	docker0 := Bridge{Name: "docker0", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd00::/64")}, ICC: true, Masq4: true}
	any4, any6 := addr("0.0.0.0"), addr("::")
	web := Port{Bridge: "docker0", Proto: "tcp", HostIP: any4, HostPort: 8080, IP: addr("172.17.0.2"), Port: 80}
	for name, s := range map[string]State{
		"empty":   {},
		"default": {Bridges: []Bridge{docker0}},
		"ports": {Bridges: []Bridge{docker0}, Ports: []Port{
			web,
			{Bridge: "docker0", Proto: "udp", HostIP: addr("127.0.0.1"), HostPort: 53, IP: addr("172.17.0.3"), Port: 5353},
		}},
		"icc-off-router": {Bridges: []Bridge{{Name: "docker0", Masq4: true}}, DropForward: true, Foreign: []string{"virbr0"}, Links: []Link{
			{From: addr("172.17.0.3"), To: addr("172.17.0.2"), Proto: "tcp", Port: 5432}, {From: addr("172.17.0.3"), To: addr("172.17.0.2"), Proto: "udp", Port: 53},
		}},
		"internal": {Bridges: []Bridge{docker0, {Name: "br-i", ICC: true, Internal: true, Masq4: true}}},
		"modes": {Bridges: []Bridge{
			{Name: "br-r", ICC: true, Masq4: true, Masq6: true, Mode4: ModeRouted, Mode6: ModeNAT},
			{Name: "br-u", ICC: true, Masq4: true, Mode4: ModeNATUnprotected},
			{Name: "br-s", ICC: true, Masq4: true, SNAT4: addr("192.0.2.7"), Trusted: []string{"eth1"}},
		}, Ports: []Port{
			{Bridge: "br-r", Proto: "tcp", HostIP: any4, HostPort: 1, IP: addr("172.18.0.2"), Port: 80},
			{Bridge: "br-r", Proto: "tcp", HostIP: any6, HostPort: 1, IP: addr("fd00::2"), Port: 80},
			{Bridge: "br-s", Proto: "tcp", HostIP: any4, HostPort: 2, IP: addr("172.19.0.2"), Port: 81},
		}},
		"range": {Bridges: []Bridge{docker0, {Name: "br-t", Trusted: []string{"eth1"}}}, Ports: []Port{
			{Bridge: "docker0", Proto: "udp", HostIP: any4, HostPort: 10000, IP: addr("172.17.0.2"), Port: 10000, Count: 10000},
			{Bridge: "docker0", Proto: "udp", HostIP: addr("fd00::1"), HostPort: 10000, IP: addr("fd00::2"), Port: 10000, Count: 10000},
			{Bridge: "docker0", Proto: "tcp", HostIP: any6, HostPort: 20000, Port: 30000, Count: 1000, Gate: true},
			{Bridge: "docker0", Proto: "udp", HostIP: addr("2001:db8::1"), HostPort: 20000, Port: 30000, Count: 1000, Gate: true},
			{Bridge: "docker0", Proto: "tcp", HostIP: any6, HostPort: 40000, IP: addr("fd00::2"), Port: 40000, Count: 100, Gate: true},
			{Bridge: "docker0", Proto: "tcp", HostIP: addr("2001:db8::1"), HostPort: 50000, IP: addr("fd00::2"), Port: 50000, Count: 100, Gate: true},
			{Bridge: "docker0", Proto: "tcp", HostIP: any4, HostPort: 8000, IP: addr("172.17.0.2"), Port: 9000, Count: 2},
			{Bridge: "br-t", Proto: "sctp", HostIP: addr("192.0.2.1"), HostPort: 7000, IP: addr("172.18.0.2"), Port: 7000, Count: 3},
		}},
		"direct": {Bridges: []Bridge{docker0}, Ports: []Port{web}, Settings: Settings{DirectRouting: true, Mark: 1, Mask: 3}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Compute(s).String()
			path := filepath.Join("testdata", name+".nft")
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("differs from %s:\n%s", path, got)
			}
			slices.Reverse(s.Bridges)
			slices.Reverse(s.Ports)
			if again := Compute(s).String(); again != got {
				t.Errorf("depends on order")
			}
		})
	}
}

// The number of rules must not grow with ports or networks.
func TestRulesAreConstant(t *testing.T) {
	count := func(s State) (n int) {
		for _, c := range Compute(s).Chains {
			n += len(c.Rules)
		}
		return n
	}
	var many State
	for i := range 1000 {
		b := Bridge{Name: "br-" + string(rune('a'+i%26)) + string(rune('a'+i/26)), ICC: true, Masq4: true}
		many.Bridges = append(many.Bridges, b)
		many.Ports = append(many.Ports, Port{Bridge: b.Name, Proto: "tcp", HostIP: addr("0.0.0.0"), HostPort: uint16(i + 1), IP: addr("172.17.0.2"), Port: 80})
	}
	if a, b := count(State{}), count(many); a != b {
		t.Errorf("%d rules without, %d with a thousand ports", a, b)
	}
}
