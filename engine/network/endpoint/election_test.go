package endpoint

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/gantry/gantry/engine/network/store"
	"github.com/moby/moby/api/types/network"
)

// kind is a driver whose networks have a gateway unless they are internal, and on which the
// host publishes ports.
type kind struct{ driver.Bare }

func (kind) ProvidesGateway(n driver.Network, _ bool) bool { return !n.Internal }

func (kind) Publishing(n driver.Network) driver.Publishing {
	return driver.Publishing{Interface: n.Name, Internal: n.Internal}
}

// drivers are kind, by the name "p", and for every other name one like it on which the host
// publishes nothing.
func drivers() driver.Set {
	d := driver.Bare{Description: driver.Description{Scope: driver.ScopeLocal, HasInterfaces: true}}
	return driver.Table{
		Builtin: map[string]driver.New{"p": func(driver.Host) driver.Driver { return kind{d} }},
		Plugin:  func(driver.Host) driver.Driver { return struct{ driver.Driver }{kind{d}} },
	}.Open(nil)
}

// ends makes a container's endpoints: "name priority families", families being 4, 6, both, or
// neither; of a network that is internal where the name has a capital.
func ends(t *testing.T, specs ...string) (out []*endpoint) {
	t.Helper()
	nets, err := store.Open(store.Config{DataRoot: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	for i, spec := range specs {
		f := strings.Fields(spec)
		n := store.NewNetwork(network.Network{
			ID: f[0], Name: f[0], Driver: f[0][:1], Internal: strings.ToLower(f[0]) != f[0],
			IPAM: network.IPAM{Config: []network.IPAMConfig{
				{Subnet: netip.MustParsePrefix("10.0.0.0/24"), Gateway: netip.MustParseAddr("10.0.0.1")},
				{Subnet: netip.MustParsePrefix("fd00::/64"), Gateway: netip.MustParseAddr("fd00::1")},
			}},
		}, drivers())
		if err := nets.Enter(n); err != nil {
			t.Fatal(err)
		}
		e := &endpoint{n: n, Endpoint: sandbox.Endpoint{Priority: int(f[1][0] - '0'), Name: "c"}}
		if strings.Contains(f[2], "4") {
			e.IPv4 = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(2 + i)}), 24)
		}
		if strings.Contains(f[2], "6") {
			e.IPv6 = netip.MustParsePrefix("fd00::2/64")
		}
		out = append(out, e)
	}
	return out
}

func names(g gateways) string {
	var out []string
	for _, e := range g {
		if e == nil {
			out = append(out, "-")
		} else {
			out = append(out, e.n.Name)
		}
	}
	return strings.Join(out, " ")
}

func TestElect(t *testing.T) {
	for _, c := range []struct {
		name       string
		ends       []string
		want, pubs string
	}{
		{"nobody", nil, "- -", "- -"},
		{"one of both families", []string{"pa 0 46"}, "pa pa", "pa pa"},
		{"the first of each family", []string{"pa 0 4", "pb 0 46"}, "pa pb", "pa pb"},
		{"internal networks provide none", []string{"pA 0 46", "pb 0 4"}, "pb -", "pb -"},
		{"a plugin's network is not published on", []string{"xa 0 4", "pb 0 46"}, "xa pb", "- pb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := elect(ends(t, c.ends...))
			if got := names(g); got != c.want {
				t.Errorf("gateways %q, want %q", got, c.want)
			}
			at := g.published()
			four, six := "-", "-"
			if at.V4.On != nil {
				four = at.V4.On.Interface
			}
			if at.V6.On != nil {
				six = at.V6.On.Interface
			}
			if four+" "+six != c.pubs {
				t.Errorf("published on %s %s, want %s", four, six, c.pubs)
			}
		})
	}
}

// An endpoint that joins wins by priority, then by name; who loses gives its ports away.
func TestElectWith(t *testing.T) {
	for _, c := range []struct {
		name      string
		ends      []string
		joins     string
		was, now  string
		won       bool
		losers    string
		gw4, gw6  bool // that its interface makes the route at once: nobody had it
		afterward string
	}{
		{"the first", nil, "pa 0 46", "- -", "pa pa", true, "", true, true, "pa"},
		{"by name", []string{"pm 0 4"}, "pa 0 4", "pm -", "pa -", true, "pm", false, false, "pa pm"},
		{"not by name", []string{"pm 0 4"}, "pz 0 4", "pm -", "pm -", false, "", false, false, "pm pz"},
		{"by priority", []string{"pa 0 4"}, "pz 5 4", "pa -", "pz -", true, "pa", false, false, "pz pa"},
		{"the other family", []string{"pa 0 4"}, "pz 0 46", "pa -", "pa pz", true, "pa", false, true, "pa pz"},
		{"internal", []string{"pm 0 4"}, "pA 9 46", "pm -", "pm -", false, "", false, false, "pA pm"},
	} {
		t.Run(c.name, func(t *testing.T) {
			all := ends(t, append(c.ends, c.joins)...)
			j := &joining{endpoint: all[len(all)-1], iface: &netns.Interface{}}
			el := electWith(all[:len(all)-1], j)
			var losers, order []string
			for _, e := range el.losers() {
				losers = append(losers, e.n.Name)
			}
			for _, e := range el.ends {
				order = append(order, e.n.Name)
			}
			if names(el.was) != c.was || names(el.now) != c.now || el.won() != c.won || strings.Join(losers, " ") != c.losers || strings.Join(order, " ") != c.afterward {
				t.Errorf("was %q, now %q, won %v, losers %v, order %v", names(el.was), names(el.now), el.won(), losers, order)
			}
			if j.iface.GW4.IsValid() != c.gw4 || j.iface.GW6.IsValid() != c.gw6 {
				t.Errorf("routes by %v and %v", j.iface.GW4, j.iface.GW6)
			}
		})
	}
}
