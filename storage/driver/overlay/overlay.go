// Package overlay is the storage driver on Linux' overlayfs. Each layer of an image is a
// directory with what it adds, kept by containerd's overlay snapshotter. A container's
// writable layer is two empty directories, <data-root>/layers/<id>/{upper,work}, so making one
// costs next to nothing.
package overlay

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	snapshotdb "github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/containerd/v2/plugins/snapshots/overlay"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage/driver"
	"github.com/gantry/gantry/storage/driver/layerdir"
	"github.com/gantry/gantry/storage/rootview"
	"github.com/gantry/gantry/storage/tree"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

// Name is what the driver is chosen by.
const Name = "overlayfs"

// lockTimeout is how long Open waits for another process that has the database open.
const lockTimeout = time.Second

type overlayDriver struct {
	snaps  snapshots.Snapshotter
	layers *layerdir.Dir
}

// Open opens the driver below a data-root; it is a driver.Open.
func Open(dataRoot string) (driver.Driver, error) {
	root := filepath.Join(dataRoot, "image", "overlay")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, err
	}
	ms, err := snapshotdb.NewMetaStore(filepath.Join(root, "metadata.db"), func(o *bolt.Options) error {
		o.Timeout, o.NoFreelistSync, o.FreelistType = lockTimeout, true, bolt.FreelistMapType
		return nil
	})
	if err != nil {
		return nil, err
	}
	snaps, err := overlay.NewSnapshotter(root, overlay.WithMetaStore(ms), overlay.WithUpperdirLabel, overlay.AsynchronousRemove)
	if err != nil {
		return nil, errclass.With(errdefs.ErrFailedPrecondition, err)
	}
	layers, err := layerdir.Open(dataRoot)
	if err != nil {
		return nil, errors.Join(err, snaps.Close())
	}
	return &overlayDriver{snaps: snaps, layers: layers}, nil
}

// Describe implements driver.Driver.
func (d *overlayDriver) Describe() driver.Description {
	return driver.Description{Name: Name, Shares: true, DirLabel: "containerd.io/snapshot/overlay.upperdir"}
}

// Snapshots implements driver.Driver.
func (d *overlayDriver) Snapshots() snapshots.Snapshotter { return d.snaps }

// Create implements driver.Driver.
func (d *overlayDriver) Create(_ context.Context, container string, _ []string) (driver.Layer, error) {
	if err := d.layers.Make(container, makeLayer); err != nil {
		return driver.Layer{}, err
	}
	return d.layer(container), nil
}

// makeLayer makes upper, which becomes the container's root directory and so is open
// to everyone whatever the umask, and work.
func makeLayer(at int, container string) error {
	upper := container + "/upper"
	if err := unix.Mkdirat(at, upper, 0o755); err != nil {
		return err
	}
	if err := unix.Fchmodat(at, upper, 0o755, 0); err != nil {
		return err
	}
	return unix.Mkdirat(at, container+"/work", 0o700)
}

// Layer implements driver.Driver.
func (d *overlayDriver) Layer(container string) (driver.Layer, error) {
	if err := d.layers.Check(container, "upper"); err != nil {
		return driver.Layer{}, err
	}
	return d.layer(container), nil
}

func (d *overlayDriver) layer(container string) driver.Layer {
	dir := d.layers.Path(container)
	return driver.Layer{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
}

// View implements driver.Driver. To read, the writable layer is one more layer to merge: then no work
// directory is touched, and a start may have it.
func (d *overlayDriver) View(container string, lower []string, a rootview.Access) (*os.File, error) {
	l, err := d.Layer(container)
	if err != nil {
		return nil, err
	}
	if len(lower) == 0 {
		return rootview.Directory(unix.AT_FDCWD, l.Upper, a) // an overlay of one layer is that
	}
	if a == rootview.ReadWrite {
		return rootview.Overlay(l.Upper, l.Work, lower)
	}
	return rootview.Merge(l.Dirs(lower))
}

// Usage implements driver.Driver.
func (d *overlayDriver) Usage(ctx context.Context, container string, _ []string) (driver.Usage, error) {
	if err := d.layers.Check(container, "upper"); err != nil {
		return driver.Usage{}, err
	}
	at, err := d.layers.OpenLayer(container)
	if err != nil {
		return driver.Usage{}, err
	}
	defer unix.Close(at)
	u, err := tree.Usage(ctx, at, "upper")
	return driver.Usage(u), err
}

// Remove implements driver.Driver.
func (d *overlayDriver) Remove(container string) error { return d.layers.Remove(container) }

// List implements driver.Driver.
func (d *overlayDriver) List() ([]string, error) { return d.layers.List() }

// Close implements driver.Driver.
func (d *overlayDriver) Close() error {
	if err := errors.Join(d.layers.Close(), d.snaps.Close()); err != nil {
		return fmt.Errorf("closing layers: %w", err)
	}
	return nil
}
