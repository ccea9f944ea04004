// Package proxy forwards in the daemon what the kernel cannot: connections to ::1 and
// to IPv6 addresses of the host for a container that has IPv4 only.
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
)

// udpIdle is how long a forwarded UDP conversation is remembered without a packet.
const udpIdle = 90 * time.Second

// acceptPause is how long accepting rests when the system refuses it.
const acceptPause = 50 * time.Millisecond

// maxUDPFlows and maxTCPFlows bound what one forwarded port may hold open.
const (
	maxUDPFlows = 1024
	maxTCPFlows = 4096
)

// Set is a set of forwarded ports. Safe for concurrent use.
type Set struct {
	log *slog.Logger
	mu  sync.Mutex
	all map[string]io.Closer
}

// NewSet returns an empty set.
func NewSet(log *slog.Logger) *Set {
	return &Set{log: log, all: map[string]io.Closer{}}
}

// Start forwards what arrives at the socket (kept by the caller) to a container.
func (p *Set) Start(name, proto string, socket *os.File, to netip.AddrPort) error {
	var c io.Closer
	switch proto {
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
			return errors.New("forwarding: the socket of " + name + " is no UDP socket")
		}
		u := &udpProxy{conn: conn, to: net.UDPAddrFromAddrPort(to), flows: map[netip.AddrPort]*net.UDPConn{}}
		c = u
		go u.run()
	default:
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[name] = c
	return nil
}

// End stops forwarding; an unknown name is no error. Connections that stand go on.
// When it returns the set holds no descriptor of the socket: the port can be taken
// again at once.
func (p *Set) End(name string) {
	p.mu.Lock()
	c := p.all[name]
	delete(p.all, name)
	p.mu.Unlock()
	if c != nil {
		c.Close()
	}
}

// Close stops all.
func (p *Set) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, c := range p.all {
		c.Close()
		delete(p.all, name)
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

func (t *tcpProxy) run(to netip.AddrPort) {
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
			if t, ok := c.(*net.TCPConn); ok {
				forwardTCP(t, to)
			}
		}()
	}
}

// forwardTCP copies both ways and passes each side's end of stream on (half close).
func forwardTCP(c *net.TCPConn, to netip.AddrPort) {
	defer c.Close()
	d := net.Dialer{Timeout: 30 * time.Second}
	up, err := d.Dial("tcp", to.String())
	if err != nil {
		_ = c.SetLinger(0) // the client sees a reset, as from a closed port
		return
	}
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

// udpProxy keeps one connected socket for each client.
type udpProxy struct {
	conn  *net.UDPConn
	to    *net.UDPAddr
	mu    sync.Mutex
	flows map[netip.AddrPort]*net.UDPConn
}

func (u *udpProxy) Close() error {
	err := u.conn.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, c := range u.flows {
		c.Close()
	}
	return err
}

func (u *udpProxy) run() {
	buf := make([]byte, 65535)
	for {
		n, from, err := u.conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return
		}
		if up := u.flow(from); up != nil {
			_ = up.SetReadDeadline(time.Now().Add(udpIdle))
			_, _ = up.Write(buf[:n]) // a datagram may be lost
		}
	}
}

func (u *udpProxy) flow(from netip.AddrPort) *net.UDPConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	if c := u.flows[from]; c != nil {
		return c
	}
	if len(u.flows) >= maxUDPFlows {
		return nil
	}
	c, err := net.DialUDP("udp", nil, u.to)
	if err != nil {
		return nil
	}
	_ = c.SetReadDeadline(time.Now().Add(udpIdle))
	u.flows[from] = c
	go u.back(from, c)
	return c
}

func (u *udpProxy) back(from netip.AddrPort, c *net.UDPConn) {
	defer func() {
		u.mu.Lock()
		delete(u.flows, from)
		u.mu.Unlock()
		c.Close()
	}()
	buf := make([]byte, 65535)
	for {
		n, err := c.Read(buf)
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && !ne.Timeout() && n == 0 && !isClosed(err) {
				continue // a refused packet: the container may listen later
			}
			return
		}
		_ = c.SetReadDeadline(time.Now().Add(udpIdle))
		if _, err := u.conn.WriteToUDPAddrPort(buf[:n], from); err != nil {
			return
		}
	}
}

func isClosed(err error) bool { return errors.Is(err, net.ErrClosed) }
