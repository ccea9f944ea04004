package shim

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/gantry/gantry/internal/errclass"
)

// link is the way to whichever shim lives: the session of the moment, and the wait for
// the next one while there is none. Client and FDStore make their calls through it.
type link struct {
	mu     sync.Mutex
	sess   *session      // nil while there is none
	ready  chan struct{} // closed while sess is set, or the link is closed
	closed bool
	ending bool  // Shutdown is under way
	err    error // why it is closed

	down chan struct{} // closed by shut
}

func newLink() *link { return &link{ready: make(chan struct{}), down: make(chan struct{})} }

// pid is the shim's process id, 0 while there is none.
func (l *link) pid() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sess == nil {
		return 0
	}
	return l.sess.pid
}

// setEnding says whether the end of the session is what its user asked for.
func (l *link) setEnding(ending bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ending = ending
}

// over tells whether nobody wants another session.
func (l *link) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed || l.ending
}

// shut makes every present and later call fail with err.
func (l *link) shut(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed, l.err = true, err
	close(l.down)
	if l.sess != nil {
		l.sess.wire.Close()
		l.sess = nil
	} else {
		close(l.ready)
	}
}

// publish makes s the session that calls take.
func (l *link) publish(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		s.wire.Close()
		return
	}
	l.sess = s
	close(l.ready)
}

// current waits for a session.
func (l *link) current(ctx context.Context) (*session, error) {
	t := time.NewTimer(successorWait)
	defer t.Stop()
	for {
		l.mu.Lock()
		s, ready, closed, err := l.sess, l.ready, l.closed, l.err
		l.mu.Unlock()
		if closed {
			return nil, err
		}
		if s != nil {
			return s, nil
		}
		select {
		case <-ready:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-t.C:
			return nil, errclass.Unavailable("the shim is gone and no other could be started")
		}
	}
}

// call makes one request. onReply runs in the reader's goroutine, before any later
// event of the shim is seen, and owns the descriptors.
func (l *link) call(ctx context.Context, method string, body any, fds []int, onReply func(json.RawMessage, []int) error) error {
	for {
		s, err := l.current(ctx)
		if err != nil {
			return err
		}
		err = s.call(ctx, method, body, fds, onReply)
		if !errors.Is(err, errNotSent) {
			return err
		}
		// The shim died before it had the request: its successor gets it.
		s.wire.Close()
		<-s.done
		l.lost(s)
	}
}

// lost makes s no longer the session; calls wait for the next.
func (l *link) lost(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.sess == s {
		l.sess = nil
		l.ready = make(chan struct{})
	}
}

// errNotSent says that a request did not reach the shim.
var errNotSent = errors.New("the shim is gone")
