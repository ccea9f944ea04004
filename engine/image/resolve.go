package image

import (
	"context"
	"fmt"

	"github.com/containerd/platforms"
	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/engine/image/names"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// resolvedKey is a target and the platform asked for ("" for the default).
type resolvedKey struct {
	target   digest.Digest
	platform string
}

// resolved is an image that was read, and of which version its names are.
type resolved struct {
	Image
	version uint64
}

// Resolve finds an image for a platform, nil being the daemon's own. ref is a name, a
// name with digest, or an ID or the beginning of one. The error is of class NotFound,
// "No such image: …", when there is none, InvalidArgument when a beginning is
// ambiguous. The result is shared: it must not be changed.
func (s *Service) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (*Image, error) {
	f, err := s.names.Find(ref)
	if err != nil {
		return nil, err
	}
	return s.load(ctx, ref, f.Target, platform)
}

// load reads the image of a platform at target, from memory when it can.
func (s *Service) load(ctx context.Context, ref string, target ocispec.Descriptor, platform *ocispec.Platform) (*Image, error) {
	key := resolvedKey{target: target.Digest}
	if platform != nil {
		key.platform = platforms.FormatAll(platforms.Normalize(*platform))
	}
	version := s.names.Version()
	if r, ok := s.resolved.Get(key); ok && r.version == version {
		return &r.Image, nil
	}
	all, err := s.docs.Platforms(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("reading image %s: %w", ref, err)
	}
	img, err := s.pick(ref, target, all, platform)
	if err != nil {
		return nil, err
	}
	r := &resolved{Image: *img, version: version}
	s.resolved.Add(key, r)
	return &r.Image, nil
}

// pick chooses the platform's manifest, nil being the daemon's own platform: then any
// is better than none.
func (s *Service) pick(ref string, target ocispec.Descriptor, all []document.Platform, platform *ocispec.Platform) (*Image, error) {
	want := s.platform
	if platform != nil {
		want = platforms.Normalize(*platform)
	}
	best := document.Pick(all, want, platform != nil)
	if best == nil && platform != nil {
		return nil, errclass.NotFound("image with reference %s was found but does not provide the specified platform (%s)", ref, platforms.FormatAll(want))
	}
	if best == nil {
		return nil, names.ErrNoSuchImage(ref)
	}
	img := &Image{ID: target.Digest, Target: target, Manifest: best.Desc, Config: *best.Config, ConfigDesc: best.Manifest.Config}
	chains, err := manifest.ChainIDs(best.Manifest, best.Config)
	if err != nil {
		return nil, err
	}
	if len(chains) > 0 {
		img.Chain = string(chains[len(chains)-1])
	}
	for _, n := range s.names.Of(target.Digest) {
		if f := names.Familiar(n); f != "" {
			img.Names = append(img.Names, f)
		}
	}
	return img, nil
}
