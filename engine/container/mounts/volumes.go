package mounts

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"

	"github.com/gantry/gantry/engine/volume"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage/rootview"
	"github.com/moby/moby/api/types/mount"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// Users is what ends and renews a container's use of volumes; see engine/volume for the
// contracts.
type Users interface {
	Use(name, container string) error
	Release(ctx context.Context, name, container string, remove bool) error
}

// Mounter makes the data of volumes reachable; see engine/volume for the contracts.
type Mounter interface {
	Mount(ctx context.Context, name, container string) (path string, err error)
	Unmount(ctx context.Context, name, container string) error
}

// Volumes is what a container's mounts ask of engine/volume; see there for the contracts.
type Volumes interface {
	Users
	Acquire(ctx context.Context, r volumetypes.CreateRequest, container string) (volume.Used, error)
	Fill(ctx context.Context, name string, from *os.File) error
}

// TakeVolumes makes the container a user of its volumes, makes those that are not there, and
// copies into empty ones what the image has at their place. points get
// their names and sources. On an error DropVolumes undoes it.
func TakeVolumes(ctx context.Context, vs Volumes, cid string, points []Point, lower []string) error {
	var root *os.File
	defer func() {
		if root != nil {
			root.Close()
		}
	}()
	for i := range points {
		m := &points[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		if m.Shared {
			if err := vs.Use(m.Name, cid); err != nil {
				return err
			}
			continue
		}
		used, err := vs.Acquire(ctx, volumetypes.CreateRequest{
			Name: m.Name, Driver: m.Driver, DriverOpts: m.Opts, Labels: m.Labels,
		}, cid)
		if err != nil {
			return err
		}
		m.Name, m.Source, m.Driver = used.Name, used.Path, used.Driver
		if root == nil {
			if root, err = rootview.Merge(lower); err != nil {
				return err
			}
		}
		if err := copyUp(ctx, vs, root, m); err != nil {
			return err
		}
	}
	return nil
}

// copyUp fills a volume with what root has at its destination.
func copyUp(ctx context.Context, vs Volumes, root *os.File, m *Point) error {
	from, err := rootview.OpenIn(root, m.Destination)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil // the start will say what is wrong with it
	}
	if err != nil {
		return err
	}
	defer from.Close()
	if st, err := from.Stat(); err == nil && !st.IsDir() {
		if m.Anonymous {
			return errclass.Invalid("cannot mount volume over existing file, file exists %s", m.Destination)
		}
		return nil
	}
	if m.NoCopy {
		return nil
	}
	return vs.Fill(ctx, m.Name, from)
}

// DropVolumes ends the container's use of its volumes, and removes the anonymous ones that
// nobody else uses when asked to.
func DropVolumes(ctx context.Context, vs Users, cid string, points []Point, remove bool) error {
	var errs []error
	for _, m := range points {
		if m.Type == mount.TypeVolume && m.Name != "" {
			errs = append(errs, vs.Release(ctx, m.Name, cid, remove && m.Anonymous))
		}
	}
	return errors.Join(errs...)
}

// UseVolumes tells what a restored container uses, and answers which volumes are gone.
func UseVolumes(vs Users, cid string, points []Point) (gone []string) {
	for _, m := range points {
		if m.Type == mount.TypeVolume && vs.Use(m.Name, cid) != nil {
			gone = append(gone, m.Name)
		}
	}
	return gone
}

// MountVolumes makes the data of a container's volumes reachable and returns the points with
// where it is now. UnmountVolumes undoes it, also what was done before an error. Errors are in
// Docker's words, of class Internal: it is not the container that was not found.
func MountVolumes(ctx context.Context, vs Mounter, cid string, points []Point) ([]Point, error) {
	out := slices.Clone(points)
	for i := range out {
		m := &out[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		path, err := vs.Mount(ctx, m.Name, cid)
		if err != nil {
			return nil, errclass.Internal("error while mounting volume '%s': %s", m.Source, err.Error())
		}
		m.Source = path
	}
	return out, nil
}

// UnmountVolumes tells that a run which had the volumes mounted has ended.
func UnmountVolumes(ctx context.Context, vs Mounter, cid string, points []Point) error {
	var errs []error
	for _, m := range points {
		if m.Type == mount.TypeVolume && m.Name != "" {
			errs = append(errs, vs.Unmount(ctx, m.Name, cid))
		}
	}
	return errors.Join(errs...)
}
