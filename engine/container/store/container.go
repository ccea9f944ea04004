package store

import (
	"context"
	"maps"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"
)

// Container is one container as everybody may see it: snapshots that its task replaces.
// Safe for concurrent use.
type Container struct {
	ID      string
	rec     atomic.Pointer[Record]
	view    atomic.Pointer[View]
	changed notifier
	done    chan struct{}
}

// View is a snapshot of a container's state. It is never changed.
type View struct {
	fsm.State
	Current *Run // of the run that is up, or was last; nil before the first
	Started time.Time
	Health  *container.Health // nil without a health check
}

// NewContainer is a container with its first snapshots.
func NewContainer(r *Record, v *View) *Container {
	c := &Container{ID: r.ID, done: make(chan struct{})}
	c.rec.Store(r)
	c.view.Store(v)
	return c
}

// Record is the configuration now.
func (c *Container) Record() *Record { return c.rec.Load() }

// View is the state now.
func (c *Container) View() *View { return c.view.Load() }

// Name is the name now, without the slash.
func (c *Container) Name() string { return c.Record().Name }

// SetRecord and SetView replace a snapshot; only the container's task calls them.
func (c *Container) SetRecord(r *Record) { c.rec.Store(r) }

// SetView replaces the state's snapshot.
func (c *Container) SetView(v *View) { c.view.Store(v) }

// Notify wakes who waits for a change of the phase.
func (c *Container) Notify() { c.changed.notify() }

// Changed is closed when the phase changes next.
func (c *Container) Changed() <-chan struct{} { return c.changed.wait() }

// End says that no snapshot will ever be replaced again; to be called once.
func (c *Container) End() { close(c.done) }

// Done is closed by End.
func (c *Container) Done() <-chan struct{} { return c.done }

// Key names a run's first process to the shim.
func (c *Container) Key(run uint64) shim.Key { return shim.Key{Container: c.ID, Run: run} }

// NotRunning refuses, in Docker's words, what needs a running container.
func (c *Container) NotRunning() error {
	return errclass.Conflict("container %s is not running", c.ID)
}

// Emit publishes a container event with Docker's attributes: labels, image and name,
// and what is given.
func (c *Container) Emit(bus *event.Bus, action events.Action, more map[string]string) {
	r := c.Record()
	attrs := make(map[string]string, len(r.Config.Labels)+len(more)+2)
	maps.Copy(attrs, r.Config.Labels)
	attrs["image"] = r.Config.Image
	attrs["name"] = r.Name
	maps.Copy(attrs, more)
	bus.Emit(events.ContainerEventType, action, c.ID, attrs)
}

// endPatience bounds AwaitEnd.
const endPatience = 2 * time.Second

// AwaitEnd waits until the teardown of the last run completes: an exit is reported only then, and
// who saw the die event is not to be told that the container runs.
func (c *Container) AwaitEnd(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	for {
		changed := c.Changed()
		if c.View().Phase != fsm.Exiting {
			return
		}
		select {
		case <-changed:
		case <-c.done:
			return
		case <-ctx.Done():
			return
		}
	}
}

// Namespace opens a namespace of the container's first process; the start time tells
// that the pid is still its own. The caller closes it. fsm.ErrNotRunning without one.
func (c *Container) Namespace(kind string) (*os.File, error) {
	v := c.View()
	if !v.Phase.Up() || v.Current == nil {
		return nil, fsm.ErrNotRunning
	}
	pid := v.Current.Pid
	before, err := shim.StartTicks(pid)
	if err != nil {
		return nil, fsm.ErrNotRunning
	}
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/ns/" + kind)
	if err != nil {
		return nil, fsm.ErrNotRunning
	}
	// Had the process ended meanwhile, what was opened might be another's.
	if now := c.View(); !now.Phase.Up() || now.Run != v.Run {
		f.Close()
		return nil, fsm.ErrNotRunning
	}
	if after, err := shim.StartTicks(pid); err != nil || after != before {
		f.Close()
		return nil, fsm.ErrNotRunning
	}
	return f, nil
}

// Running is what Docker's State.Running says: restarting counts as running, and so does
// a container whose exit is not reported yet.
func (v *View) Running() bool {
	return v.Phase.Up() || v.Phase == fsm.Exiting || v.Phase == fsm.Restarting || v.Phase == fsm.Starting && v.ByPolicy
}

// Endpoints are the container's networks: as connected while it runs, else as asked for.
func (v *View) Endpoints(r *Record) map[string]*networktypes.EndpointSettings {
	if v.Phase.Up() && v.Current != nil && v.Current.Endpoints != nil {
		return v.Current.Endpoints
	}
	if r.Networks == nil {
		return map[string]*networktypes.EndpointSettings{}
	}
	return r.Networks
}

// notifier tells any number of listeners that something changed.
type notifier struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed at the next notify.
func (n *notifier) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notifier) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}
