package network

import (
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// BenchmarkPath is the throughput of a TCP stream, and UDP packets sent and received,
// from a container to its neighbour and from the host to a published port, beside the
// same by a veth pair and a bridge made by hand, without any firewall. Compare within
// one run only, and repeat (-count): the two ends and the kernel share the machine.
func BenchmarkPath(b *testing.B) {
	b.Run("tcp/hand/container", func(b *testing.B) {
		h, one, two := byHand(b)
		stream(b, h, one, two, "10.88.0.2:5001", "10.88.0.2:5001")
	})
	b.Run("tcp/ours/container", func(b *testing.B) {
		s, one, two := byUs(b)
		stream(b, s.host.NS(), one.NetNS, two.NetNS, one.ip().String()+":5001", one.ip().String()+":5001")
	})
	b.Run("tcp/hand/host", func(b *testing.B) { h, one, _ := byHand(b); stream(b, h, one, h.F, "10.88.0.2:5001", "10.88.0.2:5001") })
	b.Run("tcp/ours/published", func(b *testing.B) {
		s, one, _ := byUs(b)
		stream(b, s.host.NS(), one.NetNS, s.host.Netns(), one.ip().String()+":5001", "172.18.0.1:5001")
	})
	b.Run("udp/hand/container", func(b *testing.B) {
		h, one, two := byHand(b)
		packets(b, h, one, two, "10.88.0.2:5001", "10.88.0.2:5001")
	})
	b.Run("udp/ours/container", func(b *testing.B) {
		s, one, two := byUs(b)
		packets(b, s.host.NS(), one.NetNS, two.NetNS, one.ip().String()+":5001", one.ip().String()+":5001")
	})
	b.Run("udp/hand/host", func(b *testing.B) {
		h, one, _ := byHand(b)
		packets(b, h, one, h.F, "10.88.0.2:5001", "10.88.0.2:5001")
	})
	b.Run("udp/ours/published", func(b *testing.B) {
		s, one, _ := byUs(b)
		packets(b, s.host.NS(), one.NetNS, s.host.Netns(), one.ip().String()+":5001", "172.18.0.1:5001")
	})
}

// byHand is a bridge with two namespaces on it and nothing else.
func byHand(b *testing.B) (h netns.Host, one, two *os.File) {
	b.Helper()
	needNetns(b)
	nl, err := rtnl.Dial()
	if err != nil {
		b.Fatal(err)
	}
	if h, err = netns.OpenHost(); err != nil {
		b.Fatal(err)
	}
	index, err := bridge.Ensure(onHost(b), "br-hand", 1500, false, []netip.Prefix{netip.MustParsePrefix("10.88.0.1/24")}, true)
	if err != nil {
		b.Fatal(err)
	}
	ns := map[string]*os.File{}
	for name, addr := range map[string]string{"hand0": "10.88.0.2/24", "hand1": "10.88.0.3/24"} {
		ns[name], err = netns.New(h, nl, []netns.Interface{{
			IfName: "eth0", HostIf: name, MAC: netns.RandomMAC(), Bridge: index,
			Addrs: []netip.Prefix{netip.MustParsePrefix(addr)},
		}})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.Cleanup(func() {
		for _, f := range ns {
			f.Close()
		}
		nl.Close()
		h.Close()
		cleanHost(b)
	})
	return h, ns["hand0"], ns["hand1"]
}

// byUs is a user-defined network with two containers, one with a published port beside
// a thousand others.
func byUs(b *testing.B) (s *Service, one, two *box) {
	b.Helper()
	s, _ = newService(b, nil)
	create(b, s, network.CreateRequest{Name: "path"})
	many := map[network.Port][]network.PortBinding{}
	for i := range 1000 {
		p, _ := network.PortFrom(uint16(10000+2*i), "tcp") // not in a row
		many[p] = []network.PortBinding{{HostPort: strconv.Itoa(10000 + 2*i)}}
	}
	r := on(request("many"), "path")
	r.Ports = many
	run(b, s, r)
	r = on(request("one"), "path")
	r.Ports = portMapOf("5001>5001/tcp", "5001>5001/udp")
	one = run(b, s, r)
	two = run(b, s, on(request("two"), "path"))
	return s, one, two
}

// stream sends b.N chunks of 64 KiB over one connection.
func stream(b *testing.B, h netns.Host, server, client *os.File, listen, dial string) {
	b.Helper()
	var l net.Listener
	if err := h.Inside(server, func() (err error) { l, err = net.Listen("tcp4", listen); return err }); err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	got := make(chan int64, 1)
	go func() {
		c, err := l.Accept()
		if err != nil {
			got <- -1
			return
		}
		defer c.Close()
		buf := make([]byte, 256<<10)
		n, _ := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c}, buf)
		got <- n
	}()
	var c net.Conn
	if err := h.Inside(client, func() (err error) { c, err = dialHere(dial, 5*time.Second); return err }); err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	chunk := make([]byte, 64<<10)
	b.SetBytes(int64(len(chunk)))
	sent := int64(0)
	reportCPU(b, func() {
		for b.Loop() {
			n, err := c.Write(chunk)
			if err != nil {
				b.Fatal(err)
			}
			sent += int64(n)
		}
		c.(*net.TCPConn).CloseWrite()
		if n := <-got; n != sent {
			b.Errorf("%d bytes arrived of %d", n, sent)
		}
	})
}

// packets sends small datagrams and waits for each answer: a round trip is two packets.
func packets(b *testing.B, h netns.Host, server, client *os.File, listen, dial string) {
	b.Helper()
	var pc net.PacketConn
	if err := h.Inside(server, func() (err error) { pc, err = net.ListenPacket("udp4", listen); return err }); err != nil {
		b.Fatal(err)
	}
	defer pc.Close()
	go func() {
		buf := make([]byte, 2048)
		u := pc.(*net.UDPConn)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			u.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(dial))
	var c *net.UDPConn
	if err := h.Inside(client, func() (err error) { c, err = net.DialUDP("udp4", nil, to); return err }); err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	msg := make([]byte, 64)
	reportCPU(b, func() {
		for b.Loop() {
			c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := c.Write(msg); err != nil {
				b.Fatal(err)
			}
			if _, err := c.Read(msg); err != nil {
				b.Fatal(err)
			}
		}
	})
}
