package shim

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"golang.org/x/sys/unix"
)

// handle takes one event of the shim, in the order of the wire.
func (c *Client) handle(e *Event) {
	switch {
	case e.StdinClosed != nil:
		// Our duplicate would keep the process from seeing the end of its input.
		c.held.dropStdin(*e.StdinClosed)
		return
	case e.Exit != nil:
		if !c.held.ended(e.Exit) {
			return
		}
	case e.Detached != nil:
		c.held.dropConn(e.Detached.Key, e.Detached.Client)
	}
	c.events.push(*e)
}

// sync takes over what a shim lists: after connecting to one that lives (again).
// With news, exits that were not seen yet are delivered as events.
func (c *Client) sync(ctx context.Context, s *session, news bool) error {
	seen := map[Key]bool{}
	err := s.call(ctx, MethodList, ListRequest{Descriptors: true}, nil, func(b json.RawMessage, fds []int) error {
		var part []Status
		if err := json.Unmarshal(b, &part); err != nil {
			fdpass.Close(fds)
			return err
		}
		for i := range part {
			st := &part[i]
			if len(st.FDs) > len(fds) {
				fdpass.Close(fds)
				return errclass.Internal("the shim sent too few descriptors")
			}
			seen[st.Key] = true
			if c.held.take(st, fds[:len(st.FDs)]) && news {
				c.events.push(Event{Exit: st.Exit})
			}
			fds = fds[len(st.FDs):]
		}
		fdpass.Close(fds)
		return nil
	})
	if err != nil {
		return err
	}
	if err := c.stored.load(ctx, s); err != nil {
		return err
	}
	c.held.retain(seen)
	return nil
}

// watch notices the end of the session and finds another, until the client is closed.
func (c *Client) watch(s *session) {
	defer c.wg.Done()
	for {
		<-s.done
		c.link.lost(s)
		over := c.link.over()
		s.wire.Close()
		if over {
			s.closePidfd()
			return
		}
		if s.takenOver {
			s.closePidfd()
			c.cfg.Logf("another daemon took over the shim")
			c.link.shut(errclass.Unavailable("another daemon took over the shim"))
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
		case <-c.link.down:
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
		s, err := c.cfg.open(ctx, c.handle)
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
				c.link.publish(s)
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
	for _, it := range c.held.all() {
		err := s.call(ctx, MethodAdopt, it.status, it.fds, nil)
		if err != nil && !errors.Is(err, errdefs.ErrAlreadyExists) {
			if errors.Is(err, errdefs.ErrUnavailable) {
				return err
			}
			c.cfg.Logf("hand %s over to the new shim: %v", it.status.Key.Container, err)
		}
	}
	return c.stored.handOver(ctx, s)
}
