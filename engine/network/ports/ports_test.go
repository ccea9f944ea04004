package ports

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func noBind(string, netip.AddrPort) (*os.File, error) { return nil, nil }

func ips(s ...string) (out []netip.Addr) {
	for _, x := range s {
		out = append(out, netip.MustParseAddr(x))
	}
	return out
}

func TestConflicts(t *testing.T) {
	tab := NewTable(noBind, 32768, 60999)
	take := func(container, proto string, port uint16, addrs ...string) error {
		_, err := tab.Take(container, PortRequest{Proto: proto, HostIPs: ips(addrs...), First: port, Last: port, ContainerIP: ips("172.17.0.2")[0], ContainerPort: 80})
		return err
	}
	if err := take("web", "tcp", 80, "0.0.0.0", "::"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		proto string
		port  uint16
		addr  string
		err   string
	}{
		{"tcp", 80, "0.0.0.0", "Bind for 0.0.0.0:80 failed: port is already allocated (address already in use: 0.0.0.0:80 by container web)"},
		{"tcp", 80, "127.0.0.1", "Bind for 127.0.0.1:80 failed: port is already allocated (address already in use: 127.0.0.1:80 by container web)"},
		{"tcp", 80, "::1", "Bind for [::1]:80 failed: port is already allocated (address already in use: [::1]:80 by container web)"},
		{"udp", 80, "0.0.0.0", ""},
		{"tcp", 81, "127.0.0.1", ""},
		{"tcp", 81, "127.0.0.2", ""},
		{"tcp", 81, "0.0.0.0", "Bind for 0.0.0.0:81 failed: port is already allocated (address already in use: 0.0.0.0:81 by container x)"},
	} {
		t.Run(c.proto+" "+c.addr, func(t *testing.T) {
			err := take("x", c.proto, c.port, c.addr)
			if c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) {
				t.Errorf("%s %s %d: %v, want %q", c.proto, c.addr, c.port, err, c.err)
			}
		})
	}
}

func TestEphemeralAndRange(t *testing.T) {
	tab := NewTable(noBind, 100, 102)
	for _, want := range []uint16{100, 101, 102} {
		b, err := tab.Take("a", PortRequest{Proto: "tcp", HostIPs: ips("0.0.0.0", "::")})
		if err != nil || b[0].HostPort != want || b[1].HostPort != want {
			t.Fatalf("%v %v, want %d", b, err, want)
		}
	}
	if _, err := tab.Take("a", PortRequest{Proto: "tcp", HostIPs: ips("0.0.0.0")}); err == nil || !strings.Contains(err.Error(), "all ports are allocated") {
		t.Error(err)
	}
	r := PortRequest{Proto: "udp", HostIPs: ips("127.0.0.1"), First: 8000, Last: 8001}
	for _, want := range []uint16{8000, 8001} {
		if b, err := tab.Take("a", r); err != nil || b[0].HostPort != want {
			t.Fatalf("%v %v", b, err)
		}
	}
	if _, err := tab.Take("a", r); err == nil {
		t.Error("third of two")
	}
}

func TestReleaseAfterFailure(t *testing.T) {
	tab := NewTable(func(_ string, a netip.AddrPort) (*os.File, error) {
		if a.Addr().Is6() {
			return nil, unix.EADDRNOTAVAIL
		}
		return nil, nil
	}, 1, 2)
	_, err := tab.Take("a", PortRequest{Proto: "tcp", HostIPs: ips("0.0.0.0", "::"), First: 80, Last: 80, ContainerIP: ips("172.17.0.2")[0], ContainerPort: 80})
	if err == nil || err.Error() != "failed to bind host port for [::]:80:172.17.0.2:80/tcp: cannot assign requested address" {
		t.Error(err)
	}
	if tab.Len() != 0 {
		t.Errorf("%d left", tab.Len())
	}
}

func TestForeignSocket(t *testing.T) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	tab := NewTable(Bind, 32768, 60999)
	_, err = tab.Take("a", PortRequest{Proto: "tcp", HostIPs: ips("127.0.0.1"), First: port, Last: port, ContainerIP: ips("172.17.0.2")[0], ContainerPort: 80})
	if err == nil || !strings.HasSuffix(err.Error(), ":172.17.0.2:80/tcp: address already in use") {
		t.Error(err)
	}
	b, err := tab.Take("a", PortRequest{Proto: "tcp", HostIPs: ips("127.0.0.1")})
	if err != nil {
		t.Fatal(err)
	}
	if l, err := net.Listen("tcp4", netip.AddrPortFrom(b[0].HostIP, b[0].HostPort).String()); err == nil {
		l.Close()
		t.Error("another program got the published port")
	}
	tab.Release(b)
}

// Thousands of ports in a row are one entry, without sockets, and still meet others.
func TestRow(t *testing.T) {
	binds := 0
	tab := NewTable(func(p string, a netip.AddrPort) (*os.File, error) { binds++; return Bind(p, a) }, 32768, 60999)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	busy := uint16(l.Addr().(*net.TCPAddr).Port)
	take := func(container, addr string, first, count uint16) ([]Mapping, error) {
		return tab.Take(container, PortRequest{Proto: "tcp", HostIPs: ips(addr), First: first, Last: first, Count: count, ContainerIP: ips("172.17.0.2")[0], ContainerPort: 1})
	}
	if _, err := take("a", "127.0.0.1", busy-5, 100); err == nil || !strings.HasSuffix(err.Error(), ":172.17.0.2:6/tcp: address already in use") {
		t.Error(err)
	}
	if tab.Len() != 0 {
		t.Errorf("%d left", tab.Len())
	}
	// What else listens on this machine is not the test's business.
	tab.bind = noBind
	row, err := take("a", "127.0.0.3", 1000, 10000)
	if err != nil || len(row) != 1 || tab.Socket(row[0]) != nil || binds > 20 {
		t.Fatalf("%v %v, %d binds", row, err, binds)
	}
	for _, c := range []struct {
		addr         string
		first, count uint16
		want         string
	}{
		{"127.0.0.3", 1000, 1, "127.0.0.3:1000 by container a"},
		{"127.0.0.3", 10999, 1, "127.0.0.3:10999 by container a"},
		{"0.0.0.0", 900, 500, "0.0.0.0:1000 by container a"},
		{"127.0.0.2", 1000, 10000, ""},
		{"127.0.0.3", 11000, 2, ""},
	} {
		t.Run(c.addr+" "+c.want, func(t *testing.T) {
			_, err := take("b", c.addr, c.first, c.count)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("%v: %v", c, err)
			}
		})
	}
	tab.Release(row)
	if _, err := take("b", "127.0.0.3", 1000, 10000); err != nil {
		t.Error(err)
	}
	one := NewTable(noBind, 1, 2)
	if _, err := one.Take("w", PortRequest{Proto: "udp", HostIPs: ips("0.0.0.0"), First: 5000, Last: 5000}); err != nil {
		t.Fatal(err)
	}
	if _, err := one.Take("w", PortRequest{Proto: "udp", HostIPs: ips("0.0.0.0"), First: 4000, Count: 2000}); err == nil || !strings.Contains(err.Error(), "0.0.0.0:5000 by container w") {
		t.Error(err)
	}
}

func TestLocalPorts(t *testing.T) {
	got := localPorts(strings.NewReader(`  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:1F91 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   2: 00000000000000000000000000000000:0035 00000000000000000000000000000000:0000 0A 0
junk
   3: zz:zzzz zz:0000 0A
`))
	if len(got) != 2 || got[0] != 8080 || got[1] != 53 {
		t.Error(got)
	}
}
