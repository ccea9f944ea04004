package shimd

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/shim/ociruntime"
	"golang.org/x/sys/unix"
)

// Stream numbers of Docker's framing.
const (
	streamOut byte = 1
	streamErr byte = 2
)

// Bounds after a process has ended.
const (
	// drainWait is how long a container's output is still read while somebody else
	// keeps its pipes open.
	drainWait = 2 * time.Second
	// ackWait is how long clients' streams stay open for the daemon to record the exit.
	ackWait = time.Second
	// parentWait is how long the parent of an adopted process may take to reap it.
	parentWait = 15 * time.Second
)

// proc is one held process: a container's first one, or an exec.
type proc struct {
	s   *Server
	key shim.Key

	pidfd     int // raw: only looked at and duplicated
	watch     *shim.PidWatch
	answer    *firstAnswer // nil: adopted
	started   shim.Started
	tty       bool
	once      bool
	adopted   bool
	lost      bool
	sharedPID bool // its children outlive it: they are killed with it
	logCfg    *logs.Config
	log       logs.Writer // nil: no log

	// rt has made the container, and runtimeRef names it; execs are the container's.
	rt         ociruntime.Runtime
	runtimeRef *ociruntime.Ref

	out, errOut *source // nil: none; for a terminal out is the pty
	pty         *os.File
	pumps       sync.WaitGroup
	ooms        atomic.Uint64 // kills that the daemon knows of
	over        atomic.Bool   // the process ended: nobody waits for slow clients any more
	told        chan struct{} // closed by reaped

	mu      sync.Mutex
	reaped  *shim.Exit // status, once known
	exit    *shim.Exit // set when everything is written
	stdin   *os.File
	paused  bool
	clients []*client
	ended   bool // the clients' streams were let go
}

// tryReap takes the process's status if it is our child and has ended.
func (p *proc) tryReap() (known bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped != nil {
		return true, nil
	}
	x, done, err := shim.Reap(p.pidfd)
	if !done {
		return false, err
	}
	p.setReaped(x)
	return true, nil
}

// setReaped records a status; p.mu is held.
func (p *proc) setReaped(x shim.Exit) {
	if p.reaped == nil {
		x.Key = p.key
		p.reaped = &x
		close(p.told)
	}
}

// wait is the goroutine that waits for the process's end.
func (p *proc) wait(w *shim.PidWatch) {
	defer p.s.guard("waiting for " + p.key.Container)
	err := w.Wait(func(fd int) bool {
		if !shim.PollPidfd(fd, unix.POLLIN, 0) {
			return false
		}
		known, err := p.tryReap()
		return known || err != nil
	})
	w.Close()
	p.mu.Lock()
	known := p.reaped != nil
	p.mu.Unlock()
	if err != nil || !known {
		p.notOurs()
	}
	p.finish()
}

// notOurs learns how a process ended whose parent is somebody else.
func (p *proc) notOurs() {
	deadline := time.NewTimer(parentWait)
	defer deadline.Stop()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if x, ok := shim.ExitInfo(p.pidfd); ok {
			p.mu.Lock()
			p.setReaped(x)
			p.mu.Unlock()
			return
		}
		if known, _ := p.tryReap(); known {
			return // it has become our child after all
		}
		select {
		case <-p.told:
			return
		case <-tick.C:
		case <-deadline.C:
			p.mu.Lock()
			p.setReaped(shim.UnknownExit())
			p.mu.Unlock()
			return
		}
	}
}

// finish is done once, when the status is known: drain, log, tell.
func (p *proc) finish() {
	p.mu.Lock()
	x := *p.reaped
	clients := p.clients
	p.mu.Unlock()
	if p.key.Exec == "" {
		if n, err := oci.OOMCount(p.started.Cgroup); err == nil && n > 0 {
			x.OOMKilled = true
			p.tellOOM(n)
		}
		if p.sharedPID || p.adopted {
			_ = p.change(func(c *ociruntime.Container) error { return p.rt.KillAll(context.Background(), c, syscall.SIGKILL) })
		}
	}
	p.over.Store(true)
	for _, c := range clients {
		c.mu.Lock()
		c.room.Broadcast()
		c.mu.Unlock()
	}
	p.drain()
	p.closeStdin()
	if p.log != nil {
		if err := p.log.Close(); err != nil {
			p.s.logf("log of %s: %v", p.key.Container, err)
		}
	}
	p.mu.Lock()
	p.exit = &x
	p.closeOutput()
	p.mu.Unlock()
	p.s.emit(shim.Event{Exit: &x})
	p.s.tidy.Touch()
	if p.s.hasDaemon() {
		time.AfterFunc(ackWait, p.endStreams)
	} else {
		p.endStreams()
	}
}

// tellOOM tells the daemon that the kernel killed n times so far, if that is news.
func (p *proc) tellOOM(n uint64) {
	if old := p.ooms.Load(); n > old && p.ooms.CompareAndSwap(old, n) {
		p.s.emit(shim.Event{OOM: &p.key})
	}
}

// drain waits for the output's end, within bounds.
func (p *proc) drain() {
	wait := drainWait
	if p.key.Exec != "" {
		// What an exec leaves running in the container may keep its pipes for ever.
		wait = 0
	}
	for _, src := range []*source{p.out, p.errOut} {
		if src != nil {
			_ = src.file.SetReadDeadline(time.Now().Add(wait))
		}
	}
	p.pumps.Wait()
}

// closeOutput closes our ends; p.mu is held.
func (p *proc) closeOutput() {
	for _, src := range []*source{p.out, p.errOut} {
		if src != nil {
			src.file.Close()
		}
	}
}

// endStreams lets the clients' streams end after what is queued for them.
func (p *proc) endStreams() {
	p.mu.Lock()
	if p.exit == nil || p.ended {
		p.mu.Unlock()
		return
	}
	p.ended = true
	clients := p.clients
	p.mu.Unlock()
	for _, c := range clients {
		c.end()
	}
}

// pump is the goroutine of one output stream.
func (p *proc) pump(src *source, stream byte) {
	defer p.pumps.Done()
	defer p.s.guard("output of " + p.key.Container)
	r := newReader(src)
	next := r.next
	for {
		b, err := next()
		switch {
		case err == nil:
			p.output(stream, b)
			r.release()
			continue
		case errors.Is(err, os.ErrDeadlineExceeded):
			next = r.poll // what is in the pipe is taken still
			continue
		case !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrNoProgress) && !errors.Is(err, os.ErrClosed):
			p.s.logf("output of %s: %v", p.key.Container, err)
		}
		break
	}
	if p.log != nil {
		p.log.Flush(logStream(stream), time.Now())
	}
}

func logStream(stream byte) logs.Stream {
	if stream == streamErr {
		return logs.Stderr
	}
	return logs.Stdout
}

// output writes the log first and then to the clients.
func (p *proc) output(stream byte, b []byte) {
	if p.log != nil {
		p.log.Write(logStream(stream), b, time.Now())
	}
	p.mu.Lock()
	clients := p.clients
	p.mu.Unlock()
	for _, c := range clients {
		if c.wants(stream) {
			c.send(stream, b)
		}
	}
}

// attach adds a client; its input is read from now on.
func (p *proc) attach(spec shim.AttachSpec, f *os.File) error {
	c, err := newClient(p, spec, f)
	if err != nil {
		f.Close()
		return err
	}
	if err := p.add(c); err != nil {
		f.Close()
		return err
	}
	go c.read()
	return nil
}

func (p *proc) add(c *client) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exit != nil {
		return gone(p.key)
	}
	for _, o := range p.clients {
		if o.spec.Client == c.spec.Client {
			return errclass.Conflict("client %s is attached already", c.spec.Client)
		}
	}
	// A new slice each time: output walks the old one without the lock.
	p.clients = append(p.clients[:len(p.clients):len(p.clients)], c)
	return nil
}

// detached removes a client and tells the daemon. c.mu is held by the caller, so
// this takes p.mu inside it; nothing takes them the other way round.
func (p *proc) detached(c *client, keys bool) {
	p.mu.Lock()
	var rest []*client
	for _, o := range p.clients {
		if o != c {
			rest = append(rest, o)
		}
	}
	p.clients = rest
	p.mu.Unlock()
	p.s.emit(shim.Event{Detached: &shim.Detached{Key: p.key, Client: c.spec.Client, Keys: keys}})
}

// writeStdin hands input to the process and waits until it has taken it. Without
// stdin, or after it was closed, the input is dropped.
func (p *proc) writeStdin(b []byte) {
	if len(b) == 0 {
		return
	}
	p.mu.Lock()
	f := p.stdin
	p.mu.Unlock()
	if f == nil {
		return
	}
	if _, err := f.Write(b); err != nil && p.pty == nil && !errors.Is(err, os.ErrClosed) {
		p.closeStdin() // nobody reads it any more
	}
}

// closeStdin ends the process's input; a terminal has no such end.
func (p *proc) closeStdin() {
	p.mu.Lock()
	f := p.stdin
	p.stdin = nil
	p.mu.Unlock()
	if f == nil || f == p.pty {
		return
	}
	f.Close()
	p.s.emit(shim.Event{StdinClosed: &p.key})
}

// status tells everything; with fds it duplicates the descriptors that Status.FDs
// names, which the caller closes.
func (p *proc) status(withFDs bool) (shim.Status, []int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := shim.Status{
		Started: p.started, Key: p.key, Paused: p.paused, Exit: p.exit, Adopted: p.adopted,
		LostOutput: p.lost, Terminal: p.tty, StdinOnce: p.once, Log: p.logCfg,
	}
	st.FDs = nil
	if !withFDs {
		return st, nil
	}
	var fds []int
	put := func(name string, fd int, err error) {
		if err == nil && fd >= 0 && len(fds) < shim.MaxFDs {
			st.FDs = append(st.FDs, name)
			fds = append(fds, fd)
		}
	}
	fd, err := unix.FcntlInt(uintptr(p.pidfd), unix.F_DUPFD_CLOEXEC, 3)
	put("pidfd", fd, err)
	if p.exit != nil {
		return st, fds
	}
	file := func(name string, f *os.File) {
		if f != nil {
			fd, err := dup(f)
			put(name, fd, err)
		}
	}
	if p.pty != nil {
		file("pty", p.pty)
	} else {
		file("stdin", p.stdin)
		if p.out != nil {
			file("stdout", p.out.file)
		}
		if p.errOut != nil {
			file("stderr", p.errOut.file)
		}
	}
	for _, c := range p.clients {
		n := len(fds)
		file(shim.ClientFD(c.spec.Client), c.conn.file)
		if len(fds) > n {
			st.Attach = append(st.Attach, c.spec)
		}
	}
	return st, fds
}

// run starts the goroutines, after the daemon has been told of the process.
func (p *proc) run(attached []*client) {
	for _, c := range attached {
		go c.read()
	}
	if p.out != nil {
		p.pumps.Add(1)
		go p.pump(p.out, streamOut)
	}
	if p.errOut != nil {
		p.pumps.Add(1)
		go p.pump(p.errOut, streamErr)
	}
	go p.wait(p.watch)
}

// isOver tells whether the process has ended and everything is written.
func (p *proc) isOver() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.exit != nil
}

// release frees what an acknowledged process still has.
func (p *proc) release() {
	p.endStreams()
	p.mu.Lock()
	defer p.mu.Unlock()
	unix.Close(p.pidfd)
	p.pidfd = -1
}

func gone(key shim.Key) error {
	if key.Exec != "" {
		return errclass.NotFound("exec %s has ended", key.Exec)
	}
	return errclass.NotFound("container %s has ended", key.Container)
}
