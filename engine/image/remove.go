package image

import (
	"context"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
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
	// Looked up under the lock: as long as it has a name it is not collected.
	s.change.Lock()
	defer s.change.Unlock()
	f, err := s.find(ref)
	if err != nil {
		return err
	}
	named = reference.TagNameOnly(named)
	if _, err := s.setNameLocked(ctx, named.String(), f.target); err != nil {
		return err
	}
	s.emit(events.ActionTag, f.target.Digest.String(), reference.FamiliarString(named))
	return nil
}

// Remove removes a name, and the image with its last one. By ID an image with several
// names is removed only by force. Errors of class Conflict say, in Docker's words, what
// stands against it. Layers that containers use stay until those are gone.
func (s *Service) Remove(ctx context.Context, ref string, o RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	s.change.Lock()
	defer s.change.Unlock()
	f, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	names := s.namesOf(f.target.Digest)
	uses := s.uses(f.target.Digest)
	if f.name == "" && f.repo != "" {
		return s.removeDigestRef(ctx, f, names, uses, o)
	}
	if f.name != "" {
		return s.removeName(ctx, f, names, uses, o)
	}
	if err := mayRemoveID(f.target.Digest, names, uses, o.Force); err != nil {
		return nil, err
	}
	return s.removeNames(ctx, f.target.Digest, names, true)
}

// mayRemoveID decides whether an image may be removed by its ID.
func mayRemoveID(image digest.Digest, names []string, uses []Use, force bool) error {
	short := id.Short(image.String())
	for _, u := range uses {
		if u.Running {
			return errclass.Conflict("conflict: unable to delete %s (cannot be forced) - image is being used by running container %s", short, id.Short(u.ContainerID))
		}
	}
	if force {
		return nil
	}
	repos := map[string]bool{}
	for _, n := range names {
		if strings.HasPrefix(n, dangling) {
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
	for _, u := range uses {
		return errclass.Conflict("conflict: unable to delete %s (must be forced) - image is being used by stopped container %s", short, id.Short(u.ContainerID))
	}
	return nil
}

// removeName removes one name.
func (s *Service) removeName(ctx context.Context, f found, names []string, uses []Use, o RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	if len(names) > 1 {
		return s.removeNames(ctx, f.target.Digest, []string{f.name}, false)
	}
	if len(uses) == 0 {
		return s.removeNames(ctx, f.target.Digest, names, true)
	}
	if !o.Force {
		return nil, errclass.Conflict("conflict: unable to delete %s (must be forced) - container %s is using its referenced image %s",
			familiar(f.name), id.Short(uses[0].ContainerID), id.Short(f.target.Digest.String()))
	}
	// The image stays, without a name, for those who use it.
	if err := s.putName(ctx, dangling+string(f.target.Digest), f.target); err != nil {
		return nil, err
	}
	return s.removeNames(ctx, f.target.Digest, []string{f.name}, false)
}

// removeDigestRef removes what "repo@digest" stands for: all names of that repository,
// when they are the only ones.
func (s *Service) removeDigestRef(ctx context.Context, f found, names []string, uses []Use, o RemoveOptions) ([]imagetypes.DeleteResponse, error) {
	var mine []string
	for _, n := range names {
		if r, err := reference.ParseNormalizedNamed(n); err == nil && r.Name() == f.repo {
			mine = append(mine, n)
		}
	}
	if len(mine) == len(names) {
		if err := mayRemoveID(f.target.Digest, names, uses, o.Force); err != nil {
			return nil, err
		}
	}
	return s.removeNames(ctx, f.target.Digest, mine, len(mine) == len(names))
}

// removeNames deletes names; last says that the image goes with them.
func (s *Service) removeNames(ctx context.Context, image digest.Digest, names []string, last bool) ([]imagetypes.DeleteResponse, error) {
	out := []imagetypes.DeleteResponse{}
	for _, n := range names {
		if err := s.deleteName(ctx, n); err != nil {
			return out, err
		}
		if strings.HasPrefix(n, dangling) {
			continue
		}
		out = append(out, imagetypes.DeleteResponse{Untagged: familiar(n)})
		s.emit(events.ActionUnTag, image.String(), familiar(n))
	}
	if last {
		out = append(out, imagetypes.DeleteResponse{Deleted: image.String()})
		s.emit(events.ActionDelete, image.String(), image.String())
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
	for image, g := range s.groups() {
		if ctx.Err() != nil {
			break
		}
		if onlyDangling && !g.dangling() || len(s.uses(image)) > 0 {
			continue
		}
		img, err := s.load(ctx, image.String(), g.target, nil)
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
	if s.bus != nil {
		s.bus.Emit(events.ImageEventType, events.ActionPrune, "", map[string]string{"reclaimed": formatUint(report.SpaceReclaimed)})
	}
	return report, nil
}

func (s *Service) pruneOne(ctx context.Context, image digest.Digest, g *group) ([]imagetypes.DeleteResponse, error) {
	s.change.Lock()
	defer s.change.Unlock()
	// It may have got a name, or a container, since it was looked at.
	if names := s.namesOf(image); !slices.Equal(names, g.names) || len(s.uses(image)) > 0 {
		return nil, nil
	}
	return s.removeNames(ctx, image, g.names, true)
}
