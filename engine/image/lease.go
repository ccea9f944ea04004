package image

import (
	"context"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/storage"
	"github.com/opencontainers/go-digest"
)

// Lease makes a container hold the image's layers and documents until Release, and
// returns where its layers are. Layers that were never unpacked are unpacked now.
// The error is of class NotFound when the image has been removed meanwhile. Asking
// again for the same container and image changes nothing.
func (s *Service) Lease(ctx context.Context, img *Image, containerID string) (*RootfsLease, error) {
	hold := storage.Hold{Chain: digest.Digest(img.Chain), Blobs: holdBlobs(img)}
	lower, err := s.store.Lease(ctx, containerID, hold)
	if errdefs.IsNotFound(err) {
		if err := s.unpack(ctx, img); err != nil {
			return nil, err
		}
		lower, err = s.store.Lease(ctx, containerID, hold)
	}
	if err != nil {
		return nil, err
	}
	h, _, err := s.store.LeaseOf(ctx, containerID)
	if err != nil {
		return nil, err
	}
	return &RootfsLease{Lower: lower, Created: h.Created}, nil
}

// unpack unpacks an image whose blobs are here but whose layers are not.
func (s *Service) unpack(ctx context.Context, img *Image) error {
	ctx, done, err := s.store.Work(ctx)
	if err != nil {
		return err
	}
	err = s.layers.Unpack(ctx, img.Manifest, &img.Config, progress.Discard{})
	done(err, false)
	return err
}

func holdBlobs(img *Image) []digest.Digest {
	blobs := []digest.Digest{img.Target.Digest}
	if img.Manifest.Digest != img.Target.Digest {
		blobs = append(blobs, img.Manifest.Digest)
	}
	return append(blobs, img.ConfigDesc.Digest)
}

// Release ends a container's hold on its image; none is no error. The layers of
// an image that has been removed meanwhile are collected.
func (s *Service) Release(_ context.Context, containerID string) error {
	h, _, _ := s.store.LeaseOf(context.Background(), containerID)
	if err := s.store.Release(containerID); err != nil {
		return err
	}
	if len(h.Blobs) > 0 && len(s.names.Of(h.Blobs[0])) == 0 {
		s.store.Collect()
	}
	return nil
}

// LeaseOf finds a container's hold again, after a restart. The error is of class
// NotFound when it has none.
func (s *Service) LeaseOf(ctx context.Context, containerID string) (*RootfsLease, error) {
	h, lower, err := s.store.LeaseOf(ctx, containerID)
	if err != nil {
		return nil, err
	}
	return &RootfsLease{Lower: lower, Created: h.Created}, nil
}
