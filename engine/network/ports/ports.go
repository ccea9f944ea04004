// Package ports keeps the table of published host ports and of the containers that publish them.
// It holds a socket on each port, so that no other program of the host takes it.
package ports

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// BindFunc takes a socket on an address; the error is the system's.
type BindFunc func(proto string, a netip.AddrPort) (*os.File, error)

// Table is the table of published ports. Safe for concurrent use.
type Table struct {
	bind     BindFunc
	min, max uint16

	mu    sync.Mutex
	taken map[slot]map[netip.Addr]string
	rows  []row // of several ports each
	socks map[Place]*os.File
	next  map[string]uint16 // by protocol: where to look for an ephemeral one
}

type slot struct {
	proto string
	v6    bool
	port  uint16
}

// row is a mapping of several ports, and whose it is.
type row struct {
	Mapping
	container string
}

// NewTable returns an empty table whose ephemeral ports come from [first, last].
func NewTable(bind BindFunc, first, last uint16) *Table {
	return &Table{bind: bind, min: first, max: last, taken: map[slot]map[netip.Addr]string{}, socks: map[Place]*os.File{}, next: map[string]uint16{}}
}

// Take takes a port for a container (by name, for error texts), with a socket on each
// address that shows other programs that it is taken (Socket). Release gives it back. Nothing
// is taken when it fails.
func (t *Table) Take(container string, r PortRequest) ([]Mapping, error) {
	if r.Count > 1 {
		return t.takeRow(container, r)
	}
	if r.First == 0 {
		return t.takeEphemeral(container, r)
	}
	var first error
	for port := uint32(r.First); port <= uint32(r.Last); port++ {
		b, err := t.takeOne(container, r, uint16(port))
		if err == nil {
			return b, nil
		}
		if first == nil {
			first = err
		}
	}
	if r.First != r.Last {
		return nil, errclass.Internal("Bind for %s failed: all ports are allocated (%v)", r.HostIPs[0], first)
	}
	return nil, first
}

func (t *Table) takeEphemeral(container string, r PortRequest) ([]Mapping, error) {
	size := int(t.max) - int(t.min) + 1
	for range size {
		t.mu.Lock()
		port := t.next[r.Proto]
		if port < t.min || port > t.max {
			port = t.min
		}
		t.next[r.Proto] = port + 1 // past max, or wrapped: min the next time
		t.mu.Unlock()
		b, err := t.takeOne(container, r, port)
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, errInUse) {
			return nil, err
		}
	}
	return nil, errclass.Internal("Bind for %s failed: all ports are allocated", r.HostIPs[0])
}

// errInUse marks errors that another port number may not have.
var errInUse = errors.New("in use")

func (t *Table) takeOne(container string, r PortRequest, port uint16) (_ []Mapping, err error) {
	var got []Mapping
	defer func() {
		if err != nil {
			t.Release(got)
		}
	}()
	for _, a := range r.HostIPs {
		m := Mapping{Proto: r.Proto, HostIP: a, HostPort: port, ContainerPort: r.ContainerPort}
		if err := t.reserve(container, m); err != nil {
			return nil, err
		}
		got = append(got, m)
		if err := t.open(m); err != nil {
			return nil, bindError(r, a, port, err)
		}
	}
	return got, nil
}

// open takes the socket of a mapping that is in the table.
func (t *Table) open(m Mapping) error {
	f, err := t.bind(m.Proto, netip.AddrPortFrom(m.HostIP, m.HostPort))
	if err != nil || f == nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.socks[m.Place()] = f
	return nil
}

// Socket is what the table holds on a mapping's host port: nil for several ports without a
// gate, and where the kernel has no such protocol. It stays the table's, until Release.
func (t *Table) Socket(m Mapping) *os.File {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.socks[m.Place()]
}

func bindError(r PortRequest, a netip.Addr, port uint16, err error) error {
	text := fmt.Errorf("failed to bind host port for %s:%s/%s: %w", netip.AddrPortFrom(a, port), r.to(), r.Proto, cause(err))
	if errors.Is(err, unix.EADDRINUSE) {
		text = fmt.Errorf("failed to bind host port for %s:%s/%s: address already in use%w", netip.AddrPortFrom(a, port), r.to(), r.Proto, hidden{errInUse})
	}
	return errclass.With(errdefs.ErrInternal, text)
}

// cause strips a path or call name from a system error.
func cause(err error) error {
	var errno unix.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// hidden carries an error in a chain without its text.
type hidden struct{ err error }

func (hidden) Error() string   { return "" }
func (h hidden) Unwrap() error { return h.err }

// reserve enters a mapping into the table, unless a port of it is taken.
func (t *Table) reserve(container string, m Mapping) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := m.last()
	for _, r := range t.rows {
		if r.Proto == m.Proto && r.HostPort <= last && m.HostPort <= r.last() && meet(r.HostIP, m.HostIP) {
			return takenBy(m.HostIP, max(m.HostPort, r.HostPort), r.container)
		}
	}
	for port := uint32(m.HostPort); port <= uint32(last); port++ {
		for have, by := range t.taken[slot{m.Proto, m.HostIP.Is6(), uint16(port)}] {
			if meet(have, m.HostIP) {
				return takenBy(m.HostIP, uint16(port), by)
			}
		}
	}
	if m.Row() {
		t.rows = append(t.rows, row{m, container})
		return nil
	}
	s := slot{m.Proto, m.HostIP.Is6(), m.HostPort}
	if t.taken[s] == nil {
		t.taken[s] = map[netip.Addr]string{}
	}
	t.taken[s][m.HostIP] = container
	return nil
}

// meet tells whether the same port on two addresses is the same place.
func meet(a, b netip.Addr) bool {
	return a.Is6() == b.Is6() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

func takenBy(a netip.Addr, port uint16, container string) error {
	ap := netip.AddrPortFrom(a, port)
	return errclass.With(errdefs.ErrInternal, fmt.Errorf("Bind for %s failed: port is already allocated (address already in use: %s by container %s)%w",
		ap, ap, container, hidden{errInUse}))
}

// Adopt enters a port that a running container has, with the socket that was kept for it
// (nil: a new one is taken). A socket that cannot be had is no error: the rules work. The
// error is that another one has the port; the socket is closed then.
func (t *Table) Adopt(container string, m Mapping, socket *os.File) error {
	if err := t.reserve(container, m); err != nil {
		if socket != nil {
			socket.Close()
		}
		return err
	}
	if socket == nil && (!m.Row() || m.Gate && m.HostIP.Is6()) {
		_ = t.open(m)
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if socket != nil {
		t.socks[m.Place()] = socket
	}
	return nil
}

// Release gives ports back and closes their sockets.
func (t *Table) Release(ms []Mapping) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range ms {
		if f := t.socks[m.Place()]; f != nil {
			f.Close()
			delete(t.socks, m.Place())
		}
		if m.Row() {
			t.rows = slices.DeleteFunc(t.rows, func(r row) bool { return r.Place() == m.Place() && r.Count == m.Count })
			continue
		}
		s := slot{m.Proto, m.HostIP.Is6(), m.HostPort}
		delete(t.taken[s], m.HostIP)
		if len(t.taken[s]) == 0 {
			delete(t.taken, s)
		}
	}
}

// Close closes the sockets: the ports stay taken, by what else holds them.
func (t *Table) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for at, f := range t.socks {
		f.Close()
		delete(t.socks, at)
	}
}

// Len returns how many host ports are taken.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, r := range t.rows {
		n += int(r.Count)
	}
	for _, m := range t.taken {
		n += len(m)
	}
	return n
}
