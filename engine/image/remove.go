package image

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/engine/image/names"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/internal/id"
	"github.com/moby/moby/api/types/events"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// Tag gives an image another name. A name that another image has moves.
func (s *Service) Tag(ctx context.Context, ref, newRef string) error {
	named, err := reference.ParseNormalizedNamed(newRef)
	if err != nil {
		return errclass.Invalid("%v", err)
	}
	if _, ok := named.(reference.Digested); ok {
		return errclass.Invalid("refusing to create a tag with a digest reference")
	}
	if reference.FamiliarName(named) == string(digest.Canonical) {
		return errclass.Invalid("refusing to create an ambiguous tag using digest algorithm as name")
	}
	return s.names.Update(ctx, func(tx names.Tx) error {
		// Looked up while nothing changes: as long as it has a name it is not collected.
		f, err := s.names.Find(ref)
		if err != nil {
			return err
		}
		named = reference.TagNameOnly(named)
		if _, err := tx.Set(named.String(), f.Target); err != nil {
			return err
		}
		s.names.Emit(events.ActionTag, f.Target.Digest.String(), reference.FamiliarString(named))
		return nil
	})
}

// Remove removes a name, and the image with its last one. By ID an image with several
// names is removed only by force. Errors of class Conflict say, in Docker's words, what
// stands against it. Layers that containers use stay until those are gone.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) (gone []imagetypes.DeleteResponse, err error) {
	err = s.names.Update(ctx, func(tx names.Tx) error {
		gone, err = s.remove(tx, ref, &o)
		return err
	})
	return gone, err
}

// victim is an image that is to be removed, or one of its names.
type victim struct {
	names.Found
	all   []string // its names
	users []string // containers that hold it
}

func (s *Service) remove(tx names.Tx, ref string, o *RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	f, err := s.names.Find(ref)
	if err != nil {
		return nil, err
	}
	v := &victim{Found: f, all: s.names.Of(f.Target.Digest), users: s.store.Users(f.Target.Digest)}
	switch {
	case v.Name != "":
		return s.removeName(tx, v, o)
	case v.Repo != "":
		return s.removeDigestRef(tx, v, o)
	}
	if err := v.mayRemoveID(o); err != nil {
		return nil, err
	}
	return s.removeNames(tx, v.Target.Digest, v.all, true)
}

// mayRemoveID decides whether an image may be removed by its ID.
func (v *victim) mayRemoveID(o *RemoveOptions) error {
	short := id.Short(v.Target.Digest.String())
	for _, u := range v.users {
		if slices.Contains(o.Running, u) {
			return errclass.Conflict("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", short, id.Short(u))
		}
	}
	if o.Force {
		return nil
	}
	repos := map[string]bool{}
	for _, n := range v.all {
		if names.IsDangling(n) {
			continue
		}
		if r, err := reference.ParseNormalizedNamed(n); err == nil {
			repos[r.Name()] = true
			if _, tagged := r.(reference.Tagged); tagged {
				repos["tag "+n] = true
			}
		}
	}
	tags := 0
	for r := range repos {
		if strings.HasPrefix(r, "tag ") {
			tags++
		}
	}
	if tags > 1 || len(repos)-tags > 1 {
		return errclass.Conflict("conflict: unable to delete %s (must be forced) - image is referenced in multiple repositories", short)
	}
	for _, u := range v.users {
		return errclass.Conflict("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", short, id.Short(u))
	}
	return nil
}

// removeName removes one name.
func (s *Service) removeName(tx names.Tx, v *victim, o *RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	image := v.Target.Digest
	if len(v.all) > 1 {
		return s.removeNames(tx, image, []string{v.Name}, false)
	}
	if len(v.users) == 0 {
		return s.removeNames(tx, image, v.all, true)
	}
	if !o.Force {
		return nil, errclass.Conflict("conflict: unable to delete %s (must be forced) - container %s is using its referenced image %s",
			names.Familiar(v.Name), id.Short(v.users[0]), id.Short(image.String()))
	}
	// The image stays, without a name, for those who use it.
	if err := tx.Put(names.Dangling(image), v.Target); err != nil {
		return nil, err
	}
	return s.removeNames(tx, image, []string{v.Name}, false)
}

// removeDigestRef removes what "repo@digest" stands for: all names of that repository,
// when they are the only ones.
func (s *Service) removeDigestRef(tx names.Tx, v *victim, o *RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	var mine []string
	for _, n := range v.all {
		if r, err := reference.ParseNormalizedNamed(n); err == nil && r.Name() == v.Repo {
			mine = append(mine, n)
		}
	}
	if len(mine) == len(v.all) {
		if err := v.mayRemoveID(o); err != nil {
			return nil, err
		}
	}
	return s.removeNames(tx, v.Target.Digest, mine, len(mine) == len(v.all))
}

// removeNames deletes names; last says that the image goes with them.
func (s *Service) removeNames(tx names.Tx, image digest.Digest, list []string, last bool) ([]imagetypes.DeleteResponse, error) {
	out := []imagetypes.DeleteResponse{}
	for _, n := range list {
		if err := tx.Delete(n); err != nil {
			return out, err
		}
		if names.IsDangling(n) {
			continue
		}
		out = append(out, imagetypes.DeleteResponse{Untagged: names.Familiar(n)})
		s.names.Emit(events.ActionUnTag, image.String(), names.Familiar(n))
	}
	if last {
		out = append(out, imagetypes.DeleteResponse{Deleted: image.String()})
		s.names.Emit(events.ActionDelete, image.String(), image.String())
		s.store.Collect()
	}
	return out, nil
}

// Prune removes images nobody uses: without a name only, or with dangling=false all.
// Filters: dangling, label, until.
func (s *Service) Prune(ctx context.Context, f filter.Args) (imagetypes.PruneReport, error) {
	var report imagetypes.PruneReport
	if err := f.Check("dangling", "label", "label!", "until"); err != nil {
		return report, err
	}
	onlyDangling, err := f.Bool("dangling", true)
	if err != nil {
		return report, err
	}
	rest := filter.Args{}
	for k, v := range f {
		if k != "dangling" {
			rest[k] = v
		}
	}
	keep, err := s.filter(ctx, rest)
	if err != nil {
		return report, err
	}
	before, err := s.DiskUsage(ctx)
	if err != nil {
		return report, err
	}
	for image, g := range s.names.Groups() {
		if ctx.Err() != nil {
			break
		}
		if onlyDangling && !g.Dangling() || len(s.store.Users(image)) > 0 {
			continue
		}
		img, err := s.load(ctx, image.String(), g.Target, nil)
		if errdefs.IsNotFound(err) {
			img, err = &Image{ID: image}, nil
		}
		if err != nil {
			return report, err
		}
		if !keep(g, describe(img)) {
			continue
		}
		gone, err := s.pruneOne(ctx, image, g)
		report.ImagesDeleted = append(report.ImagesDeleted, gone...)
		if err != nil {
			return report, err
		}
	}
	if err := s.store.CollectNow(ctx); err != nil {
		return report, err
	}
	after, err := s.DiskUsage(ctx)
	if err != nil {
		return report, err
	}
	if before > after {
		report.SpaceReclaimed = uint64(before - after)
	}
	s.names.EmitWith(events.ActionPrune, "", map[string]string{"reclaimed": strconv.FormatUint(report.SpaceReclaimed, 10)})
	return report, nil
}

func (s *Service) pruneOne(ctx context.Context, image digest.Digest, g *names.Group) (gone []imagetypes.DeleteResponse, err error) {
	err = s.names.Update(ctx, func(tx names.Tx) error {
		// It may have got a name, or a container, since it was looked at.
		if !slices.Equal(s.names.Of(image), g.Names) || len(s.store.Users(image)) > 0 {
			return nil
		}
		gone, err = s.removeNames(tx, image, g.Names, true)
		return err
	})
	return gone, err
}
