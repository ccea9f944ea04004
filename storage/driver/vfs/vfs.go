// Package vfs is the storage driver that needs nothing of the file system. Every layer of an
// image is a directory with the whole tree, and every container gets a copy of the topmost one.
// It is slow and takes much room (less where the file system can share the content of files),
// and it works where overlayfs does not.
package vfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/gantry/gantry/storage/driver"
	"github.com/gantry/gantry/storage/driver/layerdir"
	"github.com/gantry/gantry/storage/rootview"
	"github.com/gantry/gantry/storage/tree"
	"golang.org/x/sys/unix"
)

// Name is what the driver is chosen by.
const Name = "vfs"

// rootDir is, in a container's directory, its root.
const rootDir = "root"

type vfsDriver struct {
	snaps  *snapshotter
	layers *layerdir.Dir
}

// Open opens the driver below a data-root; it is a driver.Open.
func Open(dataRoot string) (driver.Driver, error) {
	snaps, err := openSnapshots(filepath.Join(dataRoot, "image", "vfs"))
	if err != nil {
		return nil, err
	}
	layers, err := layerdir.Open(dataRoot)
	if err != nil {
		return nil, errors.Join(err, snaps.Close())
	}
	return &vfsDriver{snaps: snaps, layers: layers}, nil
}

// Describe implements driver.Driver.
func (d *vfsDriver) Describe() driver.Description {
	return driver.Description{Name: Name, DirLabel: dirLabel}
}

// Snapshots implements driver.Driver.
func (d *vfsDriver) Snapshots() snapshots.Snapshotter { return d.snaps }

// Create implements driver.Driver.
func (d *vfsDriver) Create(ctx context.Context, container string, lower []string) (driver.Layer, error) {
	err := d.layers.MakeSlowly(container, func(at int, name string) error {
		name += "/" + rootDir
		if err := unix.Mkdirat(at, name, 0o755); err != nil {
			return err
		}
		if err := unix.Fchmodat(at, name, 0o755, 0); err != nil { // whatever the umask
			return err
		}
		if len(lower) == 0 {
			return nil
		}
		to, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(to)
		return applyPath(ctx, lower[0], to)
	})
	if err != nil {
		return driver.Layer{}, err
	}
	return d.layer(container), nil
}

func (d *vfsDriver) layer(container string) driver.Layer {
	return driver.Layer{Path: filepath.Join(d.layers.Path(container), rootDir)}
}

// applyPath applies the layer in a directory of ours.
func applyPath(ctx context.Context, layer string, to int) error {
	from, err := openTree(layer)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	return tree.Apply(ctx, from, to)
}

func openTree(dir string) (int, error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("layer %s: %w", dir, err)
	}
	return fd, nil
}

// Layer implements driver.Driver.
func (d *vfsDriver) Layer(container string) (driver.Layer, error) {
	if err := d.layers.Check(container, rootDir); err != nil {
		return driver.Layer{}, err
	}
	return d.layer(container), nil
}

// View implements driver.Driver.
func (d *vfsDriver) View(container string, _ []string, a rootview.Access) (*os.File, error) {
	if err := d.layers.Check(container, rootDir); err != nil {
		return nil, err
	}
	at, err := d.layers.OpenLayer(container)
	if err != nil {
		return nil, err
	}
	defer unix.Close(at)
	return rootview.Directory(at, rootDir, a)
}

// Usage implements driver.Driver.
func (d *vfsDriver) Usage(ctx context.Context, container string, lower []string) (driver.Usage, error) {
	if err := d.layers.Check(container, rootDir); err != nil {
		return driver.Usage{}, err
	}
	at, err := d.layers.OpenLayer(container)
	if err != nil {
		return driver.Usage{}, err
	}
	defer unix.Close(at)
	base := -1
	if len(lower) > 0 {
		if base, err = openTree(lower[0]); err != nil {
			return driver.Usage{}, err
		}
		defer unix.Close(base)
	}
	u, err := tree.UsageAbove(ctx, at, rootDir, base)
	return driver.Usage(u), err
}

// Remove implements driver.Driver.
func (d *vfsDriver) Remove(container string) error { return d.layers.Remove(container) }

// List implements driver.Driver.
func (d *vfsDriver) List() ([]string, error) { return d.layers.List() }

// Close implements driver.Driver.
func (d *vfsDriver) Close() error {
	if err := errors.Join(d.layers.Close(), d.snaps.Close()); err != nil {
		return fmt.Errorf("closing layers: %w", err)
	}
	return nil
}
