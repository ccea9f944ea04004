// Package document reads and stores an image's documents (indexes, manifests,
// configurations) in the content store, with the labels by which the garbage collector finds
// the content they refer to. Package manifest decodes them.
package document

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Store is the documents of one image store. Safe for concurrent use.
type Store struct{ content content.Store }

// NewStore returns the documents in a content store.
func NewStore(c content.Store) *Store { return &Store{content: c} }

// Read returns a small blob whole. The error is of class NotFound when it is not here,
// InvalidArgument when it has more than limit bytes.
func (s *Store) Read(ctx context.Context, d ocispec.Descriptor, limit int64) ([]byte, error) {
	ra, err := s.content.ReaderAt(storage.Context(ctx), d)
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

// Manifest reads the manifest of one platform.
func (s *Store) Manifest(ctx context.Context, d ocispec.Descriptor) (*ocispec.Manifest, error) {
	data, err := s.Read(ctx, d, manifest.MaxSize)
	if err != nil {
		return nil, fmt.Errorf("manifest of image: %w", err)
	}
	return manifest.ParseManifest(data, d.MediaType)
}

// Save stores a document with labels that say what it refers to. One that is stored
// already gets the labels. ctx carries the lease that holds it.
func (s *Store) Save(ctx context.Context, desc ocispec.Descriptor, data []byte, labels map[string]string) error {
	desc = ocispec.Descriptor{MediaType: desc.MediaType, Digest: desc.Digest, Size: int64(len(data))}
	err := content.WriteBlob(ctx, s.content, "doc-"+desc.Digest.String(), bytes.NewReader(data), desc, content.WithLabels(labels))
	if err != nil {
		return fmt.Errorf("storing %s: %w", desc.Digest, err)
	}
	if len(labels) == 0 {
		return nil
	}
	info := content.Info{Digest: desc.Digest, Labels: labels}
	var fields []string
	for k := range labels {
		fields = append(fields, "labels."+k)
	}
	have, err := s.content.Info(ctx, desc.Digest)
	if err != nil {
		return fmt.Errorf("storing %s: %w", desc.Digest, err)
	}
	for k, v := range labels {
		if have.Labels[k] != v {
			_, err = s.content.Update(ctx, info, fields...)
			break
		}
	}
	return err
}

// Platform is one platform's part of an image as far as it is here: Manifest and Config
// are nil when they are not.
type Platform struct {
	Desc     ocispec.Descriptor
	Platform ocispec.Platform
	Manifest *ocispec.Manifest
	Config   *dockerspec.DockerOCIImage
}

// Platforms lists all platforms of a target. What isn't in the store is listed too; the
// error is of class NotFound when the target itself is not.
func (s *Store) Platforms(ctx context.Context, target ocispec.Descriptor) ([]Platform, error) {
	var all []Platform
	err := s.walk(ctx, target, 0, func(p Platform) { all = append(all, p) })
	return all, err
}

func (s *Store) walk(ctx context.Context, d ocispec.Descriptor, depth int, visit func(Platform)) error {
	if depth > manifest.MaxDepth {
		return errclass.Invalid("image index is nested too deeply")
	}
	p := Platform{Desc: d}
	if d.Platform != nil {
		p.Platform = platforms.Normalize(*d.Platform)
	}
	data, err := s.Read(ctx, d, manifest.MaxSize)
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
	if p.Manifest, err = manifest.ParseManifest(data, d.MediaType); err != nil {
		return err
	}
	if manifest.IsAttestation(d) {
		visit(p)
		return nil
	}
	conf, err := s.Read(ctx, p.Manifest.Config, manifest.MaxConfig)
	if errdefs.IsNotFound(err) {
		visit(p)
		return nil
	}
	if err != nil {
		return err
	}
	if p.Config, err = manifest.ParseConfig(conf); err != nil {
		return err
	}
	if d.Platform == nil {
		p.Platform = platforms.Normalize(p.Config.Platform)
	}
	visit(p)
	return nil
}

// Pick chooses the platform that fits want best, of those whose configuration is here;
// nil when there is none. Unless strict, any is better than none.
func Pick(all []Platform, want ocispec.Platform, strict bool) *Platform {
	match := platforms.Only(want)
	var best *Platform
	for i := range all {
		p := &all[i]
		if p.Config == nil {
			continue
		}
		switch fits := match.Match(p.Platform); {
		case !fits && strict:
		case best == nil, fits && !match.Match(best.Platform), fits && match.Less(p.Platform, best.Platform):
			best = p
		}
	}
	return best
}

// ConfigLabels make a configuration refer to the chain of layers that was unpacked for it
// by the storage driver; an image without layers has none.
func ConfigLabels(driver string, chain digest.Digest) map[string]string {
	if chain == "" {
		return nil
	}
	return map[string]string{"containerd.io/gc.ref.snapshot." + driver: chain.String()}
}

// ManifestLabels make a manifest refer to its configuration and layers.
func ManifestLabels(m *ocispec.Manifest) map[string]string {
	labels := map[string]string{"containerd.io/gc.ref.content.config": m.Config.Digest.String()}
	for i, l := range m.Layers {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = l.Digest.String()
	}
	return labels
}

// IndexLabels make an index refer to its manifests.
func IndexLabels(ix *ocispec.Index) map[string]string {
	labels := map[string]string{}
	for i, m := range ix.Manifests {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.m.%d", i)] = m.Digest.String()
	}
	return labels
}

// Mismatch is the error, of class DataLoss, for content that is not what was asked for.
func Mismatch(what string, got, want digest.Digest) error {
	return errclass.With(errdefs.ErrDataLoss, fmt.Errorf("%s failed verification: its digest is %s, expected %s", what, got, want))
}
