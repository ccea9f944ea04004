package network

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

func TestResolvConf(t *testing.T) {
	addrs := func(s ...string) (out []netip.Addr) {
		for _, x := range s {
			out = append(out, netip.MustParseAddr(x))
		}
		return out
	}
	for _, c := range []struct {
		name, host      string
		dns             []netip.Addr
		search, options []string
		ipv6            bool
		want            string
	}{
		{"plain", "# c\nnameserver 192.0.2.1\nsearch a b\noptions ndots:2\n", nil, nil, nil, false, "nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n"},
		{"loopback goes", "nameserver 127.0.0.53\nnameserver 192.0.2.1\nnameserver ::1\n", nil, nil, nil, true, "nameserver 192.0.2.1\n"},
		{"nothing left", "nameserver 127.0.0.1\n", nil, nil, nil, false, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
		{"no IPv6", "nameserver 2001:db8::1\nnameserver 192.0.2.1\n", nil, nil, nil, false, "nameserver 192.0.2.1\n"},
		{"IPv6", "nameserver 2001:db8::1\nnameserver fe80::1%eth0\n", nil, nil, nil, true, "nameserver 2001:db8::1\n"},
		{"own", "nameserver 192.0.2.1\nsearch a\n", addrs("198.51.100.1"), []string{"x.y"}, []string{"rotate"}, false, "nameserver 198.51.100.1\nsearch x.y\noptions rotate\n"},
		{"no search", "nameserver 192.0.2.1\nsearch a\n", nil, []string{"."}, nil, false, "nameserver 192.0.2.1\n"},
		{"junk", "nameserver\nnameserver x\n\x00\nnameserver 192.0.2.1 trailing", nil, nil, nil, false, "nameserver 192.0.2.1\n"},
		{"empty", "", nil, nil, nil, false, "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"},
	} {
		got := string(parseResolvConf([]byte(c.host)).override(c.dns, c.search, c.options).reachable(c.ipv6).render())
		if _, got, _ = strings.Cut(got, "\n\n"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rc := parseResolvConf(data)
		if again := parseResolvConf(rc.render()); !reflect.DeepEqual(again.servers, rc.servers) {
			t.Errorf("%v became %v", rc.servers, again.servers)
		}
	})
}

func TestExtraHosts(t *testing.T) {
	gw := []netip.Addr{netip.MustParseAddr("172.17.0.1"), netip.MustParseAddr("fd00::1")}
	for _, c := range []struct{ in, want, err string }{
		{"a:192.0.2.1", "192.0.2.1\ta\n", ""},
		{"a=192.0.2.1", "192.0.2.1\ta\n", ""},
		{"a:2001:db8::1", "2001:db8::1\ta\n", ""},
		{"a:[2001:db8::1]", "2001:db8::1\ta\n", ""},
		{"h:host-gateway", "172.17.0.1\th\nfd00::1\th\n", ""},
		{"nothing", "", "bad format for add-host"},
		{"a:x", "", "invalid IP address in add-host"},
		{":192.0.2.1", "", "bad format"},
	} {
		lines, err := parseExtraHosts([]string{c.in}, gw)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.in, err)
			}
			continue
		}
		if got := strings.TrimPrefix(string(renderHosts(false, lines, nil)), "127.0.0.1\tlocalhost\n"); err != nil || got != c.want {
			t.Errorf("%s: %q %v", c.in, got, err)
		}
	}
	if _, err := parseExtraHosts([]string{"h:host-gateway"}, nil); err == nil {
		t.Error("a gateway from nowhere")
	}
	if got := hostNames("h.example.org", ""); got != "h.example.org h" {
		t.Error(got)
	}
	if got := hostNames("h", "example.org"); got != "h.example.org h" {
		t.Error(got)
	}
}

func TestPortWishes(t *testing.T) {
	r := SandboxRequest{
		Ports:      portMapOf(">82/tcp", "8000-8010>81/tcp", "9000>80/udp", "127.0.0.1|9000>80/tcp"),
		Exposed:    network.PortSet{network.MustParsePort("7000/tcp"): {}, network.MustParsePort("80/tcp"): {}},
		PublishAll: true,
	}
	ws, err := portWishes(r, netip.Addr{}, true)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range ws {
		s := w.port.String()
		for _, a := range w.addrs {
			s += " " + a.String()
		}
		got = append(got, s)
	}
	want := []string{"80/tcp 127.0.0.1", "80/udp 0.0.0.0 ::", "81/tcp 0.0.0.0 ::", "82/tcp 0.0.0.0 ::", "7000/tcp 0.0.0.0 ::"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []string{"x", "1-", "70000", "10-5", "-1", "0-5"} {
		if _, err := portWishes(SandboxRequest{Ports: portMapOf(bad + ">80/tcp")}, netip.Addr{}, false); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if ws, _ := portWishes(SandboxRequest{Ports: portMapOf("1>80/tcp")}, netip.MustParseAddr("192.0.2.1"), true); ws[0].addrs[0].String() != "192.0.2.1" || len(ws[0].addrs) != 1 {
		t.Errorf("default bind address: %v", ws[0].addrs)
	}
}

func TestEndpointSysctls(t *testing.T) {
	got, err := parseEndpointSysctls("net.ipv4.conf.IFNAME.log_martians=1, net.ipv6.neigh.IFNAME.gc_stale_time=5", "eth0")
	if want := [][2]string{{"net/ipv4/conf/eth0/log_martians", "1"}, {"net/ipv6/neigh/eth0/gc_stale_time", "5"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"x=1", "net.ipv4.conf.eth0.log_martians=1", "net.ipv4.conf.IFNAME./../../kernel/core_pattern=|x", "net.ipv4.ip_forward=1", "net.ipv4.conf.IFNAME.x"} {
		if _, err := parseEndpointSysctls(bad, "eth0"); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
