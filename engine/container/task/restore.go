package task

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// Restore reads all records, adopts what runs, finishes what ended meanwhile, takes
// back what was half done, and applies restart policies. It must be called once,
// before anything else.
func (m *Manager) Restore(ctx context.Context) error {
	m.sweep(ctx)
	list, err := m.Shim.List(ctx)
	if err != nil {
		return err
	}
	held := map[shim.Key]*shim.Status{}
	for i := range list {
		held[list[i].Key] = &list[i]
	}
	found, err := m.load(ctx, held)
	if err != nil {
		return err
	}
	var sandboxes []network.Record
	for _, f := range found {
		if f.t.state.Phase.Up() && f.t.current.Sandbox != nil {
			rec := *f.t.current.Sandbox
			rec.NetNS = func() (*os.File, error) { return f.t.c.Namespace("net") }
			sandboxes = append(sandboxes, rec)
		}
	}
	if err := m.Networks.Restore(ctx, sandboxes); err != nil {
		return err
	}
	m.restoreVolumes(found)
	for _, f := range found {
		if !f.t.state.Phase.Up() && f.undo {
			m.undoRun(ctx, f.t.c.ID)
		}
		m.run(f.t)
	}
	m.dropStrangers(ctx, held)
	m.Scope.Go(m.listen)
	for _, f := range found {
		m.resume(f)
	}
	for _, f := range found {
		if f.ended != nil { // an exit is reported only after teardown completes: wait for that
			f.t.send(message{}) // received when the message before is handled
			f.t.c.AwaitEnd(ctx)
		}
	}
	return nil
}

// restoreVolumes has unmounted what containers that do not run any more had mounted. It goes on
// beside: a plugin may be slow, or not there yet.
func (m *Manager) restoreVolumes(found []*restored) {
	running := map[string]bool{}
	for _, f := range found {
		if f.t.state.Phase.Up() {
			running[f.t.c.ID] = true
		}
	}
	m.Scope.Go(func() {
		ctx, cancel := m.Scope.Timeout(effectTimeout)
		defer cancel()
		m.Volumes.Restore(ctx, running)
	})
}

// restored is one container read back.
type restored struct {
	t     *Task
	undo  bool // a run record is there that no process belongs to
	ended *shim.Exit
}

// load reads the records of all containers.
func (m *Manager) load(ctx context.Context, held map[shim.Key]*shim.Status) ([]*restored, error) {
	ids, err := m.Files.All()
	if err != nil {
		return nil, err
	}
	var found []*restored
	for _, cid := range ids {
		r, err := m.Files.Record(cid)
		if errdefs.IsNotFound(err) {
			m.undoCreate(ctx, cid)
			continue
		}
		if err != nil {
			m.Log.Error("a container's record cannot be read; it is left alone", "container", cid, "error", err)
			continue
		}
		if err := m.Index.Reserve(r.Name, r.ID); err != nil {
			m.Log.Error("a container's name is taken; it is left alone", "container", r.ID, "name", r.Name)
			continue
		}
		if gone := mounts.UseVolumes(m.Volumes, r.ID, r.Mounts); len(gone) > 0 {
			m.Log.Warn("a container's volumes are gone", "container", r.ID, "volumes", gone)
		}
		found = append(found, m.loadState(ctx, r, held))
	}
	return found, nil
}

// firstState is the state of a container that never ran.
func firstState(r *store.Record) fsm.State {
	h := r.HostConfig
	st := fsm.State{AutoRemove: h.AutoRemove, Policy: fsm.Policy{Max: h.RestartPolicy.MaximumRetryCount}}
	switch h.RestartPolicy.Name {
	case container.RestartPolicyAlways:
		st.Policy.Mode = fsm.Always
	case container.RestartPolicyOnFailure:
		st.Policy.Mode = fsm.OnFailure
	case container.RestartPolicyUnlessStopped:
		st.Policy.Mode = fsm.UnlessStopped
	}
	return st
}

// loadState finds out where a container is in its life.
func (m *Manager) loadState(ctx context.Context, r *store.Record, held map[shim.Key]*shim.Status) *restored {
	st := firstState(r)
	var started time.Time
	last, err := m.Files.Last(r.ID)
	if err == nil {
		st.Run, st.Ran, st.ManualStop, st.Restarts, st.Error = last.Run, last.Ran, last.ManualStop, last.Restarts, last.Error
		st.Last = fsm.Exit{Code: last.Code, OOM: last.OOM, At: last.Finished}
		started = last.Started
		switch {
		case last.Dead:
			st.Phase = fsm.Dead
		case last.Running: // nobody recorded the end: the machine went down
			st.Phase, st.Last = fsm.Exited, fsm.Exit{Code: 255, Unknown: true, At: time.Now().UTC()}
		case last.Ran:
			st.Phase = fsm.Exited
		}
	}
	run, err := m.Files.Run(r.ID)
	f := &restored{undo: err == nil || !errdefs.IsNotFound(err)}
	var current *store.Run
	if err == nil {
		st.Run = max(st.Run, run.Number)
		current, started = m.adopt(ctx, r.ID, run, last, held, &st, f, started)
	} else if st.Phase == fsm.Exited && last.Running {
		st.Last.At = time.Now().UTC()
	}
	f.t = m.newTask(r, st, current, started)
	return f
}

// adopt takes over the run of a run record, if its process is held by the shim or still
// runs without one.
func (m *Manager) adopt(ctx context.Context, cid string, run *store.Run, last *store.Last, held map[shim.Key]*shim.Status, st *fsm.State, f *restored, started time.Time) (*store.Run, time.Time) {
	key := shim.Key{Container: cid, Run: run.Number}
	status := held[key]
	if status == nil && run.Pid > 0 {
		if pidfd, err := shim.OpenRunning(run.Pid, run.StartTicks); err == nil {
			status = &shim.Status{Key: key, Started: shim.Started{
				Pid: run.Pid, StartTicks: run.StartTicks,
				Started: run.Started, Cgroup: run.Cgroup, Runtime: run.Runtime,
			}, Adopted: true, LostOutput: true}
			if err := m.Shim.Adopt(ctx, *status, pidfd); err != nil {
				m.Log.Error("adopting a container", "container", cid, "error", err)
			}
			pidfd.Close()
			held[key] = status
		}
	}
	if status == nil {
		if last.Run == run.Number && last.Ran && !last.Running {
			return nil, started // its exit is on record, and the shim was told so: the teardown was cut off
		}
		if run.Pid > 0 { // it ran, and is gone without a trace
			st.Phase, st.Ran = fsm.Exited, true
			st.Last = fsm.Exit{Code: 255, Unknown: true, At: time.Now().UTC()}
			return nil, run.Started
		}
		return nil, started // a start that came to nothing
	}
	run.Phase, run.Pid, run.StartTicks = "running", status.Pid, status.StartTicks
	run.Started, run.Cgroup, run.Lost = status.Started.Started, status.Cgroup, status.LostOutput
	st.Phase, st.Ran, st.ManualStop, st.Error, st.Last = fsm.Running, true, false, "", fsm.Exit{}
	if status.Paused {
		st.Phase = fsm.Paused
	}
	f.ended = status.Exit
	return run, run.Started
}

// resume lets a restored container go on.
func (m *Manager) resume(f *restored) {
	t := f.t
	v := t.c.View()
	switch {
	case v.Phase.Up():
		t.clients.Begin(v.Run)
		if v.Current.Lost {
			m.Log.Warn("output of a container was lost: daemon and shim were both dead", "container", t.c.ID)
			t.c.Emit(m.Bus, events.ActionUpdate, map[string]string{"outputLost": "true"})
		}
		if f.ended != nil { // told here, not beside: what Restore waits for has begun
			t.send(message{ev: fsm.HasExited{Run: v.Run, Exit: exitOf(t.c, f.ended)}})
		} else {
			t.send(message{}) // its health is watched from now on
		}
	case v.Phase == fsm.Created && v.AutoRemove && t.c.Record().Created.Before(bootTime()):
		// Its start died with the machine; nobody waits for it any more.
		t.send(message{ev: fsm.Remove{Force: true}})
	default:
		t.send(message{ev: fsm.Boot{}})
	}
}

// bootTime is when the machine came up; the zero time when that cannot be told.
func bootTime() time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}

// undoCreate removes what a create that came to nothing left.
func (m *Manager) undoCreate(ctx context.Context, cid string) {
	err := errors.Join(m.Files.BeginRemoval(cid, false), m.Volumes.Abandon(ctx, cid), m.removeRest(ctx, cid))
	if err != nil {
		m.Log.Warn("undoing a half-made container", "container", cid, "error", err)
	}
}

// undoRun gives back what a run without a process that anybody holds held. What it left in
// its cgroup is ended: a start that daemon and shim died in, or children of what has ended.
func (m *Manager) undoRun(ctx context.Context, cid string) {
	if run, err := m.Files.Run(cid); err == nil && len(run.Cgroup.Paths) > 0 {
		err := oci.KillAll(run.Cgroup, unix.SIGKILL)
		if err == nil {
			err = oci.DeleteCgroup(run.Cgroup)
		}
		if err != nil {
			m.Log.Warn("ending what a run left", "container", cid, "error", err)
		}
	}
	if err := m.Networks.Release(ctx, cid); err != nil {
		m.Log.Warn("releasing a container's network", "container", cid, "error", err)
	}
	if err := m.Files.DropRun(cid); err != nil {
		m.Log.Warn("removing a run's record", "container", cid, "error", err)
	}
}

// sweep finishes removals that a crash interrupted, and drops run records of
// containers that are gone.
func (m *Manager) sweep(ctx context.Context) {
	begun, err := m.Files.Removing()
	if err != nil {
		m.Log.Warn("looking for interrupted removals", "error", err)
	}
	for _, cid := range begun {
		if err := m.removeRest(ctx, cid); err != nil {
			m.Log.Warn("finishing a removal", "container", cid, "error", err)
		}
	}
	runs, err := m.Files.Runs()
	if err != nil {
		m.Log.Warn("looking for runs of containers that are gone", "error", err)
	}
	for _, cid := range runs {
		if !m.Files.Exists(cid) {
			m.undoRun(ctx, cid)
		}
	}
}

// dropStrangers ends what the shim holds of containers that no record knows, and
// forgets ends of runs that are over.
func (m *Manager) dropStrangers(ctx context.Context, held map[shim.Key]*shim.Status) {
	for key, st := range held {
		c := m.Index.ByID(key.Container)
		known := c != nil && c.View().Phase.Up() && c.View().Run == key.Run
		if known && key.Exec != "" {
			m.Execs.Restore(ctx, c, st)
		}
		if known && (key.Exec == "" || st.Exit == nil) {
			continue
		}
		if st.Exit == nil {
			m.Log.Warn("ending a process that no container knows", "container", key.Container, "run", key.Run)
			if err := m.Shim.Signal(ctx, key, sigKill); err != nil {
				m.Log.Warn("ending a process", "container", key.Container, "error", err)
			}
			continue // its exit comes as an event and is forgotten there
		}
		m.forget(key)
	}
}
