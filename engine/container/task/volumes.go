package task

import (
	"errors"
	"strconv"

	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/event"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
)

// Releaser is what ends a container's use of volumes.
type Releaser interface {
	// Release ends the use; with remove the volume is removed when nobody else uses it.
	Release(name, container string, remove bool) error
}

// DropVolumes ends the container's use of its volumes, and removes the anonymous ones that
// nobody else uses when asked to.
func DropVolumes(vs Releaser, r *store.Record, remove bool) error {
	var errs []error
	for _, m := range r.Mounts {
		if m.Type == mount.TypeVolume && m.Name != "" {
			errs = append(errs, vs.Release(m.Name, r.ID, remove && m.Anonymous))
		}
	}
	return errors.Join(errs...)
}

// useVolumes tells of a restored container what it uses.
func (m *Manager) useVolumes(r *store.Record) {
	for _, p := range r.Mounts {
		if p.Type != mount.TypeVolume {
			continue
		}
		if err := m.Volumes.Use(p.Name, r.ID); err != nil {
			m.Log.Warn("a container's volume is gone", "container", r.ID, "volume", p.Name)
		}
	}
}

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
