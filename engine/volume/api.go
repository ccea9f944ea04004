package volume

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/volume/driver"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/storage/tree"
	"github.com/moby/moby/api/types/events"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// Create makes a volume; an existing one of that name is returned as it is. Without a name
// it gets an ID and is anonymous. Errors: InvalidArgument, NotFound for a driver that is not
// there, Conflict for a volume of another driver, or the driver's.
func (s *Service) Create(ctx context.Context, r volumetypes.CreateRequest) (volumetypes.Volume, error) {
	name := nameOf(r)
	defer s.names.lock(name)()
	v, err := s.ensure(ctx, name, r, "")
	if err != nil {
		return volumetypes.Volume{}, err
	}
	return s.tell(ctx, v)
}

// tell describes a volume that is known, as its driver does.
func (s *Service) tell(ctx context.Context, v *vol) (volumetypes.Volume, error) {
	d, err := s.driver(ctx, v.driver())
	if err != nil {
		return volumetypes.Volume{}, fmt.Errorf("get %s: %w", v.Name, err)
	}
	if s.isBuiltin(v.driver()) { // the record tells that it is there
		path, err := d.Path(ctx, v.Name)
		return public(d.Describe(ctx), driver.Volume{Name: v.Name, Path: path}, &v.record), err
	}
	got, err := d.Get(ctx, v.Name)
	if errdefs.IsNotFound(err) {
		return volumetypes.Volume{}, errclass.NotFound("get %s: no such volume", v.Name)
	}
	if err != nil {
		return volumetypes.Volume{}, fmt.Errorf("get %s: error while checking if volume %q exists in driver %q: %w", v.Name, v.Name, v.driver(), err)
	}
	return public(d.Describe(ctx), got, &v.record), nil
}

// public is a volume in the API's words; rec is nil for one that only its driver knows.
func public(desc driver.Description, got driver.Volume, rec *record) volumetypes.Volume {
	out := volumetypes.Volume{Name: got.Name, Driver: desc.Name, Mountpoint: got.Path, Scope: desc.Scope, Status: got.Status}
	created := got.Created
	if rec != nil {
		if created.IsZero() && desc.OwnsData {
			created = rec.Created
		}
		if len(rec.Labels) > 0 {
			out.Labels = maps.Clone(rec.Labels)
		}
		out.Options = maps.Clone(rec.Options)
	}
	if !created.IsZero() {
		out.CreatedAt = created.Local().Format(time.RFC3339)
	}
	return out
}

// found is a volume in a list.
type found struct {
	volumetypes.Volume
	labels map[string]string
	users  int
}

// List tells the volumes that pass the filters, by name, and what drivers could not be asked.
func (s *Service) List(ctx context.Context, f filter.Args) (list []volumetypes.Volume, warnings []string, err error) {
	if err := f.Check("dangling", "driver", "label", "name"); err != nil {
		return nil, nil, err
	}
	var want *bool
	if len(f["dangling"]) > 0 {
		b, err := f.Bool("dangling", false)
		if err != nil {
			return nil, nil, err
		}
		want = &b
	}
	all, warnings := s.all(ctx, func(name string) bool { return f.Any("driver", func(d string) bool { return d == name }) })
	for _, v := range all {
		if want != nil && *want != (v.users == 0) ||
			!f.Any("name", func(n string) bool { return strings.Contains(v.Name, n) }) ||
			!f.Labels("label", v.labels) {
			continue
		}
		v.Status = nil
		list = append(list, v.Volume)
	}
	slices.SortFunc(list, func(a, b volumetypes.Volume) int { return strings.Compare(a.Name, b.Name) })
	return list, warnings, nil
}

// all are the volumes of the drivers that are wanted. Those of a driver that is built in are the
// recorded ones; others are asked, side by side, and when one does not answer what is recorded
// of it counts.
func (s *Service) all(ctx context.Context, want func(driver string) bool) (list []found, warnings []string) {
	of := map[string][]*vol{}
	for _, n := range s.others() {
		of[n] = nil
	}
	s.mu.Lock()
	for _, v := range s.vols {
		of[v.driver()] = append(of[v.driver()], v)
	}
	s.mu.Unlock()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for name, known := range of {
		if !want(name) {
			continue
		}
		wg.Go(func() {
			got, err := s.ofDriver(ctx, name, known)
			mu.Lock()
			defer mu.Unlock()
			list = append(list, got...)
			if err != nil && (!errdefs.IsNotFound(err) || len(known) > 0) { // else a plugin of another kind
				warnings = append(warnings, fmt.Sprintf("list %s: %v", name, err))
			}
		})
	}
	wg.Wait()
	slices.Sort(warnings)
	return list, warnings
}

// ofDriver lists the volumes of one driver; with an error, what is recorded of them.
func (s *Service) ofDriver(ctx context.Context, name string, known []*vol) ([]found, error) {
	recorded := map[string]*vol{}
	for _, v := range known {
		recorded[v.Name] = v
	}
	desc := driver.Description{Name: name, Scope: driver.ScopeLocal}
	d, err := s.driver(ctx, name)
	var vols []driver.Volume
	switch {
	case err != nil:
	case s.isBuiltin(name):
		desc = d.Describe(ctx)
		for _, v := range known {
			path, err := d.Path(ctx, v.Name)
			if err != nil {
				return nil, err
			}
			vols = append(vols, driver.Volume{Name: v.Name, Path: path})
		}
	default:
		if vols, err = d.List(ctx); err == nil && len(vols) > 0 {
			desc = d.Describe(ctx)
		}
	}
	if err != nil {
		for _, v := range known {
			vols = append(vols, driver.Volume{Name: v.Name})
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []found
	for _, got := range vols {
		f := found{}
		v := recorded[got.Name]
		if v == nil {
			if other := s.vols[got.Name]; other != nil && other.driver() != name {
				continue // the name is taken here
			}
			f.Volume = public(desc, got, nil)
		} else {
			f.Volume, f.labels, f.users = public(desc, got, &v.record), v.Labels, len(v.users)
		}
		out = append(out, f)
	}
	return out, err
}

// Inspect tells one volume; class NotFound without.
func (s *Service) Inspect(ctx context.Context, name string) (volumetypes.Volume, error) {
	v, err := s.get(name)
	if err == nil {
		return s.tell(ctx, v)
	}
	if other := s.whoHas(ctx, name); other != "" {
		return s.tell(ctx, newVol(record{Name: name, Driver: other}))
	}
	return volumetypes.Volume{}, err
}

// Remove deletes a volume: Conflict while a container uses it, NotFound without; force makes
// the latter no error, and forgets a volume whose driver is gone or fails.
func (s *Service) Remove(ctx context.Context, name string, force bool) error {
	defer s.names.lock(name)()
	v, err := s.get(name)
	if err != nil {
		if other := s.whoHas(ctx, name); other != "" {
			return s.delete(ctx, newVol(record{Name: name, Driver: other}))
		}
		if force {
			return nil
		}
		return err
	}
	if users := s.usedBy(v); len(users) > 0 {
		return errclass.Conflict("remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	err = s.delete(ctx, v)
	if err == nil || !force || s.isBuiltin(v.driver()) {
		return err
	}
	if ferr := s.forget(v); ferr != nil || errdefs.IsNotFound(err) {
		return ferr
	}
	return err
}

// Prune deletes what no container uses of drivers whose data is ours: anonymous volumes, with the
// filter all=true (or allDefault) named ones too.
func (s *Service) Prune(ctx context.Context, f filter.Args, allDefault bool) (volumetypes.PruneReport, error) {
	rep := volumetypes.PruneReport{VolumesDeleted: []string{}}
	if err := f.Check("label", "label!", "all"); err != nil {
		return rep, err
	}
	all, err := f.Bool("all", allDefault)
	if err != nil {
		return rep, err
	}
	s.mu.Lock()
	var names []string
	for n, v := range s.vols {
		if _, anonymous := v.Labels[Anonymous]; all || anonymous {
			names = append(names, n)
		}
	}
	s.mu.Unlock()
	for _, n := range names {
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		freed, done := s.prune(ctx, n, f)
		if done {
			rep.VolumesDeleted = append(rep.VolumesDeleted, n)
			rep.SpaceReclaimed += freed
		}
	}
	s.bus.Emit(events.VolumeEventType, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(rep.SpaceReclaimed, 10)})
	return rep, nil
}

// prune deletes one volume, if it passes, and tells what that freed.
func (s *Service) prune(ctx context.Context, name string, f filter.Args) (freed uint64, done bool) {
	defer s.names.lock(name)()
	v, err := s.get(name)
	if err != nil || len(s.usedBy(v)) > 0 || !f.Labels("label", v.Labels) || !s.isBuiltin(v.driver()) {
		return 0, false
	}
	d, err := s.driver(ctx, v.driver())
	if err != nil || !d.Describe(ctx).OwnsData {
		return 0, false
	}
	if path, err := d.Path(ctx, name); err == nil {
		if used, err := tree.Usage(ctx, unix.AT_FDCWD, path); err == nil {
			freed = uint64(used.Size)
		}
	}
	if err := s.delete(ctx, v); err != nil {
		s.log.Warn("pruning a volume", "volume", name, "error", err)
		return 0, false
	}
	return freed, true
}
