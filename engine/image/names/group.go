package names

import (
	"slices"
	"time"

	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Group is one image with all its names.
type Group struct {
	Target ocispec.Descriptor
	Names  []string  // database names, sorted
	Tagged time.Time // when a name was last set
}

// Groups returns all images, by ID.
func (s *Store) Groups() map[digest.Digest]*Group {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := map[digest.Digest]*Group{}
	for n, i := range s.names {
		g := all[i.Target.Digest]
		if g == nil {
			g = &Group{Target: i.Target}
			all[i.Target.Digest] = g
		}
		g.Names = append(g.Names, n)
		if i.UpdatedAt.After(g.Tagged) {
			g.Tagged = i.UpdatedAt
		}
	}
	for _, g := range all {
		g.Names = reference.Sort(g.Names)
	}
	return all
}

// Tags returns the familiar names that are tags.
func (g *Group) Tags() []string {
	tags := []string{}
	for _, n := range g.Names {
		if IsDangling(n) {
			continue
		}
		if ref, err := reference.ParseNormalizedNamed(n); err == nil {
			if _, ok := ref.(reference.Tagged); ok {
				tags = append(tags, reference.FamiliarString(ref))
			}
		}
	}
	return tags
}

// Dangling reports whether the image has no tag.
func (g *Group) Dangling() bool { return len(g.Tags()) == 0 }

// RepoDigests returns the image's repositories with its digest, each once.
func (g *Group) RepoDigests() []string {
	out := []string{}
	for _, n := range g.Names {
		if IsDangling(n) {
			continue
		}
		ref, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			continue
		}
		if d := reference.FamiliarName(ref) + "@" + g.Target.Digest.String(); !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}
