// Package proxy is the userland proxy. It forwards what the kernel cannot: connections to ::1
// and to the host's IPv6 addresses for a container that has IPv4 only, and all published ports
// where the firewall is switched off.
package proxy

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/gantry/gantry/engine/network/ports"
	"golang.org/x/sys/unix"
)

// acceptPause is how long accepting rests when the system refuses it.
const acceptPause = 50 * time.Millisecond

// maxUDPFlows and maxTCPFlows bound what one forwarded port may hold open.
const (
	maxUDPFlows = 4096
	maxTCPFlows = 4096
)

// Set is a set of forwarded ports. Safe for concurrent use.
type Set struct {
	log *slog.Logger
	mu  sync.Mutex
	all map[ports.Place]io.Closer
}

// NewSet returns an empty set.
func NewSet(log *slog.Logger) *Set {
	return &Set{log: log, all: map[ports.Place]io.Closer{}}
}

// Start forwards what arrives at the socket of a mapping (kept by the caller) to its container;
// of several ports in a row the firewall leads all to the socket of the first.
func (p *Set) Start(to ports.Mapping, socket *os.File) error {
	var c io.Closer
	switch to.Proto {
	case "tcp":
		l, err := net.FileListener(socket)
		if err != nil {
			return err
		}
		t := &tcpProxy{l: l, closing: make(chan struct{})}
		c = t
		go t.run(to)
	case "udp":
		pc, err := net.FilePacketConn(socket)
		if err != nil {
			return err
		}
		conn, ok := pc.(*net.UDPConn)
		if !ok {
			pc.Close()
			return errors.New("forwarding: the socket of " + to.Name() + " is no UDP socket")
		}
		u, err := newUDP(conn, to)
		if err != nil {
			conn.Close()
			return err
		}
		c = u
		go u.run()
	default:
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[to.Place()] = c
	return nil
}

// End stops forwarding by a mapping; one that was not forwarded is no error. Connections that stand go on.
// When it returns the set holds no descriptor of the socket: the port can be taken
// again at once.
func (p *Set) End(m ports.Mapping) {
	p.mu.Lock()
	c := p.all[m.Place()]
	delete(p.all, m.Place())
	p.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// Close stops all.
func (p *Set) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for at, c := range p.all {
		c.Close()
		delete(p.all, at)
	}
}

// tcpProxy accepts for one port.
type tcpProxy struct {
	l       net.Listener
	closing chan struct{}
}

func (t *tcpProxy) Close() error {
	close(t.closing)
	return t.l.Close()
}

func (t *tcpProxy) run(to ports.Mapping) {
	// Full, new connections are turned away and not left waiting without an answer.
	room := make(chan struct{}, maxTCPFlows)
	for {
		c, err := t.l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors or memory, or a client that left: the port stays open.
			select {
			case <-t.closing:
				return
			case <-time.After(acceptPause):
			}
			continue
		}
		select {
		case room <- struct{}{}:
		default:
			c.Close()
			continue
		}
		go func() {
			defer func() { <-room }()
			t, ok := c.(*net.TCPConn)
			if !ok {
				return
			}
			if at, ok := to.Target(wanted(t, to)); ok {
				forwardTCP(t, at)
			} else {
				refuse(t)
			}
		}()
	}
}

// wanted is the port that the client connected to, of a row: the kernel knows it as long as
// it translates the connection. One that it does not translate came to the first itself.
func wanted(c *net.TCPConn, to ports.Mapping) uint16 {
	if !to.Row() {
		return 0
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	port := to.HostPort
	err = raw.Control(func(fd uintptr) {
		// IP6T_SO_ORIGINAL_DST answers a sockaddr_in6, which is how this structure begins.
		const originalDst = 80
		if info, gerr := unix.GetsockoptIPv6MTUInfo(int(fd), unix.SOL_IPV6, originalDst); gerr == nil {
			port = info.Addr.Port<<8 | info.Addr.Port>>8
		}
	})
	if err != nil {
		return 0
	}
	return port
}

// refuse has the client see a reset, as from a closed port.
func refuse(c *net.TCPConn) {
	_ = c.SetLinger(0)
	c.Close()
}

// forwardTCP copies both ways and passes each side's end of stream on (half close).
func forwardTCP(c *net.TCPConn, to netip.AddrPort) {
	d := net.Dialer{Timeout: 30 * time.Second}
	up, err := d.Dial("tcp", to.String())
	if err != nil {
		refuse(c)
		return
	}
	defer c.Close()
	defer up.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		// A copy ends with its connection; whoever sent sees how.
		_, _ = io.Copy(up, c)
		if t, ok := up.(*net.TCPConn); ok {
			_ = t.CloseWrite()
		}
	}()
	_, _ = io.Copy(c, up)
	_ = c.CloseWrite()
	<-done
}
