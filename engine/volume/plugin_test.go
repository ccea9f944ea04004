package volume

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/volume/driver/drivertest"
	"github.com/gantry/gantry/internal/filter"
	volumetypes "github.com/moby/moby/api/types/volume"
)

// The IDs of two containers.
const (
	c1 = "1111111111111111111111111111111111111111111111111111111111111111"
	c2 = "2222222222222222222222222222222222222222222222222222222222222222"
)

// world is a data-root and a plugin beside it.
type world struct {
	*testing.T
	dir     string
	plugin  *drivertest.Plugin
	plugins map[string]http.Handler
}

func newWorld(t *testing.T) *world {
	p := drivertest.NewPlugin(t.TempDir())
	return &world{t, t.TempDir(), p, map[string]http.Handler{"vp": p}}
}

func (w *world) open() *Service { return openWith(w.T, w.dir, w.plugins) }

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) create(s *Service, name string, opts map[string]string) volumetypes.Volume {
	w.Helper()
	v, err := s.Create(w.Context(), volumetypes.CreateRequest{Name: name, Driver: "vp", DriverOpts: opts, Labels: map[string]string{"l": "1"}})
	w.must(err)
	return v
}

func (w *world) users(name string, want ...string) {
	w.Helper()
	if got := w.plugin.Users(name); !slices.Equal(got, want) {
		w.Errorf("%s is mounted by %q, want %q", name, got, want)
	}
}

// mountAndUnmount has two containers mount vv, one of them twice, and unmount it as often as
// they like: the plugin is asked once for each.
func (w *world) mountAndUnmount(s *Service) {
	w.Helper()
	for range 2 {
		path, err := s.Mount(w.Context(), "vv", c1)
		if err != nil || !strings.HasSuffix(path, "/vv/data") {
			w.Errorf("%q %v", path, err)
		}
	}
	_, err := s.Mount(w.Context(), "vv", c2)
	w.must(err)
	w.users("vv", c1, c2)
	if v, err := s.Inspect(w.Context(), "vv"); err != nil || !strings.HasSuffix(v.Mountpoint, "/vv/data") || v.Status["users"] != 2.0 {
		w.Errorf("%+v %v", v, err)
	}
	if err := s.Remove(w.Context(), "vv", true); !errdefs.IsConflict(err) {
		w.Errorf("in use: %v", err)
	}
	for range 2 {
		w.must(s.Unmount(w.Context(), "vv", c1))
		w.must(s.Unmount(w.Context(), "vv", c2))
	}
	w.users("vv")
}

func TestPluginVolume(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	v := w.create(s, "vv", map[string]string{"o": "1"})
	if v.Driver != "vp" || v.Scope != "global" || v.Mountpoint != "" || v.Options["o"] != "1" || v.Labels["l"] != "1" || v.Status["users"] != 0.0 ||
		!strings.HasPrefix(v.CreatedAt, "2001-09-") {
		t.Errorf("%+v", v)
	}
	u, err := s.Acquire(t.Context(), volumetypes.CreateRequest{Name: "vv"}, c1)
	if err != nil || u.Driver != "vp" || u.Path != "" {
		t.Errorf("%+v %v", u, err)
	}
	w.mountAndUnmount(s)
	w.must(s.Release(t.Context(), "vv", c1, false))
	rep, err := s.Prune(t.Context(), nil, true)
	if err != nil || len(rep.VolumesDeleted) != 0 {
		t.Errorf("pruned: %+v %v", rep, err)
	}
	if got := strings.Join(s.Drivers(), " "); got != "local vp" {
		t.Errorf("drivers: %s", got)
	}
	w.must(s.Remove(t.Context(), "vv", false))
	if left, _ := os.ReadDir(filepath.Join(w.dir, "volumes")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func names(list []volumetypes.Volume) string {
	var all []string
	for _, v := range list {
		all = append(all, v.Driver+":"+v.Name)
	}
	return strings.Join(all, " ")
}

func TestPluginList(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	create(t, s, "here")
	w.create(s, "there", nil)
	// One that somebody made at the plugin is known by asking.
	w.must(w.open().Remove(t.Context(), "there", false))
	other := newWorld(t)
	other.plugins = w.plugins
	other.create(other.open(), "theirs", nil)
	s = w.open()
	w.create(s, "there", nil)
	for f, want := range map[string]string{"": "local:here vp:theirs vp:there", "vp": "vp:theirs vp:there", "local": "local:here", "none": ""} {
		t.Run(f, func(t *testing.T) {
			args := filter.Args{}
			if f != "" {
				args["driver"] = []string{f}
			}
			if l, warn, err := s.List(t.Context(), args); names(l) != want || err != nil || len(warn) != 0 {
				t.Errorf("driver %q: %s %v %v", f, names(l), warn, err)
			}
		})
	}
	if v, err := s.Inspect(t.Context(), "theirs"); err != nil || v.Driver != "vp" || v.Scope != "global" {
		t.Errorf("%+v %v", v, err)
	}
	// Who uses it without naming a driver gets it, and no new local one.
	if u, err := s.Acquire(t.Context(), volumetypes.CreateRequest{Name: "theirs"}, c1); err != nil || u.Driver != "vp" {
		t.Errorf("%+v %v", u, err)
	}
	// A plugin that is gone: what is recorded, and a warning.
	delete(w.plugins, "vp")
	if l, warn, err := s.List(t.Context(), filter.Args{}); names(l) != "local:here vp:theirs vp:there" || err != nil || len(warn) != 1 {
		t.Errorf("%s %v %v", names(l), warn, err)
	}
	if _, err := s.Inspect(t.Context(), "there"); !errdefs.IsNotFound(err) || !strings.Contains(err.Error(), `error looking up volume plugin vp: plugin "vp" not found`) {
		t.Error(err)
	}
	if err := s.Remove(t.Context(), "there", false); err == nil {
		t.Error("removed without its driver")
	}
	w.must(s.Remove(t.Context(), "there", true))
	if l, _, _ := s.List(t.Context(), filter.Args{}); names(l) != "local:here vp:theirs" {
		t.Error(names(l))
	}
}

func TestPluginFaults(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	_, err := s.Create(t.Context(), volumetypes.CreateRequest{Name: "vv", Driver: "vp", DriverOpts: map[string]string{"fail": "Create"}})
	if err == nil || err.Error() != "create vv: Create was told to fail" {
		t.Error(err)
	}
	w.create(s, "vv", map[string]string{"fail": "Mount"})
	if _, err := s.Mount(t.Context(), "vv", c1); err == nil || err.Error() != "Mount was told to fail" {
		t.Error(err)
	}
	// What failed is not remembered as mounted.
	w.open().Restore(t.Context(), nil)
	if calls := w.plugin.Calls(); slices.Contains(calls, "VolumeDriver.Unmount") {
		t.Errorf("%q", calls)
	}
	w.create(s, "ww", map[string]string{"fail": "Remove"})
	if err := s.Remove(t.Context(), "ww", false); err == nil || err.Error() != "remove ww: Remove was told to fail" {
		t.Error(err)
	}
	if _, err := s.Create(t.Context(), volumetypes.CreateRequest{Name: "vv", Driver: "local"}); !errdefs.IsConflict(err) {
		t.Error(err)
	}
	// Somebody removed it at the plugin: it is made anew, unless a container counts on it.
	w.must(os.RemoveAll(filepath.Join(w.pluginDir(), "vv")))
	w.create(s, "vv", nil)
	_, err = s.Acquire(t.Context(), volumetypes.CreateRequest{Name: "vv"}, c1)
	w.must(err)
	w.must(os.RemoveAll(filepath.Join(w.pluginDir(), "vv")))
	if _, err := s.Create(t.Context(), volumetypes.CreateRequest{Name: "vv", Driver: "vp"}); !errdefs.IsConflict(err) || !strings.Contains(err.Error(), "the volume was not found in the driver") {
		t.Error(err)
	}
}

func (w *world) pluginDir() string { return w.plugin.Dir }

// A daemon that dies between a mount and its end leaves what the next one undoes, and keeps what
// belongs to containers that run.
func TestMountsOutliveDaemons(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.create(s, "vv", nil)
	for _, c := range []string{c1, c2} {
		_, err := s.Mount(t.Context(), "vv", c)
		w.must(err)
	}
	s = w.open()
	s.Restore(t.Context(), map[string]bool{c2: true})
	w.users("vv", c2)
	// Killed before it was told: c2 ended meanwhile and starts again.
	s = w.open()
	_, err := s.Mount(t.Context(), "vv", c2)
	w.must(err)
	if calls := strings.Join(w.plugin.Calls(), " "); !strings.HasSuffix(calls, "VolumeDriver.Unmount Plugin.Activate VolumeDriver.Mount") && !strings.Contains(calls, "VolumeDriver.Unmount VolumeDriver.Mount") {
		t.Errorf("calls: %s", calls)
	}
	s.Restore(t.Context(), nil)
	w.users("vv", c2)
	// While the plugin is away nothing can be said; the next daemon tries again.
	s = w.open()
	h := w.plugins["vp"]
	delete(w.plugins, "vp")
	s.Restore(t.Context(), nil)
	w.plugins["vp"] = h
	w.users("vv", c2)
	w.open().Restore(t.Context(), nil)
	w.users("vv")
}

// A container that is removed leaves no mount behind.
func TestReleaseUnmounts(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.create(s, "vv", nil)
	_, err := s.Acquire(t.Context(), volumetypes.CreateRequest{Name: "vv"}, c1)
	w.must(err)
	_, err = s.Mount(t.Context(), "vv", c1)
	w.must(err)
	w.must(s.Release(t.Context(), "vv", c1, false))
	w.users("vv")
	w.must(s.Remove(t.Context(), "vv", false))
}

// The image's content goes into a plugin's volume, which is mounted for it alone.
func TestPluginFill(t *testing.T) {
	w := newWorld(t)
	s := w.open()
	w.create(s, "vv", nil)
	src := t.TempDir()
	w.must(os.WriteFile(filepath.Join(src, "f"), []byte("text"), 0o600))
	from, err := os.Open(src)
	w.must(err)
	defer from.Close()
	w.must(s.Fill(context.Background(), "vv", from))
	if data, err := os.ReadFile(filepath.Join(w.pluginDir(), "vv/data/f")); string(data) != "text" {
		t.Errorf("%q %v", data, err)
	}
	w.users("vv")
	if err := s.Fill(t.Context(), "nope", from); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}
