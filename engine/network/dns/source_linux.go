package dns

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// maxInsideTCP bounds the connections being made in containers' namespaces: each waits on
// a thread of its own.
const maxInsideTCP = 64

// source is where a query leaves from: the daemon's namespace, or the container's own for
// the servers that it was given, which may be its own loopback's.
type source struct {
	resolver uint64                      // 0: the daemon's namespace
	inside   func(do func() error) error // nil: the daemon's namespace
	tcp      chan struct{}               // of the forwarder
}

// dial makes the connection; its socket is of the source's namespace.
func (s source) dial(ctx context.Context, network string, server netip.AddrPort) (c net.Conn, err error) {
	var d net.Dialer
	if s.inside == nil {
		return d.DialContext(ctx, network, server.String())
	}
	if network == "tcp" {
		select {
		case s.tcp <- struct{}{}:
			defer func() { <-s.tcp }()
		default:
			return nil, errBusy
		}
	}
	// A literal address of one family is dialled on this very thread.
	err = s.inside(func() (err error) { c, err = d.DialContext(ctx, network, server.String()); return err })
	return c, err
}

// inside runs do in the namespace of the resolver's sockets, by enter.
func (r *Resolver) inside(enter func(ns *os.File, do func() error) error, do func() error) error {
	if r.udp == nil {
		return os.ErrInvalid
	}
	raw, err := r.udp.SyscallConn()
	if err != nil {
		return err
	}
	var ns int
	cerr := raw.Control(func(fd uintptr) { ns, err = unix.IoctlRetInt(int(fd), unix.SIOCGSKNS) })
	if cerr != nil {
		return cerr
	}
	if err != nil {
		return fmt.Errorf("finding a socket's network namespace: %w", err)
	}
	f := os.NewFile(uintptr(ns), "netns")
	defer f.Close()
	unix.CloseOnExec(ns)
	return enter(f, do)
}
