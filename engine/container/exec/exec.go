// Package exec runs further processes in running containers: execs and health probes.
package exec

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	apistream "github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container/bundle"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/stream"
	"github.com/gantry/gantry/engine/container/validate"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/scope"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// Bounds on execs kept for inspection, per container.
const (
	maxFinished = 256
	maxOpen     = 4096
)

// Shim is what execs ask of the process that holds containers. Files given to a call stay
// the caller's.
type Shim interface {
	// Exec runs a further process in a running container; errors read as an OCI runtime's.
	Exec(ctx context.Context, r *shim.ExecRequest, files []*os.File) (*shim.Started, error)
	// Signal sends sig to a held process; class NotFound when it has ended.
	Signal(ctx context.Context, key shim.Key, sig int) error
	// Resize sets the size of the process's terminal.
	Resize(ctx context.Context, key shim.Key, size oci.WinSize) error
}

// Set holds the execs of all containers. Safe for concurrent use.
type Set struct {
	shim   Shim
	bundle *bundle.Builder
	files  *store.Files
	bus    *event.Bus
	log    *slog.Logger
	scope  *scope.Scope

	mu   sync.Mutex
	byID map[string]*process
	of   map[string][]*process // by container, oldest first
}

// New is an empty set.
func New(s Shim, b *bundle.Builder, files *store.Files, bus *event.Bus, log *slog.Logger, life *scope.Scope) *Set {
	return &Set{
		shim: s, bundle: b, files: files, bus: bus, log: log, scope: life,
		byID: map[string]*process{}, of: map[string][]*process{},
	}
}

func (x *Set) get(execID string) (*process, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if p, ok := x.byID[execID]; ok {
		return p, nil
	}
	return nil, errclass.NotFound("No such exec instance: %s", execID)
}

// add keeps p; the oldest finished ones make room.
func (x *Set) add(p *process) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := x.of[p.c.ID]
	finished := 0
	for _, other := range list {
		if other.isEnded() {
			finished++
		}
	}
	if len(list)-finished >= maxOpen {
		return errclass.With(errdefs.ErrResourceExhausted, errors.New("too many exec instances in container "+p.c.ID))
	}
	for i := 0; finished >= maxFinished && i < len(list); {
		if !list[i].isEnded() {
			i++
			continue
		}
		delete(x.byID, list[i].id)
		list = slices.Delete(list, i, i+1)
		finished--
	}
	x.byID[p.id] = p
	x.of[p.c.ID] = append(list, p)
	return nil
}

// remove forgets one exec.
func (x *Set) remove(p *process) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, p.id)
	x.of[p.c.ID] = slices.DeleteFunc(x.of[p.c.ID], func(other *process) bool { return other == p })
	if len(x.of[p.c.ID]) == 0 {
		delete(x.of, p.c.ID)
	}
}

// Restore takes over an exec that an earlier daemon started. Its configuration died with
// that daemon; whether it runs and how it ended is what clients still ask for. A health probe
// is ended: nobody waits for it any more, and the next one is due.
func (x *Set) Restore(ctx context.Context, c *store.Container, st *shim.Status) {
	p := &process{id: st.Key.Exec, c: c, started: true, running: st.Exit == nil, pid: st.Pid, run: st.Key.Run}
	if st.Exit != nil {
		p.ended, p.exitCode = true, &st.Exit.Code
	}
	if err := x.add(p); err != nil {
		x.log.Warn("taking over an exec", "container", c.ID, "exec", p.id, "error", err)
	}
	if st.Exit == nil && x.files.Probe(c.ID) == p.id {
		x.kill(ctx, p)
	}
}

// Running lists the IDs of a container's execs that run, as inspect shows them.
func (x *Set) Running(cid string) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string
	for _, p := range x.of[cid] {
		p.mu.Lock()
		if p.running {
			ids = append(ids, p.id)
		}
		p.mu.Unlock()
	}
	return ids
}

// End says that a run of the container is over: its execs have ended with it, or do now.
func (x *Set) End(cid string, run uint64) {
	x.mu.Lock()
	list := slices.Clone(x.of[cid])
	x.mu.Unlock()
	for _, p := range list {
		p.finish(run, 137)
	}
}

// Drop forgets the execs of a container that is removed.
func (x *Set) Drop(cid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, p := range x.of[cid] {
		delete(x.byID, p.id)
	}
	delete(x.of, cid)
}

// Create prepares a process; class Conflict when the container does not run. ref is how it was
// asked for.
func (x *Set) Create(c *store.Container, ref string, q container.ExecCreateRequest) (execID string, err error) {
	if err := mayExec(c, ref); err != nil {
		return "", err
	}
	p := &process{id: id.New(), c: c, config: q}
	if p.keys, err = validate.Exec(&q); err != nil {
		return "", err
	}
	if err := x.add(p); err != nil {
		return "", err
	}
	x.emit(p, events.ActionExecCreate, true, nil)
	return p.id, nil
}

// mayExec refuses where nothing can be executed.
func mayExec(c *store.Container, ref string) error {
	switch v := c.View(); {
	case v.Phase == fsm.Paused:
		return errclass.Conflict("Container %s is paused, unpause the container before exec", ref)
	case v.Phase == fsm.Restarting:
		return errclass.Conflict("Container %s is restarting, wait until the container is running", c.ID)
	case !v.Phase.Up():
		return c.NotRunning()
	}
	return nil
}

// emit publishes an exec event; Docker puts the command into the action of some.
func (x *Set) emit(p *process, action events.Action, withCommand bool, more map[string]string) {
	if withCommand {
		// With the blank behind a command without arguments, as Docker.
		action += events.Action(": " + p.config.Cmd[0] + " " + strings.Join(p.config.Cmd[1:], " "))
	}
	attrs := map[string]string{"execID": p.id}
	maps.Copy(attrs, more)
	p.c.Emit(x.bus, action, attrs)
}

// Start runs a prepared process. Detached it returns when the process runs, with an error when
// it could not; attached it takes the connection, and what goes wrong after that is written to
// it, as Docker does.
func (x *Set) Start(ctx context.Context, execID string, opts container.ExecStartRequest, hijack apistream.Hijack) error {
	p, err := x.get(execID)
	if err != nil {
		return err
	}
	if err := mayExec(p.c, p.c.ID); err != nil {
		return err
	}
	if err := p.claim(); err != nil {
		return err
	}
	if opts.Detach {
		return x.launch(ctx, p, opts, nil)
	}
	conn, err := hijack(!p.config.Tty)
	if err != nil {
		p.unclaim()
		return err
	}
	file, err := shim.ConnFile(conn.Conn)
	if err != nil {
		p.unclaim()
		return nil // the client went away
	}
	defer file.Close()
	client := stream.Client{Conn: file, Spec: shim.AttachSpec{
		Client: id.New()[:id.ShortLen], Stdin: p.config.AttachStdin, Stdout: p.config.AttachStdout, Stderr: p.config.AttachStderr,
		Mux: !p.config.Tty, DetachKeys: p.keys, Prefix: conn.Prefix, StdinOnce: true,
	}}
	if err := x.launch(ctx, p, opts, []stream.Client{client}); err != nil {
		client.Fail(err)
	}
	return nil
}

// launch lets the shim start a process that is claimed.
func (x *Set) launch(ctx context.Context, p *process, opts container.ExecStartRequest, clients []stream.Client) error {
	req, err := x.bundle.Exec(ctx, p.c.Record(), p.key(), &p.config)
	if err != nil {
		p.finish(p.run, 126)
		return err
	}
	for _, size := range []*[2]uint{p.config.ConsoleSize, opts.ConsoleSize} {
		if size != nil {
			req.ConsoleSize = oci.WinSize{Rows: uint16(size[0]), Cols: uint16(size[1])}
		}
	}
	var files []*os.File
	for _, c := range clients {
		req.Attach = append(req.Attach, c.Spec)
		files = append(files, c.Conn)
	}
	x.emit(p, events.ActionExecStart, true, nil)
	started, err := x.shim.Exec(ctx, req, files)
	if err != nil {
		code, err := bundle.ExecError(err)
		p.finish(p.run, code)
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pid = started.Pid
	return nil
}

// Inspect tells how an exec is.
func (x *Set) Inspect(execID string) (container.ExecInspectResponse, error) {
	p, err := x.get(execID)
	if err != nil {
		return container.ExecInspectResponse{}, err
	}
	return p.inspect(), nil
}

// Resize sets the size of an exec's terminal.
func (x *Set) Resize(ctx context.Context, execID string, height, width uint16) error {
	p, err := x.get(execID)
	if err != nil {
		return err
	}
	p.mu.Lock()
	running, key := p.running, p.key()
	p.mu.Unlock()
	if !running {
		return errclass.Conflict("exec process %s is not running", p.id)
	}
	if !p.config.Tty && len(p.config.Cmd) > 0 { // of one that an earlier daemon made it is not known
		return nil
	}
	return x.shim.Resize(ctx, key, oci.WinSize{Rows: height, Cols: width})
}

// Exited records the end of an exec as the shim tells it. The shim holds the process until it
// is told to forget it, which is the caller's to do.
func (x *Set) Exited(ex *shim.Exit) {
	p, err := x.get(ex.Key.Exec)
	if err == nil && p.finish(ex.Key.Run, ex.Code) {
		x.emit(p, events.ActionExecDie, false, map[string]string{"exitCode": strconv.Itoa(ex.Code)})
	}
}

// Detached publishes that a client detached by keys.
func (x *Set) Detached(execID string) {
	if p, err := x.get(execID); err == nil {
		x.emit(p, events.ActionExecDetach, false, nil)
	}
}
