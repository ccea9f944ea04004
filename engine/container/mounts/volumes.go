package mounts

import (
	"errors"
	"io/fs"
	"os"

	"github.com/gantry/gantry/engine/volume"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage"
	"github.com/moby/moby/api/types/mount"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// Users is what ends and renews a container's use of volumes; see engine/volume for the
// contracts.
type Users interface {
	Use(name, container string) error
	Release(name, container string, remove bool) error
}

// Volumes is what a container's mounts ask of engine/volume; see there for the contracts.
type Volumes interface {
	Users
	Acquire(r volumetypes.CreateRequest, container string) (name, path string, err error)
	Fill(name string, from *os.File) error
}

// TakeVolumes makes the container a user of its volumes, makes those that are not there, and
// copies into empty ones what the image has at their place. points get
// their names and sources. On an error DropVolumes undoes it.
func TakeVolumes(vs Volumes, cid string, points []Point, lower []string) error {
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
		var err error
		m.Name, m.Source, err = vs.Acquire(volumetypes.CreateRequest{
			Name: m.Name, Driver: m.Driver, DriverOpts: m.Opts, Labels: m.Labels,
		}, cid)
		if err != nil {
			return err
		}
		m.Driver = volume.Driver
		if root == nil {
			if root, err = storage.RootView(lower); err != nil {
				return err
			}
		}
		if err := copyUp(vs, root, m); err != nil {
			return err
		}
	}
	return nil
}

// copyUp fills a volume with what root has at its destination.
func copyUp(vs Volumes, root *os.File, m *Point) error {
	from, err := storage.OpenIn(root, m.Destination)
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
	return vs.Fill(m.Name, from)
}

// DropVolumes ends the container's use of its volumes, and removes the anonymous ones that
// nobody else uses when asked to.
func DropVolumes(vs Users, cid string, points []Point, remove bool) error {
	var errs []error
	for _, m := range points {
		if m.Type == mount.TypeVolume && m.Name != "" {
			errs = append(errs, vs.Release(m.Name, cid, remove && m.Anonymous))
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
