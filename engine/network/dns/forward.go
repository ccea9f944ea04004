package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// stagger is how long a server may think before the next one is asked as well.
	stagger = 250 * time.Millisecond
	// patience is how long a query may take in all; clients ask again after 5 s.
	patience = 4 * time.Second
	// sulk is how long a server that did not answer is asked last.
	sulk = 20 * time.Second
	// maxUpstream bounds the queries in flight of all containers together.
	maxUpstream = 4096
	// maxServers bounds how many servers are asked for one query.
	maxServers = 8
)

// errBusy says that too many queries are in flight.
var errBusy = errors.New("too many queries in flight")

// Forwarder asks the outside for containers: the host's servers from the daemon's network
// namespace, a container's own from the container's. Safe for concurrent use.
type Forwarder struct {
	// Enter runs a function on a thread in another network namespace. Without it all are
	// asked from the daemon's. Set it before the first Serve.
	Enter func(ns *os.File, do func() error) error

	// Servers are the host's own, asked anew for every query.
	servers func() []netip.Addr
	port    uint16
	cache   cache
	slots   chan struct{}
	inside  chan struct{} // connections being made in containers
	last    atomic.Uint64 // resolver

	mu   sync.Mutex
	dead map[seenServer]time.Time // until when a server is asked last
}

// seenServer is a server as one namespace sees it.
type seenServer struct {
	resolver uint64
	addr     netip.Addr
}

// NewForwarder returns one that asks the servers which the function names: it is called
// for every query and must be quick.
func NewForwarder(servers func() []netip.Addr) *Forwarder {
	return &Forwarder{
		servers: servers, port: 53, slots: make(chan struct{}, maxUpstream),
		inside: make(chan struct{}, maxInsideTCP), dead: map[seenServer]time.Time{},
	}
}

// ask gets the answer to query, whose question is raw. servers are the container's own, if
// any, and asked from its namespace. Over TCP the answer is whole. An error means that nobody answered.
func (f *Forwarder) ask(ctx context.Context, from source, servers []netip.Addr, query, raw []byte, tcp bool) ([]byte, error) {
	if len(servers) == 0 {
		servers, from = f.servers(), source{}
	}
	if len(servers) == 0 {
		return nil, errors.New("no servers")
	}
	servers = servers[:min(len(servers), maxServers)]
	id := binary.BigEndian.Uint16(query)
	key := cacheKey(from.resolver, servers, query, raw)
	if got := f.cache.get(key, id, time.Now()); got != nil {
		return got, nil
	}
	select {
	case f.slots <- struct{}{}:
		defer func() { <-f.slots }()
	default:
		return nil, errBusy
	}
	got, err := f.race(ctx, from, f.order(from, servers), query, raw, tcp)
	if err != nil {
		return nil, err
	}
	f.cache.put(key, got, time.Now())
	binary.BigEndian.PutUint16(got, id)
	return got, nil
}

// order puts servers that did not answer lately last.
func (f *Forwarder) order(from source, servers []netip.Addr) []netip.Addr {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.dead) == 0 || len(servers) == 1 {
		return servers
	}
	now := time.Now()
	var good, bad []netip.Addr
	for _, s := range servers {
		if now.Before(f.dead[seenServer{from.resolver, s}]) {
			bad = append(bad, s)
		} else {
			good = append(good, s)
		}
	}
	return append(good, bad...)
}

// note remembers whether a server answered.
func (f *Forwarder) note(from source, addr netip.Addr, answered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := seenServer{from.resolver, addr}
	if answered {
		delete(f.dead, s)
		return
	}
	now := time.Now()
	if len(f.dead) >= 256 {
		for a, until := range f.dead {
			if now.After(until) || len(f.dead) >= 256 {
				delete(f.dead, a)
			}
		}
	}
	f.dead[s] = now.Add(sulk)
}

type upstreamResult struct {
	msg    []byte
	server int
	err    error
}

// race asks the servers, each next one when the one before failed or takes long. The
// first good answer wins; a server's own failure is told only when all of them fail.
func (f *Forwarder) race(ctx context.Context, from source, servers []netip.Addr, query, raw []byte, tcp bool) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	results := make(chan upstreamResult, len(servers))
	next, running := 0, 0
	start := func() {
		i := next
		next, running = next+1, running+1
		go func() {
			msg, err := exchange(ctx, from, netip.AddrPortFrom(servers[i], f.port), query, raw, tcp)
			results <- upstreamResult{msg, i, err}
		}()
	}
	timer := time.NewTimer(stagger)
	defer timer.Stop()
	begun := time.Now()
	start()
	var failed []byte
	silent := map[int]bool{0: true}
	var lastErr error
	for running > 0 {
		select {
		case r := <-results:
			running--
			delete(silent, r.server)
			if r.err == nil && len(r.msg) > 3 && (r.msg[3]&0xf == rcodeOK || r.msg[3]&0xf == rcodeNXDomain) {
				f.note(from, servers[r.server], true)
				for i := range silent {
					// Asked earlier than the one that answered, and still silent.
					if i < r.server && time.Since(begun) >= stagger {
						f.note(from, servers[i], false)
					}
				}
				return r.msg, nil
			}
			if r.err == nil {
				failed = r.msg
			} else {
				lastErr = r.err
				if ctx.Err() == nil || !errors.Is(ctx.Err(), context.Canceled) {
					f.note(from, servers[r.server], false)
				}
			}
			if next < len(servers) {
				silent[next] = true
				start()
				timer.Reset(stagger)
			}
		case <-timer.C:
			if next < len(servers) {
				silent[next] = true
				start()
				timer.Reset(stagger)
			}
		}
	}
	if failed != nil {
		return failed, nil
	}
	return nil, lastErr
}

// exchange asks one server once. Answers that are none to our question are passed over.
func exchange(ctx context.Context, from source, server netip.AddrPort, query, raw []byte, tcp bool) ([]byte, error) {
	network := "udp"
	if tcp {
		network = "tcp"
	}
	c, err := from.dial(ctx, network, server)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	id := uint16(rand.Uint32())
	var msg []byte
	if tcp {
		msg = binary.BigEndian.AppendUint16(msg, uint16(len(query)))
	}
	at := len(msg)
	msg = append(msg, query...)
	binary.BigEndian.PutUint16(msg[at:], id)
	if _, err := c.Write(msg); err != nil {
		return nil, err
	}
	if tcp {
		got, err := readTCP(c, nil)
		if err == nil && !answers(got, id, raw) {
			err = errors.New("answer to another question")
		}
		return got, err
	}
	buf := make([]byte, maxUDP)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if answers(buf[:n], id, raw) {
			return buf[:n], nil
		}
	}
}

// readTCP reads one message with its length before it.
func readTCP(r io.Reader, buf []byte) ([]byte, error) {
	var l [2]byte
	if _, err := io.ReadFull(r, l[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(l[:]))
	if cap(buf) < n {
		buf = make([]byte, n)
	}
	_, err := io.ReadFull(r, buf[:n])
	return buf[:n], err
}

const (
	maxCached     = 1024
	maxCachedSize = 1232
	maxCacheTTL   = 60 // seconds
	maxNegTTL     = 5
)

// cache keeps whole answers by the whole query but its ID: who asks otherwise (EDNS
// options, DNSSEC) gets another answer. Safe for concurrent use.
type cache struct {
	mu sync.Mutex
	m  map[string]cached
}

type cached struct {
	msg         []byte
	at, expires time.Time
}

func cacheKey(resolver uint64, servers []netip.Addr, query, raw []byte) string {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 72+len(query)), resolver)
	for _, s := range servers {
		key = append(append(key, s.AsSlice()...), s.Zone()...)
	}
	key = append(key, 0)
	key = append(key, query[2:headerLen]...)
	for _, c := range raw {
		key = append(key, lower(c))
	}
	return string(append(key, query[headerLen+len(raw):]...))
}

// get returns a copy with the ID and the time that passed taken off the TTLs.
func (c *cache) get(key string, id uint16, now time.Time) []byte {
	c.mu.Lock()
	e, ok := c.m[key]
	if ok && !now.Before(e.expires) {
		delete(c.m, key)
		ok = false
	}
	c.mu.Unlock()
	if !ok {
		return nil
	}
	msg := slices.Clone(e.msg)
	binary.BigEndian.PutUint16(msg, id)
	age := uint32(now.Sub(e.at) / time.Second)
	walkRRs(msg, func(_ int, r rr) {
		if r.typ != typeOPT {
			binary.BigEndian.PutUint32(msg[r.ttlAt:], r.ttl-min(age, r.ttl))
		}
	})
	return msg
}

// put keeps an answer for as long as its records say, if not too long.
func (c *cache) put(key string, msg []byte, now time.Time) {
	if len(msg) > maxCachedSize || msg[2]&(flagTC>>8) != 0 {
		return
	}
	ttl, records := uint32(maxCacheTTL), [3]int{}
	ok := walkRRs(msg, func(section int, r rr) {
		if r.typ != typeOPT {
			records[section]++
			ttl = min(ttl, r.ttl)
		}
	})
	rcode := msg[3] & 0xf
	if rcode != rcodeOK || records[0] == 0 { // there is none: says the zone's SOA for how long
		ttl = min(ttl, maxNegTTL)
		ok = ok && records[1] > 0 && (rcode == rcodeOK || rcode == rcodeNXDomain)
	}
	if !ok || ttl == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.m == nil {
		c.m = map[string]cached{}
	}
	for old := range c.m {
		if len(c.m) < maxCached {
			break
		}
		delete(c.m, old) // any: the order of a map is none
	}
	c.m[key] = cached{slices.Clone(msg), now, now.Add(time.Duration(ttl) * time.Second)}
}
