package firewall

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ports"
)

var update = flag.Bool("update", false, "write the golden files")

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func TestCompute(t *testing.T) {
	docker0 := driver.Bridge{Name: "docker0", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd00::/64")}, ICC: true, Masq4: true}
	any4, any6 := addr("0.0.0.0"), addr("::")
	web := ports.Mapping{Interface: "docker0", Proto: "tcp", HostIP: any4, HostPort: 8080, ContainerIP: addr("172.17.0.2"), ContainerPort: 80}
	for name, s := range map[string]State{
		"empty":   {},
		"default": {Bridges: []driver.Bridge{docker0}},
		"ports": {Bridges: []driver.Bridge{docker0}, Ports: []ports.Mapping{
			web,
			{Interface: "docker0", Proto: "udp", HostIP: addr("127.0.0.1"), HostPort: 53, ContainerIP: addr("172.17.0.3"), ContainerPort: 5353},
		}},
		"icc-off-router": {Bridges: []driver.Bridge{{Name: "docker0", Masq4: true}}, DropForward: true, Foreign: []string{"virbr0"}, Links: []Link{
			{From: addr("172.17.0.3"), To: addr("172.17.0.2"), Proto: "tcp", Port: 5432}, {From: addr("172.17.0.3"), To: addr("172.17.0.2"), Proto: "udp", Port: 53},
		}},
		"internal": {Bridges: []driver.Bridge{docker0, {Name: "br-i", ICC: true, Internal: true, Masq4: true}}},
		"modes": {Bridges: []driver.Bridge{
			{Name: "br-r", ICC: true, Masq4: true, Masq6: true, Mode4: driver.ModeRouted, Mode6: driver.ModeNAT},
			{Name: "br-u", ICC: true, Masq4: true, Mode4: driver.ModeNATUnprotected},
			{Name: "br-s", ICC: true, Masq4: true, SNAT4: addr("192.0.2.7"), Trusted: []string{"eth1"}},
		}, Ports: []ports.Mapping{
			{Interface: "br-r", Proto: "tcp", HostIP: any4, HostPort: 1, ContainerIP: addr("172.18.0.2"), ContainerPort: 80},
			{Interface: "br-r", Proto: "tcp", HostIP: any6, HostPort: 1, ContainerIP: addr("fd00::2"), ContainerPort: 80},
			{Interface: "br-s", Proto: "tcp", HostIP: any4, HostPort: 2, ContainerIP: addr("172.19.0.2"), ContainerPort: 81},
		}},
		"range": {Bridges: []driver.Bridge{docker0, {Name: "br-t", Trusted: []string{"eth1"}}}, Ports: []ports.Mapping{
			{Interface: "docker0", Proto: "udp", HostIP: any4, HostPort: 10000, ContainerIP: addr("172.17.0.2"), ContainerPort: 10000, Count: 10000},
			{Interface: "docker0", Proto: "udp", HostIP: addr("fd00::1"), HostPort: 10000, ContainerIP: addr("fd00::2"), ContainerPort: 10000, Count: 10000},
			{Interface: "docker0", Proto: "tcp", HostIP: any6, HostPort: 20000, ContainerPort: 30000, Count: 1000, Gate: true},
			{Interface: "docker0", Proto: "udp", HostIP: addr("2001:db8::1"), HostPort: 20000, ContainerPort: 30000, Count: 1000, Gate: true},
			{Interface: "docker0", Proto: "tcp", HostIP: any6, HostPort: 40000, ContainerIP: addr("fd00::2"), ContainerPort: 40000, Count: 100, Gate: true},
			{Interface: "docker0", Proto: "tcp", HostIP: addr("2001:db8::1"), HostPort: 50000, ContainerIP: addr("fd00::2"), ContainerPort: 50000, Count: 100, Gate: true},
			{Interface: "docker0", Proto: "tcp", HostIP: any4, HostPort: 8000, ContainerIP: addr("172.17.0.2"), ContainerPort: 9000, Count: 2},
			{Interface: "br-t", Proto: "sctp", HostIP: addr("192.0.2.1"), HostPort: 7000, ContainerIP: addr("172.18.0.2"), ContainerPort: 7000, Count: 3},
		}},
		"direct": {Bridges: []driver.Bridge{docker0}, Ports: []ports.Mapping{web}, Settings: Settings{DirectRouting: true, Mark: 1, Mask: 3}},
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
		b := driver.Bridge{Name: "br-" + string(rune('a'+i%26)) + string(rune('a'+i/26)), ICC: true, Masq4: true}
		many.Bridges = append(many.Bridges, b)
		many.Ports = append(many.Ports, ports.Mapping{Interface: b.Name, Proto: "tcp", HostIP: addr("0.0.0.0"), HostPort: uint16(i + 1), ContainerIP: addr("172.17.0.2"), ContainerPort: 80})
	}
	if a, b := count(State{}), count(many); a != b {
		t.Errorf("%d rules without, %d with a thousand ports", a, b)
	}
}
