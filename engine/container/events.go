package container

import (
	"maps"
	"strconv"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
)

// emit publishes a container event with Docker's attributes: labels, image and name,
// and what is given.
func (o *owner) emit(action events.Action, more map[string]string) {
	r := o.rec.Load()
	attrs := make(map[string]string, len(r.Config.Labels)+len(more)+2)
	maps.Copy(attrs, r.Config.Labels)
	attrs["image"] = r.Config.Image
	attrs["name"] = r.Name
	maps.Copy(attrs, more)
	o.s.deps.Bus.Emit(events.ContainerEventType, action, o.id, attrs)
}

// tell publishes what the state machine says happened.
func (o *owner) tell(e fsm.Tell) {
	switch action := events.Action(e.What); action {
	case events.ActionKill:
		o.emit(action, map[string]string{"signal": strconv.Itoa(e.Signal)})
	case events.ActionDie:
		o.emit(action, map[string]string{
			"exitCode":     strconv.Itoa(o.state.Last.Code),
			"execDuration": strconv.FormatInt(int64(o.state.Last.Ran/time.Second), 10),
		})
	default:
		o.emit(action, nil)
	}
}

// tellVolumes publishes that the container's volumes are mounted, or are not any more.
func tellVolumes(o *owner, action events.Action) {
	for _, m := range o.rec.Load().Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		attrs := map[string]string{"container": o.id, "driver": m.Driver}
		if action == events.ActionMount {
			attrs["destination"], attrs["propagation"] = m.Destination, string(m.Propagation)
			attrs["read/write"] = strconv.FormatBool(m.RW)
		}
		o.s.deps.Bus.Emit(events.VolumeEventType, action, m.Name, attrs)
	}
}
