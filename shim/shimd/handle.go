package shimd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/internal/version"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/shim/ociruntime"
	"golang.org/x/sys/unix"
)

func marshal(v any) (json.RawMessage, error) { return json.Marshal(v) }

func decode[T any](b json.RawMessage) (*T, error) {
	v := new(T)
	if len(b) == 0 {
		return v, nil
	}
	if err := json.NewDecoder(bytes.NewReader(b)).Decode(v); err != nil {
		return nil, errclass.Invalid("request to the shim: %v", err)
	}
	return v, nil
}

// handle answers one request. fds are its descriptors, which it owns.
func (t *session) handle(ctx context.Context, e *shim.Envelope, fds []int) {
	defer func() {
		t.mu.Lock()
		cancel := t.cancels[e.ID]
		delete(t.cancels, e.ID)
		t.mu.Unlock()
		if cancel != nil {
			cancel()
		}
	}()
	defer func() {
		if r := recover(); r != nil {
			t.s.guarded.Add(1)
			t.s.logf("panic in request %s: %v", e.Method, r)
			t.reply(e.ID, nil, errclass.Internal("the shim failed in request %s", e.Method), false)
		}
	}()
	switch e.Method {
	case shim.MethodStart, shim.MethodExec, shim.MethodAdopt:
		t.handleStart(ctx, e, fds)
		return
	case shim.MethodList:
		fdpass.Close(fds)
		t.handleList(e)
		return
	case shim.MethodFDs:
		fdpass.Close(fds)
		t.handleFDs(e)
		return
	case shim.MethodAttach:
		t.reply(e.ID, nil, t.s.handleAttach(e, fds), false)
		return
	case shim.MethodStoreFD:
		t.reply(e.ID, nil, t.s.handleStore(e, fds), false)
		return
	}
	fdpass.Close(fds)
	body, err := t.s.handlePlain(ctx, e)
	t.reply(e.ID, body, err, false)
	if e.Method == shim.MethodShutdown && err == nil {
		close(t.s.down)
	}
}

// handleStart starts, executes or adopts, answers, and only then lets the process's
// goroutines run: what they tell must come after the answer.
func (t *session) handleStart(ctx context.Context, e *shim.Envelope, fds []int) {
	var p *proc
	var clients []*client
	var err error
	switch e.Method {
	case shim.MethodStart:
		var r *shim.StartRequest
		if r, err = decode[shim.StartRequest](e.Body); err == nil {
			p, clients, err = t.s.start(ctx, r, fds)
		}
	case shim.MethodExec:
		var r *shim.ExecRequest
		if r, err = decode[shim.ExecRequest](e.Body); err == nil {
			p, clients, err = t.s.exec(ctx, r, fds)
		}
	default:
		var r *shim.Status
		if r, err = decode[shim.Status](e.Body); err == nil {
			p, clients, err = t.s.adopt(r, fds)
		}
	}
	if p == nil {
		t.reply(e.ID, nil, err, false)
		return
	}
	t.order.Lock()
	if e.Method == shim.MethodAdopt {
		t.reply(e.ID, nil, nil, false) // the daemon has the descriptors
	} else {
		t.reply(e.ID, p.answer.started, nil, false, p.answer.fds...)
		fdpass.Close(p.answer.fds)
		p.answer = nil
	}
	t.order.Unlock()
	if p.isOver() {
		return // adopted with its exit
	}
	p.run(clients)
}

// handleList answers in as many frames as the descriptors and the size need.
func (t *session) handleList(e *shim.Envelope) {
	r, err := decode[shim.ListRequest](e.Body)
	if err != nil {
		t.reply(e.ID, nil, err, false)
		return
	}
	t.settle()
	t.s.mu.Lock()
	procs := make([]*proc, 0, len(t.s.procs))
	for _, p := range t.s.procs {
		procs = append(procs, p)
	}
	t.s.mu.Unlock()
	t.order.Lock()
	defer t.order.Unlock()
	const most = 64 // statuses a frame
	var list []shim.Status
	var fds []int
	send := func(more bool) {
		t.reply(e.ID, list, nil, more, fds...)
		fdpass.Close(fds)
		list, fds = nil, nil
	}
	for _, p := range procs {
		st, out := p.status(r.Descriptors)
		if len(list) == most || len(fds)+len(out) > shim.MaxFDs {
			send(true)
		}
		list, fds = append(list, st), append(fds, out...)
	}
	if list == nil {
		list = []shim.Status{}
	}
	send(false)
}

func (t *session) handleFDs(e *shim.Envelope) {
	t.s.mu.Lock()
	stored := make(map[string]int, len(t.s.stored))
	for name, fd := range t.s.stored {
		if fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3); err == nil {
			stored[name] = fd
		}
	}
	t.s.mu.Unlock()
	for name, fd := range stored {
		t.reply(e.ID, shim.NameRequest{Name: name}, nil, true, fd)
		unix.Close(fd)
	}
	t.reply(e.ID, nil, nil, false)
}

func (s *Server) handleAttach(e *shim.Envelope, fds []int) error {
	r, err := decode[shim.KeyRequest](e.Body)
	if err != nil || r.Attach == nil || len(fds) != 1 {
		fdpass.Close(fds)
		return errclass.Invalid("malformed attach request")
	}
	p, err := s.running(r.Key)
	if err != nil {
		fdpass.Close(fds)
		return err
	}
	f, err := own(fds[0], "client")
	if err != nil {
		return err
	}
	return p.attach(*r.Attach, f)
}

func (s *Server) handleStore(e *shim.Envelope, fds []int) error {
	r, err := decode[shim.NameRequest](e.Body)
	if err != nil || r.Name == "" || len(fds) != 1 {
		fdpass.Close(fds)
		return errclass.Invalid("malformed request to store a descriptor")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.stored[r.Name]; ok {
		unix.Close(old)
	}
	s.stored[r.Name] = fds[0]
	return nil
}

// handlePlain answers the requests without descriptors.
func (s *Server) handlePlain(ctx context.Context, e *shim.Envelope) (any, error) {
	switch e.Method {
	case shim.MethodHello:
		return shim.Hello{
			Version: shim.Version, Pid: os.Getpid(), Build: version.Version, Logs: logDrivers().Names(), Runtimes: true,
		}, nil
	case shim.MethodShutdown:
		return nil, s.shutdown()
	case shim.MethodDropFD:
		r, err := decode[shim.NameRequest](e.Body)
		if err != nil {
			return nil, err
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if old, ok := s.stored[r.Name]; ok {
			unix.Close(old)
			delete(s.stored, r.Name)
		}
		return nil, nil
	}
	r, err := decode[shim.KeyRequest](e.Body)
	if err != nil {
		return nil, err
	}
	switch e.Method {
	case shim.MethodResize, shim.MethodCloseStdin, shim.MethodSignal, shim.MethodDetach, shim.MethodEnded, shim.MethodReaped:
		return nil, s.handleProc(ctx, e.Method, r)
	case shim.MethodForget:
		return nil, s.forget(r.Key)
	case shim.MethodKillAll, shim.MethodPause, shim.MethodResume, shim.MethodUpdate, shim.MethodStats, shim.MethodPids:
		return s.handleContainer(ctx, e.Method, r)
	}
	return nil, errclass.NotImplemented("this shim (version %d) does not know request %q", shim.Version, e.Method)
}

// handleProc does what concerns one process.
func (s *Server) handleProc(ctx context.Context, method string, r *shim.KeyRequest) error {
	p, err := s.get(r.Key)
	if err != nil {
		return err
	}
	switch method {
	case shim.MethodEnded:
		p.endStreams()
		return nil
	case shim.MethodReaped:
		if r.Exited == nil {
			return errclass.Invalid("malformed request")
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		p.setReaped(*r.Exited)
		return nil
	case shim.MethodDetach:
		return p.detach(r.Client)
	case shim.MethodCloseStdin: // of an ended process it is closed already
		p.closeStdin()
		return nil
	}
	if p.isOver() {
		return gone(r.Key)
	}
	switch method {
	case shim.MethodResize:
		return p.resize(r.Size)
	case shim.MethodSignal:
		if err := p.signal(ctx, syscall.Signal(r.Signal)); err != nil {
			return err
		}
		if syscall.Signal(r.Signal) == syscall.SIGKILL {
			s.thawToDie(r.Key)
		}
	}
	return nil
}

// thawToDie lets a paused container take the SIGKILL it was sent: the freezer of
// cgroup v1 keeps it from dying.
func (s *Server) thawToDie(key shim.Key) {
	box, err := s.container(key)
	if err != nil {
		return
	}
	box.mu.Lock()
	paused := box.paused
	box.mu.Unlock()
	if paused {
		box.setPaused(box.change(func(c *ociruntime.Container) error { return box.rt.Resume(context.Background(), c) }), false)
	}
}

func (p *proc) detach(name string) error {
	p.mu.Lock()
	clients := p.clients
	p.mu.Unlock()
	for _, c := range clients {
		if c.spec.Client == name {
			c.mu.Lock()
			c.leave(true)
			c.mu.Unlock()
			return nil
		}
	}
	return errclass.NotFound("client %s is not attached", name)
}

func (p *proc) resize(size oci.WinSize) error {
	if p.pty == nil {
		return errclass.Invalid("%s has no terminal", name(p.key))
	}
	raw, err := p.pty.SyscallConn()
	if err != nil {
		return err
	}
	var ierr error
	err = raw.Control(func(fd uintptr) {
		ierr = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols})
	})
	if err == nil {
		err = ierr
	}
	if errors.Is(err, os.ErrClosed) {
		return gone(p.key)
	}
	return err
}

// handleContainer does what concerns a container's cgroup.
func (s *Server) handleContainer(ctx context.Context, method string, r *shim.KeyRequest) (any, error) {
	p, err := s.container(r.Key)
	if err != nil {
		return nil, err
	}
	ref := p.started.Cgroup
	switch method {
	case shim.MethodKillAll:
		err := p.change(func(c *ociruntime.Container) error { return p.rt.KillAll(ctx, c, syscall.Signal(r.Signal)) })
		if syscall.Signal(r.Signal) == syscall.SIGKILL {
			s.thawToDie(r.Key)
		}
		return nil, err
	case shim.MethodPause:
		err = p.change(func(c *ociruntime.Container) error { return p.rt.Pause(ctx, c) })
		p.setPaused(err, true)
		return nil, err
	case shim.MethodResume:
		err = p.change(func(c *ociruntime.Container) error { return p.rt.Resume(ctx, c) })
		p.setPaused(err, false)
		return nil, err
	case shim.MethodUpdate:
		if r.Resources == nil {
			return nil, errclass.Invalid("update without resources")
		}
		return nil, p.change(func(c *ociruntime.Container) error { return p.rt.Update(ctx, c, r.Resources) })
	case shim.MethodStats:
		st, err := oci.ReadStats(ref)
		if err != nil {
			return nil, err
		}
		return st, nil
	}
	pids, err := oci.Pids(ref)
	if pids == nil {
		pids = []int{}
	}
	return pids, err
}

func (p *proc) setPaused(err error, paused bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.paused = paused
	}
}

// forget drops an ended process. With a container go its ended execs and its cgroup.
func (s *Server) forget(key shim.Key) error {
	s.mu.Lock()
	p := s.procs[key]
	s.mu.Unlock()
	if p == nil {
		return nil
	}
	if !p.isOver() {
		return errclass.With(errdefs.ErrFailedPrecondition, errors.New(name(key)+" is running"))
	}
	p.endStreams() // before the cgroup goes, which takes longer than its clients need to wait
	if key.Exec == "" {
		err := p.change(func(c *ociruntime.Container) error { return p.rt.Delete(context.Background(), c) })
		if err != nil {
			s.logf("remove %s: %v", name(key), err)
		}
	}
	s.mu.Lock()
	var drop []*proc
	for k, q := range s.procs {
		mine := k == key || key.Exec == "" && k.Container == key.Container && k.Run == key.Run
		if mine && q.isOver() {
			drop = append(drop, q)
			delete(s.procs, k)
		}
	}
	s.mu.Unlock()
	for _, q := range drop {
		q.release()
	}
	return nil
}

func (s *Server) shutdown() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing {
		return errclass.Unavailable("the shim is shutting down")
	}
	n := len(s.starting)
	for _, p := range s.procs {
		if !p.isOver() {
			n++
		}
	}
	if n > 0 {
		return errclass.With(errdefs.ErrFailedPrecondition, errors.New("the shim holds running processes"))
	}
	s.closing = true
	return nil
}
