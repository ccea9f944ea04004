package bundle

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/jsonfile"
	"github.com/gantry/gantry/logs/none"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/shim/ociruntime"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/rootview"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files")

const cid = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// fixture is a builder for one container, whose image has a user "app", and what it asks.
type fixture struct {
	*testing.T
	*Builder
	dir      string // all that is on disk
	lease    error  // what LeaseOf fails with
	layer    storage.Layer
	compiled int // how often a filter was compiled
}

func (f *fixture) LeaseOf(_ context.Context, id string) (*image.RootfsLease, error) {
	if f.lease != nil || id != cid {
		return nil, f.lease
	}
	return &image.RootfsLease{Lower: []string{filepath.Join(f.dir, "lower")}}, nil
}

func (f *fixture) Get(string) (storage.Layer, error) { return f.layer, nil }

// Open implements Views.
func (f *fixture) Open(context.Context, *store.Container) (*os.File, error) {
	return rootview.Merge(f.layer.Dirs([]string{filepath.Join(f.dir, "lower")}))
}

func (f *fixture) compile(*specs.LinuxSeccomp) ([]byte, uint32, error) {
	f.compiled++
	return []byte("compiled"), 2, nil
}

func newFixture(t *testing.T, cfg Config) *fixture {
	t.Helper()
	f := &fixture{T: t, dir: t.TempDir()}
	f.layer = storage.Layer{Upper: filepath.Join(f.dir, "upper"), Work: filepath.Join(f.dir, "work")}
	for name, text := range map[string]string{
		"lower/etc/passwd": "root:x:0:0::/root:/bin/sh\napp:x:1000:100::/home/app:/bin/sh\n",
		"lower/etc/group":  "users:x:100:\nwheel:x:10:app\n",
		"upper/.here":      "",
	} {
		path := filepath.Join(f.dir, name)
		f.must(os.MkdirAll(filepath.Dir(path), 0o755))
		f.must(os.WriteFile(path, []byte(text), 0o644))
	}
	files, err := store.Open(filepath.Join(f.dir, "data"), filepath.Join(f.dir, "exec"))
	f.must(err)
	cfg.Logs = logs.Drivers{jsonfile.Driver{}, none.Driver{}}
	index := store.NewIndex()
	index.Add(store.NewContainer(plain(), &store.View{}))
	f.Builder, err = New(cfg, f, f, f, files, index, f.compile)
	f.must(err)
	f.held = spec.KnownCaps() // whatever the test may do
	return f
}

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

// golden compares a request with its file, in which DIR stands for the fixture's directory.
func (f *fixture) golden(name string, request any) {
	f.Helper()
	b, err := json.MarshalIndent(request, "", "  ")
	f.must(err)
	got := strings.ReplaceAll(string(b), f.dir, "DIR") + "\n"
	file := filepath.Join("testdata", name+".json")
	if *update {
		f.must(os.MkdirAll("testdata", 0o755))
		f.must(os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != got {
		f.Errorf("differs from %s (run with -update and look): %v\n%s", file, err, got)
	}
}

// plain is the record of `docker create alpine true`.
func plain() *store.Record {
	return &store.Record{
		Schema: store.Schema, ID: cid, Name: "quiet_fox", Path: "true", Image: "sha256:feed",
		Config: &container.Config{Hostname: "0123456789ab", Image: "alpine", Env: []string{"PATH=/bin"}},
		HostConfig: &container.HostConfig{
			NetworkMode: "bridge", IpcMode: "private", CgroupnsMode: "private", ShmSize: 64 << 20,
			MaskedPaths: []string{"/proc/kcore"}, ReadonlyPaths: []string{"/proc/sys"},
			LogConfig: container.LogConfig{Type: "json-file"},
		},
	}
}

// rich is one that has much of what a record can ask for.
func rich(dir string) *store.Record {
	r, yes := plain(), true
	r.Args = []string{"-x"}
	r.Config.User, r.Config.Tty, r.Config.OpenStdin, r.Config.StdinOnce, r.Config.WorkingDir = "app", true, true, true, "/srv"
	r.Config.Labels = map[string]string{"team": "a", "other": "b"}
	h := r.HostConfig
	h.GroupAdd, h.Init, h.AutoRemove, h.ReadonlyRootfs, h.ConsoleSize = []string{"wheel", "7"}, &yes, true, true, [2]uint{24, 80}
	h.CapDrop, h.SecurityOpt = []string{"ALL"}, []string{"no-new-privileges"}
	h.LogConfig.Config = map[string]string{"max-size": "1m", "labels": "team", "tag": "{{.Name}}"}
	r.Mounts = []mounts.Point{
		{Type: mount.TypeBind, Source: filepath.Join(dir, "made"), Destination: "/made", RW: true, MayCreate: true},
		{Type: mount.TypeTmpfs, Destination: "/run", Options: []string{"noexec"}},
	}
	return r
}

var (
	startKey = shim.Key{Container: cid, Run: 3}
	execKey  = shim.Key{Container: cid, Run: 3, Exec: "e1"}
)

// TestStart: the requests for a few records, whole.
func TestStart(t *testing.T) {
	hosts := []specs.Mount{{Destination: "/etc/hosts", Type: "bind", Source: "/hosts", Options: []string{"rbind", "rprivate"}}}
	for name, c := range map[string]struct {
		cfg    Config
		record func(f *fixture) *store.Record
		joined Joined
	}{
		"start-plain": {record: func(*fixture) *store.Record { return plain() }, joined: Joined{specs.NetworkNamespace}},
		"start-rich":  {record: func(f *fixture) *store.Record { return rich(f.dir) }},
		"start-daemon": { // what the daemon's settings add
			cfg:    Config{CgroupParent: "mine.slice", SystemdCgroup: true, Init: true, NoNewPrivileges: true},
			record: func(*fixture) *store.Record { return plain() },
		},
		"start-external": { // another runtime compiles the filter; the storage driver makes the whole root
			cfg: Config{Runtimes: map[string]*ociruntime.Ref{"other": {Path: "/bin/other", Args: []string{"--debug"}}}},
			record: func(f *fixture) *store.Record {
				f.layer = storage.Layer{Path: filepath.Join(f.dir, "lower")}
				r := plain()
				r.HostConfig.Runtime, r.HostConfig.LogConfig.Type = "other", "none"
				r.HostConfig.SecurityOpt = []string{`seccomp={"defaultAction":"SCMP_ACT_ALLOW"}`}
				return r
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, c.cfg)
			q, err := f.Start(t.Context(), c.record(f), startKey, c.joined, hosts)
			f.must(err)
			f.golden(name, q)
		})
	}
}

// TestStartMakesSources: -v makes a missing directory on the host, before the run.
func TestStartMakesSources(t *testing.T) {
	f := newFixture(t, Config{})
	_, err := f.Start(t.Context(), rich(f.dir), startKey, nil, nil)
	f.must(err)
	if st, err := os.Stat(filepath.Join(f.dir, "made")); err != nil || !st.IsDir() {
		t.Errorf("%v", err)
	}
}

func TestExec(t *testing.T) {
	for name, c := range map[string]struct {
		record *store.Record
		x      container.ExecCreateRequest
	}{
		"exec-plain": {plain(), container.ExecCreateRequest{Cmd: []string{"ls", "-l"}}},
		"exec-rich": {rich(""), container.ExecCreateRequest{
			Cmd: []string{"sh"}, User: "1001:7", Tty: false, AttachStdin: true, WorkingDir: "/tmp", Env: []string{"PATH=/sbin", "A=b"},
		}},
		"exec-privileged": {rich(""), container.ExecCreateRequest{Cmd: []string{"sh"}, Tty: true, Privileged: true}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, Config{})
			was, err := json.Marshal(c.record)
			f.must(err)
			q, err := f.Exec(t.Context(), c.record, execKey, &c.x)
			f.must(err)
			f.golden(name, q)
			if now, _ := json.Marshal(c.record); string(now) != string(was) {
				t.Errorf("the exec changed the record: %s", now)
			}
		})
	}
}

// TestRefused: what a record may ask for that cannot be had.
func TestRefused(t *testing.T) {
	cfg := Config{Runtimes: map[string]*ociruntime.Ref{"other": {Path: "/bin/other"}}}
	for name, c := range map[string]struct {
		change func(*fixture, *store.Record)
		is     func(error) bool
		text   string
	}{
		"no image": {func(f *fixture, _ *store.Record) { f.lease = errclass.NotFound("no lease") }, errdefs.IsNotFound, "no lease"},
		"runtime":  {func(_ *fixture, r *store.Record) { r.HostConfig.Runtime = "gone" }, errdefs.IsInvalidArgument, "unknown or invalid runtime name: gone"},
		"user":     {func(_ *fixture, r *store.Record) { r.Config.User = "nobody" }, errdefs.IsInvalidArgument, "nobody"},
		"log":      {func(_ *fixture, r *store.Record) { r.HostConfig.LogConfig.Type = "paper" }, errdefs.IsInvalidArgument, "paper"},
		"seccomp":  {func(_ *fixture, r *store.Record) { r.HostConfig.SecurityOpt = []string{"seccomp={"} }, errdefs.IsInvalidArgument, ""},
	} {
		t.Run(name, func(t *testing.T) {
			f, r := newFixture(t, cfg), plain()
			c.change(f, r)
			q, err := f.Start(t.Context(), r, startKey, nil, nil)
			if q != nil || !c.is(err) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v %v", q, err)
			}
		})
	}
}

// TestFiltersAreKept: one filter is compiled once for all that have the same profile and
// capabilities, and none where there is to be none.
func TestFiltersAreKept(t *testing.T) {
	f := newFixture(t, Config{})
	start := func(change func(*container.HostConfig)) []byte {
		t.Helper()
		r := plain()
		change(r.HostConfig)
		q, err := f.Start(t.Context(), r, startKey, nil, nil)
		f.must(err)
		return q.Seccomp
	}
	for range 2 {
		start(func(*container.HostConfig) {})
	}
	if f.compiled != 1 {
		t.Errorf("compiled %d times", f.compiled)
	}
	start(func(h *container.HostConfig) { h.CapAdd = []string{"SYS_ADMIN"} })
	if f.compiled != 2 {
		t.Errorf("compiled %d times for two sets of capabilities", f.compiled)
	}
	if got := start(func(h *container.HostConfig) { h.SecurityOpt = []string{"seccomp=unconfined"} }); got != nil || f.compiled != 2 {
		t.Errorf("unconfined: %q, compiled %d times", got, f.compiled)
	}
}

// TestUsersAreReadAgain: users that the container's own processes have added count.
func TestUsersAreReadAgain(t *testing.T) {
	f := newFixture(t, Config{})
	r := plain()
	r.Config.User = "late"
	if _, err := f.Start(t.Context(), r, startKey, nil, nil); err == nil {
		t.Error("a user that is not there")
	}
	f.must(os.MkdirAll(filepath.Join(f.dir, "upper/etc"), 0o755))
	f.must(os.WriteFile(filepath.Join(f.dir, "upper/etc/passwd"), []byte("late:x:5:6::/:/bin/sh\n"), 0o644))
	q, err := f.Start(t.Context(), r, startKey, nil, nil)
	f.must(err)
	if u := q.Spec.Process.User; u.UID != 5 || u.GID != 6 {
		t.Errorf("%+v", u)
	}
	f.Forget(r.ID) // package userdb tests what is left
}

// TestHeldCapabilities: the names are of the bits that the kernel shows.
func TestHeldCapabilities(t *testing.T) {
	held, err := heldCapabilities()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range held {
		if !slices.Contains(spec.KnownCaps(), c) {
			t.Errorf("%s", c)
		}
	}
}

// TestErrors: Docker's words and exit codes for what the shim says.
func TestErrors(t *testing.T) {
	launch := func(err error) error { return &LaunchError{err} }
	for name, c := range map[string]struct {
		err   error
		exec  bool
		code  int
		class func(error) bool
		text  string
	}{
		"not the program's": {err: errclass.NotFound("no network"), code: 128, class: errdefs.IsNotFound, text: "no network"},
		"shim gone":         {err: launch(errclass.With(errdefs.ErrUnavailable, errors.New("gone"))), code: 128, class: errdefs.IsUnavailable, text: "gone"},
		"not found": {
			err: launch(errors.New(`exec: "x": executable file not found in $PATH`)), code: 127, class: errdefs.IsInvalidArgument,
			text: createFailed + `exec: "x": executable file not found in $PATH`,
		},
		"denied": {err: launch(errors.New("exec /x: permission denied")), code: 126, class: errdefs.IsInvalidArgument, text: createFailed + "exec /x: permission denied"},
		"cwd is a file": {
			err: launch(errors.New(`chdir to cwd ("/a") set in config.json failed: not a directory`)), code: 128, class: errdefs.IsInvalidArgument,
			text: "Cannot mkdir: /a is not a directory",
		},
		"file over directory": {
			err: launch(errors.New("mount /a: not a directory")), code: 127, class: errdefs.IsInvalidArgument,
			text: createFailed + "mount /a: not a directory" + mountHint,
		},
		"other":          {err: launch(errclass.Invalid("no such thing")), code: 128, class: errdefs.IsInvalidArgument, text: createFailed + "no such thing"},
		"exec not found": {err: errors.New("exec /x: no such file or directory"), exec: true, code: 127, class: errdefs.IsInvalidArgument, text: execFailed + "exec /x: no such file or directory"},
		"exec other":     {err: errclass.Conflict("paused"), exec: true, code: 126, class: errdefs.IsConflict, text: execFailed + "paused"},
	} {
		t.Run(name, func(t *testing.T) {
			code, err := StartError(c.err)
			if c.exec {
				code, err = ExecError(c.err)
			}
			if code != c.code || !c.class(err) || err.Error() != c.text {
				t.Errorf("%d %v", code, err)
			}
		})
	}
}
