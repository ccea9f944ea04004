// Package volplugin is the volume driver that calls plugins of Docker's VolumeDriver protocol
// (docs.docker.com/engine/extend/plugins_volume).
package volplugin

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/plugin"
	"github.com/gantry/gantry/engine/volume/driver"
	"github.com/gantry/gantry/internal/errclass"
)

// protocol is the name that a plugin gives among what it implements, and the first part of every
// method.
const protocol = "VolumeDriver"

// Source is a driver.Source of plugins.
type Source struct{ Plugins plugin.Source }

// Find implements driver.Source. The plugin is asked whether it drives volumes.
func (s Source) Find(ctx context.Context, name string) (driver.Driver, error) {
	c, err := s.Plugins.Find(name)
	if errdefs.IsNotFound(err) {
		return nil, driver.NotFound(name)
	}
	if err == nil {
		err = c.Activate(ctx, protocol)
	}
	if err != nil {
		return nil, errclass.With(errclass.Of(err), lookupError{name, err})
	}
	return Driver{name: name, client: c}, nil
}

// lookupError puts the name before what is wrong.
type lookupError struct {
	name string
	err  error
}

func (e lookupError) Error() string {
	return "error looking up volume plugin " + e.name + ": " + e.err.Error()
}

func (e lookupError) Unwrap() error { return e.err }

// Names implements driver.Source.
func (s Source) Names() []string { return s.Plugins.Names() }

// Driver is one plugin. Idempotence is the plugin's, as far as the protocol asks for it: Create
// of a volume that is there, and Mount by an id that has it mounted.
type Driver struct {
	name   string
	client *plugin.Client
}

// call calls a method; what the plugin says went wrong reads as in Docker: with the method's name
// when the status says so, too.
func (d Driver) call(ctx context.Context, method string, in, out any) error {
	err := d.client.Call(ctx, protocol+"."+method, in, out)
	var f *plugin.Fault
	if !errors.As(err, &f) {
		return err
	}
	if f.Status != 200 {
		return errors.New(f.Method + ": " + f.Text)
	}
	return errors.New(f.Text)
}

// Describe implements driver.Driver. A plugin that does not tell is local.
func (d Driver) Describe(ctx context.Context) driver.Description {
	desc := driver.Description{Name: d.name, Scope: driver.ScopeLocal, Mounts: true}
	var out struct{ Capabilities struct{ Scope string } }
	if err := d.call(ctx, "Capabilities", nil, &out); err == nil && strings.EqualFold(out.Capabilities.Scope, driver.ScopeGlobal) {
		desc.Scope = driver.ScopeGlobal
	}
	return desc
}

// request is what every method takes of.
type request struct {
	Name string
	ID   string            `json:",omitempty"`
	Opts map[string]string `json:",omitempty"`
}

// Create implements driver.Driver.
func (d Driver) Create(ctx context.Context, name string, opts map[string]string) error {
	return d.call(ctx, "Create", request{Name: name, Opts: opts}, nil)
}

// Remove implements driver.Driver.
func (d Driver) Remove(ctx context.Context, name string) error {
	err := d.call(ctx, "Remove", request{Name: name}, nil)
	if err == nil || errdefs.IsUnavailable(err) {
		return err
	}
	// The protocol has no word for one that is not there.
	if _, gone := d.Get(ctx, name); errdefs.IsNotFound(gone) {
		return nil
	}
	return err
}

// volume is one in the protocol's answers.
type volume struct {
	Name       string
	Mountpoint string
	CreatedAt  string
	Status     map[string]any
}

func (v volume) public() driver.Volume {
	out := driver.Volume{Name: v.Name, Path: pathOf(v.Mountpoint), Status: v.Status}
	if t, err := time.Parse(time.RFC3339, v.CreatedAt); err == nil {
		out.Created = t
	}
	return out
}

// pathOf is a mount point as a plugin tells it: an absolute path, or none.
func pathOf(p string) string {
	if !filepath.IsAbs(p) || strings.ContainsRune(p, 0) {
		return ""
	}
	return filepath.Clean(p)
}

// Get implements driver.Driver. Whatever a plugin says went wrong means that it has no such
// volume, as in Docker.
func (d Driver) Get(ctx context.Context, name string) (driver.Volume, error) {
	var out struct{ Volume *volume }
	err := d.client.Call(ctx, protocol+".Get", request{Name: name}, &out)
	var f *plugin.Fault
	if errors.As(err, &f) || err == nil && (out.Volume == nil || out.Volume.Name != name) {
		return driver.Volume{}, errclass.NotFound("no such volume")
	}
	if err != nil {
		return driver.Volume{}, err
	}
	return out.Volume.public(), nil
}

// List implements driver.Driver.
func (d Driver) List(ctx context.Context) ([]driver.Volume, error) {
	var out struct{ Volumes []*volume }
	if err := d.call(ctx, "List", nil, &out); err != nil {
		return nil, err
	}
	var list []driver.Volume
	for _, v := range out.Volumes {
		if v != nil && v.Name != "" {
			p := v.public()
			p.Status = nil
			list = append(list, p)
		}
	}
	return list, nil
}

// answer holds where a volume is.
type answer struct{ Mountpoint string }

// Path implements driver.Driver.
func (d Driver) Path(ctx context.Context, name string) (string, error) {
	var out answer
	err := d.call(ctx, "Path", request{Name: name}, &out)
	return pathOf(out.Mountpoint), err
}

// Mount implements driver.Driver.
func (d Driver) Mount(ctx context.Context, name, id string) (string, error) {
	var out answer
	if err := d.call(ctx, "Mount", request{Name: name, ID: id}, &out); err != nil {
		return "", err
	}
	p := pathOf(out.Mountpoint)
	if p == "" {
		return "", errors.New(protocol + ".Mount: the plugin's mount point is no absolute path: " + out.Mountpoint)
	}
	return p, nil
}

// Unmount implements driver.Driver.
func (d Driver) Unmount(ctx context.Context, name, id string) error {
	return d.call(ctx, "Unmount", request{Name: name, ID: id}, nil)
}
