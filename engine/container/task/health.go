package task

import (
	"context"
	"path/filepath"

	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/health"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// watched is a container as the watch over its health sees it.
type watched struct{ t *Task }

// newWatch makes the watch over a container's health.
func newWatch(t *Task) *health.Watch {
	return health.NewWatch(watched{t}, filepath.Join(t.m.Files.Dir(t.c.ID), "health.json"), t.state.Phase.Up(), t.m.Scope, t.m.Log)
}

// Do implements health.Container.
func (w watched) Do(f func() bool) {
	var tell bool
	w.t.send(message{do: func() { tell = f() }, seen: func() {
		if tell {
			w.t.health.Tell()
		}
	}})
}

// Probe implements health.Container.
func (w watched) Probe(ctx context.Context, check *health.Check, run uint64) container.HealthcheckResult {
	return w.t.m.Execs.Probe(ctx, w.t.c, check, run)
}

// Tell publishes a new status and starts the action that the container asks for on failure.
func (w watched) Tell(run uint64, status container.HealthStatus) {
	t := w.t
	t.c.Emit(t.m.Bus, events.ActionHealthStatus+": "+events.Action(status), nil)
	if status != container.Unhealthy {
		return
	}
	r := t.c.Record()
	ev := fsm.Unhealthy{Run: run}
	action, _ := extension.ParseAction(r.HostConfig.Annotations[extension.HealthOnFailure]) // checked at create
	switch action {
	case extension.Stop:
		ev.Do = fsm.StopIt
	case extension.Kill:
		ev.Do = fsm.KillIt
	case extension.Restart:
		ev.Do = fsm.RestartIt
	default:
		return
	}
	var err error
	if ev.Signal, ev.Timeout, err = t.m.Validate.Stop(r.Config, "", nil); err != nil {
		ev.Signal = sigKill // checked at create: cannot be
	}
	t.m.Log.Info("a container is unhealthy", "container", t.c.ID, "action", string(action))
	t.m.Scope.Go(func() { t.send(message{ev: ev}) })
}
