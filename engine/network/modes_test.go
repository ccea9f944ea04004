package network

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/moby/moby/api/types/network"
)

// probe is one connection that must work, or must not.
type probe struct {
	what string
	from *os.File // namespace; nil: the host's
	addr string
	want string // what is answered; "" for no connection
}

func try(t *testing.T, s *Service, probes ...probe) {
	t.Helper()
	for _, p := range probes {
		do := ask
		if p.want == "" {
			do = tryAsk
		}
		got, err := do(s.host.NS(), p.from, p.addr)
		if p.want == "" && err == nil || p.want != "" && (err != nil || got != p.want) {
			t.Errorf("%s: %s answered %q %v, want %q", p.what, p.addr, got, err, p.want)
		}
	}
}

// routeBack gives a neighbour routes to the containers through the host, as a router
// of the network would have.
func routeBack(t *testing.T, s *Service, ns *os.File) {
	t.Helper()
	err := s.host.NS().Inside(ns, func() error {
		in, err := dialNL()
		if err != nil {
			return err
		}
		defer in.Close()
		l, err := in.LinkByName("eth0")
		if err != nil {
			return err
		}
		_, err = in.Do(defaultRoute6(l.Index))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A range of ten thousand ports is one element for each family and one socket for IPv6,
// and packets of every port arrive.
func TestPortRange(t *testing.T) {
	s, _ := newService(t, nil)
	out := neighbour(t, s)
	r := request("range")
	r.Ports = network.PortMap{}
	for i := range 10000 {
		p, _ := network.PortFrom(uint16(20000+i), "tcp")
		r.Ports[p] = []network.PortBinding{{HostPort: strconv.Itoa(20000 + i)}}
	}
	before := openFiles(t)
	b := run(t, s, r)
	if n := openFiles(t) - before; n > 6 {
		t.Errorf("%d descriptors more", n)
	}
	for _, port := range []string{":20000", ":25000", ":29999"} {
		serve(t, s.host.NS(), b.NetNS, "tcp4", port, port)
	}
	try(t, s,
		probe{"first", nil, "127.0.0.1:20000", ":20000 172.17.0.1"},
		probe{"middle", out, "192.0.2.1:25000", ":25000 192.0.2.2"},
		probe{"last", out, "192.0.2.1:29999", ":29999 192.0.2.2"},
		probe{"behind", out, "192.0.2.1:30000", ""},
		probe{"itself", b.NetNS, "172.17.0.1:25000", ":25000 172.17.0.1"})
	if got := elements(t); strings.Count(got, "tcp . ") != 2 {
		t.Errorf("elements: %s", got)
	}
	if len(b.Ports) != 10000 || b.Ports[network.MustParsePort("25000/tcp")][0].HostPort != "25000" {
		t.Errorf("%d ports shown", len(b.Ports))
	}
	other := request("other")
	other.Ports = portMapOf("25000>80/tcp")
	if _, err := s.Acquire(context.Background(), other); err == nil || !strings.Contains(err.Error(), "0.0.0.0:25000 by container range") {
		t.Error(err)
	}
	b.stop()
	if b := run(t, s, other); b.Ports == nil {
		t.Error("no ports")
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}

// shown are a container's bindings, as `docker port` prints them.
func shown(b *box) string {
	var out []string
	for p, bs := range b.Ports {
		for _, x := range bs {
			port, _ := strconv.Atoi(x.HostPort)
			out = append(out, fmt.Sprintf("%s>%s", netip.AddrPortFrom(x.HostIP, uint16(port)), p))
		}
	}
	return strings.Join(out, " ")
}

func dual(name string, opts map[string]string) network.CreateRequest {
	yes := true
	return network.CreateRequest{Name: name, EnableIPv6: &yes, Options: opts, IPAM: &network.IPAM{Config: []network.IPAMConfig{
		{Subnet: netip.MustParsePrefix("10.99.0.0/24")}, {Subnet: netip.MustParsePrefix("fd99::/64")},
	}}}
}

// Every gateway mode, in each family: what a host on the wire, another network and the
// host itself reach, and whose address the outside sees.
func TestGatewayModes(t *testing.T) {
	const c4, c6, h4, h6 = "10.99.0.2", "[fd99::2]", "192.0.2.1", "[2001:db8::1]"
	type reach struct{ published, directPublished, directOther, fromOtherNet, natOut bool }
	for mode, want := range map[string]reach{
		"nat":             {published: true, natOut: true},
		"nat-unprotected": {published: true, directPublished: true, directOther: true, fromOtherNet: true, natOut: true},
		"routed":          {directPublished: true, fromOtherNet: true},
	} {
		t.Run(mode, func(t *testing.T) {
			s, _ := newService(t, nil)
			out := neighbour(t, s)
			routeBack(t, s, out)
			create(t, s, dual("m", map[string]string{bridge.OptMode4: mode, bridge.OptMode6: mode}))
			yes := true
			create(t, s, network.CreateRequest{Name: "o", EnableIPv6: &yes})
			r := on(request("web"), "m")
			r.Ports = portMapOf("8080>80/tcp")
			web, other := run(t, s, r), run(t, s, on(request("other"), "o"))
			serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
			serve(t, s.host.NS(), web.NetNS, "tcp", ":90", "hidden")
			serve(t, s.host.NS(), out, "tcp", ":99", "world")
			yesNo := func(ok bool, s string) string {
				if ok {
					return s
				}
				return ""
			}
			seen := func(nat bool, host, own string) string {
				if nat {
					return "world " + host
				}
				return "world " + own
			}
			try(t, s,
				probe{"published", out, h4 + ":8080", yesNo(want.published, "web 192.0.2.2")},
				probe{"published v6", out, h6 + ":8080", yesNo(want.published, "web 2001:db8::2")},
				probe{"direct, published", out, c4 + ":80", yesNo(want.directPublished, "web 192.0.2.2")},
				probe{"direct, published v6", out, c6 + ":80", yesNo(want.directPublished, "web 2001:db8::2")},
				probe{"direct, another port", out, c4 + ":90", yesNo(want.directOther, "hidden 192.0.2.2")},
				probe{"direct, another port v6", out, c6 + ":90", yesNo(want.directOther, "hidden 2001:db8::2")},
				probe{"another network", other.NetNS, c4 + ":80", yesNo(want.fromOtherNet, "web 10.99.0.1")},
				probe{"another network v6", other.NetNS, c6 + ":80", yesNo(want.fromOtherNet, "web fd99::1")},
				probe{"host to container", nil, c4 + ":90", "hidden 10.99.0.1"},
				probe{"host to container v6", nil, c6 + ":90", "hidden fd99::1"},
				probe{"out", web.NetNS, "192.0.2.2:99", seen(want.natOut, "192.0.2.1", "10.99.0.2")},
				probe{"out v6", web.NetNS, "[2001:db8::2]:99", seen(want.natOut, "2001:db8::1", "fd99::2")})
			if got := shown(web); (got != "") != want.published {
				t.Errorf("shown: %q", got)
			}
		})
	}
}

// A network without IPv4: ports answer on IPv6, from the wire, the host and ::1.
func TestIPv6Only(t *testing.T) {
	s, _ := newService(t, nil)
	out := neighbour(t, s)
	yes, no := true, false
	create(t, s, network.CreateRequest{Name: "six", EnableIPv4: &no, EnableIPv6: &yes})
	r := on(request("web"), "six")
	r.Ports = portMapOf("8080>80/tcp")
	web, peer := run(t, s, r), run(t, s, on(request("peer"), "six"))
	if e := web.Record.Endpoints[0]; e.IPv4.IsValid() || !e.IPv6.Addr().IsPrivate() || e.IPv6.Bits() != 64 {
		t.Fatalf("%+v", e)
	}
	gw := web.Endpoints["six"].IPv6Gateway.String()
	serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
	try(t, s,
		probe{"wire", out, "[2001:db8::1]:8080", "web 2001:db8::2"},
		probe{"host", nil, "[2001:db8::1]:8080", "web 2001:db8::1"},
		probe{"localhost", nil, "[::1]:8080", "web " + gw},
		probe{"neighbour", peer.NetNS, "[" + web.Record.Endpoints[0].IPv6.Addr().String() + "]:80", "web " + peer.Record.Endpoints[0].IPv6.Addr().String()},
		probe{"hairpin", web.NetNS, "[" + gw + "]:8080", "web " + gw},
		probe{"no IPv4", nil, "127.0.0.1:8080", ""})
	if got := shown(web); got != "[::]:8080>80/tcp" {
		t.Errorf("shown: %q", got)
	}
}

// The default bridge with everything the daemon can be told about it.
func TestDaemonOptions(t *testing.T) {
	p, a := netip.MustParsePrefix, netip.MustParseAddr
	s, _ := newService(t, func(c *Config) {
		c.BIP, c.FixedCIDR, c.DefaultGateway = p("10.66.0.1/16"), p("10.66.5.0/24"), a("10.66.0.254")
		c.IPv6, c.FixedCIDR6, c.DefaultGateway6 = true, p("fd66::/64"), a("fd66::fe")
		c.MTU, c.IPMasq, c.DefaultBindIP = 1400, false, a("192.0.2.1")
		c.AddressPools = []Pool{{Base: p("10.70.0.0/16"), Size: 24}, {Base: p("fd70::/48"), Size: 64}}
		c.UserlandProxy = false
	})
	out := neighbour(t, s)
	r := request("web")
	r.Ports = portMapOf("8080>80/tcp")
	web := run(t, s, r)
	es := web.Endpoints[NameBridge]
	if es.IPAddress != a("10.66.5.0") && es.IPAddress != a("10.66.5.1") || es.Gateway != a("10.66.0.254") || es.IPv6Gateway != a("fd66::fe") ||
		!p("fd66::/64").Contains(es.GlobalIPv6Address) {
		t.Errorf("%+v", es)
	}
	if got := shown(web); got != "192.0.2.1:8080>80/tcp" {
		t.Errorf("shown: %q", got)
	}
	serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
	try(t, s, probe{"not on localhost", nil, "127.0.0.1:8080", ""})
	var mtu int
	s.host.NS().Inside(web.NetNS, func() error {
		nl, err := dialNL()
		if err != nil {
			return err
		}
		defer nl.Close()
		l, err := nl.LinkByName("eth0")
		mtu = l.MTU
		return err
	})
	if mtu != 1400 {
		t.Errorf("MTU %d", mtu)
	}
	yes := true
	create(t, s, network.CreateRequest{Name: "n", EnableIPv6: &yes})
	n, err := s.Inspect(context.Background(), "n")
	if err != nil || n.IPAM.Config[0].Subnet != p("10.70.0.0/24") || n.IPAM.Config[1].Subnet != p("fd70::/64") {
		t.Errorf("%+v %v", n.IPAM.Config, err)
	}
	b := run(t, s, on(request("b"), "n"))
	serve(t, s.host.NS(), out, "tcp", ":99", "world")
	// ip-masq is the default bridge's alone.
	try(t, s, probe{"out", b.NetNS, "192.0.2.2:99", "world 192.0.2.1"})
}

// The options of a bridge network that change where packets go.
func TestBridgeOptions(t *testing.T) {
	s, _ := newService(t, nil)
	out := neighbour(t, s)
	create(t, s, network.CreateRequest{Name: "n", Options: map[string]string{
		bridge.OptName: "mybr0", bridge.OptMTU: "1300", bridge.OptMasq: "false", bridge.OptIfPrefix: "net",
		bridge.OptBindIP: "127.0.0.1", bridge.OptTrusted: "wan0",
	}})
	create(t, s, network.CreateRequest{Name: "snat", Options: map[string]string{bridge.OptHostIPv4: "192.0.2.1"}})
	r := on(request("web"), "n")
	r.Ports = portMapOf("8080>80/tcp")
	web, sn := run(t, s, r), run(t, s, on(request("sn"), "snat"))
	if web.Record.Endpoints[0].IfName != "net0" || !strings.Contains(linkNames(t, s), "mybr0") || shown(web) != "127.0.0.1:8080>80/tcp" {
		t.Errorf("%+v %s", web.Record.Endpoints[0], shown(web))
	}
	ip := web.ip().String()
	serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
	serve(t, s.host.NS(), web.NetNS, "tcp", ":90", "hidden")
	serve(t, s.host.NS(), out, "tcp", ":99", "world")
	try(t, s,
		probe{"trusted interface, published", out, ip + ":80", "web 192.0.2.2"},
		probe{"trusted interface, another port", out, ip + ":90", ""},
		probe{"not bound outside", out, "192.0.2.1:8080", ""},
		probe{"bound inside", nil, "127.0.0.1:8080", "web " + web.Endpoints["n"].Gateway.String()},
		probe{"no masquerade", web.NetNS, "192.0.2.2:99", "world " + ip},
		probe{"source address", sn.NetNS, "192.0.2.2:99", "world 192.0.2.1"})
}

// allow-direct-routing opens published ports on containers' own addresses, no others.
func TestDirectRouting(t *testing.T) {
	s, _ := newService(t, func(c *Config) { c.AllowDirectRouting = true })
	out := neighbour(t, s)
	r := request("web")
	r.Ports = portMapOf("8080>80/tcp")
	web := run(t, s, r)
	serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
	serve(t, s.host.NS(), web.NetNS, "tcp", ":90", "hidden")
	try(t, s,
		probe{"published", out, "172.17.0.2:80", "web 192.0.2.2"},
		probe{"another port", out, "172.17.0.2:90", ""})
}

// Isolated gateways: the bridge has no address of its own, the host is out of reach.
func TestIsolatedGateway(t *testing.T) {
	s, _ := newService(t, nil)
	if _, err := s.Create(context.Background(), network.CreateRequest{Name: "x", Options: map[string]string{bridge.OptMode4: "isolated"}}); err == nil {
		t.Error("isolated without internal was taken")
	}
	r := dual("iso", map[string]string{bridge.OptMode4: "isolated", bridge.OptMode6: "isolated", bridge.OptName: "br-iso"})
	r.Internal = true
	create(t, s, r)
	a, b := run(t, s, on(request("a"), "iso")), run(t, s, on(request("b"), "iso"))
	serve(t, s.host.NS(), a.NetNS, "tcp", ":80", "a")
	try(t, s, probe{"inside", b.NetNS, a.ip().String() + ":80", "a " + b.ip().String()})
	l, err := s.host.Conn().LinkByName("br-iso")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := s.host.Conn().Addrs(l.Index)
	for _, x := range addrs {
		if !x.Prefix.Addr().IsLinkLocalUnicast() {
			t.Errorf("the bridge has %v", x.Prefix)
		}
	}
	if err != nil {
		t.Error(err)
	}
}
