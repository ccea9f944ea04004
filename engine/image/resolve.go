package image

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// found is what a reference of the user's led to.
type found struct {
	target ocispec.Descriptor
	name   string // the database name that matched; "" when found by ID
	repo   string // set when found as repo@digest: the repository's full name
}

// Resolve finds an image for a platform, nil being the daemon's own. ref is a name, a
// name with digest, or an ID or the beginning of one. The error is of class NotFound,
// "No such image: …", when there is none, InvalidArgument when a beginning is
// ambiguous. The result is shared: it must not be changed.
func (s *Service) Resolve(ctx context.Context, ref string, platform *ocispec.Platform) (*Image, error) {
	f, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	return s.load(ctx, ref, f.target, platform)
}

// load reads the image of a platform at target, from memory when it can.
func (s *Service) load(ctx context.Context, ref string, target ocispec.Descriptor, platform *ocispec.Platform) (*Image, error) {
	key := cacheKey{target: target.Digest}
	if platform != nil {
		key.platform = platforms.FormatAll(platforms.Normalize(*platform))
	}
	if img := s.cache.get(key); img != nil {
		return img, nil
	}
	img, err := s.read(ctx, ref, target, platform)
	if err != nil {
		return nil, err
	}
	s.cache.put(key, img)
	return img, nil
}

func (s *Service) read(ctx context.Context, ref string, target ocispec.Descriptor, platform *ocispec.Platform) (*Image, error) {
	mans, err := s.manifests(ctx, target)
	if err != nil {
		return nil, fmt.Errorf("reading image %s: %w", ref, err)
	}
	return s.pick(ref, target, mans, platform)
}

// pick chooses the platform's manifest, nil being the daemon's own platform: then any
// is better than none.
func (s *Service) pick(ref string, target ocispec.Descriptor, mans []platformManifest, platform *ocispec.Platform) (*Image, error) {
	want := s.platform
	if platform != nil {
		want = platforms.Normalize(*platform)
	}
	match := platforms.Only(want)
	var best *platformManifest
	for i := range mans {
		m := &mans[i]
		if m.config == nil {
			continue
		}
		switch fits := match.Match(m.platform); {
		case !fits && platform != nil:
		case best == nil, fits && !match.Match(best.platform), fits && match.Less(m.platform, best.platform):
			best = m
		}
	}
	if best == nil && platform != nil {
		return nil, errclass.NotFound("image with reference %s was found but does not provide the specified platform (%s)", ref, platforms.FormatAll(want))
	}
	if best == nil {
		return nil, errclass.NotFound("No such image: %s", ref)
	}
	img := &Image{ID: target.Digest, Target: target, Manifest: best.desc, Config: *best.config, ConfigDesc: best.manifest.Config}
	chains, err := manifest.ChainIDs(best.manifest, best.config)
	if err != nil {
		return nil, err
	}
	if len(chains) > 0 {
		img.Chain = string(chains[len(chains)-1])
	}
	for _, n := range s.namesOf(target.Digest) {
		if f := familiar(n); f != "" {
			img.Names = append(img.Names, f)
		}
	}
	return img, nil
}

// platformManifest is one platform's part of an image as far as it is here: manifest
// and config are nil when they are not.
type platformManifest struct {
	desc     ocispec.Descriptor
	platform ocispec.Platform
	manifest *ocispec.Manifest
	config   *dockerspec.DockerOCIImage
}

// manifests lists all platforms of a target. What isn't in the store is listed too.
func (s *Service) manifests(ctx context.Context, target ocispec.Descriptor) ([]platformManifest, error) {
	var all []platformManifest
	err := s.walk(ctx, target, 0, func(p platformManifest) { all = append(all, p) })
	return all, err
}

func (s *Service) walk(ctx context.Context, d ocispec.Descriptor, depth int, visit func(platformManifest)) error {
	if depth > manifest.MaxDepth {
		return errclass.Invalid("image index is nested too deeply")
	}
	p := platformManifest{desc: d}
	if d.Platform != nil {
		p.platform = platforms.Normalize(*d.Platform)
	}
	data, err := s.readBlob(ctx, d, manifest.MaxSize)
	if errdefs.IsNotFound(err) && depth > 0 {
		visit(p)
		return nil
	}
	if err != nil {
		return err
	}
	if manifest.IsIndex(d.MediaType) {
		ix, err := manifest.ParseIndex(data, d.MediaType)
		if err != nil {
			return err
		}
		for _, c := range ix.Manifests {
			if !manifest.IsIndex(c.MediaType) && !manifest.IsManifest(c.MediaType) {
				continue
			}
			if err := s.walk(ctx, c, depth+1, visit); err != nil {
				return err
			}
		}
		return nil
	}
	if p.manifest, err = manifest.ParseManifest(data, d.MediaType); err != nil {
		return err
	}
	if manifest.IsAttestation(d) {
		visit(p)
		return nil
	}
	conf, err := s.readBlob(ctx, p.manifest.Config, manifest.MaxConfig)
	if errdefs.IsNotFound(err) {
		visit(p)
		return nil
	}
	if err != nil {
		return err
	}
	if p.config, err = manifest.ParseConfig(conf); err != nil {
		return err
	}
	if d.Platform == nil {
		p.platform = platforms.Normalize(p.config.Platform)
	}
	visit(p)
	return nil
}

// readBlob reads a small blob whole.
func (s *Service) readBlob(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	ra, err := s.store.Content.ReaderAt(storage.Context(ctx), d)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	if ra.Size() > limit {
		return nil, errclass.Invalid("%s is larger than %d bytes", d.Digest, limit)
	}
	data := make([]byte, ra.Size())
	_, err = io.ReadFull(content.NewReader(ra), data)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("reading %s: %w", d.Digest, err)
	}
	return data, nil
}

// find looks a reference up: as a name, as a name with digest, as an ID.
func (s *Service) find(ref string) (found, error) {
	parsed, err := reference.ParseAnyReference(ref)
	if err != nil && !isHexPrefix(ref) {
		if t, ok := strings.CutPrefix(ref, "sha256:"); ok && isHexPrefix(t) {
			return s.findID(ref)
		}
		return found{}, errclass.Invalid("invalid reference format")
	}
	named, isNamed := parsed.(reference.Named)
	if !isNamed {
		return s.findID(ref)
	}
	if canonical, ok := named.(reference.Canonical); ok {
		return s.findDigest(named, canonical.Digest(), ref)
	}
	full := reference.TagNameOnly(named)
	s.mu.RLock()
	img, ok := s.names[full.String()]
	s.mu.RUnlock()
	if ok {
		return found{target: img.Target, name: img.Name}, nil
	}
	if t, _ := strings.CutPrefix(ref, "sha256:"); isHexPrefix(t) {
		f, err := s.findID(ref)
		if !errdefs.IsNotFound(err) {
			return f, err
		}
	}
	return found{}, noSuchImage(reference.FamiliarString(full))
}

func noSuchImage(ref string) error { return errclass.NotFound("No such image: %s", ref) }

// findDigest finds name@digest: an image of that ID which has a name in the repository.
func (s *Service) findDigest(named reference.Named, d digest.Digest, ref string) (found, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	repo := named.Name()
	for n, img := range s.names {
		if img.Target.Digest != d {
			continue
		}
		if r, err := reference.ParseNormalizedNamed(n); err == nil && !strings.HasPrefix(n, dangling) && r.Name() == repo {
			name := ""
			if n == named.String() {
				name = n
			}
			return found{target: img.Target, name: name, repo: repo}, nil
		}
	}
	return found{}, noSuchImage(ref)
}

// findID finds an image by its ID or the beginning of it.
func (s *Service) findID(ref string) (found, error) {
	prefix := strings.TrimPrefix(ref, "sha256:")
	s.mu.RLock()
	defer s.mu.RUnlock()
	var f found
	for _, img := range s.names {
		if !strings.HasPrefix(img.Target.Digest.Encoded(), prefix) {
			continue
		}
		if f.target.Digest != "" && f.target.Digest != img.Target.Digest {
			return found{}, errclass.Invalid("multiple IDs found with provided prefix: %s", prefix)
		}
		f.target = img.Target
	}
	if f.target.Digest == "" {
		if len(prefix) == 64 {
			ref = "sha256:" + prefix
		}
		return found{}, noSuchImage(ref)
	}
	return f, nil
}

func isHexPrefix(s string) bool {
	return s != "" && len(s) <= 64 && !slices.ContainsFunc([]byte(s), func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'f')
	})
}
