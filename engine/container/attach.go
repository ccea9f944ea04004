package container

import (
	"context"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// maxPending bounds how many clients may wait for one container to start.
const maxPending = 128

// pendingAttach is a client that attached before the start.
type pendingAttach struct {
	spec shim.AttachSpec
	conn *os.File
}

// Attach connects a client to the container's streams; before the start it waits for
// it. It takes the connection over and returns when the client is connected.
func (s *Service) Attach(ctx context.Context, ref string, opts AttachOptions, hijack stream.Hijack) error {
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	keys, err := detachKeys(opts.DetachKeys)
	if err != nil {
		return err
	}
	switch v := o.view.Load(); v.Phase {
	case fsm.Paused:
		return errclass.Conflict("container %s is paused, unpause the container before attach", o.id)
	case fsm.Restarting:
		return errclass.Conflict("container %s is restarting, wait until the container is running", o.id)
	}
	cfg := o.rec.Load().Config
	if !cfg.Tty {
		keys = nil // data is data: only a terminal's user detaches by keys
	}
	// The client starts the container as soon as it sees the answer.
	arrived := o.arriving()
	defer arrived()
	conn, err := hijack(!cfg.Tty)
	if err != nil {
		return err
	}
	if opts.Logs {
		arrived() // old output may be long; no start waits for it
		w := &connLog{conn: conn}
		lo := LogsOptions{Stdout: opts.Stdout, Stderr: opts.Stderr, Tail: -1}
		if err := s.Logs(ctx, ref, lo, w); err != nil {
			conn.Close()
			return nil // the stream is the only place left to say it, and it is broken
		}
	}
	if !opts.Stream {
		return conn.Close()
	}
	file, err := shim.ConnFile(conn.Conn)
	if err != nil {
		return nil // closed already: the client went away
	}
	spec := shim.AttachSpec{
		Client: id.New()[:id.ShortLen], Stdin: opts.Stdin && cfg.OpenStdin, Stdout: opts.Stdout, Stderr: opts.Stderr,
		Mux: !cfg.Tty, DetachKeys: keys, Prefix: conn.Prefix, StdinOnce: opts.Stdin && cfg.StdinOnce,
	}
	o.emit(events.ActionAttach, nil)
	return o.attach(ctx, pendingAttach{spec, file})
}

// attach connects a client now, or keeps it until the start. It takes p.conn over.
func (o *owner) attach(ctx context.Context, p pendingAttach) error {
	o.streams.Lock()
	if key := o.streams.live; key != nil {
		o.streams.Unlock()
		defer p.conn.Close()
		err := o.s.deps.Shim.Attach(ctx, *key, p.spec, p.conn)
		if err != nil && !errdefs.IsNotFound(err) {
			o.s.log.Warn("attaching a client", "container", o.id, "error", err)
		}
		return nil // the connection is taken over: it ends, that is the answer
	}
	defer o.streams.Unlock()
	o.dropGone()
	if len(o.streams.pending) >= maxPending || o.view.Load().Phase == fsm.Removed {
		p.conn.Close()
		return nil
	}
	o.streams.pending = append(o.streams.pending, p)
	return nil
}

// dropGone closes the connections whose clients gave up before the start.
func (o *owner) dropGone() {
	keep := o.streams.pending[:0]
	for _, p := range o.streams.pending {
		fds := []unix.PollFd{{Fd: int32(p.conn.Fd()), Events: unix.POLLRDHUP}}
		n, err := unix.Poll(fds, 0)
		// A client without stdin half-closes at once: only a full hang-up counts.
		if err == nil && n > 0 && fds[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0 {
			p.conn.Close()
			continue
		}
		keep = append(keep, p)
	}
	clear(o.streams.pending[len(keep):])
	o.streams.pending = keep
}

// arriving announces a client that is about to be told that it is attached; a start waits
// until it is: otherwise a short process would end before its client is connected. The
// function it returns ends that; it may be called again.
func (o *owner) arriving() (arrived func()) {
	o.streams.Lock()
	defer o.streams.Unlock()
	if o.streams.arriving == 0 {
		o.streams.arrived = make(chan struct{})
	}
	o.streams.arriving++
	return sync.OnceFunc(func() {
		o.streams.Lock()
		defer o.streams.Unlock()
		if o.streams.arriving--; o.streams.arriving == 0 {
			close(o.streams.arrived)
		}
	})
}

// arrivalTime is what a start gives to clients that take long to be told.
const arrivalTime = 2 * time.Second

// awaitArriving waits for the clients that were announced.
func (o *owner) awaitArriving() {
	o.streams.Lock()
	n, arrived := o.streams.arriving, o.streams.arrived
	o.streams.Unlock()
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

// takePending hands out the waiting clients; the caller closes their connections.
func (o *owner) takePending() []pendingAttach {
	o.streams.Lock()
	defer o.streams.Unlock()
	list := o.streams.pending
	o.streams.pending = nil
	return list
}

func (o *owner) closePending() {
	for _, p := range o.takePending() {
		p.conn.Close()
	}
}

// attachRest opens the run for clients, and connects beside those that came while it
// started. The owner calls it, so that no end and no answer comes in between.
func (o *owner) attachRest(run uint64) {
	if v := o.view.Load(); v.Run != run || !v.Phase.Up() {
		return
	}
	o.streams.Lock()
	key := o.key(run)
	o.streams.live = &key
	rest := o.streams.pending
	o.streams.pending = nil
	o.streams.Unlock()
	if len(rest) == 0 {
		return
	}
	o.s.beside(func() {
		for _, p := range rest {
			ctx, cancel := context.WithTimeout(context.Background(), effectTimeout)
			_ = o.attach(ctx, p) // it answers through the connection
			cancel()
		}
	})
}

// connLog writes logs to an attached connection.
type connLog struct{ conn *stream.Conn }

// defaultDetach is ctrl-p ctrl-q.
const defaultDetach = "\x10\x11"

// detachKeys reads "ctrl-a,x": the bytes that detach a client; "" is the default.
func detachKeys(s string) ([]byte, error) {
	if s == "" {
		return []byte(defaultDetach), nil
	}
	var out []byte
	for k := range strings.SplitSeq(s, ",") {
		switch c, ctrl := strings.CutPrefix(k, "ctrl-"); {
		case !ctrl && len(k) == 1 && k[0] < 0x80:
			out = append(out, k[0])
		case ctrl && len(c) == 1 && (c[0] >= 'a' && c[0] <= 'z' || c[0] >= '@' && c[0] <= '_'):
			out = append(out, c[0]&0x1f)
		case k == "DEL":
			out = append(out, 0x7f)
		default:
			return nil, errclass.Invalid("Invalid detach keys (%s) provided", s)
		}
	}
	return out, nil
}
