package image

import (
	"context"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/storage"
)

// DiskUsage is what all blobs and unpacked layers take, in bytes.
func (s *Service) DiskUsage(ctx context.Context) (int64, error) {
	return diskUsage(ctx, s.store)
}

// Len is how many images there are.
func (s *Service) Len() int { return len(s.names.Groups()) }

func diskUsage(ctx context.Context, store *storage.Store) (int64, error) {
	ctx = storage.Context(ctx)
	var total int64
	err := store.Content.Walk(ctx, func(i content.Info) error {
		total += i.Size
		return nil
	})
	if err != nil {
		return 0, err
	}
	err = store.Snapshots.Walk(ctx, func(ctx context.Context, i snapshots.Info) error {
		u, err := store.Snapshots.Usage(ctx, i.Name)
		if errdefs.IsNotFound(err) {
			return nil
		}
		total += u.Size
		return err
	})
	return total, err
}
