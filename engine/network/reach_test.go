package network

import (
	"net/netip"
	"testing"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/netns"
)

// A container reaches what listens on the host's loopback (the daemon's API with -H
// tcp://127.0.0.1) by none of the ways there are: the gateway's address, its own loopback,
// the host's loopback over the wire, another address of the host, its own published port
// or one that another container of its own making publishes towards loopback.
func TestAPIOutOfReach(t *testing.T) { bothWays(t, testAPIOutOfReach) }

func testAPIOutOfReach(t *testing.T) {
	s, _ := newService(t, func(c *Config) { c.IPv6 = true; c.FixedCIDR6 = netip.MustParsePrefix("fd66::/64") })
	out := neighbour(t, s)
	routeBack(t, s, out)
	for _, at := range []string{"127.0.0.1:2375", "[::1]:2375"} {
		serve(t, s.host.NS(), s.host.Netns(), "tcp", at, "API")
	}
	r := request("evil")
	r.Ports = portMapOf("127.0.0.1|2376>2375/tcp", "2377>2375/tcp")
	evil := run(t, s, r)
	none := run(t, s, on(request("plain"), NameBridge))
	for _, from := range []*box{evil, none} {
		for _, a := range []string{
			"172.17.0.1:2375", "127.0.0.1:2375", "[::1]:2375", "[fd66::1]:2375", "192.0.2.1:2375", "[2001:db8::1]:2375",
			"172.17.0.1:2376", "172.17.0.1:2377", "192.0.2.1:2377",
		} {
			try(t, s, probe{"from " + from.Record.Endpoints[0].Name, from.NetNS, a, ""})
		}
	}
	// The container is root in its namespace and routes loopback addresses to us.
	err := s.host.NS().Inside(evil.NetNS, func() error {
		nl, err := dialNL()
		if err != nil {
			return err
		}
		defer nl.Close()
		return routeLoopbackAway(nl)
	})
	if err != nil {
		t.Fatal(err)
	}
	try(t, s, probe{"the host's loopback over the wire", evil.NetNS, "127.0.0.1:2375", ""},
		probe{"and by a published port", evil.NetNS, "127.0.0.1:2377", ""},
		probe{"another host", out, "192.0.2.1:2375", ""}, probe{"another host, IPv6", out, "[2001:db8::1]:2375", ""},
		probe{"the host itself", nil, "127.0.0.1:2375", "API 127.0.0.1"}, probe{"the host itself, IPv6", nil, "[::1]:2375", "API ::1"})
}

// Each family has its own gateway mode.
func TestMixedModes(t *testing.T) {
	const c4, c6, h4, h6 = "10.99.0.2", "[fd99::2]", "192.0.2.1", "[2001:db8::1]"
	for _, c := range []struct {
		mode4, mode6                        string
		nat4, nat6, direct4, direct6, open4 bool
	}{
		{"nat", "routed", true, false, false, true, false},
		{"routed", "nat", false, true, true, false, false},
		{"nat-unprotected", "routed", true, false, true, true, true},
	} {
		t.Run(c.mode4+" "+c.mode6, func(t *testing.T) {
			s, _ := newService(t, nil)
			out := neighbour(t, s)
			routeBack(t, s, out)
			create(t, s, dual("m", map[string]string{bridge.OptMode4: c.mode4, bridge.OptMode6: c.mode6}))
			r := on(request("web"), "m")
			r.Ports = portMapOf("8080>80/tcp")
			web := run(t, s, r)
			serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
			serve(t, s.host.NS(), web.NetNS, "tcp", ":90", "hidden")
			serve(t, s.host.NS(), out, "tcp", ":99", "world")
			is := func(ok bool, s string) string { return map[bool]string{true: s}[ok] }
			world := map[bool]string{true: "world 192.0.2.1", false: "world 10.99.0.2"}[c.nat4]
			world6 := map[bool]string{true: "world 2001:db8::1", false: "world fd99::2"}[c.nat6]
			try(t, s,
				probe{"published", out, h4 + ":8080", is(c.nat4, "web 192.0.2.2")},
				probe{"published v6", out, h6 + ":8080", is(c.nat6, "web 2001:db8::2")},
				probe{"direct", out, c4 + ":80", is(c.direct4, "web 192.0.2.2")},
				probe{"direct v6", out, c6 + ":80", is(c.direct6, "web 2001:db8::2")},
				probe{"another port", out, c4 + ":90", is(c.open4, "hidden 192.0.2.2")},
				probe{"another port v6", out, c6 + ":90", ""},
				probe{"out", web.NetNS, "192.0.2.2:99", world}, probe{"out v6", web.NetNS, "[2001:db8::2]:99", world6})
		})
	}
}

// inhibit_ipv4: the bridge has no IPv4 address of its own; its containers have theirs and
// reach each other, but not the host.
func TestInhibitIPv4(t *testing.T) { bothWays(t, testInhibitIPv4) }

func testInhibitIPv4(t *testing.T) {
	s, _ := newService(t, nil)
	create(t, s, dual("quiet", map[string]string{bridge.OptInhibit: "true", bridge.OptName: "br-quiet"}))
	a, b := run(t, s, on(request("a"), "quiet")), run(t, s, on(request("b"), "quiet"))
	serve(t, s.host.NS(), a.NetNS, "tcp", ":80", "a")
	serve(t, s.host.NS(), s.host.Netns(), "tcp", ":91", "host")
	try(t, s, probe{"neighbour", b.NetNS, a.ip().String() + ":80", "a " + b.ip().String()},
		probe{"host", b.NetNS, "10.99.0.1:91", ""}, probe{"host, IPv6", b.NetNS, "[fd99::1]:91", "host fd99::3"})
	l, err := s.host.Conn().LinkByName("br-quiet")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := s.host.Conn().Addrs(l.Index)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range addrs {
		if x.Prefix.Addr().Is4() {
			t.Errorf("the bridge has %v", x.Prefix)
		}
	}
}

// ip-forward=false leaves the kernel's forwarding as it is: off, nothing crosses the host,
// but the host and neighbours on the bridge are reached.
func TestNoForwarding(t *testing.T) {
	needNetns(t)
	if err := netns.Sysctl("net/ipv4/ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	defer netns.Sysctl("net/ipv4/ip_forward", "1")
	s, _ := newService(t, func(c *Config) { c.IPForward = false })
	out := neighbour(t, s)
	r := request("web")
	r.Ports = portMapOf("8080>80/tcp")
	web, other := run(t, s, r), run(t, s, request("other"))
	serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
	serve(t, s.host.NS(), out, "tcp", ":99", "world")
	try(t, s, probe{"from the wire", out, "192.0.2.1:8080", ""}, probe{"out", web.NetNS, "192.0.2.2:99", ""},
		probe{"the host", nil, "127.0.0.1:8080", "web 172.17.0.1"}, probe{"a neighbour", other.NetNS, "172.17.0.2:80", "web 172.17.0.3"})
}
