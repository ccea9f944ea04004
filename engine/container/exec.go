package container

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/hostdev"
	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Bounds on execs kept for inspection, per container.
const (
	maxFinished = 256
	maxOpen     = 4096
)

// execProc is a further process of a container.
type execProc struct {
	id     string
	o      *owner
	config container.ExecCreateRequest
	keys   []byte

	mu       sync.Mutex
	started  bool
	running  bool
	ended    bool
	exitCode *int
	pid      int
	run      uint64
	finished chan struct{} // closed when it has ended; nil where nobody waits for that
}

// execs holds the execs of all containers.
type execs struct {
	mu   sync.Mutex
	byID map[string]*execProc
	of   map[*owner][]*execProc // oldest first
}

func newExecs() *execs {
	return &execs{byID: map[string]*execProc{}, of: map[*owner][]*execProc{}}
}

func (x *execs) get(ref string) (*execProc, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if e, ok := x.byID[ref]; ok {
		return e, nil
	}
	return nil, errclass.NotFound("No such exec instance: %s", ref)
}

// add keeps e; the oldest finished ones make room.
func (x *execs) add(e *execProc) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	list := x.of[e.o]
	finished := 0
	for _, other := range list {
		if other.isEnded() {
			finished++
		}
	}
	if len(list)-finished >= maxOpen {
		return errclass.With(errdefs.ErrResourceExhausted, errors.New("too many exec instances in container "+e.o.id))
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
	x.byID[e.id] = e
	x.of[e.o] = append(list, e)
	return nil
}

// restore takes over an exec that an earlier daemon started. Its configuration died with
// that daemon; whether it runs and how it ended is what clients still ask for.
func (x *execs) restore(o *owner, st *shim.Status) {
	e := &execProc{id: st.Key.Exec, o: o, started: true, running: st.Exit == nil, pid: st.Pid, run: st.Key.Run}
	if st.Exit != nil {
		e.ended, e.exitCode = true, &st.Exit.Code
	}
	if err := x.add(e); err != nil {
		o.s.log.Warn("taking over an exec", "container", o.id, "exec", e.id, "error", err)
	}
}

// running lists the IDs of a container's execs that run, as inspect shows them.
func (x *execs) running(o *owner) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var ids []string
	for _, e := range x.of[o] {
		e.mu.Lock()
		if e.running {
			ids = append(ids, e.id)
		}
		e.mu.Unlock()
	}
	return ids
}

// ended drops what has not been started when the container's run is over: it cannot be
// any more. Processes that ran are ended by the shim's own events, or are now.
func (x *execs) ended(o *owner) {
	x.mu.Lock()
	list := slices.Clone(x.of[o])
	x.mu.Unlock()
	for _, e := range list {
		e.finish(o.view.Load().Run, 137)
	}
}

// remove forgets one exec.
func (x *execs) remove(e *execProc) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, e.id)
	x.of[e.o] = slices.DeleteFunc(x.of[e.o], func(other *execProc) bool { return other == e })
	if len(x.of[e.o]) == 0 {
		delete(x.of, e.o)
	}
}

func (x *execs) dropContainer(o *owner) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, e := range x.of[o] {
		delete(x.byID, e.id)
	}
	delete(x.of, o)
}

func (e *execProc) isEnded() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ended
}

// finish records the end of a process that ran in run; false when it was recorded before.
func (e *execProc) finish(run uint64, code int) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.started || e.ended || e.run != run {
		return false
	}
	e.running, e.ended, e.exitCode = false, true, &code
	if e.finished != nil {
		close(e.finished)
	}
	return true
}

// ExecCreate prepares a process; class Conflict when the container does not run.
func (s *Service) ExecCreate(_ context.Context, ref string, req container.ExecCreateRequest) (string, error) {
	o, err := s.index.get(ref)
	if err != nil {
		return "", err
	}
	if err := o.canExec(ref); err != nil {
		return "", err
	}
	if len(req.Cmd) == 0 {
		return "", errclass.Invalid("No exec command specified")
	}
	for _, a := range slices.Concat(req.Cmd, req.Env) {
		if strings.ContainsRune(a, 0) {
			return "", errclass.Invalid("invalid exec command: contains a null byte")
		}
	}
	e := &execProc{id: id.New(), o: o, config: req}
	if e.keys, err = detachKeys(req.DetachKeys); err != nil {
		return "", err
	}
	if !req.Tty {
		e.keys = nil // data is data: only a terminal's user detaches by keys
	}
	if err := s.execs.add(e); err != nil {
		return "", err
	}
	e.emit(events.ActionExecCreate, true, nil)
	return e.id, nil
}

// canExec refuses where nothing can be executed; ref is how the container was asked for.
func (o *owner) canExec(ref string) error {
	switch v := o.view.Load(); {
	case v.Phase == fsm.Paused:
		return errclass.Conflict("Container %s is paused, unpause the container before exec", ref)
	case v.Phase == fsm.Restarting:
		return errclass.Conflict("Container %s is restarting, wait until the container is running", o.id)
	case !v.Phase.Up():
		return o.notRunning()
	}
	return nil
}

// emit publishes an exec event; Docker puts the command into the action of some.
func (e *execProc) emit(action events.Action, withCommand bool, more map[string]string) {
	if withCommand {
		// With the blank behind a command without arguments, as Docker.
		action += events.Action(": " + e.config.Cmd[0] + " " + strings.Join(e.config.Cmd[1:], " "))
	}
	attrs := map[string]string{"execID": e.id}
	for k, v := range more {
		attrs[k] = v
	}
	e.o.emit(action, attrs)
}

// ExecStart runs a prepared process. Detached it returns when the process runs, with
// an error when it could not; attached it takes the connection, and what goes wrong
// after that is written to it, as Docker does.
func (s *Service) ExecStart(ctx context.Context, execID string, opts container.ExecStartRequest, hijack stream.Hijack) error {
	e, err := s.execs.get(execID)
	if err != nil {
		return err
	}
	if err := e.o.canExec(e.o.id); err != nil {
		return err
	}
	if err := e.claim(); err != nil {
		return err
	}
	var clients []pendingAttach
	c := e.config
	if !opts.Detach {
		conn, err := hijack(!c.Tty)
		if err != nil {
			e.unclaim()
			return err
		}
		file, err := shim.ConnFile(conn.Conn)
		if err != nil {
			e.unclaim()
			return nil // the client went away
		}
		defer file.Close()
		clients = append(clients, pendingAttach{conn: file, spec: shim.AttachSpec{
			Client: id.New()[:id.ShortLen], Stdin: c.AttachStdin, Stdout: c.AttachStdout, Stderr: c.AttachStderr,
			Mux: !c.Tty, DetachKeys: e.keys, Prefix: conn.Prefix, StdinOnce: true,
		}})
	}
	err = e.start(ctx, opts, clients)
	if err == nil {
		return nil
	}
	if len(clients) > 0 {
		writeError(clients[0], err)
		return nil
	}
	return err
}

// claim makes this the one start of the exec.
func (e *execProc) claim() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.running:
		return errclass.Conflict("exec command %s is already running", e.id)
	case e.started:
		return errclass.Conflict("exec command %s has already run", e.id)
	}
	e.started, e.running, e.run = true, true, e.o.view.Load().Run
	return nil
}

func (e *execProc) unclaim() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.started, e.running = false, false
}

func (e *execProc) start(ctx context.Context, opts container.ExecStartRequest, clients []pendingAttach) error {
	req, err := e.request(ctx)
	if err != nil {
		e.finish(e.run, 126)
		return err
	}
	for _, size := range []*[2]uint{e.config.ConsoleSize, opts.ConsoleSize} {
		if size != nil {
			req.ConsoleSize = oci.WinSize{Rows: uint16(size[0]), Cols: uint16(size[1])}
		}
	}
	var files []*os.File
	for _, c := range clients {
		req.Attach = append(req.Attach, c.spec)
		files = append(files, c.conn)
	}
	e.emit(events.ActionExecStart, true, nil)
	started, err := e.o.s.deps.Shim.Exec(ctx, req, files)
	if err != nil {
		text := execFailed + err.Error()
		code := exitCodeOf(text)
		if code == 0 {
			e.finish(e.run, 126)
			return errclass.With(errclass.Of(err), errors.New(text))
		}
		e.finish(e.run, code)
		return errclass.Invalid("%s", text)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.pid = started.Pid
	return nil
}

// request is what the shim is asked: the container's own settings, with the exec's over them.
func (e *execProc) request(ctx context.Context) (*shim.ExecRequest, error) {
	o, s, c := e.o, e.o.s, e.config
	r := o.rec.Load()
	lease, err := s.deps.Images.LeaseOf(ctx, o.id)
	if err != nil {
		return nil, err
	}
	layer, err := s.deps.Layers.Get(o.id)
	if err != nil {
		return nil, err
	}
	name := c.User
	if name == "" {
		name = r.Config.User
	}
	user, err := resolveUser(&o.users, layer.Dirs(lease.Lower), name, r.HostConfig.GroupAdd)
	if err != nil {
		return nil, err
	}
	cfg, host := *r.Config, *r.HostConfig
	cfg.Tty = c.Tty
	cfg.Env = spec.MergeEnv(cfg.Env, c.Env)
	if c.WorkingDir != "" {
		cfg.WorkingDir = c.WorkingDir
	}
	if c.Privileged {
		host.Privileged = true
	}
	sp, err := spec.Build(spec.Input{
		ID: o.id, Config: &cfg, Host: &host, Path: c.Cmd[0], Args: c.Cmd[1:],
		User: user, Held: s.held, NoNewPrivileges: s.cfg.NoNewPrivileges, BlockDevice: hostdev.Block,
		LinkEnv: linkEnv(s, r),
	})
	if err != nil {
		return nil, err
	}
	req := &shim.ExecRequest{Key: shim.Key{Container: o.id, Exec: e.id, Run: e.run}, Process: sp.Process, OpenStdin: c.AttachStdin}
	// The filter is the container's, whatever the exec may do.
	plain := &specs.Spec{Process: sp.Process, Linux: &specs.Linux{}}
	if req.Seccomp, req.SeccompFlags, err = s.filter(r.HostConfig, plain); err != nil {
		return nil, err
	}
	return req, nil
}

// writeError tells an attached client why its process did not start.
func writeError(c pendingAttach, err error) {
	text := []byte(err.Error() + "\r\n")
	if c.spec.Mux {
		head := make([]byte, 8, 8+len(text))
		head[0] = 1 // stdout, as Docker does
		binary.BigEndian.PutUint32(head[4:], uint32(len(text)))
		text = append(head, text...)
	}
	_, _ = c.conn.Write(text) // a client that went away needs no answer
}

// ExecInspect tells how an exec is.
func (s *Service) ExecInspect(_ context.Context, execID string) (container.ExecInspectResponse, error) {
	e, err := s.execs.get(execID)
	if err != nil {
		return container.ExecInspectResponse{}, err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	c := e.config
	user := c.User
	if user == "" {
		user = e.o.rec.Load().Config.User
	}
	privileged := c.Privileged
	var entrypoint string
	arguments := []string{}
	if len(c.Cmd) > 0 { // none when an earlier daemon made it
		entrypoint, arguments = c.Cmd[0], c.Cmd[1:]
	}
	return container.ExecInspectResponse{
		ID: e.id, Running: e.running, ExitCode: e.exitCode, OpenStdin: c.AttachStdin, OpenStdout: c.AttachStdout,
		OpenStderr: c.AttachStderr, CanRemove: e.ended, ContainerID: e.o.id, DetachKeys: []byte(c.DetachKeys), Pid: e.pid,
		ProcessConfig: &container.ExecProcessConfig{
			Tty: c.Tty, Entrypoint: entrypoint, Arguments: arguments, Privileged: &privileged, User: user,
		},
	}, nil
}

// ExecResize sets the size of an exec's terminal.
func (s *Service) ExecResize(ctx context.Context, execID string, height, width uint16) error {
	e, err := s.execs.get(execID)
	if err != nil {
		return err
	}
	e.mu.Lock()
	running, run := e.running, e.run
	e.mu.Unlock()
	if !running {
		return errclass.Conflict("exec process %s is not running", e.id)
	}
	if !e.config.Tty && len(e.config.Cmd) > 0 { // of one that an earlier daemon made it is not known
		return nil
	}
	return s.deps.Shim.Resize(ctx, shim.Key{Container: e.o.id, Exec: e.id, Run: run}, oci.WinSize{Rows: height, Cols: width})
}

// execExited records the end of an exec as the shim tells it.
func (s *Service) execExited(ex *shim.Exit) {
	e, err := s.execs.get(ex.Key.Exec)
	if err == nil && e.finish(ex.Key.Run, ex.Code) {
		e.emit(events.ActionExecDie, false, map[string]string{"exitCode": strconv.Itoa(ex.Code)})
	}
	// Also for one that an earlier daemon started: the shim holds it until it is told.
	s.forget(ex.Key)
}
