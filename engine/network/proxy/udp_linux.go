package proxy

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/gantry/gantry/engine/network/conntrack"
	"github.com/gantry/gantry/engine/network/ports"
	"golang.org/x/sys/unix"
)

const (
	// udpIdle is how long a forwarded session is remembered without a packet.
	udpIdle = 90 * time.Second
	// trackIdle is after how long a silence the kernel is asked again which port of a row a
	// client's datagrams were sent to: it may have forgotten the first flow by then and use the
	// same numbers for another.
	trackIdle = time.Second
)

// udpProxy keeps one connected socket for each session.
type udpProxy struct {
	conn  *net.UDPConn
	to    ports.Mapping
	local uint16 // the socket's own port
	mu    sync.Mutex
	flows map[session]*udpFlow
}

// session is one client's session with one address of the host.
type session struct {
	from netip.AddrPort
	at   netip.Addr // invalid where the kernel does not tell
}

type udpFlow struct {
	up   *net.UDPConn
	to   netip.AddrPort
	last time.Time // of the client's datagrams, guarded by udpProxy.mu
	// source has the kernel answer from the address that the client wrote to.
	source []byte
}

func newUDP(conn *net.UDPConn, to ports.Mapping) (*udpProxy, error) {
	u := &udpProxy{conn: conn, to: to, flows: map[session]*udpFlow{}}
	if a, ok := conn.LocalAddr().(*net.UDPAddr); ok {
		u.local = a.AddrPort().Port()
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	cerr := raw.Control(func(fd uintptr) {
		var domain int
		if domain, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil {
			return
		}
		if domain == unix.AF_INET6 {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		} else {
			err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		}
	})
	return u, errors.Join(cerr, err)
}

// Close ends all sessions.
func (u *udpProxy) Close() error {
	err := u.conn.Close()
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, f := range u.flows {
		f.up.Close()
	}
	return err
}

func (u *udpProxy) run() {
	buf, oob := make([]byte, 65535), make([]byte, 256)
	for {
		n, on, _, from, err := u.conn.ReadMsgUDPAddrPort(buf, oob)
		if err != nil {
			return
		}
		at, source := arrival(oob[:on])
		if f := u.flow(session{from, at}, source); f != nil {
			_ = f.up.SetReadDeadline(time.Now().Add(udpIdle))
			_, _ = f.up.Write(buf[:n]) // a datagram may be lost
		}
	}
}

// arrival tells which of our addresses a datagram came to, and what makes an answer leave
// from there.
func arrival(oob []byte) (at netip.Addr, source []byte) {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return at, nil
	}
	for _, m := range msgs {
		switch {
		case m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_PKTINFO && len(m.Data) >= unix.SizeofInet6Pktinfo:
			info := unix.Inet6Pktinfo{Addr: [16]byte(m.Data[:16])}
			at = netip.AddrFrom16(info.Addr)
			if at.IsMulticast() {
				continue // no address of ours
			}
			if at.IsLinkLocalUnicast() {
				info.Ifindex = binary.NativeEndian.Uint32(m.Data[16:])
			}
			source = unix.PktInfo6(&info)
		case m.Header.Level == unix.IPPROTO_IP && m.Header.Type == unix.IP_PKTINFO && len(m.Data) >= unix.SizeofInet4Pktinfo:
			// Spec_dst is the local address, also where the destination was a broadcast.
			info := unix.Inet4Pktinfo{Spec_dst: [4]byte(m.Data[4:8])}
			at, source = netip.AddrFrom4(info.Spec_dst), unix.PktInfo4(&info)
		}
	}
	return at, source
}

// flow is the session that a datagram belongs to; nil where it goes nowhere.
func (u *udpProxy) flow(k session, source []byte) *udpFlow {
	u.mu.Lock()
	defer u.mu.Unlock()
	now := time.Now()
	f := u.flows[k]
	if f != nil && (!u.to.Row() || now.Sub(f.last) < trackIdle) {
		f.last = now
		return f
	}
	if f == nil && len(u.flows) >= maxUDPFlows {
		return nil // before the kernel is asked: a flood must cost little
	}
	to, ok := u.to.Target(u.wanted(k))
	if f != nil && ok && f.to == to {
		f.last = now
		return f
	}
	if f != nil {
		delete(u.flows, k)
		f.up.Close()
	}
	if !ok {
		return nil
	}
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(to))
	if err != nil {
		return nil
	}
	f = &udpFlow{up: c, to: to, last: now, source: source}
	_ = c.SetReadDeadline(now.Add(udpIdle))
	u.flows[k] = f
	go u.back(k, f)
	return f
}

// wanted is the port that the client wrote to, of a row.
func (u *udpProxy) wanted(k session) uint16 {
	if !u.to.Row() {
		return 0
	}
	if dst, err := conntrack.Original(unix.IPPROTO_UDP, netip.AddrPortFrom(k.at, u.local), k.from); err == nil {
		return dst.Port()
	}
	return u.local // nobody translated it
}

func (u *udpProxy) back(k session, f *udpFlow) {
	defer func() {
		u.mu.Lock()
		if u.flows[k] == f {
			delete(u.flows, k)
		}
		u.mu.Unlock()
		f.up.Close()
	}()
	buf := make([]byte, 65535)
	for {
		n, err := f.up.Read(buf)
		if err != nil {
			var ne net.Error
			if errors.As(err, &ne) && !ne.Timeout() && n == 0 && !errors.Is(err, net.ErrClosed) {
				continue // a refused packet: the container may listen later
			}
			return
		}
		_ = f.up.SetReadDeadline(time.Now().Add(udpIdle))
		if _, _, err := u.conn.WriteMsgUDPAddrPort(buf[:n], f.source, k.from); err != nil {
			return
		}
	}
}
