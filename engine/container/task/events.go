package task

import (
	"strconv"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/event"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
)

// tell publishes what the state machine says happened.
func (t *Task) tell(e fsm.Tell) {
	var more map[string]string
	action := events.Action(e.What)
	switch action {
	case events.ActionKill:
		more = map[string]string{"signal": strconv.Itoa(e.Signal)}
	case events.ActionDie:
		more = map[string]string{
			"exitCode":     strconv.Itoa(t.state.Last.Code),
			"execDuration": strconv.FormatInt(int64(t.state.Last.Ran/time.Second), 10),
		}
		if e.Restarting && !t.m.Scope.Closed() { // a daemon that ends restarts nothing
			more["restarting"] = "true"
		}
	}
	t.c.Emit(t.m.Bus, action, more)
}

// oom publishes that the kernel killed a process of the container for its memory.
func (t *Task) oom() { t.c.Emit(t.m.Bus, events.ActionOOM, nil) }

// detached publishes that a client detached by keys.
func (t *Task) detached() { t.c.Emit(t.m.Bus, events.ActionDetach, nil) }

// tellVolumes publishes that the container's volumes are mounted, or are not any more.
func tellVolumes(bus *event.Bus, r *store.Record, action events.Action) {
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		attrs := map[string]string{"container": r.ID, "driver": m.Driver}
		if action == events.ActionMount {
			attrs["destination"], attrs["propagation"] = m.Destination, string(m.Propagation)
			attrs["read/write"] = strconv.FormatBool(m.RW)
		}
		bus.Emit(events.VolumeEventType, action, m.Name, attrs)
	}
}
