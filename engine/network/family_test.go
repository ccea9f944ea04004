package network_test

import (
	"context"
	"net"
	"net/netip"
	"testing"
	"time"

	engine "github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/networktest"
	"github.com/gantry/gantry/engine/network/networktest/tcp"
	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/engine/network/rtnl"
	"github.com/gantry/gantry/internal/plugin"
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
			host, err := plumb.OpenHostNS()
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
func defaultRoute(t *testing.T, host plumb.HostNS, b *engine.Sandbox, v6 bool) (gw netip.Addr) {
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
	host, err := plumb.OpenHostNS()
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
