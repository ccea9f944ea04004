package container

import (
	"context"
	"os"
	"strings"

	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/validate"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
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
	takeBack.Add(func() error {
		return mounts.DropVolumes(context.WithoutCancel(ctx), s.deps.Volumes, r.ID, r.Mounts, true)
	})
	if err := mounts.TakeVolumes(ctx, s.deps.Volumes, r.ID, r.Mounts, lease.Lower); err != nil {
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
