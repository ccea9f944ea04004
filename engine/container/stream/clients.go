// Package stream attaches clients to the streams of a container's first process. A client that
// attaches to a running container is connected at once; one that comes earlier is connected
// when the container starts. The bytes themselves go between the client and the shim.
package stream

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/scope"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// Shim is what streams ask of the process that holds containers.
type Shim interface {
	// Attach connects one client to a held process; conn is the client's connection, which
	// stays the caller's to close.
	Attach(ctx context.Context, key shim.Key, a shim.AttachSpec, conn *os.File) error
	// Resize sets the size of the process's terminal.
	Resize(ctx context.Context, key shim.Key, size oci.WinSize) error
}

// maxPending bounds how many clients may wait for one container to start.
const maxPending = 128

// attachTimeout bounds how long the shim may take to connect a client.
const attachTimeout = 2 * time.Minute

// Client is a client of a process, and how it is to be connected.
type Client struct {
	Spec shim.AttachSpec
	Conn *os.File
}

// Clients are the clients of one container. Safe for concurrent use.
type Clients struct {
	c     *store.Container
	shim  Shim
	bus   *event.Bus
	log   *slog.Logger
	scope *scope.Scope

	mu      sync.Mutex
	pending []Client
	live    *shim.Key // set while a process runs
	// arriving counts clients that are being told that they are attached; arrived is
	// closed when there are none left.
	arriving int
	arrived  chan struct{}
}

// New has no clients yet. Drop closes those that wait when the container is removed.
func New(c *store.Container, s Shim, bus *event.Bus, log *slog.Logger, life *scope.Scope) *Clients {
	return &Clients{c: c, shim: s, bus: bus, log: log, scope: life}
}

// Options say what a client is attached to. Keys detach it where the container has a terminal.
type Options struct {
	Stdin, Stdout, Stderr bool
	Keys                  []byte
}

// Arrival is a client that has got the answer that it is attached, and is not connected yet.
type Arrival struct {
	// Conn is the client's connection. Who does not Join closes it.
	Conn *stream.Conn
	// Arrived lets a start go on that waits for the client; it may be called again.
	Arrived func()

	clients *Clients
	opts    Options
}

// Arrive takes a client's connection over; class Conflict where nobody can be attached. A start
// waits until Arrived is called.
func (s *Clients) Arrive(opts Options, hijack stream.Hijack) (*Arrival, error) {
	switch s.c.View().Phase {
	case fsm.Paused:
		return nil, errclass.Conflict("container %s is paused, unpause the container before attach", s.c.ID)
	case fsm.Restarting:
		return nil, errclass.Conflict("container %s is restarting, wait until the container is running", s.c.ID)
	}
	// The client starts the container as soon as it sees the answer.
	a := &Arrival{clients: s, opts: opts, Arrived: s.announce()}
	var err error
	if a.Conn, err = hijack(!s.c.Record().Config.Tty); err != nil {
		a.Arrived()
		return nil, err
	}
	return a, nil
}

// Open makes the connection the place that logs go to.
func (a *Arrival) Open(bool) io.Writer { return a.Conn }

// Join connects the client now, or with the container's start, and takes its connection over:
// what goes wrong ends the connection, which is the answer.
func (a *Arrival) Join(ctx context.Context) {
	file, err := shim.ConnFile(a.Conn.Conn)
	if err != nil {
		return // closed already: the client went away
	}
	s, o := a.clients, a.opts
	cfg := s.c.Record().Config
	if !cfg.Tty {
		o.Keys = nil // data is data: only a terminal's user detaches by keys
	}
	s.c.Emit(s.bus, events.ActionAttach, nil)
	s.attach(ctx, Client{Conn: file, Spec: shim.AttachSpec{
		Client: id.New()[:id.ShortLen], Stdin: o.Stdin && cfg.OpenStdin, Stdout: o.Stdout, Stderr: o.Stderr,
		Mux: !cfg.Tty, DetachKeys: o.Keys, Prefix: a.Conn.Prefix, StdinOnce: o.Stdin && cfg.StdinOnce,
	}})
}

// attach connects a client now, or keeps it until the start. It takes p.Conn over.
func (s *Clients) attach(ctx context.Context, p Client) {
	s.mu.Lock()
	if key := s.live; key != nil {
		s.mu.Unlock()
		defer p.Conn.Close()
		if err := s.shim.Attach(ctx, *key, p.Spec, p.Conn); err != nil && !errdefs.IsNotFound(err) {
			s.log.Warn("attaching a client", "container", s.c.ID, "error", err)
		}
		return
	}
	defer s.mu.Unlock()
	s.dropGone()
	if len(s.pending) >= maxPending || s.c.View().Phase == fsm.Removed {
		p.Conn.Close()
		return
	}
	s.pending = append(s.pending, p)
}

// dropGone closes the connections whose clients gave up before the start.
func (s *Clients) dropGone() {
	keep := s.pending[:0]
	for _, p := range s.pending {
		fds := []unix.PollFd{{Fd: int32(p.Conn.Fd()), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		// A client without stdin half-closes at once: only a full hang-up counts.
		if err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
			p.Conn.Close()
			continue
		}
		keep = append(keep, p)
	}
	clear(s.pending[len(keep):])
	s.pending = keep
}

// announce says that a client is about to be told that it is attached; a start waits until it
// is: otherwise a short process would end before its client is connected. The function it
// returns ends that; it may be called again.
func (s *Clients) announce() (arrived func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.arriving == 0 {
		s.arrived = make(chan struct{})
	}
	s.arriving++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.arriving--; s.arriving == 0 {
			close(s.arrived)
		}
	})
}

// arrivalTime is what a start gives to clients that take long to be told.
const arrivalTime = 2 * time.Second

// Await waits for the clients that are being told that they are attached.
func (s *Clients) Await() {
	s.mu.Lock()
	n, arrived := s.arriving, s.arrived
	s.mu.Unlock()
	if n == 0 {
		return
	}
	limit := time.NewTimer(arrivalTime)
	defer limit.Stop()
	select {
	case <-arrived:
	case <-limit.C:
	}
}

// Take hands out the clients that wait for the start; the caller closes their connections.
func (s *Clients) Take() []Client {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.pending
	s.pending = nil
	return list
}

// Drop closes the connections of the clients that wait for a start.
func (s *Clients) Drop() {
	for _, p := range s.Take() {
		p.Conn.Close()
	}
}

// Begin opens a run for clients, and connects beside those that came while it started. The
// container's task calls it, so that no end and no answer comes in between.
func (s *Clients) Begin(run uint64) {
	if v := s.c.View(); v.Run != run || !v.Phase.Up() {
		return
	}
	s.mu.Lock()
	key := s.c.Key(run)
	s.live = &key
	rest := s.pending
	s.pending = nil
	s.mu.Unlock()
	if len(rest) == 0 {
		return
	}
	s.scope.Go(func() {
		for _, p := range rest {
			ctx, cancel := s.scope.Timeout(attachTimeout)
			s.attach(ctx, p)
			cancel()
		}
	})
}

// End says that the run is over: clients wait for the next one.
func (s *Clients) End() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live = nil
}

// Resize sets the size of the container's terminal; class Conflict when it does not run.
func (s *Clients) Resize(ctx context.Context, height, width uint16) error {
	v := s.c.View()
	if !v.Phase.Up() {
		return s.c.NotRunning()
	}
	if s.c.Record().Config.Tty { // without a terminal there is nothing to do, which is no error
		if err := s.shim.Resize(ctx, s.c.Key(v.Run), oci.WinSize{Rows: height, Cols: width}); err != nil {
			return fmt.Errorf("cannot resize container: %w", err)
		}
	}
	s.c.Emit(s.bus, events.ActionResize, map[string]string{"height": utoa(height), "width": utoa(width)})
	return nil
}

func utoa(n uint16) string { return strconv.Itoa(int(n)) }

// Fail tells an attached client why its process did not start.
func (c Client) Fail(err error) {
	text := []byte(err.Error() + "\r\n")
	if c.Spec.Mux {
		head := make([]byte, 8, 8+len(text))
		head[0] = 1 // stdout, as Docker does
		binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
		text = append(head, text...)
	}
	_, _ = c.Conn.Write(text) // a client that went away needs no answer
}
