package task

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/moby/moby/api/types/events"
)

// releaseTimeout bounds how long giving back a run's network may take.
const releaseTimeout = 20 * time.Second

// tearDown releases what a run held. A failure is logged and left to Restore; when the daemon ends
// meanwhile, everything is.
func (t *Task) tearDown(ctx context.Context, run uint64) {
	t.clients.End()
	t.m.Execs.End(t.c.ID, run)
	t.forget(run)
	ctx, cancel := context.WithTimeout(ctx, releaseTimeout)
	defer cancel()
	err := t.m.Networks.Release(ctx, t.c.ID)
	if t.m.Scope.Closed() && err != nil {
		return
	}
	if err != nil {
		t.m.Log.Warn("releasing a container's network", "container", t.c.ID, "error", err)
	}
	r := t.c.Record()
	if err := mounts.UnmountVolumes(ctx, t.m.Volumes, t.c.ID, r.Mounts); err != nil {
		t.m.Log.Warn("unmounting a container's volumes", "container", t.c.ID, "error", err)
	}
	tellVolumes(t.m.Bus, r, events.ActionUnmount)
	if r.HostConfig.AutoRemove {
		return // removal drops the run's record: until then it tells that there was one
	}
	if err := t.m.Files.DropRun(t.c.ID); err != nil {
		t.m.Log.Warn("removing a run's record", "container", t.c.ID, "error", err)
	}
}

// forget lets the shim drop a run that ended. Its tidying (cgroup) waits for the kernel:
// it goes on beside, and the next start or the removal waits for it.
func (t *Task) forget(run uint64) {
	done := make(chan struct{})
	t.letGo.Store(&done)
	t.m.Scope.Go(func() {
		defer close(done)
		t.m.forget(t.c.Key(run))
	})
}

// awaitForgotten waits until the shim has let go of the run before.
func (t *Task) awaitForgotten(ctx context.Context) {
	done := t.letGo.Load()
	if done == nil {
		return
	}
	select {
	case <-*done:
	case <-ctx.Done():
	}
}

// remove deletes everything of the container. It can be repeated.
//
// Nobody asks what became of the files of a container that removes itself, and its client waits for the end: name,
// addresses, volumes and image are free when remove returns, and files and cgroup follow beside.
func (t *Task) remove(ctx context.Context) error {
	m, cid, r := t.m, t.c.ID, t.c.Record()
	beside := r.HostConfig.AutoRemove
	if !beside {
		t.awaitForgotten(ctx)
	}
	t.clients.Drop()
	if err := m.Networks.Release(ctx, cid); err != nil {
		return err
	}
	volumes := (r.HostConfig.AutoRemove || t.withVolumes.Load()) && slices.ContainsFunc(r.Mounts, func(p mounts.Point) bool { return p.Anonymous })
	if err := m.Files.BeginRemoval(cid, volumes); err != nil {
		return err
	}
	err := m.release(ctx, r, volumes)
	if err == nil && !beside {
		err = m.removeFiles(cid)
	}
	if err != nil {
		if !m.Scope.Closed() { // else the next daemon finishes it
			m.Files.UndoRemoval(cid) // it stays, as dead; a start that finds neither forgets it
		}
		return err
	}
	if beside {
		m.Scope.Go(t.removeFiles)
	}
	m.drop(t.c)
	return nil
}

// removeFiles is the rest of a removal that has happened; what it leaves the next daemon removes.
func (t *Task) removeFiles() {
	ctx, cancel := t.m.Scope.Timeout(effectTimeout)
	defer cancel()
	t.awaitForgotten(ctx)
	if t.m.Scope.Closed() {
		return
	}
	if err := t.m.removeFiles(t.c.ID); err != nil {
		t.m.Log.Warn("removing a container's files", "container", t.c.ID, "error", err)
	}
}

// removeRest removes what a container has outside the directory that BeginRemoval marked, then
// that.
func (m *Manager) removeRest(ctx context.Context, cid string) error {
	// It works on what stands in the marked directory, so that a crash in the middle changes
	// nothing.
	r, volumes, err := m.Files.Removed(cid)
	if err != nil { // half made
		r, volumes = &store.Record{ID: cid}, false
	}
	if err := m.release(ctx, r, volumes); err != nil {
		return err
	}
	return m.removeFiles(cid)
}

// release ends the use of image and volumes; volumes says that the anonymous ones go too.
func (m *Manager) release(ctx context.Context, r *store.Record, volumes bool) error {
	if err := m.Images.Release(ctx, r.ID); err != nil {
		return err
	}
	return mounts.DropVolumes(ctx, m.Volumes, r.ID, r.Mounts, volumes)
}

// removeFiles removes a container's layer, the record of its run and the directory that BeginRemoval marked.
func (m *Manager) removeFiles(cid string) error {
	if err := m.Layers.Remove(cid); err != nil {
		return err
	}
	return m.Files.FinishRemoval(cid)
}

// prefixed puts words before an error, which keeps its class.
func prefixed(words string, err error) error { return fmt.Errorf("%s%w", words, err) }
