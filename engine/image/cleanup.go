package image

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/storage"
)

// cleanUp removes what work left that a crash cut off: layers that were being
// unpacked. Downloads are kept, by their leases, until they expire.
func (s *Service) cleanUp() error {
	ctx := storage.Context(context.Background())
	var stale []string
	err := s.store.Snapshots.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if strings.HasPrefix(i.Name, stagePrefix) {
			stale = append(stale, i.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking for unfinished layers: %w", err)
	}
	for _, k := range stale {
		if err := s.store.Snapshots.Remove(ctx, k); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("removing unfinished layer: %w", err)
		}
	}
	s.store.Collect()
	return nil
}

// unpackStored unpacks an image whose blobs are here but whose layers are not.
func (s *Service) unpackStored(ctx context.Context, img *Image) error {
	ctx, done, err := s.leased(storage.Context(withoutLog(ctx)))
	if err != nil {
		return err
	}
	err = s.unpackManifest(ctx, img, noProgress{})
	done(err, false)
	return err
}

func (s *Service) unpackManifest(ctx context.Context, img *Image, p Progress) error {
	data, err := s.readBlob(ctx, img.Manifest, manifest.MaxSize)
	if err != nil {
		return fmt.Errorf("manifest of image: %w", err)
	}
	m, err := manifest.ParseManifest(data, img.Manifest.MediaType)
	if err != nil {
		return err
	}
	layers, err := layersOf(m, &img.Config)
	if err != nil {
		return err
	}
	t := &transfer{Service: s, p: p}
	if err := t.run(ctx, layers); err != nil {
		return err
	}
	conf, err := s.readBlob(ctx, m.Config, manifest.MaxConfig)
	if err != nil {
		return fmt.Errorf("configuration of image: %w", err)
	}
	return s.save(ctx, m.Config, conf, configLabels(img.Chain))
}

type noProgress struct{}

func (noProgress) Update(string, string, int64, int64) {}
func (noProgress) Aux(any)                             {}
