package network

import (
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A client that never stops sending from one port reaches, after a port was given to
// another container or back to the host, who has it now: its flow is forgotten.
func TestUDPFlowFollowsThePort(t *testing.T) {
	s, _ := newService(t, nil)
	out := neighbour(t, s)
	client := udpSocket(t, s, out, netip.MustParseAddrPort("192.0.2.2:4444"))
	var server netip.AddrPort
	echo := func(b *box, text string) {
		l, err := net.FilePacketConn(udpSocket(t, s, b.NetNS, netip.MustParseAddrPort("0.0.0.0:53")))
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
				l.WriteTo([]byte(text), from)
			}
		}()
	}
	server = netip.MustParseAddrPort("192.0.2.1:5353")
	says := func() string {
		unix.Sendto(int(client.Fd()), []byte("?"), 0, &unix.SockaddrInet4{Addr: server.Addr().As4(), Port: int(server.Port())})
		buf := make([]byte, 100)
		n, _, err := unix.Recvfrom(int(client.Fd()), buf, 0)
		if err != nil {
			return ""
		}
		return string(buf[:n])
	}
	says() // before there is anything: the kernel tracks a flow to the host itself
	for _, name := range []string{"first", "second"} {
		r := request(name)
		r.Ports = portMapOf("5353>53/udp")
		if name == "second" {
			run(t, s, request("between")) // takes the first's address
		}
		b := run(t, s, r)
		echo(b, name)
		deadline := time.Now().Add(5 * time.Second)
		got := ""
		for got != name && time.Now().Before(deadline) {
			got = says()
		}
		if got != name {
			t.Errorf("%q answered, want %q", got, name)
		}
		b.stop()
	}
}

// udpSocket is a bound socket in a namespace that gives up reading soon.
func udpSocket(t *testing.T, s *Service, ns *os.File, at netip.AddrPort) *os.File {
	t.Helper()
	var f *os.File
	err := s.host.NS().Inside(ns, func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f = os.NewFile(uintptr(fd), "udp")
		tv := unix.NsecToTimeval(int64(200 * time.Millisecond))
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		return unix.Bind(fd, &unix.SockaddrInet4{Addr: at.Addr().As4(), Port: int(at.Port())})
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
