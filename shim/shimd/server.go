// Package shimd is the shim: the one process that holds every container. It starts
// them through package ociruntime, is their parent and reaper, pumps their streams between
// pipes or terminals, the log and attached clients, and keeps descriptors for the
// daemon. It knows no images, no networks and no HTTP, and it outlives daemons.
package shimd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/internal/trim"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"golang.org/x/sys/unix"
)

// maxRequests bounds the requests that are under way at once.
const maxRequests = 512

// Server holds the processes and the stored descriptors, and serves one daemon.
type Server struct {
	root string
	logf func(format string, a ...any)

	// spawning is read-locked while the runtime may have children that are not in
	// procs yet; strangers are looked for only under the write lock.
	spawning  sync.RWMutex
	strangers chan struct{}
	down      chan struct{} // closed by an accepted shutdown
	slots     chan struct{}

	mu       sync.Mutex
	procs    map[shim.Key]*proc
	starting map[shim.Key]bool
	stored   map[string]int
	daemon   *session // nil: none is connected
	sessions map[*session]bool
	closing  bool
	guarded  atomic.Int64 // panics caught, for tests

	warned map[string]bool // warnings of the runtime that were said already

	tidy *trim.Trimmer // gives memory back once starts and exits have ceased
}

// New makes a server for a directory. logf says what a person should know; nil:
// nothing is said.
func New(root string, logf func(format string, a ...any)) *Server {
	if logf == nil {
		logf = func(string, ...any) {}
	}
	s := &Server{
		root: root, logf: logf, strangers: make(chan struct{}, 1), down: make(chan struct{}), slots: make(chan struct{}, maxRequests),
		procs: map[shim.Key]*proc{}, starting: map[shim.Key]bool{}, stored: map[string]int{}, sessions: map[*session]bool{}, warned: map[string]bool{},
	}
	s.tidy = trim.New()
	return s
}

// guard ends a panic in a goroutine of one container with a line in the log.
func (s *Server) guard(what string) {
	if r := recover(); r != nil {
		s.guarded.Add(1)
		s.logf("panic (%s): %v\n%s", what, r, debug.Stack())
	}
}

// Serve listens on the socket in the root directory, calls ready and serves until a
// daemon shuts the shim down.
func (s *Server) Serve(ready func() error) error {
	path := filepath.Join(s.root, shim.SocketName)
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("shim socket: %w", err)
	}
	defer unix.Close(fd)
	// The lock on the directory is ours, so a socket there is a dead shim's.
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return fmt.Errorf("shim socket: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return fmt.Errorf("bind %s: %w", path, err)
	}
	if err := unix.Listen(fd, 16); err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	go s.reapStrangers()
	if err := ready(); err != nil {
		return err
	}
	go s.accept(fd)
	<-s.down
	return os.Remove(path)
}

func (s *Server) accept(fd int) {
	for {
		c, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		switch err {
		case nil:
			go s.serve(c)
		case unix.EINTR, unix.ECONNABORTED, unix.EAGAIN:
		case unix.EMFILE, unix.ENFILE, unix.ENOMEM, unix.ENOBUFS:
			s.logf("accept: %v", err)
			time.Sleep(100 * time.Millisecond)
		default:
			return
		}
	}
}

// session is one daemon's connection.
type session struct {
	s    *Server
	wire *shim.Wire

	mu     sync.Mutex
	events []shim.Event
	wake   chan struct{}
	done   chan struct{}
	// order keeps answers that carry descriptors and events that take them back in
	// the order in which things happened.
	order   sync.Mutex
	cancels map[uint64]context.CancelFunc
	starts  sync.WaitGroup // starts and execs under way
	ended   chan struct{}  // closed when the connection and its starts are at their end
}

func (s *Server) serve(fd int) {
	defer s.guard("daemon connection")
	w, err := shim.NewWire(fd)
	if err != nil {
		s.logf("%v", err)
		return
	}
	defer w.Close()
	if err := w.CheckPeer(); err != nil {
		s.logf("refused: %v", err)
		return
	}
	t := &session{s: s, wire: w, wake: make(chan struct{}, 1), done: make(chan struct{}), ended: make(chan struct{}), cancels: map[uint64]context.CancelFunc{}}
	defer close(t.done)
	greeted := false
	for {
		e, fds, err := w.Recv()
		if err != nil {
			break
		}
		if !greeted && e.Method != shim.MethodHello {
			fdpass.Close(fds)
			break
		}
		if !greeted {
			greeted = true
			s.takeOver(t)
			go t.push()
		}
		if e.Method == shim.MethodCancel {
			fdpass.Close(fds)
			t.cancel(e.ID)
			continue
		}
		ctx := t.begin(e.ID)
		s.slots <- struct{}{}
		if e.Method == shim.MethodStart || e.Method == shim.MethodExec {
			t.starts.Add(1)
		}
		go func() {
			defer func() { <-s.slots }()
			if e.Method == shim.MethodStart || e.Method == shim.MethodExec {
				defer t.starts.Done()
			}
			t.handle(ctx, e, fds)
		}()
	}
	t.end()
	s.mu.Lock()
	if s.daemon == t {
		s.daemon = nil
	}
	s.mu.Unlock()
}

// end cancels what a daemon that is gone had asked for: nobody would record it.
func (t *session) end() {
	t.mu.Lock()
	for _, cancel := range t.cancels {
		cancel()
	}
	t.mu.Unlock()
	t.starts.Wait()
	close(t.ended)
	t.s.mu.Lock()
	delete(t.s.sessions, t)
	t.s.mu.Unlock()
}

// settleWait bounds how long a list waits for a start that cannot be cancelled.
const settleWait = 10 * time.Second

// settle waits until what daemons before this one asked for has come to its end, so that
// a list tells all there is and nothing appears later. It was cancelled with them.
func (t *session) settle() {
	var others []*session
	t.s.mu.Lock()
	for o := range t.s.sessions {
		if o != t && t.s.daemon == t {
			others = append(others, o)
		}
	}
	t.s.mu.Unlock()
	late := time.NewTimer(settleWait)
	defer late.Stop()
	for _, o := range others {
		select {
		case <-o.ended:
		case <-late.C:
			return
		}
	}
}

// takeOver makes t the daemon's connection and drops the one before.
func (s *Server) takeOver(t *session) {
	s.mu.Lock()
	old := s.daemon
	s.daemon = t
	s.sessions[t] = true
	s.mu.Unlock()
	if old != nil {
		go func() {
			_ = old.wire.Send(&shim.Envelope{Event: &shim.Event{TakenOver: true}})
			old.wire.Close()
		}()
	}
}

func (s *Server) hasDaemon() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.daemon != nil
}

// emit queues an event for the daemon, if there is one. It never blocks.
func (s *Server) emit(e shim.Event) {
	s.mu.Lock()
	t := s.daemon
	s.mu.Unlock()
	if t == nil {
		return
	}
	t.mu.Lock()
	t.events = append(t.events, e)
	t.mu.Unlock()
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// push is the goroutine that sends events.
func (t *session) push() {
	defer t.s.guard("events")
	for {
		select {
		case <-t.wake:
		case <-t.done:
			return
		}
		for {
			t.order.Lock()
			t.mu.Lock()
			list := t.events
			t.events = nil
			t.mu.Unlock()
			for i := range list {
				if t.wire.Send(&shim.Envelope{Event: &list[i]}) != nil {
					break
				}
			}
			t.order.Unlock()
			if len(list) == 0 {
				break
			}
		}
	}
}

func (t *session) begin(id uint64) context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	t.mu.Lock()
	defer t.mu.Unlock()
	t.cancels[id] = cancel
	return ctx
}

func (t *session) cancel(id uint64) {
	t.mu.Lock()
	f := t.cancels[id]
	t.mu.Unlock()
	if f != nil {
		f()
	}
}

// reply sends an answer; fds stay the caller's.
func (t *session) reply(id uint64, body any, err error, more bool, fds ...int) {
	e := &shim.Envelope{ID: id, Error: shim.ToWire(err), More: more}
	if err == nil && body != nil {
		b, merr := marshal(body)
		if merr != nil {
			e.Error = shim.ToWire(merr)
		}
		e.Body = b
	}
	serr := t.wire.Send(e, fds...)
	if serr != nil && !errors.Is(serr, errdefs.ErrUnavailable) {
		// It could not be encoded: the caller still waits for an answer.
		_ = t.wire.Send(&shim.Envelope{ID: id, Error: shim.ToWire(serr)})
	}
}

// reserve keeps key for a process that is about to start; the returned function
// ends that.
func (s *Server) reserve(key shim.Key) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return nil, errclass.Unavailable("the shim is shutting down")
	}
	if s.procs[key] != nil || s.starting[key] {
		return nil, errclass.With(errdefs.ErrAlreadyExists, fmt.Errorf("%s is held by the shim already", name(key)))
	}
	s.starting[key] = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.starting, key)
	}, nil
}

func name(key shim.Key) string {
	if key.Exec != "" {
		return "exec " + key.Exec
	}
	return "container " + key.Container
}

func (s *Server) put(p *proc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.procs[p.key] = p
	s.tidy.Touch()
}

// warn says what the runtime could not do, each thing once.
func (s *Server) warn(warnings []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, w := range warnings {
		if !s.warned[w] && len(s.warned) < 1000 {
			s.warned[w] = true
			s.logf("%s", w)
		}
	}
}

// get finds a held process, ended or not.
func (s *Server) get(key shim.Key) (*proc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p := s.procs[key]; p != nil {
		return p, nil
	}
	return nil, errclass.NotFound("%s is not held by the shim", name(key))
}

// running finds a held process that has not ended.
func (s *Server) running(key shim.Key) (*proc, error) {
	p, err := s.get(key)
	if err != nil {
		return nil, err
	}
	if p.isOver() {
		return nil, gone(key)
	}
	return p, nil
}

// container is running for the container that key belongs to.
func (s *Server) container(key shim.Key) (*proc, error) {
	key.Exec = ""
	return s.running(key)
}

// watchOOM tells the daemon when the kernel kills in a container's cgroup.
func (s *Server) watchOOM(p *proc) {
	f, err := oci.OOMEvents(p.started.Cgroup)
	if err != nil {
		return // the exit tells it still
	}
	go func() {
		defer s.guard("out of memory events")
		defer f.Close()
		buf := make([]byte, 512)
		for {
			// Before the first read too: it may have happened before f was there.
			n, err := oci.OOMCount(p.started.Cgroup)
			if err != nil || p.isOver() {
				return
			}
			p.tellOOM(n)
			if _, err := f.Read(buf); err != nil {
				return
			}
		}
	}()
}
