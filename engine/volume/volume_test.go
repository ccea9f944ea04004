package volume

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/plugin/plugintest"
	"github.com/gantry/gantry/engine/volume/driver"
	"github.com/gantry/gantry/engine/volume/driver/local"
	"github.com/gantry/gantry/engine/volume/driver/volplugin"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/filter"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

func open(t *testing.T, dir string) *Service {
	t.Helper()
	return openWith(t, dir, nil)
}

// openWith opens the store of a daemon that has plugins, too.
func openWith(t *testing.T, dir string, plugins map[string]http.Handler) *Service {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	l, err := local.Open(filepath.Join(dir, "volumes"), log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s, err := New(dir, []driver.Driver{l}, volplugin.Source{Plugins: plugintest.Source(plugins)}, event.New(), log)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func create(t *testing.T, s *Service, name string) volumetypes.Volume {
	t.Helper()
	v, err := s.Create(context.Background(), volumetypes.CreateRequest{Name: name, Labels: map[string]string{"a": "b"}})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// pruned: an anonymous volume that was kept goes with prune, and it alone.
func pruned(t *testing.T, s *Service) {
	t.Helper()
	used, err := s.Acquire(t.Context(), volumetypes.CreateRequest{}, "c2")
	anon := used.Name
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Release(t.Context(), anon, "c2", false); err != nil {
		t.Error(err)
	}
	rep, err := s.Prune(t.Context(), nil, false)
	if err != nil || len(rep.VolumesDeleted) != 1 || rep.VolumesDeleted[0] != anon {
		t.Errorf("%+v %v", rep, err)
	}
}

// abandoned: one that was made for a container that never came to be goes, also with the next
// daemon; a named one stays.
func abandoned(t *testing.T, s *Service, dir string) *Service {
	t.Helper()
	if _, err := s.Acquire(t.Context(), volumetypes.CreateRequest{}, "c3"); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir)
	if err := s.Abandon(t.Context(), "c3"); err != nil {
		t.Error(err)
	}
	return s
}

func TestLife(t *testing.T) {
	bg, dir := context.Background(), t.TempDir()
	s := open(t, dir)
	v := create(t, s, "named")
	if v.Mountpoint != filepath.Join(dir, "volumes/named/_data") || v.Driver != "local" || v.Scope != "local" || v.Labels["a"] != "b" {
		t.Errorf("%+v", v)
	}
	if again := create(t, s, "named"); again.CreatedAt != v.CreatedAt {
		t.Errorf("made anew: %+v", again)
	}
	used, err := s.Acquire(bg, volumetypes.CreateRequest{}, "c1")
	name, path := used.Name, used.Path
	if err != nil || len(name) != 64 {
		t.Fatal(name, err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o755 {
		t.Error(st, err)
	}
	err = s.Remove(bg, name, true)
	if errclass.Of(err) != errdefs.ErrConflict || err.Error() != "remove "+name+": volume is in use - [c1]" {
		t.Error(err)
	}
	// The next daemon: what is half done is finished, uses are told anew.
	for _, d := range []string{".new-x/_data", ".removing-y/_data"} {
		if err := os.MkdirAll(filepath.Join(dir, "volumes", d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	s = open(t, dir)
	if err := s.Use(name, "c1"); err != nil {
		t.Error(err)
	}
	if l, _, _ := s.List(bg, filter.Args{"dangling": {"true"}}); len(l) != 1 || l[0].Name != "named" {
		t.Errorf("%+v", l)
	}
	if err := s.Release(bg, name, "c1", true); err != nil {
		t.Error(err)
	}
	pruned(t, s)
	s = abandoned(t, s, dir)
	if err := s.Remove(bg, "named", false); err != nil {
		t.Error(err)
	}
	if left, _ := os.ReadDir(filepath.Join(dir, "volumes")); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// TestCutOffCreation: what a daemon left that was killed while it made a volume is gone with the next one, at whichever
// step it was, and a directory with anything of a user's stays.
func TestCutOffCreation(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		stays bool
	}{
		"directory alone":   {[]string{}, false},
		"data":              {[]string{"_data/"}, false},
		"record begun":      {[]string{"_data/", ".volume.json.tmp-1"}, false},
		"record begun only": {[]string{".volume.json.tmp-1", ".volume.json.tmp-22"}, false},
		"a user's file":     {[]string{"_data/", "_data/f", ".volume.json.tmp-1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			vol := filepath.Join(dir, "volumes", "half")
			if err := os.MkdirAll(vol, 0o700); err != nil {
				t.Fatal(err)
			}
			for _, f := range c.files {
				var err error
				if strings.HasSuffix(f, "/") {
					err = os.Mkdir(filepath.Join(vol, f), 0o700)
				} else {
					err = os.WriteFile(filepath.Join(vol, f), nil, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			open(t, dir)
			if _, err := os.Lstat(vol); (err == nil) != c.stays {
				t.Errorf("%v: %v", c.files, err)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	s := open(t, t.TempDir())
	for _, tc := range []struct {
		r     volumetypes.CreateRequest
		class error
		text  string
	}{
		{volumetypes.CreateRequest{Name: "x"}, errdefs.ErrInvalidArgument, "create x: volume name is too short, names should be at least two alphanumeric characters"},
		{volumetypes.CreateRequest{Name: "../x"}, errdefs.ErrInvalidArgument, `create ../x: "../x" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. If you intended to pass a host directory, use absolute path`},
		{volumetypes.CreateRequest{Name: ".."}, errdefs.ErrInvalidArgument, "invalid characters"},
		{volumetypes.CreateRequest{Name: "abc", Driver: "foo"}, errdefs.ErrNotFound, `create abc: error looking up volume plugin foo: plugin "foo" not found`},
		{volumetypes.CreateRequest{Name: "abc", DriverOpts: map[string]string{"type": "nfs"}}, errdefs.ErrNotImplemented, "not built yet"},
	} {
		t.Run(tc.text, func(t *testing.T) {
			_, err := s.Create(context.Background(), tc.r)
			if !errors.Is(err, tc.class) || !strings.Contains(err.Error(), tc.text) {
				t.Errorf("%+v: %v", tc.r, err)
			}
		})
	}
	for _, err := range []error{s.Remove(context.Background(), "nope", false), s.Use("nope", "c")} {
		if errclass.Of(err) != errdefs.ErrNotFound || err.Error() != "get nope: no such volume" {
			t.Error(err)
		}
	}
	if err := s.Remove(context.Background(), "nope", true); err != nil {
		t.Error(err)
	}
}

// What the image has goes into an empty volume, once, and no link leads out of it.
func TestFill(t *testing.T) {
	s, src := open(t, t.TempDir()), t.TempDir()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(filepath.Join(src, "sub"), 0o711))
	must(os.WriteFile(filepath.Join(src, "sub/f"), []byte("text"), 0o640))
	must(os.Symlink("/etc/passwd", filepath.Join(src, "link")))
	must(unix.Chmod(src, 0o1777))
	if os.Geteuid() == 0 {
		must(os.Chown(src, 7, 8))
		must(os.Chown(filepath.Join(src, "sub/f"), 1000, 1001))
	}
	from, err := os.OpenFile(src, unix.O_PATH, 0)
	must(err)
	defer from.Close()
	v := create(t, s, "vv")
	must(s.Fill(t.Context(), "vv", from))
	var st, dir unix.Stat_t
	must(unix.Stat(v.Mountpoint+"/sub/f", &st))
	must(unix.Stat(v.Mountpoint, &dir))
	if st.Mode&0o7777 != 0o640 || dir.Mode&0o7777 != 0o1777 {
		t.Errorf("modes %o %o", st.Mode, dir.Mode)
	}
	if os.Geteuid() == 0 && (st.Uid != 1000 || st.Gid != 1001 || dir.Uid != 7 || dir.Gid != 8) {
		t.Errorf("owners %d:%d %d:%d", st.Uid, st.Gid, dir.Uid, dir.Gid)
	}
	if to, err := os.Readlink(v.Mountpoint + "/link"); to != "/etc/passwd" {
		t.Error(to, err)
	}
	must(os.WriteFile(filepath.Join(src, "late"), nil, 0o600))
	must(s.Fill(t.Context(), "vv", from))
	if _, err := os.Stat(v.Mountpoint + "/late"); err == nil {
		t.Error("filled twice")
	}
}
