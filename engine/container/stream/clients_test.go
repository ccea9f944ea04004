package stream

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/scope"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// fakeShim tells which run a client was connected to.
type fakeShim struct{ attached chan shim.Key }

func (f *fakeShim) Attach(_ context.Context, key shim.Key, _ shim.AttachSpec, _ *os.File) error {
	f.attached <- key
	return nil
}

func (f *fakeShim) Resize(context.Context, shim.Key, oci.WinSize) error { return nil }

func clients(t *testing.T) (*Clients, *fakeShim) {
	t.Helper()
	f := &fakeShim{attached: make(chan shim.Key, 10)}
	c := store.NewContainer(&store.Record{ID: "c", Config: &container.Config{}}, &store.View{})
	life := scope.New()
	t.Cleanup(func() {
		if err := life.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return New(c, f, event.New(), slog.New(slog.DiscardHandler), life), f
}

func pair(t *testing.T) (conn, peer *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn, peer = os.NewFile(uintptr(fds[0]), "conn"), os.NewFile(uintptr(fds[1]), "peer")
	t.Cleanup(func() { conn.Close(); peer.Close() })
	return conn, peer
}

// Clients that gave up before the start make room; only so many may wait.
func TestPending(t *testing.T) {
	s, _ := clients(t)
	gone, peer := pair(t)
	s.attach(context.Background(), Client{Conn: gone})
	if n := len(s.pending); n != 1 {
		t.Fatalf("%d wait", n)
	}
	peer.Close()
	waits, _ := pair(t)
	s.attach(context.Background(), Client{Conn: waits})
	if n := len(s.pending); n != 1 || s.pending[0].Conn != waits {
		t.Errorf("%d wait", n)
	}
	for len(s.pending) < maxPending {
		s.pending = append(s.pending, Client{Conn: waits})
	}
	late, far := pair(t)
	s.attach(context.Background(), Client{Conn: late})
	if n, err := far.Read(make([]byte, 1)); n != 0 || err == nil || len(s.pending) != maxPending {
		t.Errorf("one too many is not turned away: %d %v", n, err)
	}
}

// A run that begins takes those that came while it started; after its end clients wait again.
func TestRun(t *testing.T) {
	s, f := clients(t)
	first, _ := pair(t)
	s.attach(context.Background(), Client{Conn: first})
	s.Begin(1) // of a run that is not up: nothing
	if len(s.pending) != 1 {
		t.Fatal("taken by no run")
	}
	s.c.SetView(&store.View{State: fsm.State{Phase: fsm.Running, Run: 1}})
	s.Begin(1)
	if key := <-f.attached; key != s.c.Key(1) {
		t.Errorf("%v", key)
	}
	second, _ := pair(t)
	s.attach(context.Background(), Client{Conn: second})
	if key := <-f.attached; key != s.c.Key(1) {
		t.Errorf("%v", key)
	}
	s.End()
	third, far := pair(t)
	s.attach(context.Background(), Client{Conn: third})
	if len(s.pending) != 1 || len(f.attached) != 0 {
		t.Error("connected to a run that is over")
	}
	s.Drop()
	if n, err := far.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("still open: %d %v", n, err)
	}
}

// A start waits for clients that are being told, but not for ever.
func TestAwait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := clients(t)
		begin := time.Now()
		s.Await()
		one, two := s.announce(), s.announce()
		one()
		one()
		go func() { time.Sleep(time.Second); two() }()
		s.Await()
		if waited := time.Since(begin); waited != time.Second {
			t.Errorf("waited %v", waited)
		}
		s.announce()
		s.Await()
		if waited := time.Since(begin); waited != time.Second+arrivalTime {
			t.Errorf("waited %v", waited)
		}
	})
}
