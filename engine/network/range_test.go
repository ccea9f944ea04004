package network

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/internal/event"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// rowOf are n ports in a row, the host's from first on, the container's from inside on.
func rowOf(proto, hostIP string, first, inside, n int) network.PortMap {
	out := network.PortMap{}
	for i := range n {
		p, _ := network.PortFrom(uint16(inside+i), network.IPProtocol(proto))
		b := network.PortBinding{HostPort: strconv.Itoa(first + i)}
		if hostIP != "" {
			b.HostIP = netip.MustParseAddr(hostIP)
		}
		out[p] = append(out[p], b)
	}
	return out
}

// IPv6 clients and ::1 reach every port of a long range, whether the container has IPv6
// or not, with one socket and one element for all of them; and the daemon that comes
// back serves them again.
func TestPortRangeIPv6(t *testing.T) {
	keep := &memFDStore{}
	var cfg Config
	s, _ := newService(t, func(c *Config) { c.FDStore = keep; cfg = *c })
	out := neighbour(t, s)
	create(t, s, dual("six", map[string]string{bridge.OptName: "br-six"}))
	r, r6 := request("plain"), on(request("dual"), "six")
	r.Ports, r6.Ports = rowOf("tcp", "", 20000, 30000, 1000), rowOf("tcp", "", 40000, 40000, 1000)
	before := openFiles(t)
	b, b6 := run(t, s, r), run(t, s, r6)
	// Two namespaces; for each range a socket, its duplicate here and the FD store's.
	if n := openFiles(t) - before; n > 12 {
		t.Errorf("%d descriptors more", n)
	}
	for _, port := range []string{":30000", ":30500", ":30999"} {
		serve(t, s.host.NS(), b.NetNS, "tcp4", port, "plain"+port)
	}
	for _, port := range []string{":40000", ":40999"} {
		serve(t, s.host.NS(), b6.NetNS, "tcp", port, "dual"+port)
	}
	check := func(s *Service, out *os.File) {
		t.Helper()
		try(t, s,
			probe{"first", nil, "[::1]:20000", "plain:30000 172.17.0.1"}, probe{"middle", nil, "[::1]:20500", "plain:30500 172.17.0.1"},
			probe{"last", out, "[2001:db8::1]:20999", "plain:30999 172.17.0.1"}, probe{"first, from outside", out, "[2001:db8::1]:20000", "plain:30000 172.17.0.1"},
			probe{"by the host's address", nil, "[2001:db8::1]:20500", "plain:30500 172.17.0.1"},
			probe{"by IPv4", out, "192.0.2.1:20500", "plain:30500 192.0.2.2"},
			probe{"behind", nil, "[::1]:21000", ""}, probe{"before", out, "[2001:db8::1]:19999", ""}, probe{"nobody listens", nil, "[::1]:20001", ""},
			probe{"to IPv6", out, "[2001:db8::1]:40999", "dual:40999 2001:db8::2"}, probe{"to IPv6 by ::1", nil, "[::1]:40999", "dual:40999 fd99::1"},
			probe{"to IPv6 by ::1, first", nil, "[::1]:40000", "dual:40000 fd99::1"})
	}
	check(s, out)
	data, err := json.Marshal([]Record{b.Record, b6.Record})
	if err != nil {
		t.Fatal(err)
	}
	var recs []Record
	if err := json.Unmarshal(data, &recs); err != nil {
		t.Fatal(err)
	}
	s.Close() // kill -9: the sockets of this process are closed
	s2, err := New(WithDrivers(cfg, nil), event.New())
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if err := s2.Restore(context.Background(), recs); err != nil {
		t.Fatal(err)
	}
	check(s2, neighbour(t, s2)) // its wire is swept away
	for _, r := range recs {
		s2.Release(context.Background(), r.ContainerID)
	}
	try(t, s2, probe{"released", nil, "[::1]:20500", ""}, probe{"released, first", nil, "[::1]:20000", ""})
	if len(keep.m) != 0 {
		t.Errorf("still kept: %v", keep.m)
	}
}

// Datagrams to ports of a range by IPv6 come to the port they were sent to, also those of
// one client to several, and are answered from the address and port they were sent to.
func TestPortRangeUDPv6(t *testing.T) {
	s, _ := newService(t, nil)
	out := neighbour(t, s)
	r := request("udp")
	r.Ports = rowOf("udp", "", 20000, 30000, 100)
	b := run(t, s, r)
	for _, port := range []int{30000, 30007, 30099} {
		echoUDP(t, s, b.NetNS, port)
	}
	for _, c := range []struct {
		from *os.File
		to   string
		port int
	}{{nil, "::1", 20000}, {nil, "::1", 20007}, {out, "2001:db8::1", 20007}, {out, "2001:db8::1", 20000}, {out, "2001:db8::1", 20099}} {
		t.Run(c.to, func(t *testing.T) {
			from, local := s.host.Netns(), "::1"
			if c.from != nil {
				from, local = c.from, "2001:db8::2"
			}
			client := udpSocket6(t, s, from, netip.AddrPortFrom(netip.MustParseAddr(local), 5555))
			for range 2 {
				got := askUDP(client, netip.AddrPortFrom(netip.MustParseAddr(c.to), uint16(c.port)))
				if want := strconv.Itoa(c.port + 10000); got != want {
					t.Errorf("%s port %d: %q answered, want %q", c.to, c.port, got, want)
				}
			}
			client.Close()
		})
	}
	// One socket, two ports, in turns.
	client := udpSocket6(t, s, out, netip.MustParseAddrPort("[2001:db8::2]:6666"))
	for range 2 {
		for _, port := range []uint16{20007, 20099} {
			if got := askUDP(client, netip.AddrPortFrom(netip.MustParseAddr("2001:db8::1"), port)); got != strconv.Itoa(int(port)+10000) {
				t.Errorf("in turns, port %d: %q", port, got)
			}
		}
	}
}

// echoUDP answers datagrams to a port in a namespace with the port's number.
func echoUDP(t *testing.T, s *Service, ns *os.File, port int) {
	t.Helper()
	l, err := net.FilePacketConn(udpSocket(t, s, ns, netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port))))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		buf := make([]byte, 100)
		for {
			_, from, err := l.ReadFrom(buf)
			if err != nil {
				return
			}
			l.WriteTo([]byte(strconv.Itoa(port)), from)
		}
	}()
}

// askUDP asks until something answers from where it was asked; "" is nothing.
func askUDP(client *os.File, to netip.AddrPort) string {
	buf := make([]byte, 100)
	for range 10 {
		unix.Sendto(int(client.Fd()), []byte("?"), 0, &unix.SockaddrInet6{Addr: to.Addr().As16(), Port: int(to.Port())})
		n, from, err := unix.Recvfrom(int(client.Fd()), buf, 0)
		if err != nil {
			continue
		}
		a, ok := from.(*unix.SockaddrInet6)
		if !ok || netip.AddrPortFrom(netip.AddrFrom16(a.Addr), uint16(a.Port)) != to {
			return "from elsewhere: " + string(buf[:n])
		}
		return string(buf[:n])
	}
	return ""
}

func udpSocket6(t *testing.T, s *Service, ns *os.File, at netip.AddrPort) *os.File {
	t.Helper()
	var f *os.File
	err := s.host.NS().Inside(ns, func() error {
		fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "udp")
		tv := unix.NsecToTimeval(int64(200 * time.Millisecond))
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		return unix.Bind(fd, &unix.SockaddrInet6{Addr: at.Addr().As16(), Port: int(at.Port())})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// A listener of another program inside a range is told when the range is published, on
// whatever address it listens.
func TestPortRangeTaken(t *testing.T) {
	s, _ := newService(t, nil)
	neighbour(t, s)
	for _, c := range []struct{ listen, hostIP, want string }{
		{"0.0.0.0:20050", "", "0.0.0.0:20050"},
		{"127.0.0.1:20050", "", "0.0.0.0:20050"},
		{"[::1]:20050", "", "[::]:20050"},
		{"[::]:20050", "", ":20050"},
		{"192.0.2.1:20050", "192.0.2.1", "192.0.2.1:20050"},
		{"127.0.0.1:20050", "192.0.2.1", ""},
	} {
		t.Run(c.listen+" "+c.hostIP, func(t *testing.T) {
			l, err := net.Listen("tcp", c.listen)
			if err != nil {
				t.Fatal(err)
			}
			r := request("range")
			r.Ports = rowOf("tcp", c.hostIP, 20000, 20000, 100)
			sb, err := s.Acquire(context.Background(), r)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "address already in use")) {
				t.Errorf("%v: %v", c, err)
			}
			if err == nil {
				sb.NetNS.Close()
				s.Release(context.Background(), r.ContainerID)
			}
			l.Close()
		})
	}
}

// Where there are no rules to do it the daemon forwards all that is published, in both
// families.
func TestForwardWithoutFirewall(t *testing.T) {
	s, _ := newService(t, func(c *Config) { c.Firewall, c.Firewall6 = false, false })
	out := neighbour(t, s)
	r := request("web")
	r.Ports = portMapOf("8080>80/tcp")
	for p, b := range rowOf("tcp", "", 20000, 20000, 70) {
		r.Ports[p] = b
	}
	b := run(t, s, r)
	serve(t, s.host.NS(), b.NetNS, "tcp4", ":80", "web")
	serve(t, s.host.NS(), b.NetNS, "tcp4", ":20069", "last")
	try(t, s,
		probe{"here", nil, "127.0.0.1:8080", "web 172.17.0.1"}, probe{"here, IPv6", nil, "[::1]:8080", "web 172.17.0.1"},
		probe{"outside", out, "192.0.2.1:8080", "web 172.17.0.1"}, probe{"outside, IPv6", out, "[2001:db8::1]:8080", "web 172.17.0.1"},
		probe{"range", out, "192.0.2.1:20069", "last 172.17.0.1"}, probe{"range, IPv6", out, "[2001:db8::1]:20069", "last 172.17.0.1"},
		probe{"itself", b.NetNS, "172.17.0.1:8080", "web 172.17.0.1"})
}

// A neighbour that knows only the host's link-local address reaches published ports, one
// and long ranges, of containers with and without IPv6.
func TestPublishedByLinkLocal(t *testing.T) {
	s, _ := newService(t, nil)
	out := neighbour(t, s)
	create(t, s, dual("six", map[string]string{bridge.OptName: "br-six"}))
	host, err := s.host.Conn().LinkByName("wan0")
	if err != nil {
		t.Fatal(err)
	}
	for i, nw := range []string{NameBridge, "six"} {
		r := on(request(nw), nw)
		first := 20000 + 1000*i
		r.Ports = rowOf("tcp", "", first, first, 100)
		r.Ports[network.MustParsePort("80/tcp")] = []network.PortBinding{{HostPort: strconv.Itoa(8080 + i)}}
		b := run(t, s, r)
		serve(t, s.host.NS(), b.NetNS, "tcp", ":80", "one")
		serve(t, s.host.NS(), b.NetNS, "tcp", fmt.Sprint(":", first+50), "row")
		for port, want := range map[int]string{8080 + i: "one ", first + 50: "row ", first + 51: ""} {
			t.Run(fmt.Sprint(port), func(t *testing.T) {
				var got string
				err := s.host.NS().Inside(out, func() error {
					return fromLinkLocal(t, host.MAC, uint16(port), &got)
				})
				if want == "" && err == nil || want != "" && (err != nil || !strings.HasPrefix(got, want)) {
					t.Errorf("%s, port %d: %q %v, want %q", nw, port, got, err, want)
				}
			})
		}
	}
}

// fromLinkLocal asks a port by the link-local address that goes with a hardware address,
// from the calling thread's eth0.
func fromLinkLocal(t *testing.T, mac net.HardwareAddr, port uint16, got *string) error {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	tv := unix.NsecToTimeval(int64(5 * time.Second))
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv)
	eth, err := net.InterfaceByName("eth0")
	if err != nil {
		return err
	}
	to := [16]byte{0xfe, 0x80, 8: mac[0] ^ 2, 9: mac[1], 10: mac[2], 11: 0xff, 12: 0xfe, 13: mac[3], 14: mac[4], 15: mac[5]}
	if err := unix.Connect(fd, &unix.SockaddrInet6{Addr: to, Port: int(port), ZoneId: uint32(eth.Index)}); err != nil {
		return err
	}
	buf := make([]byte, 100)
	n, err := unix.Read(fd, buf)
	if err == nil && n == 0 {
		return unix.ECONNRESET
	}
	*got = string(buf[:max(n, 0)])
	return err
}
