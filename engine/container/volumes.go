package container

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/volume"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage"
	"github.com/moby/moby/api/types/mount"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// mountsOf tells the mounts of other containers, for --volumes-from.
func mountsOf(x *index) func(ref string) ([]mounts.Point, error) {
	return func(ref string) ([]mounts.Point, error) {
		o, err := x.get(ref)
		if err != nil {
			// Not of class NotFound: clients would take it for the image and pull.
			return nil, errclass.Invalid("%s", err.Error())
		}
		return o.rec.Load().Mounts, nil
	}
}

// takeVolumes makes the container a user of its volumes, makes those that are not there, and
// copies into empty ones what the image has at their place. On an error dropVolumes undoes it.
func takeVolumes(vs Volumes, r *record, lower []string) error {
	var root *os.File
	defer func() {
		if root != nil {
			root.Close()
		}
	}()
	for i := range r.Mounts {
		m := &r.Mounts[i]
		if m.Type != mount.TypeVolume {
			continue
		}
		if m.Shared {
			if err := vs.Use(m.Name, r.ID); err != nil {
				return err
			}
			continue
		}
		var err error
		m.Name, m.Source, err = vs.Acquire(volumetypes.CreateRequest{
			Name: m.Name, Driver: m.Driver, DriverOpts: m.Opts, Labels: m.Labels,
		}, r.ID)
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
func copyUp(vs Volumes, root *os.File, m *mounts.Point) error {
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

// dropVolumes ends the container's use of its volumes, and removes the anonymous ones that
// nobody else uses when asked to.
func dropVolumes(vs Volumes, r *record, remove bool) error {
	var errs []error
	for _, m := range r.Mounts {
		if m.Type == mount.TypeVolume && m.Name != "" {
			errs = append(errs, vs.Release(m.Name, r.ID, remove && m.Anonymous))
		}
	}
	return errors.Join(errs...)
}

// useVolumes tells of a restored container what it uses.
func useVolumes(s *Service, r *record) {
	for _, m := range r.Mounts {
		if m.Type != mount.TypeVolume {
			continue
		}
		if err := s.deps.Volumes.Use(m.Name, r.ID); err != nil {
			s.log.Warn("a container's volume is gone", "container", r.ID, "volume", m.Name)
		}
	}
}

// withVolumes marks a container that is being removed as one whose anonymous volumes go
// with it.
const withVolumes = "with-volumes"

// removeVolumes is the part of a removal that is about volumes: it works on what stands in the
// renamed directory, so that a crash in the middle changes nothing.
func (s *Service) removeVolumes(dir string) error {
	r := &record{}
	if err := readJSON(filepath.Join(dir, "config.json"), r, func() int { return r.Schema }); err != nil {
		return nil //nolint:nilerr // half made: it has none that are recorded
	}
	_, err := os.Lstat(filepath.Join(dir, withVolumes))
	return dropVolumes(s.deps.Volumes, r, err == nil)
}
