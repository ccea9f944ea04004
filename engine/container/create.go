package container

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"

	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/task"
	"github.com/gantry/gantry/engine/container/validate"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/engine/volume"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/undo"
	"github.com/gantry/gantry/storage"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/mount"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// Create makes a container from an image. Nothing is left when it fails.
func (s *Service) Create(ctx context.Context, o CreateOptions) (resp container.CreateResponse, err error) {
	resp.Warnings = []string{}
	q := validate.Request{Name: o.Name, Config: o.Config, HostConfig: o.HostConfig, Networking: o.Networking}
	if err := s.validate.Early(q); err != nil {
		return resp, err
	}
	img, err := s.deps.Images.Resolve(ctx, o.Config.Image, o.Platform)
	if err != nil {
		return resp, err
	}
	r, warnings, err := s.validate.Record(q, img, o.Platform != nil)
	resp.Warnings = append(resp.Warnings, warnings...)
	if err != nil {
		return resp, err
	}
	c, err := s.make(ctx, r, o.Name, img)
	if err != nil {
		return resp, err
	}
	c.Emit(s.deps.Bus, events.ActionCreate, nil)
	resp.ID = c.ID
	return resp, nil
}

// make takes what the container needs: name, directory, image, layer; then it writes
// the record, from which on the container exists.
func (s *Service) make(ctx context.Context, r *store.Record, name string, img *image.Image) (c *store.Container, err error) {
	var takeBack undo.List
	defer func() {
		if uerr := takeBack.Run(); uerr != nil {
			s.log.Warn("undoing a create", "container", r.ID, "error", uerr)
		}
	}()
	if err := s.takeName(r, strings.TrimPrefix(name, "/")); err != nil {
		return nil, err
	}
	takeBack.Add(func() error { s.index.Release(r.Name, r.ID); return nil })
	if err := s.files.Create(r.ID); err != nil {
		return nil, err
	}
	takeBack.Add(func() error { return os.RemoveAll(s.files.Dir(r.ID)) })
	lease, err := s.deps.Images.Lease(ctx, img, r.ID)
	if err != nil {
		return nil, err
	}
	takeBack.Add(func() error { return s.deps.Images.Release(context.WithoutCancel(ctx), r.ID) })
	if _, err := s.deps.Layers.Create(r.ID); err != nil {
		return nil, err
	}
	takeBack.Add(func() error { return s.deps.Layers.Remove(r.ID) })
	takeBack.Add(func() error { return task.DropVolumes(s.deps.Volumes, r, true) })
	if err := takeVolumes(s.deps.Volumes, r, lease.Lower); err != nil {
		return nil, err
	}
	if err := s.files.SaveRecord(r); err != nil {
		return nil, err
	}
	takeBack.Keep()
	return s.tasks.Add(r).Container(), nil
}

func (s *Service) takeName(r *store.Record, name string) error {
	if name != "" {
		r.Name = name
		return s.index.Reserve(name, r.ID)
	}
	for try := 0; ; try++ {
		r.Name = store.RandomName(try)
		if err := s.index.Reserve(r.Name, r.ID); err == nil || try > 100 {
			return err
		}
	}
}

// takeVolumes makes the container a user of its volumes, makes those that are not there, and
// copies into empty ones what the image has at their place. On an error dropVolumes undoes it.
func takeVolumes(vs Volumes, r *store.Record, lower []string) error {
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
