package engine

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/oci/shim"
	"github.com/gantry/gantry/storage"
)

// imageHolder gives engine/container the words it asks engine/image with.
type imageHolder struct{ *image.Service }

func (h imageHolder) Lease(ctx context.Context, containerID string, img *image.Image) (*image.RootfsLease, error) {
	return h.Service.Lease(ctx, img, containerID)
}

func (h imageHolder) Leased(ctx context.Context, containerID string) (*image.RootfsLease, error) {
	return h.Service.LeaseOf(ctx, containerID)
}

func (h imageHolder) Unlease(ctx context.Context, containerID string) error {
	return h.Service.Release(ctx, containerID)
}

// layerHolder does the same for the writable layers of storage.
type layerHolder struct {
	*storage.Layers
	log *slog.Logger
}

func (h layerHolder) Create(containerID string) (upper, work string, err error) {
	l, err := h.Layers.Create(containerID)
	return l.Upper, l.Work, err
}

func (h layerHolder) Paths(containerID string) (upper, work string) {
	l, err := h.Layers.Get(containerID)
	if err != nil {
		h.log.Debug("no writable layer", "container", containerID, "error", err)
	}
	return l.Upper, l.Work
}

func (h layerHolder) Size(ctx context.Context, containerID string) (int64, error) {
	u, err := h.Layers.Usage(ctx, containerID)
	return u.Size, err
}

// keepWait bounds how long a call to the fd store may take: it runs in places that
// have no context of their own.
const keepWait = 30 * time.Second

// shimKeeper is the shim as a store of descriptors, for the API sockets and engine/network.
type shimKeeper struct{ *shim.Client }

// Store keeps a duplicate of f under name, instead of an older one of that name.
func (k *shimKeeper) Store(name string, f *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), keepWait)
	defer cancel()
	return k.StoreFD(ctx, name, f)
}

// Drop closes what is kept under name; an unknown name is no error.
func (k *shimKeeper) Drop(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), keepWait)
	defer cancel()
	return k.DropFD(ctx, name)
}

// Take returns a duplicate of what is kept under name, nil when there is none.
func (k *shimKeeper) Take(name string) (*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), keepWait)
	defer cancel()
	all, err := k.FDs(ctx)
	if err != nil {
		return nil, err
	}
	for n, f := range all {
		if n != name {
			_ = f.Close() // a duplicate
		}
	}
	return all[name], nil
}
