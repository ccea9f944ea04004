// Package ports keeps which host ports are published, by whom, and holds a socket on
// each so that no other program of the host takes it.
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

// Request asks for one port on some host addresses: the same number on all of them.
type Request struct {
	Proto string // "tcp", "udp" or "sctp"
	Addrs []netip.Addr
	// First and Last bound the wished numbers; 0 and 0 is any free ephemeral one.
	First, Last uint16
	// Count above 1 asks for that many ports in a row, from First on (Last is not
	// looked at). They are taken as one, without sockets: thousands of them would cost
	// more than they keep away.
	Count uint16
	// Gate asks for a socket on a row's first port where the address is IPv6, for what
	// the firewall leads there.
	Gate bool
	// To is where it leads, for error texts ("172.17.0.2:80").
	To string
}

// Binding is one taken host port, or several in a row. Socket is nil for several without
// a gate, and where the kernel has no such protocol.
type Binding struct {
	Proto string
	Addr  netip.Addr
	Port  uint16
	// Count is the number of ports from Port on, where there are several.
	Count  uint16
	Socket *os.File
}

// NamePrefix starts every name of a binding's socket.
const NamePrefix = "port/"

// Name is the key of the binding's socket in a keeper of descriptors.
func (b Binding) Name() string { return fmt.Sprintf(NamePrefix+"%s/%s/%d", b.Proto, b.Addr, b.Port) }

// BindFunc takes a socket on an address; the error is the system's.
type BindFunc func(proto string, a netip.AddrPort) (*os.File, error)

// Table is the table of published ports. Safe for concurrent use.
type Table struct {
	bind     BindFunc
	min, max uint16

	mu    sync.Mutex
	owner map[slot]map[netip.Addr]string
	rows  []row             // of several ports each
	next  map[string]uint16 // by protocol: where to look for an ephemeral one
}

type slot struct {
	proto string
	v6    bool
	port  uint16
}

// row is a Binding of several ports.
type row struct {
	proto       string
	addr        netip.Addr
	first, last uint16
	owner       string
}

// NewTable returns an empty table whose ephemeral ports come from [first, last].
func NewTable(bind BindFunc, first, last uint16) *Table {
	return &Table{bind: bind, min: first, max: last, owner: map[slot]map[netip.Addr]string{}, next: map[string]uint16{}}
}

// Take takes a port for owner (a container's name, for error texts). The sockets are
// the caller's, who gives them to Release. Nothing is taken when it fails.
func (t *Table) Take(owner string, r Request) ([]Binding, error) {
	if r.Count > 1 {
		return t.takeRow(owner, r)
	}
	if r.First == 0 {
		return t.takeEphemeral(owner, r)
	}
	var first error
	for port := uint32(r.First); port <= uint32(r.Last); port++ {
		b, err := t.takeOne(owner, r, uint16(port))
		if err == nil {
			return b, nil
		}
		if first == nil {
			first = err
		}
	}
	if r.First != r.Last {
		return nil, errclass.Internal("Bind for %s failed: all ports are allocated (%v)", r.Addrs[0], first)
	}
	return nil, first
}

func (t *Table) takeEphemeral(owner string, r Request) ([]Binding, error) {
	size := int(t.max) - int(t.min) + 1
	for range size {
		t.mu.Lock()
		port := t.next[r.Proto]
		if port < t.min || port > t.max {
			port = t.min
		}
		t.next[r.Proto] = port + 1 // past max, or wrapped: min the next time
		t.mu.Unlock()
		b, err := t.takeOne(owner, r, port)
		if err == nil {
			return b, nil
		}
		if !errors.Is(err, errInUse) {
			return nil, err
		}
	}
	return nil, errclass.Internal("Bind for %s failed: all ports are allocated", r.Addrs[0])
}

// errInUse marks errors that another port number may not have.
var errInUse = errors.New("in use")

func (t *Table) takeOne(owner string, r Request, port uint16) (_ []Binding, err error) {
	var got []Binding
	defer func() {
		if err != nil {
			t.Release(got)
		}
	}()
	for _, a := range r.Addrs {
		if err := t.reserve(owner, Binding{Proto: r.Proto, Addr: a, Port: port}); err != nil {
			return nil, err
		}
		b := Binding{Proto: r.Proto, Addr: a, Port: port}
		b.Socket, err = t.bind(r.Proto, netip.AddrPortFrom(a, port))
		got = append(got, b)
		if err != nil {
			return nil, bindError(r, a, port, err)
		}
	}
	return got, nil
}

func bindError(r Request, a netip.Addr, port uint16, err error) error {
	text := fmt.Errorf("failed to bind host port for %s:%s/%s: %w", netip.AddrPortFrom(a, port), r.To, r.Proto, cause(err))
	if errors.Is(err, unix.EADDRINUSE) {
		text = fmt.Errorf("failed to bind host port for %s:%s/%s: address already in use%w", netip.AddrPortFrom(a, port), r.To, r.Proto, hidden{errInUse})
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

// reserve enters a binding into the table, unless a port of it is taken.
func (t *Table) reserve(owner string, b Binding) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	last := b.last()
	for _, r := range t.rows {
		if r.proto == b.Proto && r.first <= last && b.Port <= r.last && meet(r.addr, b.Addr) {
			return takenBy(b.Addr, max(b.Port, r.first), r.owner)
		}
	}
	for port := uint32(b.Port); port <= uint32(last); port++ {
		for have, by := range t.owner[slot{b.Proto, b.Addr.Is6(), uint16(port)}] {
			if meet(have, b.Addr) {
				return takenBy(b.Addr, uint16(port), by)
			}
		}
	}
	if b.Count > 1 {
		t.rows = append(t.rows, row{b.Proto, b.Addr, b.Port, last, owner})
		return nil
	}
	s := slot{b.Proto, b.Addr.Is6(), b.Port}
	if t.owner[s] == nil {
		t.owner[s] = map[netip.Addr]string{}
	}
	t.owner[s][b.Addr] = owner
	return nil
}

// last is the binding's highest port.
func (b Binding) last() uint16 { return b.Port + max(b.Count, 1) - 1 }

// meet tells whether the same port on two addresses is the same place.
func meet(a, b netip.Addr) bool {
	return a.Is6() == b.Is6() && (a == b || a.IsUnspecified() || b.IsUnspecified())
}

func takenBy(a netip.Addr, port uint16, owner string) error {
	ap := netip.AddrPortFrom(a, port)
	return errclass.With(errdefs.ErrInternal, fmt.Errorf("Bind for %s failed: port is already allocated (address already in use: %s by container %s)%w",
		ap, ap, owner, hidden{errInUse}))
}

// Adopt records a port that a running container has, with the socket that was kept
// for it, or a new one. A socket that cannot be had is no error: the rules work. gate is
// as in Request.
func (t *Table) Adopt(owner string, b Binding, gate bool) (Binding, error) {
	if err := t.reserve(owner, b); err != nil {
		return b, err
	}
	if b.Socket == nil && (b.Count <= 1 || gate && b.Addr.Is6()) {
		b.Socket, _ = t.bind(b.Proto, netip.AddrPortFrom(b.Addr, b.Port))
	}
	return b, nil
}

// Release gives ports back and closes their sockets.
func (t *Table) Release(bs []Binding) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, b := range bs {
		if b.Socket != nil {
			b.Socket.Close()
		}
		if b.Count > 1 {
			t.rows = slices.DeleteFunc(t.rows, func(r row) bool {
				return r.proto == b.Proto && r.addr == b.Addr && r.first == b.Port && r.last == b.last()
			})
			continue
		}
		s := slot{b.Proto, b.Addr.Is6(), b.Port}
		delete(t.owner[s], b.Addr)
		if len(t.owner[s]) == 0 {
			delete(t.owner, s)
		}
	}
}

// Len returns how many host ports are taken.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, r := range t.rows {
		n += int(r.last-r.first) + 1
	}
	for _, m := range t.owner {
		n += len(m)
	}
	return n
}
