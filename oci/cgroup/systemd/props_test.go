package systemd

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/godbus/dbus/v5"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "rewrite golden files")

func p[T any](v T) *T { return &v }

// fake is a manager that writes down what it is asked.
type fake struct {
	log     strings.Builder
	version string
	root    string
	fail    map[string][]error // by method, in turn
	result  string             // how jobs end; "" is done
	dead    bool
}

func (f *fake) next(method string) error {
	if l := f.fail[method]; len(l) > 0 {
		f.fail[method] = l[1:]
		return l[0]
	}
	return nil
}

func (f *fake) call(_ context.Context, method string, args ...any) error {
	f.log.WriteString(method)
	for _, a := range args {
		switch v := a.(type) {
		case []Property:
			for _, p := range v {
				fmt.Fprintf(&f.log, "\n  %s = %s %v", p.Name, p.Value.Signature(), p.Value)
			}
		default:
			if s := fmt.Sprint(a); s != "[]" {
				f.log.WriteString(" " + s)
			}
		}
	}
	f.log.WriteByte('\n')
	return f.next(method)
}

func (f *fake) job(ctx context.Context, method string, args ...any) (string, error) {
	if err := f.call(ctx, method, args...); err != nil {
		return "", err
	}
	if f.result != "" {
		return f.result, nil
	}
	return "done", nil
}

func (f *fake) property(_ context.Context, name string) (any, error) {
	if name == "Version" {
		return f.version, nil
	}
	return f.root, nil
}

func (f *fake) alive() bool { return !f.dead }
func (f *fake) close()      {}

func (f *fake) manager() *Manager {
	return &Manager{dial: func(context.Context) (bus, error) { return f, nil }}
}

// everything sets each resource once.
func everything() *specs.LinuxResources {
	td := []specs.LinuxThrottleDevice{{}}
	td[0].Major, td[0].Minor, td[0].Rate = 8, 16, 1048576
	wd := specs.LinuxWeightDevice{Weight: p[uint16](200)}
	wd.Major, wd.Minor = 8, 0
	return &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p[int64](64 << 20), Swap: p[int64](96 << 20), Reservation: p[int64](32 << 20), Swappiness: p[uint64](10)},
		CPU:    &specs.LinuxCPU{Shares: p[uint64](512), Quota: p[int64](50500), Period: p[uint64](100000), Cpus: "0-1,9", Mems: "0"},
		Pids:   &specs.LinuxPids{Limit: p[int64](100)},
		BlockIO: &specs.LinuxBlockIO{
			Weight: p[uint16](100), WeightDevice: []specs.LinuxWeightDevice{wd}, ThrottleReadBpsDevice: td,
		},
		HugepageLimits: []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}},
	}
}

// TestGolden: what systemd is told in a container's life, on both versions.
func TestGolden(t *testing.T) {
	rules := []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Major: p[int64](10), Minor: p[int64](229), Access: "rw"}}
	unlimited := &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: p[int64](-1)}, Pids: &specs.LinuxPids{Limit: p[int64](-1)}, CPU: &specs.LinuxCPU{Quota: p[int64](-1)},
	}
	for _, c := range []struct {
		name, version string
		v2            bool
		unified       map[string]string
	}{
		{"v1", "252.38-1~deb12u1", false, nil},
		{"v2", "252.38-1~deb12u1", true, map[string]string{
			"memory.high": "1048576", "memory.min": "4096", "cpu.idle": "1", "pids.max": "max", "cpu.max": "max 50000", "memory.oom.group": "1", "cpuset.cpus": "3",
		}},
		{"v2.old", "v239", true, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &fake{version: c.version}
			m := f.manager()
			pl, err := ParsePath("a-b.slice:docker:0123", "id", false)
			if err != nil {
				t.Fatal(err)
			}
			extra, err := Annotated(map[string]string{
				"org.systemd.property.TimeoutStopUSec": "uint64 123456789", "org.systemd.property.CollectMode": "'inactive-or-failed'",
				"org.systemd.property.RuntimeMaxSec": "90", "org.example": "other",
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Start(t.Context(), pl, 4711, c.v2, extra); err != nil {
				t.Fatal(err)
			}
			u := m.Unit(pl.Name)
			res := everything()
			res.Unified = c.unified
			for _, r := range []*specs.LinuxResources{res, unlimited, {}} {
				s, err := cgroup.Settings(r, c.v2)
				if err != nil {
					t.Fatal(err)
				}
				if err := u.Limit(s); err != nil {
					t.Fatal(err)
				}
			}
			if !c.v2 {
				if err := u.AllowDevices(append(rules, cgroup.DefaultDevices()...)); err != nil {
					t.Fatal(err)
				}
			}
			if err := u.Stop(); err != nil {
				t.Fatal(err)
			}
			golden(t, c.name, f.log.String())
		})
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name+".golden")
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
	}
}

func TestParsePath(t *testing.T) {
	for _, c := range []struct {
		in    string
		user  bool
		place string // "": refused
	}{
		{"", false, "/system.slice/runc-id.scope"},
		{"", true, "/user.slice/runc-id.scope"},
		{"::x", false, "/system.slice/x.scope"},
		{":docker:x", false, "/system.slice/docker-x.scope"},
		{"machine.slice:libpod:x", false, "/machine.slice/libpod-x.scope"},
		{"a-b-c.slice:cri:x", true, "/a.slice/a-b.slice/a-b-c.slice/cri-x.scope"},
		{"-.slice:p:x", false, "/p-x.scope"},
		{"a.slice:p:x.slice", false, "/a.slice/x.slice"},
		{"a.slice:p", false, ""},
		{"/docker/x", false, ""},
		{"a.slice:p:x:y", false, ""},
		{"a:p:x", false, ""},
		{"a.slice:p:", false, ""},
		{"a/b.slice:p:x", false, ""},
		{"../x.slice:p:x", false, ""},
		{"a--b.slice:p:x", false, ""},
		{"-a.slice:p:x", false, ""},
		{"a-.slice:p:x", false, ""},
		{".slice:p:x", false, ""},
		{"a.slice:../..:x", false, ""},
		{"a.slice:p:" + strings.Repeat("x", 255), false, ""},
	} {
		t.Run(c.in+" "+c.place, func(t *testing.T) {
			pl, err := ParsePath(c.in, "id", c.user)
			if c.place == "" {
				if !errors.Is(err, errdefs.ErrInvalidArgument) {
					t.Errorf("%q: %+v, %v", c.in, pl, err)
				}
				return
			}
			if err != nil || pl.Path() != c.place {
				t.Errorf("%q: %s, %v", c.in, pl.Path(), err)
			}
		})
	}
}

func TestAnnotatedRefuses(t *testing.T) {
	for k, v := range map[string]string{"x": "1", "Foo.Bar": "1", "Foo": "?", "FooSec": "'x'", "BarSec": "-1", "BazSec": "1e300"} {
		t.Run(k, func(t *testing.T) {
			if ps, err := Annotated(map[string]string{annotation + k: v}); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s=%s: %v, %v", k, v, ps, err)
			}
		})
	}
}

func TestLimitRefuses(t *testing.T) {
	for i, s := range []cgroup.Setting{
		{File: "cpuset.cpus", Value: "x"},
		{File: "cpuset.cpus", Value: "2-1"},
		{File: "cpuset.cpus", Value: "0-99999999"},
		{File: "cpuset.mems", Value: ""},
		{File: "memory.max", Value: "lots"},
		{File: "cpu.max", Value: "1 x"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if ps, err := limitProps([]cgroup.Setting{s}, 252); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%+v: %v, %v", s, ps, err)
			}
		})
	}
}

func TestDeviceList(t *testing.T) {
	names, err := parseDevices(strings.NewReader("Character devices:\n  1 mem\n  4 /dev/vc/0\n  4 tty\n136 pts\nx y\n\nBlock devices:\n  8 sd\n"))
	if err != nil {
		t.Fatal(err)
	}
	rule := func(allow bool, typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: allow, Type: typ, Access: access}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		return r
	}
	for _, c := range []struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{nil, "strict []"},
		{[]specs.LinuxDeviceCgroup{rule(true, "a", -1, -1, "rwm")}, "auto []"},
		{[]specs.LinuxDeviceCgroup{rule(true, "", -1, -1, ""), rule(false, "a", -1, -1, ""), rule(true, "b", 8, -1, "r")}, "strict [{block-sd r}]"},
		{[]specs.LinuxDeviceCgroup{rule(true, "c", 136, -1, "rwm"), rule(true, "c", 4, -1, "r"), rule(true, "a", 8, 1, "m")}, "strict [{char-pts rwm} {char-/dev/vc/0 r} {/dev/block/8:1 m} {/dev/char/8:1 m}]"},
		{[]specs.LinuxDeviceCgroup{rule(true, "c", 99, -1, "rwm"), rule(true, "c", -1, 7, "rwm"), rule(true, "u", -1, -1, "m")}, "strict [{char-* m}]"},
		{[]specs.LinuxDeviceCgroup{rule(true, "c", 1, 3, "rw"), rule(true, "c", 1, 5, "rwm"), rule(false, "c", 1, -1, "rw")}, "strict [{/dev/char/1:5 rwm}]"},
	} {
		t.Run(c.want, func(t *testing.T) {
			ps := deviceProps(c.rules, names)
			got := fmt.Sprintf("%s %v", ps[0].Value.Value(), ps[len(ps)-1].Value.Value())
			if got != c.want {
				t.Errorf("%v: %s, want %s", c.rules, got, c.want)
			}
			if n := len(ps[1].Value.Value().([]deviceEntry)); n != 0 {
				t.Errorf("the first list has %d entries: the old ones stay", n)
			}
		})
	}
}

func dbusError(name string) error { return dbus.Error{Name: name, Body: []any{"said so"}} }

func TestStartAgain(t *testing.T) {
	pl, _ := ParsePath("", "x", false)
	exists := dbusError(errUnitExists)
	f := &fake{fail: map[string][]error{"StartTransientUnit": {exists}}}
	if err := f.manager().Start(t.Context(), pl, 1, true, nil); err != nil {
		t.Errorf("after a failed unit of that name: %v", err)
	}
	if n := strings.Count(f.log.String(), "ResetFailedUnit runc-x.scope\n"); n != 1 {
		t.Errorf("the failed unit was forgotten %d times", n)
	}
	f = &fake{fail: map[string][]error{"StartTransientUnit": {exists, exists}}}
	if err := f.manager().Start(t.Context(), pl, 1, true, nil); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("a unit that runs: %v", err)
	}
	f = &fake{result: "failed"}
	if err := f.manager().Start(t.Context(), pl, 1, true, nil); err == nil || !strings.Contains(err.Error(), `"failed"`) {
		t.Errorf("a failed job: %v", err)
	}
}

func TestErrors(t *testing.T) {
	for name, class := range map[string]error{
		"org.freedesktop.DBus.Error.AccessDenied":                     errdefs.ErrPermissionDenied,
		"org.freedesktop.DBus.Error.InteractiveAuthorizationRequired": errdefs.ErrPermissionDenied,
		"org.freedesktop.DBus.Error.InvalidArgs":                      errdefs.ErrInvalidArgument,
		errNoUnit:                                                     errdefs.ErrNotFound,
	} {
		t.Run(name, func(t *testing.T) {
			f := &fake{fail: map[string][]error{"SetUnitProperties": {dbusError(name)}}}
			if err := f.manager().Unit("x.scope").Limit([]cgroup.Setting{{File: "pids.max", Value: "1"}}); !errors.Is(err, class) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	f := &fake{fail: map[string][]error{"StopUnit": {dbusError(errNotLoaded)}, "ResetFailedUnit": {dbusError(errNoUnit)}}}
	if err := f.manager().Unit("x.scope").Stop(); err != nil {
		t.Errorf("stop of what is gone: %v", err)
	}
}

func TestReconnects(t *testing.T) {
	first, second := &fake{dead: true, fail: map[string][]error{"ResetFailedUnit": {errClosed}}}, &fake{}
	dials := []*fake{first, second}
	m := &Manager{dial: func(context.Context) (bus, error) {
		f := dials[0]
		dials = dials[1:]
		return f, nil
	}}
	if err := m.Unit("x.scope").Stop(); err != nil {
		t.Errorf("a connection that broke: %v", err)
	}
	if !strings.Contains(second.log.String(), "StopUnit x.scope") {
		t.Errorf("the second connection was asked %q", second.log.String())
	}
}

func TestVersions(t *testing.T) {
	for in, want := range map[string]int{"252.38-1~deb12u1": 252, "v245.4-4ubuntu3": 245, "systemd 239": 239, "": 0, "x": 0, "257": 257} {
		t.Run(in, func(t *testing.T) {
			if got := parseVersion(in); got != want {
				t.Errorf("%q: %d", in, got)
			}
		})
	}
}

func TestOuterID(t *testing.T) {
	const m = "         0       1000          1\n         1     100000      65536\n"
	for in, want := range map[int]int{0: 1000, 1: 100000, 65536: 165535, 70000: 70000} {
		t.Run(fmt.Sprint(in), func(t *testing.T) {
			if got := outerID(m, in); got != want {
				t.Errorf("%d: %d", in, got)
			}
		})
	}
}

func FuzzParsePath(f *testing.F) {
	f.Add("machine.slice:libpod:x", "id")
	f.Add("a-b.slice::x.slice", "")
	f.Fuzz(func(t *testing.T, in, id string) {
		pl, err := ParsePath(in, id, false)
		if err != nil {
			return
		}
		path := pl.Path()
		if !filepath.IsAbs(path) || filepath.Clean(path) != path || path == "/" || filepath.Base(path) != pl.Name {
			t.Errorf("%q: %q", in, path)
		}
	})
}

func FuzzLimitProps(f *testing.F) {
	f.Add("cpuset.cpus", "0-3,7", 252)
	f.Add("cpu.max", "max 100000", 239)
	f.Fuzz(func(_ *testing.T, file, value string, version int) {
		_, _ = limitProps([]cgroup.Setting{{File: file, Value: value}}, version)
	})
}
