// Package task runs containers. Each container has one task, a goroutine with a mailbox. The
// task feeds events to a pure state machine (fsm), runs the effects that the machine returns
// in goroutines of their own, writes the container's records and replaces its snapshot. Starts, teardowns,
// removals, restores and health checks are here. A request that the state does not allow
// fails with the state machine's error.
package task

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/bundle"
	"github.com/gantry/gantry/engine/container/exec"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/stream"
	"github.com/gantry/gantry/engine/container/validate"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/scope"
	"github.com/gantry/gantry/shim"
	networktypes "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

const sigKill = int(unix.SIGKILL)

// Images is what tasks ask of engine/image.
type Images interface {
	// Release ends a container's hold of its image; none is no error.
	Release(ctx context.Context, containerID string) error
}

// Layers is what tasks ask of storage's writable layers.
type Layers interface {
	// Remove deletes a container's layer; none is no error.
	Remove(containerID string) error
}

// Volumes is what tasks ask of engine/volume; see there for the contracts.
type Volumes interface {
	mounts.Users
	mounts.Mounter
	Abandon(ctx context.Context, container string) error
	Restore(ctx context.Context, running map[string]bool)
}

// Networks is what tasks ask of engine/network; see there for the contracts.
type Networks interface {
	Acquire(ctx context.Context, r network.SandboxRequest) (*network.Sandbox, error)
	Release(ctx context.Context, containerID string) error
	Restore(ctx context.Context, records []network.Record) error
	Connect(ctx context.Context, ns *os.File, r network.SandboxRequest) (*network.Sandbox, error)
	Disconnect(ctx context.Context, ns *os.File, containerID, ref string, keep func(network.Record)) (network.Record, error)
	Known(ref string) (id, name string, driver network.Description, err error)
	SetLinks(containerID string, to []string) error
	CheckEndpoint(ref string, es *networktypes.EndpointSettings) error
}

// Shim is what tasks ask of the process that holds containers. Files given to a call stay
// the caller's; descriptors that come back (Started.FDs) are kept by the implementation. After
// the shim died calls wait a bounded time for its successor and then answer with class
// Unavailable.
type Shim interface {
	// Start runs a container and returns when its program runs, or failed to: then the
	// error reads as an OCI runtime's (`exec: "foo": executable file not found in $PATH`).
	Start(ctx context.Context, r *shim.StartRequest, files []*os.File) (*shim.Started, error)
	// Signal sends sig to a held process; class NotFound when it has ended.
	Signal(ctx context.Context, key shim.Key, sig int) error
	// Pause freezes and Resume thaws the whole container.
	Pause(ctx context.Context, key shim.Key) error
	Resume(ctx context.Context, key shim.Key) error
	// Forget acknowledges an exit: the shim drops what it held, cgroup included.
	// Unknown keys are no error.
	Forget(ctx context.Context, key shim.Key) error
	// Adopt gives the shim a process that no shim holds, found after both died.
	Adopt(ctx context.Context, st shim.Status, pidfd *os.File) error
	// List tells everything the shim holds, exits not yet forgotten included.
	List(ctx context.Context) ([]shim.Status, error)
	// Events delivers what the shim pushes, from the moment the client connected.
	// After a shim was replaced the first event is a zero one: list again. The channel
	// is the same on every call and is closed when the client is closed.
	Events() <-chan shim.Event
	stream.Shim
}

// Deps are what tasks stand on.
type Deps struct {
	Files    *store.Files
	Index    *store.Index
	Execs    *exec.Set
	Bundle   *bundle.Builder
	Validate *validate.Validator
	Images   Images
	Layers   Layers
	Networks Networks
	Volumes  Volumes
	Shim     Shim
	Bus      *event.Bus
	Scope    *scope.Scope // the tasks' life
	Log      *slog.Logger
}

// Manager has the tasks of all containers. Safe for concurrent use.
type Manager struct {
	Deps

	mu    sync.RWMutex
	tasks map[string]*Task
}

// New has no tasks yet. Restore must be called once before anything else; closing the scope
// ends all tasks.
func New(d Deps) *Manager { return &Manager{Deps: d, tasks: map[string]*Task{}} }

// Get finds a container's task by ID, name, or unambiguous prefix of an ID; class NotFound.
func (m *Manager) Get(ref string) (*Task, error) {
	c, err := m.Index.Get(ref)
	if err != nil {
		return nil, err
	}
	if t := m.byID(c.ID); t != nil {
		return t, nil
	}
	return nil, errclass.NotFound("No such container: %s", ref)
}

func (m *Manager) byID(cid string) *Task {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.tasks[cid]
}

// Add starts the task of a container whose record was just written.
func (m *Manager) Add(r *store.Record) *Task {
	t := m.newTask(r, firstState(r), nil, time.Time{})
	m.run(t)
	return t
}

// run makes a task's container one that can be found, and starts its goroutine.
func (m *Manager) run(t *Task) {
	m.mu.Lock()
	m.tasks[t.c.ID] = t
	m.mu.Unlock()
	m.Index.Add(t.c)
	m.Scope.Go(t.loop)
}

// drop takes a removed container out of the index.
func (m *Manager) drop(c *store.Container) {
	m.Execs.Drop(c.ID)
	m.Bundle.Forget(c.ID)
	m.Index.Release(c.Name(), c.ID)
	m.Index.Remove(c.ID)
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.tasks, c.ID)
}

// listen hands what the shim tells to the tasks, until the scope or the client is closed.
func (m *Manager) listen() {
	ch := m.Shim.Events()
	for {
		select {
		case <-m.Scope.Context().Done():
			return
		case ev, ok := <-ch:
			if !ok {
				return
			}
			m.shimEvent(ev)
		}
	}
}

func (m *Manager) shimEvent(ev shim.Event) {
	switch {
	case ev.Exit != nil:
		m.exited(ev.Exit)
	case ev.OOM != nil:
		if t := m.byID(ev.OOM.Container); t != nil {
			t.oom()
		}
	case ev.Detached != nil:
		m.detached(ev.Detached)
	default:
		m.Scope.Go(m.shimBack)
	}
}

func (m *Manager) detached(d *shim.Detached) {
	t := m.byID(d.Key.Container)
	switch {
	case t == nil || !d.Keys:
	case d.Key.Exec == "":
		t.detached()
	default:
		m.Execs.Detached(d.Key.Exec)
	}
}

// exited hands an exit to its task. It does not block on it: one busy task must not hold up
// the exits of others.
func (m *Manager) exited(e *shim.Exit) {
	if e.Key.Exec != "" {
		m.Scope.Go(func() {
			m.Execs.Exited(e)
			m.forget(e.Key)
		})
		return
	}
	t := m.byID(e.Key.Container)
	if t == nil || t.c.View().Run != e.Key.Run {
		m.Scope.Go(func() { m.forget(e.Key) })
		return
	}
	m.Scope.Go(func() { t.send(message{ev: fsm.HasExited{Run: e.Key.Run, Exit: exitOf(t.c, e)}}) })
}

func exitOf(c *store.Container, e *shim.Exit) fsm.Exit {
	x := fsm.Exit{Code: e.Code, OOM: e.OOMKilled, Unknown: e.Unknown, At: e.At.UTC()}
	if v := c.View(); v.Current != nil && v.Current.Number == e.Key.Run {
		x.Ran = e.At.Sub(v.Current.Started)
	}
	return x
}

// shimBack looks what the shim's successor holds.
func (m *Manager) shimBack() {
	ctx, cancel := m.Scope.Timeout(effectTimeout)
	defer cancel()
	// Who ran before the question: a run that starts meanwhile is not in the answer.
	ran := map[*store.Container]uint64{}
	for _, c := range m.Index.All() {
		if v := c.View(); v.Phase.Up() {
			ran[c] = v.Run
		}
	}
	list, err := m.Shim.List(ctx)
	if err != nil {
		m.Log.Error("asking the new shim what it holds", "error", err)
		return
	}
	held := map[shim.Key]bool{}
	for _, st := range list {
		held[st.Key] = true
		if st.Exit != nil {
			m.exited(st.Exit)
		}
	}
	for c, run := range ran {
		if t := m.byID(c.ID); t != nil {
			t.send(message{ev: fsm.ShimBack{Run: run, Held: held[c.Key(run)], At: time.Now().UTC()}})
		}
	}
}

// forgetTries bounds how many shims may die over one request.
const forgetTries = 3

// forget lets the shim drop what it held of a process that ended.
func (m *Manager) forget(key shim.Key) {
	ctx, cancel := m.Scope.Timeout(effectTimeout)
	defer cancel()
	err := m.Shim.Forget(ctx, key)
	for try := 1; try < forgetTries && errors.Is(err, errdefs.ErrUnavailable); try++ {
		// The shim died over it. The next call waits for the successor, which knows the
		// process and has its cgroup to remove.
		err = m.Shim.Forget(ctx, key)
	}
	if err != nil && !m.Scope.Closed() { // else the next daemon does it
		m.Log.Warn("ending a process in the shim", "container", key.Container, "exec", key.Exec, "error", err)
	}
}
