package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"golang.org/x/sys/unix"
)

// session is one connection to one shim.
type session struct {
	wire  *Wire
	pid   int
	pidfd int
	hello Hello

	mu    sync.Mutex
	next  uint64
	calls map[uint64]*pending
	err   error

	done      chan struct{} // closed when the reader ended
	takenOver bool          // valid after done
}

type pending struct {
	onReply func(json.RawMessage, []int) error
	err     error
	done    chan struct{}
}

func (s *session) closePidfd() {
	if s.pidfd >= 0 {
		unix.Close(s.pidfd)
		s.pidfd = -1
	}
}

func (s *session) call(ctx context.Context, method string, body any, fds []int, onReply func(json.RawMessage, []int) error) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %s: %w", method, err)
	}
	p := &pending{onReply: onReply, done: make(chan struct{})}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return errclass.With(errdefs.ErrUnavailable, errNotSent)
	}
	s.next++
	id := s.next
	s.calls[id] = p
	s.mu.Unlock()
	if err := s.wire.Send(&Envelope{ID: id, Method: method, Body: b}, fds...); err != nil {
		s.mu.Lock()
		delete(s.calls, id)
		s.mu.Unlock()
		if errors.Is(err, errdefs.ErrUnavailable) {
			return errclass.With(errdefs.ErrUnavailable, errNotSent) // not all of it, so it is not done
		}
		return err
	}
	select {
	case <-p.done:
		return p.err
	case <-ctx.Done():
	}
	// The shim is asked to cancel, and its answer decides: the call may have completed by then.
	_ = s.wire.Send(&Envelope{Method: MethodCancel, ID: id})
	t := time.NewTimer(cancelWait)
	defer t.Stop()
	select {
	case <-p.done:
		if p.err != nil && errors.Is(p.err, errdefs.ErrAborted) {
			return ctx.Err()
		}
		return p.err
	case <-t.C:
		return ctx.Err()
	}
}

// read is the reader's goroutine.
func (s *session) read(onEvent func(*Event)) {
	var err error
	for {
		var e *Envelope
		var fds []int
		if e, fds, err = s.wire.Recv(); err != nil {
			break
		}
		if e.Event != nil {
			fdpass.Close(fds)
			if e.Event.TakenOver {
				s.takenOver = true
				continue
			}
			onEvent(e.Event)
			continue
		}
		s.reply(e, fds)
	}
	s.mu.Lock()
	s.err = errclass.With(errdefs.ErrUnavailable, fmt.Errorf("the shim is gone: %w", err))
	calls := s.calls
	s.calls = nil
	s.mu.Unlock()
	for _, p := range calls {
		p.err = s.err
		close(p.done)
	}
	close(s.done)
}

func (s *session) reply(e *Envelope, fds []int) {
	s.mu.Lock()
	p := s.calls[e.ID]
	if p != nil && !e.More {
		delete(s.calls, e.ID)
	}
	s.mu.Unlock()
	if p == nil {
		fdpass.Close(fds)
		return
	}
	switch {
	case e.Error != nil:
		fdpass.Close(fds)
		p.err = e.Error.Err()
	case p.onReply != nil && e.Body != nil:
		if err := p.onReply(e.Body, fds); err != nil && p.err == nil {
			p.err = err
		}
	default:
		fdpass.Close(fds)
	}
	if !e.More {
		close(p.done)
	}
}
