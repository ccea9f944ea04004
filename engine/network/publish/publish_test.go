package publish

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/moby/moby/api/types/network"
)

// fakeHost remembers what it was told.
type fakeHost struct {
	rules   map[string][]ports.Mapping
	flushed []ports.Mapping
	fail    error
}

func (h *fakeHost) Publish(containerID string, now []ports.Mapping) error {
	if h.fail == nil {
		h.rules[containerID] = now
	}
	return h.fail
}

func (h *fakeHost) Unpublish(containerID string) error { delete(h.rules, containerID); return h.fail }

func (h *fakeHost) FlushUDP(_ bool, ms []ports.Mapping) { h.flushed = append(h.flushed, ms...) }

// fixture is a publisher that takes no sockets, and an endpoint on a network of one mode.
func fixture(t *testing.T, cfg Config) (*Publisher, *fakeHost) {
	t.Helper()
	cfg.Log = slog.New(slog.DiscardHandler)
	h := &fakeHost{rules: map[string][]ports.Mapping{}}
	pb := New(cfg, h)
	pb.table = ports.NewTable(func(string, netip.AddrPort) (*os.File, error) { return nil, nil }, 40000, 50000)
	t.Cleanup(pb.Close)
	return pb, h
}

func end(ip4, ip6 string, how *driver.Publishing) Endpoint {
	e := &sandbox.Endpoint{ID: "e" + ip4, Name: "web"}
	if ip4 != "" {
		e.IPv4 = netip.MustParsePrefix(ip4)
	}
	if ip6 != "" {
		e.IPv6 = netip.MustParsePrefix(ip6)
	}
	return Endpoint{Endpoint: e, On: how}
}

func wants(specs ...string) sandbox.Request {
	r := sandbox.Request{ContainerID: "c", Name: "web", Ports: network.PortMap{}}
	for _, s := range specs { // ip port>container/proto
		at, cont, _ := strings.Cut(s, ">")
		ip, port, _ := strings.Cut(at, " ")
		p := network.MustParsePort(cont)
		r.Ports[p] = append(r.Ports[p], network.PortBinding{HostIP: netip.MustParseAddr(ip), HostPort: port})
	}
	return r
}

// Where a request for an address of the host leads, by what the gateways' networks do.
func TestAction(t *testing.T) {
	nat := &driver.Publishing{Interface: "br0"}
	routed := &driver.Publishing{Interface: "br1", Mode4: driver.ModeRouted, Mode6: driver.ModeRouted}
	isolated := &driver.Publishing{Interface: "br2", Mode4: driver.ModeIsolated, Mode6: driver.ModeIsolated}
	both := func(p *driver.Publishing) Gateways {
		e := end("10.0.0.2/24", "fd00::2/64", p)
		return Gateways{e, e}
	}
	for _, c := range []struct {
		name  string
		gws   Gateways
		proxy bool
		addr  string
		want  action
	}{
		{"no network", Gateways{}, true, "0.0.0.0", skip},
		{"IPv4", both(nat), false, "0.0.0.0", bind},
		{"IPv6", both(nat), false, "::", bind},
		{"IPv6 of the host, IPv4 behind", Gateways{V4: both(nat).V4}, true, "::", forward},
		{"the same without a proxy", Gateways{V4: both(nat).V4}, false, "::", skip},
		{"the same, routed", Gateways{V4: both(routed).V4}, true, "::", skip},
		{"IPv6 only", Gateways{V6: both(nat).V6}, true, "0.0.0.0", skip},
		{"routed", both(routed), true, "0.0.0.0", open},
		{"routed IPv6", both(routed), true, "::", open},
		{"isolated", both(isolated), true, "0.0.0.0", skip},
	} {
		t.Run(c.name, func(t *testing.T) {
			pb, _ := fixture(t, Config{UserlandProxy: c.proxy, Firewall: true, Firewall6: true})
			if got, _ := pb.action(netip.MustParseAddr(c.addr), c.gws); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

// A port's life: taken, in the firewall, moved to another endpoint, given back.
func TestLife(t *testing.T) {
	pb, h := fixture(t, Config{Firewall: true, Firewall6: true})
	a := end("10.0.0.2/24", "", &driver.Publishing{Interface: "br-a"})
	b := end("10.1.0.2/24", "", &driver.Publishing{Interface: "br-b"})
	r := wants("127.0.0.1 0>80/tcp", "127.0.0.1 0>53/udp")
	if err := pb.Publish(Gateways{V4: a}, r); err != nil {
		t.Fatal(err)
	}
	if err := pb.Apply("c", []Endpoint{a, b}); err != nil {
		t.Fatal(err)
	}
	if len(h.rules["c"]) != 2 || h.rules["c"][0].Interface != "br-a" || h.rules["c"][0].ContainerIP != a.IPv4.Addr() || pb.Len() != 2 {
		t.Errorf("%+v", h.rules)
	}
	shown := Shown(r, []*sandbox.Endpoint{a.Endpoint, b.Endpoint})
	if got := shown[network.MustParsePort("80/tcp")]; len(got) != 1 || got[0].HostPort == "0" {
		t.Errorf("shown %v", shown)
	}
	had := a.Ports
	pb.Move("c", a.Endpoint, Gateways{V4: b})
	if len(a.Ports) != 0 || !reflect.DeepEqual(b.Ports, had) || pb.Len() != 2 {
		t.Errorf("moved: %v %v", a.Ports, b.Ports)
	}
	// Nobody is the gateway: the ports are free.
	pb.Move("c", b.Endpoint, Gateways{})
	if len(b.Ports) != 0 || pb.Len() != 0 {
		t.Errorf("%v, %d taken", b.Ports, pb.Len())
	}
	if err := pb.Withdraw("c", nil); err != nil || len(h.rules) != 0 {
		t.Errorf("%v %v", err, h.rules)
	}
}

// What cannot be taken whole is not taken at all, and says whose it is.
func TestAllOrNothing(t *testing.T) {
	pb, _ := fixture(t, Config{Firewall: true})
	a, b := end("10.0.0.2/24", "", &driver.Publishing{}), end("10.0.0.3/24", "", &driver.Publishing{})
	if err := pb.Publish(Gateways{V4: a}, wants("127.0.0.1 0>80/tcp")); err != nil {
		t.Fatal(err)
	}
	taken := Shown(sandbox.Request{}, []*sandbox.Endpoint{a.Endpoint})[network.MustParsePort("80/tcp")][0].HostPort
	err := pb.Publish(Gateways{V4: b}, wants("127.0.0.2 0>81/tcp", "127.0.0.1 "+taken+">80/tcp"))
	if err == nil || !strings.HasPrefix(err.Error(), "driver failed programming external connectivity on endpoint web (e10.0.0.3/24): Bind for 127.0.0.1:"+taken+" failed: port is already allocated") {
		t.Error(err)
	}
	if len(b.Ports) != 0 || pb.Len() != 1 {
		t.Errorf("%v, %d taken", b.Ports, pb.Len())
	}
	pb.Release(a.Endpoint)
	if pb.Len() != 0 {
		t.Errorf("%d taken", pb.Len())
	}
}

// A family that gets a gateway later gets the number that the other one has; giving back takes
// what was taken and no more, also when it is done twice.
func TestMissing(t *testing.T) {
	pb, _ := fixture(t, Config{Firewall: true, Firewall6: true})
	a, b := end("10.0.0.2/24", "", &driver.Publishing{}), end("", "fd00::2/64", &driver.Publishing{})
	r := wants("127.0.0.1 0>80/tcp", "::1 0>80/tcp")
	if err := pb.Publish(Gateways{V4: a}, r); err != nil {
		t.Fatal(err)
	}
	ends := []*sandbox.Endpoint{a.Endpoint, b.Endpoint}
	taken, err := pb.PublishMissing(Gateways{V4: a, V6: b}, r, ends)
	if err != nil || len(taken) != 1 || len(b.Ports) != 1 || len(a.Ports) != 1 {
		t.Fatalf("%v %v %v %v", taken, a.Ports, b.Ports, err)
	}
	for range 2 {
		pb.GiveBack(taken, ends)
		if pb.Len() != 1 || len(b.Ports) != 0 || len(a.Ports) != 1 {
			t.Errorf("%v %v, %d taken", a.Ports, b.Ports, pb.Len())
		}
	}
}

// On networks that route to it a container's ports are open on its own address.
func TestRouted(t *testing.T) {
	pb, h := fixture(t, Config{Firewall: true, Firewall6: true})
	nat := end("10.0.0.2/24", "", &driver.Publishing{Interface: "br-a"})
	routed := end("10.1.0.2/24", "fd00::2/64", &driver.Publishing{Interface: "br-b", Mode4: driver.ModeRouted, Mode6: driver.ModeRouted})
	internal := end("10.2.0.2/24", "", &driver.Publishing{Mode4: driver.ModeRouted, Internal: true})
	if err := pb.OpenRouted(Gateways{V4: nat}, wants("0.0.0.0 8080>80/tcp"), nat, routed, internal, Endpoint{}); err != nil {
		t.Fatal(err)
	}
	if len(nat.Ports) != 0 || len(internal.Ports) != 0 || len(routed.Ports) != 2 || routed.Ports[0].HostPort != 0 || pb.Len() != 0 {
		t.Errorf("%v %v %v", nat.Ports, internal.Ports, routed.Ports)
	}
	pb.Release(routed.Endpoint) // there is nothing of the host's
	if err := pb.Apply("c", []Endpoint{routed}); err != nil || len(h.rules["c"]) != 2 {
		t.Errorf("%v %v", h.rules, err)
	}
	h.fail = errors.New("no")
	if err := pb.Apply("c", nil); !errors.Is(err, h.fail) {
		t.Error(err)
	}
}
