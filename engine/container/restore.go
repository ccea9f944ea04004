package container

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// Restore reads all records, adopts what runs, finishes what ended meanwhile, takes
// back what was half done, and applies restart policies. It must be called once,
// before anything else.
func (s *Service) Restore(ctx context.Context) error {
	s.sweep(ctx)
	list, err := s.deps.Shim.List(ctx)
	if err != nil {
		return err
	}
	held := map[shim.Key]*shim.Status{}
	for i := range list {
		held[list[i].Key] = &list[i]
	}
	found, err := s.load(ctx, held)
	if err != nil {
		return err
	}
	var sandboxes []network.Record
	for _, f := range found {
		if f.o.state.Phase.Up() && f.o.run.sandbox != nil {
			rec := *f.o.run.sandbox
			rec.NetNS = func() (*os.File, error) { return f.o.namespace("net") }
			sandboxes = append(sandboxes, rec)
		}
	}
	if err := s.deps.Networks.Restore(ctx, sandboxes); err != nil {
		return err
	}
	for _, f := range found {
		if !f.o.state.Phase.Up() && f.undo {
			s.undoRun(ctx, f.o.id)
		}
		s.index.add(f.o)
		s.spawn(f.o)
	}
	s.dropStrangers(ctx, held)
	s.beside(s.listen)
	for _, f := range found {
		s.resume(f)
	}
	for _, f := range found {
		if f.ended != nil { // nobody shall see it running who asks from now on
			f.o.send(message{}) // received when the message before is handled
			awaitEnd(ctx, f.o)
		}
	}
	return nil
}

// restored is one container read back.
type restored struct {
	o     *owner
	undo  bool // a run record is there that no process belongs to
	ended *shim.Exit
	lost  bool
}

// load reads the records of all containers.
func (s *Service) load(ctx context.Context, held map[shim.Key]*shim.Status) ([]*restored, error) {
	entries, err := os.ReadDir(filepath.Join(s.cfg.DataRoot, "containers"))
	if err != nil {
		return nil, err
	}
	var found []*restored
	for _, e := range entries {
		if !id.Valid(e.Name()) {
			continue
		}
		r := &record{}
		err := readJSON(filepath.Join(s.dir(e.Name()), "config.json"), r, func() int { return r.Schema })
		if errdefs.IsNotFound(err) {
			s.undoCreate(ctx, e.Name())
			continue
		}
		if err != nil || r.ID != e.Name() || r.Config == nil || r.HostConfig == nil {
			s.log.Error("a container's record cannot be read; it is left alone", "container", e.Name(), "error", err)
			continue
		}
		if err := s.index.reserve(r.Name, r.ID); err != nil {
			s.log.Error("a container's name is taken; it is left alone", "container", r.ID, "name", r.Name)
			continue
		}
		useVolumes(s, r)
		found = append(found, s.loadState(ctx, r, held))
	}
	return found, nil
}

// loadState finds out where a container is in its life.
func (s *Service) loadState(ctx context.Context, r *record, held map[shim.Key]*shim.Status) *restored {
	st := fsm.State{Policy: policyOf(r.HostConfig), AutoRemove: r.HostConfig.AutoRemove}
	var started time.Time
	last := &lastRecord{}
	if err := readJSON(filepath.Join(s.dir(r.ID), "last.json"), last, func() int { return last.Schema }); err == nil {
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
	run, err := s.readRun(r.ID)
	f := &restored{undo: err == nil || !errdefs.IsNotFound(err)}
	var info *runInfo
	if err == nil {
		st.Run = max(st.Run, run.Run)
		info, started = s.adopt(ctx, r.ID, run, held, &st, f, started)
	} else if st.Phase == fsm.Exited && last.Running {
		st.Last.At = time.Now().UTC()
	}
	f.o = s.newOwner(r, st, info, started)
	return f
}

// adopt takes over the run of a run record, if its process is held by the shim or still
// runs without one.
func (s *Service) adopt(ctx context.Context, cid string, run *runRecord, held map[shim.Key]*shim.Status, st *fsm.State, f *restored, started time.Time) (*runInfo, time.Time) {
	key := shim.Key{Container: cid, Run: run.Run}
	status := held[key]
	if status == nil && run.Pid > 0 {
		if pidfd, err := shim.OpenRunning(run.Pid, run.StartTicks); err == nil {
			status = &shim.Status{Key: key, Started: shim.Started{
				Pid: run.Pid, StartTicks: run.StartTicks,
				Started: run.Started, Cgroup: run.Cgroup,
			}, Adopted: true, LostOutput: true}
			if err := s.deps.Shim.Adopt(ctx, *status, pidfd); err != nil {
				s.log.Error("adopting a container", "container", cid, "error", err)
			}
			pidfd.Close()
			held[key] = status
		}
	}
	if status == nil {
		if run.Pid > 0 { // it ran, and is gone without a trace
			st.Phase, st.Ran = fsm.Exited, true
			st.Last = fsm.Exit{Code: 255, Unknown: true, At: time.Now().UTC()}
			return nil, run.Started
		}
		return nil, started // a start that came to nothing
	}
	run.Pid, run.Started, run.Cgroup = status.Pid, status.Started.Started, status.Cgroup
	st.Phase, st.Ran, st.ManualStop, st.Error, st.Last = fsm.Running, true, false, "", fsm.Exit{}
	if status.Paused {
		st.Phase = fsm.Paused
	}
	f.ended, f.lost = status.Exit, status.LostOutput
	info := infoOf(run)
	info.lost = f.lost
	return info, run.Started
}

// resume lets a restored container go on.
func (s *Service) resume(f *restored) {
	o := f.o
	v := o.view.Load()
	switch {
	case v.Phase.Up():
		key := o.key(v.Run)
		o.streams.Lock()
		o.streams.live = &key
		o.streams.Unlock()
		if f.lost {
			s.log.Warn("output of a container was lost: daemon and shim were both dead", "container", o.id)
			o.emit(events.ActionUpdate, map[string]string{"outputLost": "true"})
		}
		if f.ended != nil { // told here, not beside: what Restore waits for has begun
			o.send(message{ev: fsm.HasExited{Run: v.Run, Exit: o.exitOf(f.ended)}})
		} else {
			o.send(message{}) // its health is watched from now on
		}
	case v.Phase == fsm.Created && v.AutoRemove && o.rec.Load().Created.Before(bootTime()):
		// Its start died with the machine; nobody waits for it any more.
		o.send(message{ev: fsm.Remove{Force: true}})
	default:
		o.send(message{ev: fsm.Boot{}})
	}
}

// undoCreate removes what a create that came to nothing left.
func (s *Service) undoCreate(ctx context.Context, cid string) {
	_ = os.Rename(s.dir(cid), s.removingDir(cid))
	if err := s.deps.Volumes.Abandon(cid); err != nil {
		s.log.Warn("undoing a half-made container", "container", cid, "error", err)
	}
	if err := s.removeRest(ctx, cid); err != nil {
		s.log.Warn("undoing a half-made container", "container", cid, "error", err)
	}
}

// undoRun gives back what a run without a process that anybody holds held. What it left in
// its cgroup is ended: a start that daemon and shim died in, or children of what has ended.
func (s *Service) undoRun(ctx context.Context, cid string) {
	if run, err := s.readRun(cid); err == nil && len(run.Cgroup.Paths) > 0 {
		err := oci.KillAll(run.Cgroup, unix.SIGKILL)
		if err == nil {
			err = oci.DeleteCgroup(run.Cgroup)
		}
		if err != nil {
			s.log.Warn("ending what a run left", "container", cid, "error", err)
		}
	}
	if err := s.deps.Networks.Release(ctx, cid); err != nil {
		s.log.Warn("releasing a container's network", "container", cid, "error", err)
	}
	if err := s.dropRun(cid); err != nil {
		s.log.Warn("removing a run's record", "container", cid, "error", err)
	}
}

// sweep finishes removals that a crash interrupted, and drops run records of
// containers that are gone.
func (s *Service) sweep(ctx context.Context) {
	entries, err := os.ReadDir(filepath.Join(s.cfg.DataRoot, "containers"))
	if err != nil {
		return
	}
	for _, e := range entries {
		if cid, ok := strings.CutPrefix(e.Name(), removing); ok && id.Valid(cid) {
			if err := s.removeRest(ctx, cid); err != nil {
				s.log.Warn("finishing a removal", "container", cid, "error", err)
			}
		}
	}
	runs, err := os.ReadDir(filepath.Join(s.cfg.ExecRoot, "containers"))
	if err != nil {
		return
	}
	for _, e := range runs {
		if _, err := os.Lstat(s.dir(e.Name())); errors.Is(err, os.ErrNotExist) && id.Valid(e.Name()) {
			s.undoRun(ctx, e.Name())
		}
	}
}

// dropStrangers ends what the shim holds of containers that no record knows, and
// forgets ends of runs that are over.
func (s *Service) dropStrangers(ctx context.Context, held map[shim.Key]*shim.Status) {
	for key, st := range held {
		o := s.index.byFullID(key.Container)
		known := o != nil && o.view.Load().Phase.Up() && o.view.Load().Run == key.Run
		if known && key.Exec != "" {
			s.execs.restore(o, st)
			if st.Exit == nil {
				endOldProbe(ctx, s, key)
			}
		}
		if known && (key.Exec == "" || st.Exit == nil) {
			continue
		}
		if st.Exit == nil {
			s.log.Warn("ending a process that no container knows", "container", key.Container, "run", key.Run)
			if err := s.deps.Shim.Signal(ctx, key, sigKill); err != nil {
				s.log.Warn("ending a process", "container", key.Container, "error", err)
			}
			continue // its exit comes as an event and is forgotten there
		}
		s.forget(key)
	}
}

// listen hands what the shim tells to the owners, until the service or the client is closed.
func (s *Service) listen() {
	ch := s.deps.Shim.Events()
	for {
		select {
		case <-s.closing:
			return
		case ev, ok := <-ch:
			if !ok {
				return
			}
			s.shimEvent(ev)
		}
	}
}

func (s *Service) shimEvent(ev shim.Event) {
	switch {
	case ev.Exit != nil:
		s.exited(ev.Exit)
	case ev.OOM != nil:
		if o := s.index.byFullID(ev.OOM.Container); o != nil {
			o.emit(events.ActionOOM, nil)
		}
	case ev.Detached != nil:
		s.detached(ev.Detached)
	default:
		s.beside(s.shimBack)
	}
}

func (s *Service) detached(d *shim.Detached) {
	o := s.index.byFullID(d.Key.Container)
	if o == nil || !d.Keys {
		return
	}
	if d.Key.Exec == "" {
		o.emit(events.ActionDetach, nil)
		return
	}
	if e, err := s.execs.get(d.Key.Exec); err == nil {
		e.emit(events.ActionExecDetach, false, nil)
	}
}

// exited hands an exit to its owner. It does not block on it: one busy owner must not
// hold up the exits of others.
func (s *Service) exited(e *shim.Exit) {
	if e.Key.Exec != "" {
		s.beside(func() { s.execExited(e) })
		return
	}
	o := s.index.byFullID(e.Key.Container)
	if o == nil || o.view.Load().Run != e.Key.Run {
		s.beside(func() { s.forget(e.Key) })
		return
	}
	s.beside(func() { o.send(message{ev: fsm.HasExited{Run: e.Key.Run, Exit: o.exitOf(e)}}) })
}

func (o *owner) exitOf(e *shim.Exit) fsm.Exit {
	x := fsm.Exit{Code: e.Code, OOM: e.OOMKilled, Unknown: e.Unknown, At: e.At.UTC()}
	if v := o.view.Load(); v.run != nil && v.run.number == e.Key.Run {
		x.Ran = e.At.Sub(v.run.started)
	}
	return x
}

// shimBack looks what the shim's successor holds.
func (s *Service) shimBack() {
	ctx, cancel := context.WithTimeout(context.Background(), effectTimeout)
	defer cancel()
	// Who ran before the question: a run that starts meanwhile is not in the answer.
	ran := map[*owner]uint64{}
	for _, o := range s.index.all() {
		if v := o.view.Load(); v.Phase.Up() {
			ran[o] = v.Run
		}
	}
	list, err := s.deps.Shim.List(ctx)
	if err != nil {
		s.log.Error("asking the new shim what it holds", "error", err)
		return
	}
	held := map[shim.Key]bool{}
	for _, st := range list {
		held[st.Key] = true
		if st.Exit != nil {
			s.exited(st.Exit)
		}
	}
	for o, run := range ran {
		o.send(message{ev: fsm.ShimBack{Run: run, Held: held[o.key(run)], At: time.Now().UTC()}})
	}
}
