package task

import (
	"context"
	"fmt"
	"slices"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/events"
)

// keepRecord changes a copy of the container's record, writes it and publishes it.
func (t *Task) keepRecord(edit func(*store.Record)) error {
	r := *t.c.Record()
	edit(&r)
	if err := t.m.Files.SaveRecord(&r); err != nil {
		return err
	}
	t.c.SetRecord(&r)
	return nil
}

// allocating begins Docker's message about a new name that is refused.
const allocating = "Error when allocating new name: %w"

// keepSources records where a run has its volumes, when a driver has mounted them elsewhere than
// before.
func (t *Task) keepSources(points []mounts.Point) {
	now := t.c.Record().Mounts
	if slices.EqualFunc(now, points, func(a, b mounts.Point) bool { return a.Source == b.Source }) {
		return
	}
	if err := t.keepRecord(func(r *store.Record) { r.Mounts = points }); err != nil {
		t.m.Log.Warn("recording where volumes are", "container", t.c.ID, "error", err)
	}
}

// Rename gives the container another name, which is a valid one without a slash; fsm.ErrGone
// when the container is gone.
func (t *Task) Rename(ctx context.Context, name string) error {
	return t.call(ctx, func() error { return t.rename(name) })
}

func (t *Task) rename(name string) error {
	old := t.c.Name()
	if old == name {
		return errclass.Invalid("Renaming a container with the same name as its current name")
	}
	if t.state.Phase == fsm.Removing || t.state.Phase == fsm.Removed {
		return errclass.Conflict("container %s is marked for removal and cannot be renamed", t.c.ID)
	}
	if err := t.m.Index.Reserve(name, t.c.ID); err != nil {
		return fmt.Errorf(allocating, err)
	}
	if err := t.keepRecord(func(r *store.Record) { r.Name = name }); err != nil {
		t.m.Index.Release(name, t.c.ID)
		return err
	}
	t.m.Index.Release(old, t.c.ID)
	t.c.Emit(t.m.Bus, events.ActionRename, map[string]string{"oldName": "/" + old})
	return nil
}

// editFile changes a file of the container's in place: it is mounted there. What cannot
// be changed stays as it was.
func (t *Task) editFile(name string, edit func([]byte) []byte) {
	if err := t.m.Files.EditHostFile(t.c.ID, name, edit); err != nil {
		t.m.Log.Warn("changing a container's file", "container", t.c.ID, "file", name, "error", err)
	}
}
