package shim

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// held is what the client keeps of one process: enough to hand it to a new shim.
// The descriptors are raw numbers on purpose: as os.File they would be registered
// in the daemon's poller, which would wake up for every byte of output.
type held struct {
	started  Started
	log      *LogConfig
	tty      bool
	once     bool
	paused   bool
	adopted  bool
	lost     bool
	exit     *Exit
	fds      map[string]int
	attach   []AttachSpec
	conns    map[string]int // by AttachSpec.Client
	watching bool           // a goroutine reaps it for the shim
}

func (h *held) closeStdio() {
	for name, fd := range h.fds {
		if name != "pidfd" {
			unix.Close(fd)
			delete(h.fds, name)
		}
	}
}

func (h *held) close() {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	for _, fd := range h.conns {
		unix.Close(fd)
	}
	h.fds, h.conns = nil, nil
}

func (c *Client) keep(key Key, h *held) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.held[key]; old != nil {
		old.close()
	}
	c.held[key] = h
}

func (c *Client) forget(key Key) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.held[key]; h != nil {
		h.close()
		delete(c.held, key)
	}
}

// setPaused remembers what a successor of the shim must know.
func (c *Client) setPaused(key Key, paused bool, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h := c.held[key]; h != nil && err == nil {
		h.paused = paused
	}
	return err
}

func (c *Client) keepConn(key Key, a AttachSpec, fd int) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[key]
	if h == nil {
		return notHeld(key)
	}
	if h.conns == nil {
		h.conns = map[string]int{}
	}
	if _, ok := h.conns[a.Client]; ok {
		return errclass.With(errdefs.ErrAlreadyExists, errors.New("client "+a.Client+" is attached already"))
	}
	h.conns[a.Client] = fd
	a.Prefix = nil // it went to stdin with the first request
	h.attach = append(h.attach[:len(h.attach):len(h.attach)], a)
	return nil
}

func (c *Client) dropConn(key Key, client string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[key]
	if h == nil {
		return
	}
	if fd, ok := h.conns[client]; ok {
		unix.Close(fd)
		delete(h.conns, client)
	}
	var rest []AttachSpec
	for _, a := range h.attach {
		if a.Client != client {
			rest = append(rest, a)
		}
	}
	h.attach = rest
}

func (c *Client) dropAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, h := range c.held {
		h.close()
	}
	for _, fd := range c.stored {
		unix.Close(fd)
	}
	clear(c.held)
	clear(c.stored)
}

// handle takes one event of the shim, in the order of the wire.
func (c *Client) handle(e *Event) {
	switch {
	case e.StdinClosed != nil:
		// Our duplicate would keep the process from seeing the end of its input.
		c.mu.Lock()
		if h := c.held[*e.StdinClosed]; h != nil {
			if fd, ok := h.fds["stdin"]; ok {
				unix.Close(fd)
				delete(h.fds, "stdin")
			}
		}
		c.mu.Unlock()
		return
	case e.Exit != nil:
		if !c.ended(e.Exit) {
			return
		}
	case e.Detached != nil:
		c.dropConn(e.Detached.Key, e.Detached.Client)
	}
	c.events.push(*e)
}

// ended records an exit and tells whether it is news.
func (c *Client) ended(x *Exit) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	h := c.held[x.Key]
	if h == nil {
		return true
	}
	if h.exit != nil {
		return false
	}
	h.exit = x
	h.closeStdio()
	return true
}

// sync takes over what a shim lists: after connecting to one that lives (again).
// With news, exits that were not seen yet are delivered as events.
func (c *Client) sync(ctx context.Context, s *session, news bool) error {
	seen := map[Key]bool{}
	err := s.call(ctx, MethodList, ListRequest{Descriptors: true}, nil, func(b json.RawMessage, fds []int) error {
		var part []Status
		if err := json.Unmarshal(b, &part); err != nil {
			CloseFDs(fds)
			return err
		}
		for i := range part {
			st := &part[i]
			if len(st.FDs) > len(fds) {
				CloseFDs(fds)
				return errclass.Internal("the shim sent too few descriptors")
			}
			seen[st.Key] = true
			c.take(st, fds[:len(st.FDs)], news)
			fds = fds[len(st.FDs):]
		}
		CloseFDs(fds)
		return nil
	})
	if err != nil {
		return err
	}
	err = s.call(ctx, MethodFDs, struct{}{}, nil, func(b json.RawMessage, fds []int) error {
		var n NameRequest
		if err := json.Unmarshal(b, &n); err != nil || len(fds) != 1 {
			CloseFDs(fds)
			if n.Name == "" {
				return err // the end of the list
			}
			return errclass.Internal("the shim's answer about stored descriptors")
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		if old, ok := c.stored[n.Name]; ok {
			unix.Close(old)
		}
		c.stored[n.Name] = fds[0]
		return nil
	})
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for k, h := range c.held {
		if !seen[k] {
			h.close()
			delete(c.held, k)
		}
	}
	return nil
}

// take keeps one listed process with its descriptors.
func (c *Client) take(st *Status, fds []int, news bool) {
	h := &held{
		started: st.Started, log: st.Log, tty: st.Terminal, once: st.StdinOnce, paused: st.Paused,
		adopted: st.Adopted, lost: st.LostOutput, attach: st.Attach,
		fds: map[string]int{}, conns: map[string]int{},
	}
	for i, name := range st.FDs {
		if len(name) > len(clientFD) && name[:len(clientFD)] == clientFD {
			h.conns[name[len(clientFD):]] = fds[i]
		} else {
			h.fds[name] = fds[i]
		}
	}
	c.mu.Lock()
	old := c.held[st.Key]
	tell := st.Exit != nil && news && (old == nil || old.exit == nil)
	h.exit = st.Exit
	if old != nil {
		h.watching = old.watching
		if h.exit == nil && old.exit != nil {
			h.exit = old.exit // it came while the list was under way
			h.closeStdio()
		}
		old.close()
	}
	c.held[st.Key] = h
	c.mu.Unlock()
	if tell {
		c.events.push(Event{Exit: st.Exit})
	}
}

// clientFD begins the names of descriptors that are clients' connections.
const clientFD = "client:"

// ClientFD is the name in Status.FDs of a client's connection.
func ClientFD(client string) string { return clientFD + client }

// watch notices the end of the session and finds another, until the client is closed.
func (c *Client) watch(s *session) {
	defer c.wg.Done()
	for {
		<-s.done
		c.lost(s)
		c.mu.Lock()
		closed, ending := c.closed, c.ending
		c.mu.Unlock()
		s.wire.Close()
		if closed || ending {
			s.closePidfd()
			return
		}
		if s.takenOver {
			s.closePidfd()
			c.cfg.Logf("another daemon took over the shim")
			c.shut(errclass.Unavailable("another daemon took over the shim"))
			c.dropAll()
			c.events.close()
			return
		}
		next := c.succeed(s)
		s.closePidfd()
		if next == nil {
			return
		}
		s = next
	}
}

// succeed finds the shim again, or a new one, and brings it up to date. nil: closed.
func (c *Client) succeed(old *session) *session {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		select {
		case <-c.down:
			cancel()
		case <-ctx.Done():
		}
	}()
	dead := old.pidfd < 0 || PollPidfd(old.pidfd, unix.POLLIN, 2*time.Second)
	c.cfg.Logf("connection to shim (pid %d) is lost, dead: %t: %v", old.pid, dead, old.err)
	if dead {
		// The orphans are ours now, if we are their subreaper.
		c.reapOrphans(true)
	}
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, 2*time.Second) {
		s, err := c.open(ctx)
		if err == nil {
			if s.pid != old.pid {
				err = c.handOver(ctx, s)
			}
			if err == nil {
				c.events.push(Event{}) // before what sync finds out
				err = c.sync(ctx, s, true)
			}
			if err == nil {
				c.cfg.Logf("connected to shim (pid %d)", s.pid)
				c.publish(s)
				return s
			}
			s.wire.Close()
			<-s.done
			s.closePidfd()
		}
		if ctx.Err() != nil {
			return nil
		}
		c.cfg.Logf("find a shim again: %v", err)
		if pause(ctx, wait) != nil {
			return nil
		}
	}
}

// handOver gives a new shim everything the dead one held.
func (c *Client) handOver(ctx context.Context, s *session) error {
	type item struct {
		st  Status
		fds []int
	}
	var items []item
	c.mu.Lock()
	for key, h := range c.held {
		st, fds := h.status(key)
		items = append(items, item{st, fds})
	}
	stored := make(map[string]int, len(c.stored))
	for name, fd := range c.stored {
		stored[name] = fd
	}
	c.mu.Unlock()
	// Nobody else changes the tables while there is no session, so the numbers hold.
	for _, it := range items {
		err := s.call(ctx, MethodAdopt, it.st, it.fds, nil)
		if err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
			if errors.Is(err, errdefs.ErrUnavailable) {
				return err
			}
			c.cfg.Logf("hand %s over to the new shim: %v", it.st.Key.Container, err)
		}
	}
	for name, fd := range stored {
		if err := s.call(ctx, MethodStoreFD, NameRequest{Name: name}, []int{fd}, nil); err != nil {
			return err
		}
	}
	return nil
}

func (h *held) status(key Key) (Status, []int) {
	st := Status{
		Started: h.started, Key: key, Paused: h.paused, Exit: h.exit, Adopted: true, LostOutput: h.lost,
		Terminal: h.tty, StdinOnce: h.once, Log: h.log,
	}
	st.FDs = nil
	var fds []int
	for name, fd := range h.fds {
		st.FDs = append(st.FDs, name)
		fds = append(fds, fd)
	}
	for _, a := range h.attach {
		fd, ok := h.conns[a.Client]
		if !ok || len(fds) >= MaxFDs {
			continue
		}
		a.Prefix = nil
		st.Attach = append(st.Attach, a)
		st.FDs = append(st.FDs, ClientFD(a.Client))
		fds = append(fds, fd)
	}
	return st, fds
}
