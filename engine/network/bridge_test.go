package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/moby/moby/api/types/network"
)

func portMapOf(specs ...string) network.PortMap {
	out := network.PortMap{}
	for _, s := range specs { // [ip|]host>container/proto
		host, cont, _ := strings.Cut(s, ">")
		var b network.PortBinding
		if ip, port, ok := strings.Cut(host, "|"); ok {
			b.HostIP, host = netip.MustParseAddr(ip), port
		}
		b.HostPort = host
		p := network.MustParsePort(cont)
		out[p] = append(out[p], b)
	}
	return out
}

func TestDefaultBridge(t *testing.T) {
	s, bus := newService(t, nil)
	past, sub := bus.Subscribe(netZero)
	defer sub.Close()
	_ = past
	a := run(t, s, request("a"))
	b := run(t, s, request("b"))
	es := a.Endpoints[NameBridge]
	if es.IPAddress != netip.MustParseAddr("172.17.0.2") || es.MacAddress.String() != "02:42:ac:11:00:02" ||
		es.Gateway != netip.MustParseAddr("172.17.0.1") || es.IPPrefixLen != 16 || b.ip() != netip.MustParseAddr("172.17.0.3") {
		t.Errorf("endpoints %+v, b %v", es, b.ip())
	}
	if want := "172.17.0.2\ta\n"; !strings.HasSuffix(string(a.Hosts), want) {
		t.Errorf("hosts %q", a.Hosts)
	}
	if want := "nameserver 192.0.2.53\nsearch example.org\n"; !strings.Contains(string(a.ResolvConf), want) {
		t.Errorf("resolv.conf %q", a.ResolvConf)
	}
	serve(t, s.host.NS(), a.NetNS, "tcp", ":80", "a")
	for name, from := range map[string]*box{"host": nil, "b": b, "itself": a} {
		t.Run(name, func(t *testing.T) {
			var got string
			var err error
			if from == nil {
				got, err = ask(s.host.NS(), nil, "172.17.0.2:80")
			} else {
				got, err = ask(s.host.NS(), from.NetNS, "172.17.0.2:80")
			}
			if err != nil || !strings.HasPrefix(got, "a 172.17.0.") {
				t.Errorf("from %s: %q %v", name, got, err)
			}
		})
	}
	in, err := s.Inspect(context.Background(), NameBridge)
	if err != nil || len(in.Containers) != 2 || in.Containers[a.id].IPv4Address.String() != "172.17.0.2/16" {
		t.Errorf("inspect %+v %v", in, err)
	}
	a.stop()
	if c := run(t, s, request("c")); c.ip() != es.IPAddress {
		t.Errorf("the freed address was not the next: %v", c.ip())
	}
	var actions []string
	for range 4 {
		m := <-sub.C()
		actions = append(actions, string(m.Action)+" "+m.Actor.Attributes["name"]+" "+m.Actor.Attributes["type"])
	}
	if got := strings.Join(actions, ","); got != "connect bridge bridge,connect bridge bridge,disconnect bridge bridge,connect bridge bridge" {
		t.Error(got)
	}
}

// bothWays runs a test with and without br_netfilter in the path of bridged packets.
func bothWays(t *testing.T, test func(t *testing.T)) {
	needNetns(t)
	const key = "net/bridge/bridge-nf-call-iptables"
	for _, v := range []string{"0", "1"} {
		t.Run("br_netfilter="+v, func(t *testing.T) {
			if err := netns.OptionalSysctl(key, v); err != nil {
				t.Fatal(err)
			}
			test(t)
		})
	}
}

func TestPublishedPorts(t *testing.T) { bothWays(t, testPublishedPorts) }

func testPublishedPorts(t *testing.T) {
	s, _ := newService(t, nil)
	out := neighbour(t, s)
	r := request("web")
	r.Ports = portMapOf("8080>80/tcp", "127.0.0.1|8081>80/tcp", "192.0.2.1|8082>80/tcp", ">81/tcp")
	web := run(t, s, r)
	other := run(t, s, request("other"))
	serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
	serve(t, s.host.NS(), web.NetNS, "tcp", ":90", "secret")
	for _, c := range []struct {
		what, addr string
		from       int // 0 host, 1 neighbour, 2 itself, 3 another container
		want       string
	}{
		{"localhost", "127.0.0.1:8080", 0, "web 172.17.0.1"},
		{"localhost v6", "[::1]:8080", 0, "web 172.17.0.1"},
		{"own address", "192.0.2.1:8080", 0, "web 192.0.2.1"},
		{"bridge address", "172.17.0.1:8080", 0, "web 172.17.0.1"},
		{"loopback only", "127.0.0.1:8081", 0, "web 172.17.0.1"},
		{"loopback only by address", "192.0.2.1:8081", 0, ""},
		{"outside", "192.0.2.1:8080", 1, "web 192.0.2.2"},
		{"outside v6", "[2001:db8::1]:8080", 1, "web 172.17.0.1"},
		{"outside, one address", "192.0.2.1:8082", 1, "web 192.0.2.2"},
		{"outside, loopback only", "192.0.2.1:8081", 1, ""},
		{"outside, direct to a published port", "172.17.0.2:80", 1, ""},
		{"outside, direct to another port", "172.17.0.2:90", 1, ""},
		{"hairpin", "192.0.2.1:8080", 2, "web 172.17.0.1"},
		{"hairpin by the bridge", "172.17.0.1:8080", 2, "web 172.17.0.1"},
		{"from another container", "172.17.0.1:8080", 3, "web 172.17.0.1"},
		{"from another container, loopback only", "172.17.0.1:8081", 3, ""},
	} {
		ns := out
		switch c.from {
		case 0:
			ns = nil
		case 2:
			ns = web.NetNS
		case 3:
			ns = other.NetNS
		}
		try := ask
		if c.want == "" {
			try = tryAsk
		}
		got, err := try(s.host.NS(), ns, c.addr)
		if c.want == "" && err == nil || c.want != "" && (err != nil || got != c.want) {
			t.Errorf("%s: %q %v, want %q", c.what, got, err, c.want)
		}
	}
	var shown []string
	for _, b := range web.Ports[network.MustParsePort("81/tcp")] {
		shown = append(shown, netip.AddrPortFrom(b.HostIP, 0).String()+b.HostPort)
	}
	if len(shown) != 2 || !strings.HasPrefix(shown[0], "0.0.0.0:0") || !strings.HasPrefix(shown[1], "[::]:0") {
		t.Errorf("ephemeral: %v", shown)
	}
	if l, err := net.Listen("tcp4", ":8080"); err == nil {
		l.Close()
		t.Error("a host program could take the published port")
	}
	web.stop()
	for _, addr := range []string{"127.0.0.1:8080", "192.0.2.1:8080"} {
		if got, err := tryAsk(s.host.NS(), nil, addr); err == nil {
			t.Errorf("%s still answers %q", addr, got)
		}
	}
	if l, err := net.Listen("tcp4", ":8080"); err != nil {
		t.Error(err)
	} else {
		l.Close()
	}
}

// A neighbour must not reach the host's own loopback services by addressing
// 127.0.0.0/8 over the wire, although route_localnet is on.
func TestLoopbackIsNotRoutable(t *testing.T) {
	s, _ := newService(t, nil)
	c := run(t, s, request("evil"))
	serve(t, s.host.NS(), hostFile(s), "tcp", "127.0.0.1:7000", "host secret")
	err := s.host.NS().Inside(c.NetNS, func() error {
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
	if got, err := tryAsk(s.host.NS(), c.NetNS, "127.0.0.1:7000"); err == nil {
		t.Errorf("reached %q", got)
	}
}

func TestPortErrors(t *testing.T) {
	s, _ := newService(t, nil)
	r := request("web")
	r.Ports = portMapOf("8080>80/tcp")
	run(t, s, r)
	r2 := request("web2")
	r2.Ports = portMapOf("8080>80/tcp")
	_, err := s.Acquire(context.Background(), r2)
	if err == nil || !strings.Contains(err.Error(), "Bind for 0.0.0.0:8080 failed: port is already allocated") || !strings.Contains(err.Error(), "web") {
		t.Error(err)
	}
	l, err := net.Listen("tcp4", "0.0.0.0:9000")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	r2.Ports = portMapOf("9000>80/tcp")
	_, err = s.Acquire(context.Background(), r2)
	if err == nil || !strings.HasSuffix(err.Error(), "failed to bind host port for 0.0.0.0:9000:172.17.0.3:80/tcp: address already in use") {
		t.Error(err)
	}
	r2.Ports = nil
	if b := run(t, s, r2); b.ip() != netip.MustParseAddr("172.17.0.3") {
		t.Errorf("a failed start kept its address: %v", b.ip())
	}
	if _, err := s.Acquire(context.Background(), r2); !errors.Is(err, errdefs.ErrConflict) {
		t.Error(err)
	}
	r3 := request("nowhere")
	r3.Endpoints = map[string]*network.EndpointSettings{"nope": nil}
	if _, err := s.Acquire(context.Background(), r3); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != "network nope not found" {
		t.Error(err)
	}
}

func TestICCOff(t *testing.T) { bothWays(t, testICCOff) }

func testICCOff(t *testing.T) {
	s, _ := newService(t, func(c *Config) { c.ICC = false })
	r := request("a")
	r.Ports = portMapOf("8080>80/tcp")
	a, b := run(t, s, r), run(t, s, request("b"))
	serve(t, s.host.NS(), a.NetNS, "tcp", ":80", "a")
	if got, err := tryAsk(s.host.NS(), b.NetNS, "172.17.0.2:80"); err == nil {
		t.Errorf("b reached a: %q", got)
	}
	if got, err := ask(s.host.NS(), b.NetNS, "172.17.0.1:8080"); err != nil {
		t.Errorf("a's published port: %q %v", got, err)
	}
	if got, err := ask(s.host.NS(), nil, "172.17.0.2:80"); err != nil {
		t.Errorf("from the host: %q %v", got, err)
	}
}

// Two hundred starts at once, and nothing left of them afterwards.
func TestManyAtOnce(t *testing.T) {
	s, _ := newService(t, nil)
	before := linkNames(t, s)
	var wg sync.WaitGroup
	boxes := make([]*Sandbox, 200)
	for i := range boxes {
		wg.Go(func() {
			r := request("c" + string(rune('0'+i/100)) + string(rune('0'+i/10%10)) + string(rune('0'+i%10)))
			r.Ports = portMapOf(">80/tcp")
			sb, err := s.Acquire(context.Background(), r)
			if err != nil {
				t.Error(err)
				return
			}
			boxes[i] = sb
		})
	}
	wg.Wait()
	seen := map[netip.Addr]bool{}
	for _, b := range boxes {
		if b == nil {
			continue
		}
		ip := b.Record.Endpoints[0].IPv4.Addr()
		if seen[ip] {
			t.Errorf("%v twice", ip)
		}
		seen[ip] = true
	}
	for _, b := range boxes {
		if b == nil {
			continue
		}
		wg.Go(func() {
			b.NetNS.Close()
			s.Release(context.Background(), b.Record.ContainerID)
		})
	}
	wg.Wait()
	if n := s.endpoints.PublishedPorts(); n != 0 {
		t.Errorf("%d ports left", n)
	}
	waitFor(t, func() bool { return linkNames(t, s) == before })
	if ok, err := s.host.Intact(); err != nil || !ok {
		t.Errorf("firewall: %v %v", ok, err)
	}
	if got := elements(t); got != "" {
		t.Errorf("elements left: %s", got)
	}
}
