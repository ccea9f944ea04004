// Package dns is the resolver that every container of a user-defined network finds at
// 127.0.0.11. It answers for the containers of the networks and forwards other queries to the
// host's resolvers. Its sockets are in the container's network namespace. The daemon serves them,
// and the shim's descriptor store keeps them while there is no daemon, so that queries wait.
package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxInFlight bounds one container's queries that wait for the outside; more are
	// refused, as Docker does.
	maxInFlight = 1024
	// maxConns bounds one container's TCP connections, idle how long one may be idle.
	maxConns = 64
	idle     = 10 * time.Second
)

// Addr is where containers find their resolver.
func Addr() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 11}) }

// Resolver serves one container. Safe for concurrent use. Close it.
type Resolver struct {
	view     atomic.Pointer[View]
	fwd      *Forwarder
	from     source
	udp      *net.UDPConn
	tcp      net.Listener
	ctx      context.Context
	cancel   context.CancelFunc
	inFlight atomic.Int32
	conns    chan struct{}
	wg       sync.WaitGroup
}

// Serve starts a resolver on a container's sockets, of which it makes its own
// duplicates: the caller closes the files. Either may be nil.
func Serve(s Sockets, v *View, fwd *Forwarder) (*Resolver, error) {
	r := &Resolver{fwd: fwd, conns: make(chan struct{}, maxConns)}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.view.Store(v)
	if fwd != nil && fwd.Enter != nil && s.UDP != nil {
		r.from = source{resolver: fwd.last.Add(1), tcp: fwd.inside, inside: func(do func() error) error { return r.inside(fwd.Enter, do) }}
	}
	if s.UDP != nil {
		c, err := net.FilePacketConn(s.UDP)
		if err != nil {
			return nil, err
		}
		var ok bool
		if r.udp, ok = c.(*net.UDPConn); !ok {
			c.Close()
			return nil, errors.New("kept DNS socket is of another kind")
		}
	}
	if s.TCP != nil {
		l, err := net.FileListener(s.TCP)
		if err != nil {
			if r.udp != nil {
				r.udp.Close()
			}
			return nil, err
		}
		r.tcp = l
		r.wg.Go(r.serveTCP)
	}
	if r.udp != nil {
		r.wg.Go(r.serveUDP)
	}
	return r, nil
}

// SetView changes what is answered from now on.
func (r *Resolver) SetView(v *View) { r.view.Store(v) }

// Close ends the service and waits for it; the sockets stay with whoever else has them.
func (r *Resolver) Close() {
	r.cancel()
	if r.udp != nil {
		r.udp.Close()
	}
	if r.tcp != nil {
		r.tcp.Close()
	}
	r.wg.Wait()
}

// serveUDP answers local questions at once, one after the other, and hands the others on.
func (r *Resolver) serveUDP() {
	in, out := make([]byte, maxUDP), make([]byte, 0, maxUDP)
	var name [maxName]byte
	var q question
	for {
		n, from, err := r.udp.ReadFromUDPAddrPort(in)
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if !pause(r.ctx) {
				return
			}
			continue
		}
		v := r.view.Load()
		ans, what := v.local(in[:n], out, true, &q, &name)
		switch what {
		case done:
			_, _ = r.udp.WriteToUDPAddrPort(ans, from)
		case forward:
			if r.inFlight.Add(1) > maxInFlight {
				r.inFlight.Add(-1)
				_, _ = r.udp.WriteToUDPAddrPort(q.failure(out, rcodeRefused), from)
				continue
			}
			query := append([]byte(nil), in[:n]...)
			own := q
			own.raw = query[headerLen : headerLen+len(q.raw)]
			r.wg.Go(func() {
				defer r.inFlight.Add(-1)
				_, _ = r.udp.WriteToUDPAddrPort(r.outside(v, query, &own, false), from)
			})
		}
	}
}

// pause waits a moment after an error that may go away; false when the service ends.
func pause(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(10 * time.Millisecond):
		return true
	}
}

// outside is the answer to a query that others must be asked.
func (r *Resolver) outside(v *View, query []byte, q *question, tcp bool) []byte {
	got, err := r.fwd.ask(r.ctx, r.from, v.Servers, query, q.raw, tcp)
	switch {
	case errors.Is(err, errBusy):
		return q.failure(nil, rcodeRefused)
	case err != nil:
		return q.failure(nil, rcodeServFail)
	case !tcp && len(got) > q.size:
		cut := q.failure(nil, int(got[3]&0xf))
		cut[2] |= flagTC >> 8
		return cut
	}
	return got
}

func (r *Resolver) serveTCP() {
	for {
		c, err := r.tcp.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) || !pause(r.ctx) {
				return
			}
			continue
		}
		select {
		case r.conns <- struct{}{}:
		default:
			c.Close()
			continue
		}
		r.wg.Go(func() {
			defer func() { <-r.conns }()
			defer c.Close()
			stop := context.AfterFunc(r.ctx, func() { c.Close() })
			defer stop()
			r.serveConn(c)
		})
	}
}

// serveConn answers one connection's queries, one after the other.
func (r *Resolver) serveConn(c net.Conn) {
	var in, out []byte
	var name [maxName]byte
	for {
		_ = c.SetDeadline(time.Now().Add(idle))
		p, err := readTCP(c, in)
		if err != nil {
			return
		}
		in = p[:0]
		v := r.view.Load()
		var q question
		ans, what := v.local(p, out, false, &q, &name)
		switch what {
		case drop:
			return
		case forward:
			if r.inFlight.Add(1) > maxInFlight {
				ans = q.failure(nil, rcodeRefused)
			} else {
				ans = r.outside(v, p, &q, true)
			}
			r.inFlight.Add(-1)
		}
		out = ans[:0]
		_ = c.SetDeadline(time.Now().Add(idle))
		buf := net.Buffers{binary.BigEndian.AppendUint16(nil, uint16(len(ans))), ans}
		if _, err := buf.WriteTo(c); err != nil {
			return
		}
	}
}

// Sockets are where a container's queries arrive.
type Sockets struct{ UDP, TCP *os.File }

// Close closes both.
func (s Sockets) Close() error {
	var errs []error
	for _, f := range []*os.File{s.UDP, s.TCP} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
