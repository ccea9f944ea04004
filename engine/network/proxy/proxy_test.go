package proxy

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/network/ports"
)

// A client that ends its side still gets the whole answer (half close), both ways.
func TestTCPHalfClose(t *testing.T) {
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	go func() {
		c, err := back.Accept()
		if err != nil {
			return
		}
		data, _ := io.ReadAll(c) // until the client's end of stream
		c.Write(bytes.ToUpper(data))
		c.Close()
	}()
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer front.Close()
	f, err := front.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := NewSet(slog.New(slog.DiscardHandler))
	defer p.Close()
	if err := p.Start(to("tcp", back.Addr().String()), f); err != nil {
		t.Fatal(err)
	}
	front.Close() // only the set's duplicate accepts
	c, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	want := bytes.Repeat([]byte("abc"), 100000)
	go func() {
		c.Write(want)
		c.(*net.TCPConn).CloseWrite()
	}()
	got, err := io.ReadAll(c)
	if err != nil || !bytes.Equal(got, bytes.ToUpper(want)) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
}

// An answer comes from the address that was written to, on a host with several.
func TestUDPAnswersFromWhereItWasAsked(t *testing.T) { testUDP(t, ":0", "127.0.0.2") }

func TestUDP(t *testing.T) { testUDP(t, "127.0.0.1:0", "127.0.0.1") }

func testUDP(t *testing.T, listen, at string) {
	back, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	go func() {
		buf := make([]byte, 100)
		for {
			n, from, err := back.ReadFrom(buf)
			if err != nil {
				return
			}
			back.WriteTo(bytes.ToUpper(buf[:n]), from)
		}
	}()
	front, err := net.ListenPacket("udp4", listen)
	if err != nil {
		t.Fatal(err)
	}
	f, err := front.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p := NewSet(slog.New(slog.DiscardHandler))
	if err := p.Start(to("udp", back.LocalAddr().String()), f); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(front.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	front.Close()
	for range 2 {
		c, err := net.Dial("udp", net.JoinHostPort(at, port))
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(10 * time.Second))
		buf := make([]byte, 10)
		c.Write([]byte("abc"))
		if n, err := c.Read(buf); err != nil || string(buf[:n]) != "ABC" {
			t.Errorf("%q %v", buf[:n], err)
		}
		c.Close()
	}
	p.End(to("udp", back.LocalAddr().String()))
	p.End(to("udp", back.LocalAddr().String()))
	p.Close()
}

// to is a mapping to a port of a container; the host's side is of no matter here.
func to(proto, addr string) ports.Mapping {
	a := netip.MustParseAddrPort(addr)
	return ports.Mapping{Proto: proto, HostIP: a.Addr(), HostPort: 1, ContainerIP: a.Addr(), ContainerPort: a.Port()}
}
