package etcfiles

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"
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
		got := string(ParseResolvConf([]byte(c.host)).Override(c.dns, c.search, c.options).Reachable(c.ipv6).Render())
		if _, got, _ = strings.Cut(got, "\n\n"); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 192.0.2.1\nsearch a b\noptions ndots:2\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		rc := ParseResolvConf(data)
		if again := ParseResolvConf(rc.Render()); !reflect.DeepEqual(again.Servers, rc.Servers) {
			t.Errorf("%v became %v", rc.Servers, again.Servers)
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
		lines, err := ParseExtraHosts([]string{c.in}, gw)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: %v", c.in, err)
			}
			continue
		}
		if got := strings.TrimPrefix(string(RenderHosts(false, lines, nil)), "127.0.0.1\tlocalhost\n"); err != nil || got != c.want {
			t.Errorf("%s: %q %v", c.in, got, err)
		}
	}
	if _, err := ParseExtraHosts([]string{"h:host-gateway"}, nil); err == nil {
		t.Error("a gateway from nowhere")
	}
	if got := HostNames("h.example.org", ""); got != "h.example.org h" {
		t.Error(got)
	}
	if got := HostNames("h", "example.org"); got != "h.example.org h" {
		t.Error(got)
	}
}
