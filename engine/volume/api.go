package volume

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/storage/tree"
	"github.com/moby/moby/api/types/events"
	volumetypes "github.com/moby/moby/api/types/volume"
)

// List tells the volumes that pass the filters, by name.
func (s *Service) List(_ context.Context, f filter.Args) ([]volumetypes.Volume, error) {
	if err := f.Check("dangling", "driver", "label", "name"); err != nil {
		return nil, err
	}
	var want *bool
	if len(f["dangling"]) > 0 {
		b, err := f.Bool("dangling", false)
		if err != nil {
			return nil, err
		}
		want = &b
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []volumetypes.Volume
	for _, v := range s.vols {
		if want != nil && *want != (len(v.users) == 0) ||
			!f.Any("driver", func(d string) bool { return d == Driver }) ||
			!f.Any("name", func(n string) bool { return strings.Contains(v.Name, n) }) ||
			!f.Labels("label", v.Labels) {
			continue
		}
		out = append(out, s.public(v))
	}
	slices.SortFunc(out, func(a, b volumetypes.Volume) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// Inspect tells one volume; class NotFound without.
func (s *Service) Inspect(_ context.Context, name string) (volumetypes.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(name)
	if err != nil {
		return volumetypes.Volume{}, err
	}
	return s.public(v), nil
}

// Remove deletes a volume: Conflict while a container uses it, NotFound without; force makes
// the latter no error.
func (s *Service) Remove(_ context.Context, name string, force bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(name)
	if err != nil {
		if force {
			return nil
		}
		return err
	}
	if users := v.usedBy(); len(users) > 0 {
		return errclass.Conflict("remove %s: volume is in use - [%s]", name, strings.Join(users, ", "))
	}
	return s.delete(v)
}

// Prune deletes what no container uses: anonymous volumes, with the filter all=true (or
// allDefault) named ones too.
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
	defer s.mu.Unlock()
	for _, v := range s.vols {
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		_, anonymous := v.Labels[Anonymous]
		if len(v.users) > 0 || !all && !anonymous || !f.Labels("label", v.Labels) {
			continue
		}
		used, _ := tree.Usage(ctx, int(s.dir.Fd()), v.Name+"/_data")
		if err := s.delete(v); err != nil {
			s.log.Warn("pruning a volume", "volume", v.Name, "error", err)
			continue
		}
		rep.VolumesDeleted = append(rep.VolumesDeleted, v.Name)
		rep.SpaceReclaimed += uint64(used.Size)
	}
	s.bus.Emit(events.VolumeEventType, events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(rep.SpaceReclaimed, 10)})
	return rep, nil
}
