package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Config says where the shim is and how to start one.
type Config struct {
	// Root is the shim's directory (made 0700); its socket is Root/shim.sock.
	Root string
	// Binary is gantry-runtime's path.
	Binary string
	// LogPath receives what the shim has to say; empty: Root/shim.log.
	LogPath string
	// Logf tells of the shim's death and its successor; nil: silent.
	Logf func(format string, a ...any)
}

// Names in Config.Root.
const (
	SocketName    = "shim.sock"
	LockName      = "shim.lock"  // held by the living shim
	spawnLockName = "spawn.lock" // held by who starts one
)

// Limits of waiting, all bounded so that a call never hangs for ever.
const (
	successorWait = 30 * time.Second // for a new shim after the old one died
	cancelWait    = 15 * time.Second // for the answer to a call whose context ended
	spawnWait     = 20 * time.Second
)

// Client is the daemon's connection to the shim. It keeps duplicates of every
// descriptor that the shim holds, so that containers outlive the shim: when the shim
// dies it starts another and hands everything over. All methods are safe for
// concurrent use. Calls that the death of the shim interrupts answer with class
// Unavailable; later ones wait for the successor, at most 30 seconds.
type Client struct {
	cfg    Config
	events *queue

	mu     sync.Mutex
	sess   *session      // nil while there is none
	ready  chan struct{} // closed while sess is set, or the client is closed
	closed bool
	ending bool  // Shutdown is under way
	err    error // why it is closed
	held   map[Key]*held
	stored map[string]int

	down chan struct{} // closed by Close
	wg   sync.WaitGroup
}

// Connect returns a client of the living shim of cfg.Root, or starts one. Only one
// shim ever runs per Root, and only one client is served: an older one is dropped.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.LogPath == "" {
		cfg.LogPath = filepath.Join(cfg.Root, "shim.log")
	}
	if cfg.Logf == nil {
		cfg.Logf = func(string, ...any) {}
	}
	if err := PrepareRoot(cfg.Root); err != nil {
		return nil, err
	}
	c := &Client{
		cfg: cfg, events: newQueue(), ready: make(chan struct{}),
		held: map[Key]*held{}, stored: map[string]int{}, down: make(chan struct{}),
	}
	s, err := c.open(ctx)
	if err != nil {
		c.events.close()
		return nil, err
	}
	if err := c.sync(ctx, s, false); err != nil {
		s.wire.Close()
		<-s.done
		s.closePidfd()
		c.dropAll()
		c.events.close()
		return nil, fmt.Errorf("list what the shim holds: %w", err)
	}
	c.publish(s)
	c.reapOrphans(false)
	c.wg.Add(1)
	go c.watch(s)
	return c, nil
}

// PrepareRoot makes the shim's directory, or checks that it is the caller's own
// and nobody else's to enter.
func PrepareRoot(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fmt.Errorf("shim directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(root, &st); err != nil {
		return fmt.Errorf("shim directory: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() {
		return errclass.Forbidden("shim directory %s is not a directory of uid %d", root, os.Geteuid())
	}
	if st.Mode&0o077 != 0 {
		if err := os.Chmod(root, 0o700); err != nil {
			return fmt.Errorf("shim directory: %w", err)
		}
	}
	return nil
}

// Pid is the shim's process id, 0 while there is none.
func (c *Client) Pid() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess == nil {
		return 0
	}
	return c.sess.pid
}

// Events delivers what the shim pushes, from the moment the client connected, in
// order and without loss. After a shim was replaced the zero Event comes. The channel
// is closed when the client is closed or another daemon took over.
func (c *Client) Events() <-chan Event { return c.events.out }

// Close drops the connection and every kept descriptor. The shim and its
// containers go on.
func (c *Client) Close() error {
	c.shut(errclass.Unavailable("connection to the shim is closed"))
	c.wg.Wait()
	c.dropAll()
	c.events.close()
	return nil
}

// shut makes every present and later call fail with err.
func (c *Client) shut(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	c.closed, c.err = true, err
	close(c.down)
	if c.sess != nil {
		c.sess.wire.Close()
		c.sess = nil
	} else {
		close(c.ready)
	}
}

func (c *Client) publish(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		s.wire.Close()
		return
	}
	c.sess = s
	close(c.ready)
}

// current waits for a session.
func (c *Client) current(ctx context.Context) (*session, error) {
	t := time.NewTimer(successorWait)
	defer t.Stop()
	for {
		c.mu.Lock()
		s, ready, closed, err := c.sess, c.ready, c.closed, c.err
		c.mu.Unlock()
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
func (c *Client) call(ctx context.Context, method string, body any, fds []int, onReply func(json.RawMessage, []int) error) error {
	for {
		s, err := c.current(ctx)
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
		c.lost(s)
	}
}

// lost makes s no longer the session; calls wait for the next.
func (c *Client) lost(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sess == s {
		c.sess = nil
		c.ready = make(chan struct{})
	}
}

// errNotSent says that a request did not reach the shim.
var errNotSent = errors.New("the shim is gone")

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
	// The shim is told, and its answer decides: what it has done by then is done.
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
			CloseFDs(fds)
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
		CloseFDs(fds)
		return
	}
	switch {
	case e.Error != nil:
		CloseFDs(fds)
		p.err = e.Error.Err()
	case p.onReply != nil && e.Body != nil:
		if err := p.onReply(e.Body, fds); err != nil && p.err == nil {
			p.err = err
		}
	default:
		CloseFDs(fds)
	}
	if !e.More {
		close(p.done)
	}
}

// open dials the shim, or starts one and dials it. A shim that is just dying may
// still take the connection or hold the lock, so it tries again for a while.
func (c *Client) open(ctx context.Context) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, spawnWait)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		s, err := c.tryOpen(ctx)
		if err == nil || !errors.Is(err, errdefs.ErrUnavailable) || wait > time.Second/2 {
			return s, err
		}
		if pause(ctx, wait) != nil {
			return nil, err
		}
	}
}

func (c *Client) tryOpen(ctx context.Context) (*session, error) {
	fd, err := dial(c.cfg.Root)
	if err != nil {
		if fd, err = c.spawn(ctx); err != nil {
			return nil, errclass.With(errdefs.ErrUnavailable, fmt.Errorf("start shim: %w", err))
		}
	}
	w, err := NewWire(fd)
	if err != nil {
		return nil, err
	}
	if err := w.CheckPeer(); err != nil {
		w.Close()
		return nil, err
	}
	s := &session{wire: w, calls: map[uint64]*pending{}, done: make(chan struct{}), pidfd: -1}
	go s.read(func(e *Event) { c.handle(e) })
	err = s.call(ctx, MethodHello, Hello{Version: Version, Pid: os.Getpid()}, nil, func(b json.RawMessage, fds []int) error {
		CloseFDs(fds)
		return json.Unmarshal(b, &s.hello)
	})
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("greet the shim: %w", err)
	}
	s.pid = s.hello.Pid
	if s.pidfd, err = unix.PidfdOpen(s.pid, 0); err != nil {
		s.pidfd = -1 // in another pid namespace, or just dead: the connection tells
	}
	return s, nil
}

func dial(root string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("shim socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(root, SocketName)}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to shim: %w", err)
	}
	return fd, nil
}

// spawn starts a shim unless one answers by then, and dials it.
func (c *Client) spawn(ctx context.Context) (int, error) {
	lock, err := os.OpenFile(filepath.Join(c.cfg.Root, spawnLockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return -1, err
	}
	defer lock.Close()
	for unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return -1, err
		}
	}
	if fd, err := dial(c.cfg.Root); err == nil {
		return fd, nil
	}
	if err := c.fork(ctx); err != nil {
		return -1, err
	}
	return dial(c.cfg.Root)
}

func (c *Client) fork(ctx context.Context) error {
	logFile, err := os.OpenFile(c.cfg.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("shim log: %w", err)
	}
	defer logFile.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := os.StartProcess(c.cfg.Binary, []string{filepath.Base(c.cfg.Binary), "shim", "--root", c.cfg.Root, "--ready-fd", "3"}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []*os.File{null, logFile, logFile, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return err
	}
	go func() { _, _ = p.Wait() }() // we are its parent: no zombie
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	var word [512]byte
	n, _ := r.Read(word[:])
	if got := string(word[:n]); got != "ok\n" {
		if err := ctx.Err(); err != nil {
			return err
		}
		if got == "" {
			got = "it ended; see " + c.cfg.LogPath
		}
		return errors.New(got)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// queue is an unbounded channel of events. What it holds is bounded by what the
// shim holds: one Exit a process, one Detached a client.
type queue struct {
	mu   sync.Mutex
	list []Event
	wake chan struct{}
	stop chan struct{}
	once sync.Once
	out  chan Event
}

func newQueue() *queue {
	q := &queue{wake: make(chan struct{}, 1), stop: make(chan struct{}), out: make(chan Event)}
	go q.run()
	return q
}

func (q *queue) push(e Event) {
	q.mu.Lock()
	q.list = append(q.list, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) close() { q.once.Do(func() { close(q.stop) }) }

func (q *queue) run() {
	defer close(q.out)
	for {
		q.mu.Lock()
		list := q.list
		q.list = nil
		q.mu.Unlock()
		for _, e := range list {
			select {
			case q.out <- e:
			case <-q.stop:
				return
			}
		}
		select {
		case <-q.wake:
		case <-q.stop:
			return
		}
	}
}
