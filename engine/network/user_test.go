package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

func create(t testing.TB, s *Service, r network.CreateRequest) string {
	t.Helper()
	resp, err := s.Create(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return resp.ID
}

func on(r SandboxRequest, nets ...string) SandboxRequest {
	r.Endpoints = map[string]*network.EndpointSettings{}
	for _, n := range nets {
		r.Endpoints[n] = &network.EndpointSettings{}
	}
	return r
}

func TestUserNetworks(t *testing.T) { bothWays(t, testUserNetworks) }

func testUserNetworks(t *testing.T) {
	s, _ := newService(t, nil)
	out := neighbour(t, s)
	before := linkNames(t, s)
	yes := true
	create(t, s, network.CreateRequest{Name: "one", EnableIPv6: &yes})
	create(t, s, network.CreateRequest{Name: "two"})
	create(t, s, network.CreateRequest{Name: "inside", Internal: true})
	r := on(request("a"), "one")
	r.Ports = portMapOf("8080>80/tcp")
	a, b, c := run(t, s, r), run(t, s, on(request("b"), "one")), run(t, s, on(request("c"), "two"))
	i, k := run(t, s, on(request("i"), "inside")), run(t, s, on(request("k"), "inside"))
	if a.ip() != netip.MustParseAddr("172.18.0.2") || c.ip() != netip.MustParseAddr("172.19.0.2") {
		t.Errorf("%v %v", a.ip(), c.ip())
	}
	for _, x := range []*box{a, i} {
		serve(t, s.host.NS(), x.NetNS, "tcp", ":80", x.id[60:])
	}
	serve(t, s.host.NS(), out, "tcp", ":99", "world")
	a6 := a.Endpoints["one"].GlobalIPv6Address
	for _, q := range []struct {
		what string
		from *box
		addr string
		ok   bool
	}{
		{"same network", b, a.ip().String() + ":80", true},
		{"same network, IPv6", b, "[" + a6.String() + "]:80", true},
		{"other network", c, a.ip().String() + ":80", false},
		{"other network by a published port", c, "172.19.0.1:8080", true},
		{"the host", nil, "[" + a6.String() + "]:80", true},
		{"the world", c, "192.0.2.2:99", true},
		{"from inside out", i, "192.0.2.2:99", false},
		{"inside", k, i.ip().String() + ":80", true},
		{"into the internal network", c, i.ip().String() + ":80", false},
	} {
		ns := s.host.Netns()
		if q.from != nil {
			ns = q.from.NetNS
		}
		try := ask
		if !q.ok {
			try = tryAsk
		}
		if got, err := try(s.host.NS(), ns, q.addr); (err == nil) != q.ok {
			t.Errorf("%s: %q %v", q.what, got, err)
		}
	}
	if got, err := ask(s.host.NS(), out, "[2001:db8::1]:8080"); err != nil || !strings.HasSuffix(got, "2001:db8::2") {
		t.Errorf("published over IPv6: %q %v", got, err)
	}
	if err := s.Remove(context.Background(), "one"); !errors.Is(err, errdefs.ErrPermissionDenied) || !strings.Contains(err.Error(), "has active endpoints") {
		t.Error(err)
	}
	for _, x := range []*box{a, b, c, i, k} {
		x.stop()
	}
	rep, err := s.Prune(context.Background(), nil)
	if err != nil || strings.Join(rep.NetworksDeleted, " ") != "inside one two" {
		t.Errorf("%v %v", rep, err)
	}
	waitFor(t, func() bool { return linkNames(t, s) == before })
	create(t, s, network.CreateRequest{Name: "again"})
	in, err := s.Inspect(context.Background(), "again")
	if err != nil || in.IPAM.Config[0].Subnet.String() != "172.18.0.0/16" || in.IPAM.Config[0].Gateway.String() != "172.18.0.1" {
		t.Errorf("%+v %v", in.IPAM, err)
	}
}

func TestCreateErrors(t *testing.T) {
	s, _ := newService(t, nil)
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	create(t, s, network.CreateRequest{Name: "taken", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: p("10.9.0.0/24")}}}})
	conf := func(c ...network.IPAMConfig) *network.IPAM { return &network.IPAM{Config: c} }
	for _, c := range []struct {
		r     network.CreateRequest
		class error
		text  string
	}{
		{network.CreateRequest{Name: "taken"}, errdefs.ErrConflict, "network with name taken already exists"},
		{network.CreateRequest{Name: "bridge"}, errdefs.ErrPermissionDenied, "operation is not permitted on predefined bridge network"},
		{network.CreateRequest{Name: "a/b"}, errdefs.ErrInvalidArgument, "invalid network name"},
		{network.CreateRequest{Name: "x", Driver: "nope"}, errdefs.ErrNotFound, `plugin "nope" not found`},
		{network.CreateRequest{Name: "x", Ingress: true}, errdefs.ErrUnavailable, "not a swarm manager"},
		{network.CreateRequest{Name: "x", IPAM: conf(network.IPAMConfig{Subnet: p("10.9.0.0/16")})}, errdefs.ErrPermissionDenied, "Pool overlaps"},
		{network.CreateRequest{Name: "x", IPAM: conf(network.IPAMConfig{Subnet: p("10.8.0.0/24"), Gateway: a("10.7.0.1")})}, errdefs.ErrInvalidArgument, "doesn't contain this address"},
		{network.CreateRequest{Name: "x", IPAM: conf(network.IPAMConfig{Subnet: p("10.8.0.0/24"), Gateway: a("10.8.0.0")})}, errdefs.ErrPermissionDenied, "failed to allocate gateway (10.8.0.0): Address already in use"},
		{network.CreateRequest{Name: "x", IPAM: conf(network.IPAMConfig{Subnet: p("10.8.0.0/24"), Gateway: a("10.8.0.255")})}, errdefs.ErrPermissionDenied, "failed to allocate gateway (10.8.0.255): Address already in use"},
		{
			network.CreateRequest{Name: "x", IPAM: conf(network.IPAMConfig{Subnet: p("10.8.0.0/24"), Gateway: a("10.8.0.1"), AuxAddress: map[string]netip.Addr{"b": a("10.8.0.1")}})},
			errdefs.ErrPermissionDenied, "failed to allocate secondary ip address (b:10.8.0.1): Address already in use",
		},
		{network.CreateRequest{Name: "x", IPAM: conf(network.IPAMConfig{Subnet: p("::ffff:10.8.0.0/120")})}, errdefs.ErrInvalidArgument, "IPv4 addresses in IPv6 form"},
		{network.CreateRequest{Name: "x", IPAM: conf(network.IPAMConfig{Subnet: p("fe80::/64"), Gateway: a("fe80::1%lo")})}, errdefs.ErrInvalidArgument, "invalid gateway fe80::1%lo"},
		{network.CreateRequest{Name: "x", EnableIPv4: new(bool)}, errdefs.ErrInvalidArgument, "IPv4 or IPv6 must be enabled"},
		{network.CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.enable_ipv4": "false"}}, errdefs.ErrInvalidArgument, "IPv4 or IPv6 must be enabled"},
		{network.CreateRequest{Name: "x", Options: map[string]string{"com.docker.network.enable_ipv6": "perhaps"}}, errdefs.ErrInvalidArgument, `driver-opt "com.docker.network.enable_ipv6" is not a valid bool`},
		{network.CreateRequest{Name: "x", IPAM: &network.IPAM{Driver: "null"}}, errdefs.ErrInvalidArgument, "ipv4 pool is empty"},
		{network.CreateRequest{Name: "x", Driver: "macvlan", IPAM: &network.IPAM{Driver: "null", Config: []network.IPAMConfig{{Subnet: p("10.8.0.0/24")}}}}, errdefs.ErrInvalidArgument, "null ipam driver does not handle specific address pool requests"},
		{network.CreateRequest{Name: "x", Options: map[string]string{bridge.OptMTU: "-5"}}, errdefs.ErrInvalidArgument, "invalid MTU number: -5"},
		{network.CreateRequest{Name: "x", Options: map[string]string{bridge.OptMTU: "abc"}}, errdefs.ErrInvalidArgument, `failed to parse com.docker.network.driver.mtu value: abc (strconv.Atoi: parsing "abc": invalid syntax)`},
		{network.CreateRequest{Name: "x", Options: map[string]string{bridge.OptBindIP: "zz"}}, errdefs.ErrInvalidArgument, "failed to parse com.docker.network.bridge.host_binding_ipv4 value: zz (nil ip)"},
		{network.CreateRequest{Name: "x", IPAM: conf(network.IPAMConfig{Subnet: p("10.8.0.1/24")})}, errdefs.ErrInvalidArgument, "it should be 10.8.0.0/24"},
		{network.CreateRequest{Name: "x", IPAM: conf(network.IPAMConfig{Subnet: p("10.8.0.0/24")}, network.IPAMConfig{Subnet: p("10.8.0.0/25")})}, errdefs.ErrPermissionDenied, "overlaps"},
		{network.CreateRequest{Name: "x", Options: map[string]string{bridge.OptName: "a/b"}}, errdefs.ErrInvalidArgument, "invalid interface name"},
		{network.CreateRequest{Name: "x", Options: map[string]string{bridge.OptName: "docker0"}}, errdefs.ErrPermissionDenied, "same bridge name"},
		{network.CreateRequest{Name: "x", Options: map[string]string{bridge.OptICC: "maybe"}}, errdefs.ErrInvalidArgument, "failed to parse"},
		{network.CreateRequest{Name: "x", ConfigFrom: &network.ConfigReference{Network: "taken"}}, errdefs.ErrNotFound, `configuration network "taken" does not exist`},
	} {
		t.Run(c.text, func(t *testing.T) {
			_, err := s.Create(context.Background(), c.r)
			if !errors.Is(err, c.class) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%+v: %v", c.r, err)
			}
		})
	}
	if list, _ := s.List(context.Background(), filter.Args{"type": {"custom"}}); len(list) != 1 {
		t.Errorf("left: %v", list)
	}
	if err := s.Remove(context.Background(), "bridge"); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Error(err)
	}
}

// Each of several subnets of one family has its gateway: the one of the subnet that a
// container's address is from is its default route.
func TestSecondSubnet(t *testing.T) {
	s, _ := newService(t, nil)
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	for _, drv := range []string{"bridge", "macvlan"} {
		create(t, s, network.CreateRequest{Name: "n", Driver: drv, IPAM: &network.IPAM{Config: []network.IPAMConfig{
			{Subnet: p("172.28.100.0/24"), Gateway: a("172.28.100.1")}, {Subnet: p("172.28.102.0/24"), Gateway: a("172.28.102.254")},
		}}})
		for addr, gw := range map[string]string{"": "172.28.100.1", "172.28.102.20": "172.28.102.254"} {
			t.Run(addr, func(t *testing.T) {
				r := on(request("a"+addr), "n")
				if addr != "" {
					r.Endpoints["n"].IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: a(addr)}
				}
				b := run(t, s, r)
				if got := b.Endpoints["n"].Gateway; got != a(gw) {
					t.Errorf("%s: gateway %v of %s", drv, got, b.ip())
				}
				if drv == "bridge" {
					serve(t, s.host.NS(), s.host.Netns(), "tcp", gw+":77", "gate")
					try(t, s, probe{"its gateway", b.NetNS, gw + ":77", "gate " + b.ip().String()})
				}
				b.stop()
			})
		}
		if err := s.Remove(context.Background(), "n"); err != nil {
			t.Fatal(err)
		}
	}
}

// Below macvlan containers may have no addresses of ours: neither family is wanted, or
// nobody hands any out (DHCP).
func TestWithoutAddresses(t *testing.T) {
	s, _ := newService(t, nil)
	no := false
	create(t, s, network.CreateRequest{Name: "l2", Driver: "macvlan", EnableIPv4: &no})
	create(t, s, network.CreateRequest{Name: "dhcp", Driver: "macvlan", IPAM: &network.IPAM{Driver: "null"}})
	create(t, s, network.CreateRequest{Name: "dhcp2", Driver: "macvlan", IPAM: &network.IPAM{Driver: "null"}})
	for name, want := range map[string]string{"l2": "[]", "dhcp": "[0.0.0.0/0]"} {
		t.Run(name, func(t *testing.T) {
			in, err := s.Inspect(context.Background(), name)
			if err != nil {
				t.Fatal(err)
			}
			var subs []netip.Prefix
			for _, c := range in.IPAM.Config {
				subs = append(subs, c.Subnet)
			}
			if fmt.Sprint(subs) != want {
				t.Errorf("%s shows %v, want %s", name, subs, want)
			}
			r := on(request("a"), name)
			b := run(t, s, r)
			if e := b.Record.Endpoints[0]; e.IPv4.IsValid() || e.IPv6.IsValid() || e.MAC == "" || e.IfName != "eth0" {
				t.Errorf("%s: %+v", name, e)
			}
			b.stop()
		})
	}
}

// Who asks for a subnet where there is none is told who has them; what is given back can
// be had again.
func TestPoolsExhausted(t *testing.T) {
	s, _ := newService(t, func(c *Config) {
		c.BIP = netip.MustParsePrefix("10.1.0.1/24")
		c.AddressPools = []Pool{{Base: netip.MustParsePrefix("10.5.0.0/23"), Size: 24}, {Base: netip.MustParsePrefix("192.0.2.0/24"), Size: 24}}
	})
	neighbour(t, s)
	create(t, s, network.CreateRequest{Name: "one"})
	create(t, s, network.CreateRequest{Name: "two"})
	_, err := s.Create(context.Background(), network.CreateRequest{Name: "three"})
	want := "all predefined address pools have been fully subnetted (3 ranges are in use by networks or routes of this host): " +
		"10.5.0.0/24 by network one, 10.5.1.0/24 by network two, 192.0.2.0/24 by a route of this host"
	if !errors.Is(err, errdefs.ErrPermissionDenied) || err.Error() != want {
		t.Errorf("%v", err)
	}
	if err := s.Remove(context.Background(), "one"); err != nil {
		t.Fatal(err)
	}
	create(t, s, network.CreateRequest{Name: "three"})
}

// A container that switches IPv6 off finds none in its hosts file.
func TestHostsWithoutIPv6(t *testing.T) {
	s, _ := newService(t, nil)
	create(t, s, dual("six", nil))
	r := on(request("web"), "six")
	if b := run(t, s, r); !strings.Contains(string(b.Hosts), "::1\tlocalhost") || !strings.Contains(string(b.Hosts), "fd99::2\tweb") {
		t.Errorf("%s", b.Hosts)
	}
	r = on(request("off"), "six")
	r.Sysctls = map[string]string{"net.ipv6.conf.all.disable_ipv6": "1"}
	if b := run(t, s, r); strings.Contains(string(b.Hosts), "::") || !strings.Contains(string(b.Hosts), "10.99.0.3\toff") {
		t.Errorf("%s", b.Hosts)
	}
}

// IPv4 subnets are shown first, whatever was said first and whoever chose them.
func TestIPv4ComesFirst(t *testing.T) {
	s, _ := newService(t, nil)
	yes, p := true, netip.MustParsePrefix
	create(t, s, network.CreateRequest{Name: "a", EnableIPv6: &yes, IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: p("fd64::/64")}}}})
	create(t, s, network.CreateRequest{Name: "b", EnableIPv6: &yes, IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: p("fd65::/64")}, {Subnet: p("10.65.0.0/24")}}}})
	for name, want := range map[string]string{"a": "172.18.0.0/16 fd64::/64", "b": "10.65.0.0/24 fd65::/64"} {
		t.Run(name, func(t *testing.T) {
			in, err := s.Inspect(context.Background(), name)
			if err != nil || len(in.IPAM.Config) != 2 || in.IPAM.Config[0].Subnet.String()+" "+in.IPAM.Config[1].Subnet.String() != want {
				t.Errorf("%s: %+v %v", name, in.IPAM.Config, err)
			}
		})
	}
}

// The families may be options, as the daemon's defaults for new networks give them.
func TestFamiliesByOption(t *testing.T) {
	s, _ := newService(t, nil)
	create(t, s, network.CreateRequest{Name: "six", Options: map[string]string{"com.docker.network.enable_ipv4": "0", "com.docker.network.enable_ipv6": "true", bridge.OptName: ""}})
	if in, err := s.Inspect(context.Background(), "six"); err != nil || in.EnableIPv4 || !in.EnableIPv6 || len(in.IPAM.Config) != 1 {
		t.Errorf("%+v %v", in, err)
	}
}

func TestStaticAddress(t *testing.T) {
	s, _ := newService(t, nil)
	create(t, s, network.CreateRequest{Name: "n", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.8.0.0/24"), IPRange: netip.MustParsePrefix("10.8.0.128/25")}}}})
	r := on(request("a"), "n")
	r.Endpoints["n"] = &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: netip.MustParseAddr("10.8.0.7")}, MacAddress: network.HardwareAddr{2, 0, 0, 0, 0, 9}}
	a := run(t, s, r)
	if es := a.Endpoints["n"]; es.IPAddress.String() != "10.8.0.7" || es.MacAddress.String() != "02:00:00:00:00:09" {
		t.Errorf("%+v", es)
	}
	r.ContainerID = strings.Repeat("b", 64)
	if _, err := s.Acquire(context.Background(), r); err == nil || err.Error() != "Address already in use" {
		t.Error(err)
	}
	if b := run(t, s, on(request("b"), "n")); b.ip().String() != "10.8.0.129" {
		t.Errorf("%v", b.ip())
	}
}

func TestConnectDisconnect(t *testing.T) {
	s, _ := newService(t, nil)
	ctx := context.Background()
	create(t, s, network.CreateRequest{Name: "one"})
	create(t, s, network.CreateRequest{Name: "two"})
	r := on(request("a"), "one")
	r.Ports = portMapOf("8080>80/tcp")
	a := run(t, s, r)
	serve(t, s.host.NS(), a.NetNS, "tcp", ":80", "a")
	c := run(t, s, on(request("c"), "two"))
	before := linkNames(t, s)
	sb, err := s.Connect(ctx, a.NetNS, on(r, "two"))
	if err != nil {
		t.Fatal(err)
	}
	if len(sb.Record.Endpoints) != 2 || sb.Record.Endpoints[1].IfName != "eth1" || sb.Ports != nil {
		t.Errorf("%+v", sb.Record)
	}
	ip2 := sb.Endpoints["two"].IPAddress.String()
	if got, err := ask(s.host.NS(), c.NetNS, ip2+":80"); err != nil || got != "a "+c.ip().String() {
		t.Errorf("%q %v", got, err)
	}
	if _, err := s.Connect(ctx, a.NetNS, on(r, "two")); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Error(err)
	}
	// The way out goes: ports and default route move.
	rec, err := s.Disconnect(ctx, a.NetNS, a.id, "one", nil)
	if err != nil || len(rec.Endpoints) != 1 || len(rec.Endpoints[0].Ports) != 2 {
		t.Fatalf("%+v %v", rec, err)
	}
	for _, addr := range []string{"127.0.0.1:8080", "[::1]:8080"} {
		if got, err := ask(s.host.NS(), nil, addr); err != nil || !strings.HasPrefix(got, "a 172.19.0.1") {
			t.Errorf("%s: %q %v", addr, got, err)
		}
	}
	if rec, err = s.Disconnect(ctx, a.NetNS, a.id, "two", nil); err != nil || len(rec.Endpoints) != 0 {
		t.Errorf("%+v %v", rec, err)
	}
	if got, err := tryAsk(s.host.NS(), nil, "127.0.0.1:8080"); err == nil {
		t.Errorf("still answers %q", got)
	}
	if s.endpoints.PublishedPorts() != 0 {
		t.Error("ports are still taken")
	}
	if sb, err = s.Connect(ctx, a.NetNS, on(r, "two")); err != nil || len(sb.Ports) != 1 {
		t.Fatalf("%+v %v", sb, err)
	}
	if got, err := ask(s.host.NS(), nil, "127.0.0.1:8080"); err != nil || !strings.HasPrefix(got, "a ") {
		t.Errorf("%q %v", got, err)
	}
	if now := linkNames(t, s); len(strings.Fields(now)) != len(strings.Fields(before)) {
		t.Errorf("interfaces %s, were %s", now, before)
	}
}

// Networks come back after a restart, with their bridge remade when it went.
func TestNetworksComeBack(t *testing.T) {
	var cfg Config
	s, _ := newService(t, func(c *Config) { cfg = *c })
	ctx := context.Background()
	id := create(t, s, network.CreateRequest{Name: "n", Labels: map[string]string{"a": "b"}})
	was, _ := s.Inspect(ctx, "n")
	host, _ := s.Inspect(ctx, NameHost)
	s.Close()
	nl, err := rtnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	if _, err := nl.Do(rtnl.DelLink("br-" + id[:12])); err != nil {
		t.Fatal(err)
	}
	s2, err := New(WithDrivers(cfg, nil), event.New())
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if err := s2.Restore(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if now, err := s2.Inspect(ctx, "n"); err != nil || stable(now) != stable(was) {
		t.Errorf("%v\n%v %v", stable(was), stable(now), err)
	}
	if now, err := s2.Inspect(ctx, host.ID[:12]); err != nil || now.ID != host.ID {
		t.Errorf("%v %v", now, err)
	}
	b := run(t, s2, on(request("x"), "n"))
	serve(t, s2.host.NS(), b.NetNS, "tcp", ":80", "x")
	if got, err := ask(s2.host.NS(), nil, b.ip().String()+":80"); err != nil {
		t.Errorf("%q %v", got, err)
	}
	if _, err := s2.Create(ctx, network.CreateRequest{Name: "o", IPAM: &network.IPAM{Config: []network.IPAMConfig{{Subnet: was.IPAM.Config[0].Subnet}}}}); err == nil {
		t.Error("the old network's subnet was given away")
	}
}

// Prune, create, and start race: nobody gets a network that is going.
func TestPruneWhileJoining(t *testing.T) {
	s, _ := newService(t, nil)
	ctx := context.Background()
	var wg sync.WaitGroup
	for i := range 10 {
		create(t, s, network.CreateRequest{Name: fmt.Sprint("n", i)})
	}
	for i := range 10 {
		wg.Go(func() {
			sb, err := s.Acquire(ctx, on(request(fmt.Sprint("c", i)), fmt.Sprint("n", i)))
			if err != nil {
				if !errors.Is(err, errdefs.ErrNotFound) {
					t.Error(err)
				}
				return
			}
			sb.NetNS.Close()
			s.Release(ctx, sb.Record.ContainerID)
		})
		wg.Go(func() { s.Prune(ctx, nil) })
	}
	wg.Wait()
	s.Prune(ctx, nil)
	waitFor(t, func() bool { return linkNames(t, s) == "docker0 lo" })
	if ok, err := s.host.Intact(); err != nil || !ok {
		t.Error(ok, err)
	}
}

func BenchmarkNetworkCreateRemove(b *testing.B) {
	for _, n := range []int{0, 1000} {
		b.Run(fmt.Sprint("beside-", n), func(b *testing.B) {
			s, _ := newService(b, nil)
			for i := range n {
				create(b, s, network.CreateRequest{Name: fmt.Sprint("n", i)})
			}
			b.ResetTimer()
			reportCPU(b, func() {
				for b.Loop() {
					id := create(b, s, network.CreateRequest{Name: "x"})
					if err := s.Remove(context.Background(), id); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
		// What the kernel takes for the bridge alone.
		b.Run(fmt.Sprint("bridge-by-hand-beside-", n), func(b *testing.B) {
			s, _ := newService(b, nil)
			for i := range n {
				create(b, s, network.CreateRequest{Name: fmt.Sprint("n", i)})
			}
			own := []netip.Prefix{netip.MustParsePrefix("198.51.100.1/24")}
			b.ResetTimer()
			reportCPU(b, func() {
				for b.Loop() {
					if _, err := bridge.Ensure(s.host, "br-hand", 1500, false, own, true); err != nil {
						b.Fatal(err)
					}
					if _, err := s.host.Conn().Do(rtnl.DelLink("br-hand")); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
