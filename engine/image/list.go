package image

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/distribution/reference"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/engine/image/names"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/storage"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/opencontainers/go-digest"
)

// List returns a summary of each image that passes the filters, the newest first.
// Filters: dangling, reference, label, before, since, until.
func (s *Service) List(ctx context.Context, o ListOptions) ([]imagetypes.Summary, error) {
	keep, err := s.filter(ctx, o.Filters)
	if err != nil {
		return nil, err
	}
	out := []imagetypes.Summary{}
	err = s.store.View(ctx, func(ctx context.Context, state uint64) error {
		for id, g := range s.names.Groups() {
			sum, err := s.summary(ctx, state, g, keep, &o)
			if err != nil {
				return err
			}
			if sum != nil {
				sum.ID = id.String()
				out = append(out, *sum)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	if o.SharedSize {
		if err := s.sharedSizes(ctx, out); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b imagetypes.Summary) int {
		if a.Created != b.Created {
			return int(max(min(b.Created-a.Created, 1), -1))
		}
		return strings.Compare(a.ID, b.ID)
	})
	return out, nil
}

// summary is an image's row but for its ID; nil when it is not in the list.
func (s *Service) summary(ctx context.Context, state uint64, g *names.Group, keep func(*names.Group, *facts) bool, o *ListOptions) (*imagetypes.Summary, error) {
	f, err := s.factsOf(ctx, state, g.Target)
	if err != nil {
		// What has no readable platform cannot be shown.
		return nil, ctx.Err()
	}
	if !keep(g, f) {
		return nil, nil
	}
	d := g.Target
	sum := &imagetypes.Summary{
		Containers: -1, Labels: f.labels, SharedSize: -1, Size: f.size, Descriptor: &d,
		RepoTags: filterTags(g.Tags(), o.Filters), RepoDigests: filterTags(g.RepoDigests(), o.Filters),
	}
	if !f.created.IsZero() {
		sum.Created = f.created.Unix()
	}
	if o.SharedSize {
		sum.SharedSize = 0
	}
	if o.Manifests {
		if sum.Manifests, err = s.summaries(ctx, g.Target); err != nil {
			return nil, err
		}
	}
	return sum, nil
}

// filter compiles the filters of a list.
func (s *Service) filter(ctx context.Context, f filter.Args) (func(*names.Group, *facts) bool, error) {
	if err := f.Check("dangling", "reference", "label", "label!", "before", "since", "until"); err != nil {
		return nil, err
	}
	onlyDangling, err := f.Bool("dangling", false)
	if err != nil {
		return nil, err
	}
	_, hasDangling := f["dangling"]
	var before, since time.Time
	bound := func(key string, t *time.Time) error {
		for _, v := range f[key] {
			img, err := s.Resolve(ctx, v, nil)
			if err != nil {
				return err
			}
			if c := img.Config.Created; c != nil {
				*t = *c
			}
		}
		return nil
	}
	if err := bound("before", &before); err != nil {
		return nil, err
	}
	if err := bound("since", &since); err != nil {
		return nil, err
	}
	until, err := parseUntil(f["until"])
	if err != nil {
		return nil, err
	}
	for _, p := range f["reference"] {
		if _, err := path.Match(p, ""); err != nil {
			return nil, errclass.Invalid("invalid reference filter %q: %v", p, err)
		}
	}
	return func(g *names.Group, img *facts) bool {
		switch {
		case hasDangling && g.Dangling() != onlyDangling,
			!f.Labels("label", img.labels),
			!before.IsZero() && !img.created.Before(before),
			!since.IsZero() && !img.created.After(since),
			!until.IsZero() && !img.created.Before(until):
			return false
		}
		return len(f["reference"]) == 0 || len(filterTags(g.Tags(), f)) > 0
	}, nil
}

// filterTags keeps the names that the reference filter matches.
func filterTags(tags []string, f filter.Args) []string {
	if len(f["reference"]) == 0 {
		return tags
	}
	out := []string{}
	for _, t := range tags {
		ref, err := reference.ParseNormalizedNamed(t)
		if err != nil {
			continue
		}
		if f.Any("reference", func(p string) bool {
			ok, err := reference.FamiliarMatch(p, ref)
			return ok && err == nil
		}) {
			out = append(out, t)
		}
	}
	return out
}

// parseUntil reads a point in time: RFC 3339, a date, Unix seconds, or how long ago.
func parseUntil(values []string) (time.Time, error) {
	if len(values) == 0 {
		return time.Time{}, nil
	}
	if len(values) > 1 {
		return time.Time{}, errclass.Invalid("more than one until filter specified")
	}
	t, err := parseTime(values[0], time.Now())
	if err != nil {
		return time.Time{}, errclass.Invalid("invalid filter 'until': %v", err)
	}
	return t, nil
}

// sharedSizes fills in what of each image other images have, too.
func (s *Service) sharedSizes(ctx context.Context, sums []imagetypes.Summary) error {
	users := map[digest.Digest]int{}
	chainsOf := map[string][]digest.Digest{}
	for i := range sums {
		img, err := s.load(ctx, sums[i].ID, *sums[i].Descriptor, nil)
		if err != nil {
			return err
		}
		seen := map[digest.Digest]bool{}
		for _, d := range s.chain(ctx, digest.Digest(img.Chain)) {
			if !seen[d] {
				seen[d] = true
				users[d]++
				chainsOf[sums[i].ID] = append(chainsOf[sums[i].ID], d)
			}
		}
	}
	for i := range sums {
		for _, c := range chainsOf[sums[i].ID] {
			if users[c] < 2 {
				continue
			}
			if u, err := s.store.Snapshots.Usage(storage.Context(ctx), c.String()); err == nil {
				sums[i].SharedSize += u.Size
			}
		}
	}
	return nil
}

// chain lists a snapshot and those below it.
func (s *Service) chain(ctx context.Context, top digest.Digest) []digest.Digest {
	var all []digest.Digest
	for top != "" && len(all) <= manifest.MaxLayers {
		info, err := s.store.Snapshots.Stat(storage.Context(ctx), top.String())
		if err != nil {
			return all
		}
		all = append(all, top)
		top = digest.Digest(info.Parent)
	}
	return all
}
