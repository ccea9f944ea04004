package network_test

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	engine "github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/networktest"
	"github.com/gantry/gantry/engine/network/networktest/tcp"
	"github.com/gantry/gantry/engine/plugin"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// Containers meet over IPv6 on macvlan, beside IPv4 and without it, and have the gateway
// that was named.
func TestMacvlanIPv6(t *testing.T) {
	for name, four := range map[string]bool{"both": true, "IPv6 only": false} {
		t.Run(name, func(t *testing.T) {
			lan(t)
			s := starter(t, nil)(nil)
			defer s.Close()
			ctx, yes := context.Background(), true
			_, err := s.Create(ctx, network.CreateRequest{
				Name: "net", Driver: "macvlan", Options: map[string]string{"parent": "lan0"}, EnableIPv4: &four, EnableIPv6: &yes,
				IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("fd66::/64"), Gateway: netip.MustParseAddr("fd66::fe")}}},
			})
			if err != nil {
				t.Fatal(err)
			}
			host, err := netns.OpenHost()
			if err != nil {
				t.Fatal(err)
			}
			defer host.Close()
			var boxes []*engine.Sandbox
			for _, name := range []string{"a", "b"} {
				b, err := s.Acquire(ctx, box(name, nil))
				if err != nil {
					t.Fatal(err)
				}
				defer b.NetNS.Close()
				e := b.Record.Endpoints[0]
				if e.IPv4.IsValid() != four || !e.IPv6.IsValid() || b.Endpoints["net"].IPv6Gateway != netip.MustParseAddr("fd66::fe") {
					t.Errorf("%+v %+v", e, b.Endpoints["net"])
				}
				if gw := defaultRoute(t, host, b, true); gw != netip.MustParseAddr("fd66::fe") {
					t.Errorf("default route by %v", gw)
				}
				boxes = append(boxes, b)
			}
			var l net.Listener
			if err := host.Inside(boxes[1].NetNS, func() (err error) { l, err = net.Listen("tcp6", ":80"); return err }); err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			err = host.Inside(boxes[0].NetNS, func() error {
				fd, err := tcp.Connect(netip.AddrPortFrom(boxes[1].Record.Endpoints[0].IPv6.Addr(), 80), 10*time.Second)
				if err == nil {
					unix.Close(fd)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			for _, b := range boxes {
				if err := s.Release(ctx, b.Record.ContainerID); err != nil {
					t.Error(err)
				}
			}
			if err := s.Remove(ctx, "net"); err != nil {
				t.Error(err)
			}
		})
	}
}

// defaultRoute is the gateway that a container has in a family.
func defaultRoute(t *testing.T, host netns.Host, b *engine.Sandbox, v6 bool) (gw netip.Addr) {
	t.Helper()
	err := host.Inside(b.NetNS, func() error {
		nl, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer nl.Close()
		routes, err := nl.Routes()
		for _, r := range routes {
			if r.Gw.IsValid() && r.Gw.Is6() == v6 && (!r.Dst.IsValid() || r.Dst.Bits() == 0) {
				gw = r.Gw
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return gw
}

// A plugin's own gateway comes before the subnet's; the fields of a network that only tell
// are told back.
func TestPluginGateway(t *testing.T) {
	lan(t)
	plugins := &plugin.Registry{Sockets: []string{t.TempDir()}}
	networktest.ServePlugin(t, plugins.Sockets[0], "wire")
	s := starter(t, plugins)(nil)
	defer s.Close()
	ctx := context.Background()
	r := network.CreateRequest{
		Name: "net", Driver: "wire", Attachable: true, Scope: "local", Options: map[string]string{"gateway": "10.67.0.77"},
		IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.67.0.0/24")}}},
	}
	if _, err := s.Create(ctx, r); err != nil {
		t.Fatal(err)
	}
	if in, err := s.Inspect(ctx, "net"); err != nil || !in.Attachable || in.Scope != "local" {
		t.Errorf("%+v %v", in, err)
	}
	host, err := netns.OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	b, err := s.Acquire(ctx, box("a", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer b.NetNS.Close()
	want := netip.MustParseAddr("10.67.0.77")
	if gw := defaultRoute(t, host, b, false); gw != want || b.Endpoints["net"].Gateway != want {
		t.Errorf("default route by %v, shown %v", gw, b.Endpoints["net"].Gateway)
	}
	if err := s.Release(ctx, b.Record.ContainerID); err != nil {
		t.Error(err)
	}
	if err := s.Remove(ctx, "net"); err != nil {
		t.Error(err)
	}
}

// A plugin publishes the ports of containers whose gateway it is: it is told when they run,
// what it did is shown, and it is told when it is the way out no more.
func TestPluginPublishes(t *testing.T) {
	lan(t)
	plugins := &plugin.Registry{Sockets: []string{t.TempDir()}}
	p := networktest.ServePlugin(t, plugins.Sockets[0], "wire")
	s := starter(t, plugins)(nil)
	defer s.Close()
	ctx := context.Background()
	for _, r := range []network.CreateRequest{{Name: "net", Driver: "wire"}, {Name: "zz", Driver: "wire"}} {
		if _, err := s.Create(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	r := box("a", nil)
	r.Ports = network.PortMap{network.MustParsePort("80/tcp"): {{HostIP: netip.MustParseAddr("192.0.2.1"), HostPort: "8080"}}}
	r.Exposed = network.PortSet{network.MustParsePort("53/udp"): {}}
	b, err := s.Acquire(ctx, r)
	if err != nil {
		t.Fatal(err)
	}
	defer b.NetNS.Close()
	told := b.Ports[network.MustParsePort("80/tcp")]
	if len(told) != 1 || told[0].HostIP != netip.MustParseAddr("192.0.2.1") || told[0].HostPort != "8080" {
		t.Errorf("shown: %v", b.Ports)
	}
	has := func(n int) {
		t.Helper()
		if got := strings.Count(p.Open(), "ports of "); got != n {
			t.Errorf("%d endpoints publish, want %d: %s", got, n, p.Open())
		}
	}
	has(1)
	more := r
	more.Endpoints = map[string]*network.EndpointSettings{"zz": {GwPriority: 5}}
	c, err := s.Connect(ctx, b.NetNS, more)
	if err != nil {
		t.Fatal(err)
	}
	has(1)
	if len(c.Ports[network.MustParsePort("80/tcp")]) != 1 {
		t.Errorf("shown after connecting: %v", c.Ports)
	}
	for _, e := range c.Record.Endpoints {
		if e.Programmed != (e.Priority == 5) {
			t.Errorf("recorded: %+v", e)
		}
	}
	if err := s.Release(ctx, b.Record.ContainerID); err != nil {
		t.Error(err)
	}
	has(0)
	for _, name := range []string{"net", "zz"} {
		if err := s.Remove(ctx, name); err != nil {
			t.Error(err)
		}
	}
	if got := p.Open(); got != "" {
		t.Errorf("left in the plugin: %s", got)
	}
}
