package ocicli_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// hook writes its kind, the status it is told and its environment.
func hook(kind, file, extra string) []specs.Hook {
	script := fmt.Sprintf(`s=$(cat); printf '%%s %%s\n' %s "$s" >>%s; %s`, kind, file, extra)
	return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", script}, Env: []string{"PATH=/bin:/usr/bin", "ONLY=this"}}}
}

func TestHooks(t *testing.T) {
	b := newBundle(t, "sh", "-c", "cat /startContainer; exec sleep 1000")
	log := filepath.Join(b.dir, "hooks.log")
	inRoot := `[ "$(env | grep -c ONLY)" = 1 ] && [ "$(env | grep -c GANTRY)" = 0 ]`
	b.spec.Hooks = &specs.Hooks{
		Prestart:        hook("prestart", log, inRoot), //nolint:staticcheck // deprecated, and to be run nevertheless
		CreateRuntime:   hook("createRuntime", log, ""),
		CreateContainer: hook("createContainer", log, "ls "+b.dir+"/rootfs/proc/self >/dev/null"), // mounted, and host paths still
		StartContainer:  hook("startContainer", "/startContainer", "[ ! -e "+b.dir+" ]"),
		Poststart:       hook("poststart", log, ""),
		Poststop:        hook("poststop", log, ""),
	}
	b.write()
	b.ok("create", "{ID}")
	started := filepath.Join(b.dir, "rootfs/startContainer")
	if _, err := os.Stat(started); err == nil {
		t.Error("startContainer hook before start")
	}
	b.ok("start", "{ID}")
	b.ok("kill", "{ID}", "9")
	await(t, "the end", func() bool { return b.status() == "stopped" })
	b.ok("delete", "{ID}")
	var got []string
	for _, line := range strings.Split(strings.TrimSpace(readBack(t, log)+readBack(t, started)), "\n") {
		kind, doc, _ := strings.Cut(line, " ")
		var s specs.State
		must(t, json.Unmarshal([]byte(doc), &s))
		if s.ID != b.id || s.Bundle != b.dir || s.Annotations["org.example"] != "yes" || s.Version == "" || (s.Pid == 0) != (s.Status == "stopped") {
			t.Errorf("%s was told %+v", kind, s)
		}
		got = append(got, kind+"="+string(s.Status))
	}
	want := "prestart=creating createRuntime=creating createContainer=creating poststart=running poststop=stopped startContainer=created"
	if s := strings.Join(got, " "); s != want {
		t.Errorf("got  %s\nwant %s", s, want)
	}
}

func TestHooksThatFail(t *testing.T) {
	second := 1
	for _, c := range []struct {
		name  string
		hooks func(h []specs.Hook) *specs.Hooks
	}{
		{"prestart", func(h []specs.Hook) *specs.Hooks { return &specs.Hooks{Prestart: h} }}, //nolint:staticcheck // in use
		{"createRuntime", func(h []specs.Hook) *specs.Hooks { return &specs.Hooks{CreateRuntime: h} }},
		{"createContainer", func(h []specs.Hook) *specs.Hooks { return &specs.Hooks{CreateContainer: h} }},
		{"startContainer", func(h []specs.Hook) *specs.Hooks { return &specs.Hooks{StartContainer: h} }},
		{"poststart", func(h []specs.Hook) *specs.Hooks { return &specs.Hooks{Poststart: h} }},
	} {
		for _, how := range []struct {
			name, want string
			hook       specs.Hook
		}{
			{"status", "exit status 4, output: woe", specs.Hook{Path: "/bin/sh", Args: []string{"sh", "-c", "echo woe >&2; exit 4"}}},
			{"timeout", "timed out after 1s", specs.Hook{Path: "/bin/sleep", Args: []string{"sleep", "100"}, Timeout: &second}},
			{"missing", "no such file or directory", specs.Hook{Path: "/nosuch"}},
			{"relative", "is not absolute", specs.Hook{Path: "sh"}},
		} {
			t.Run(c.name+"/"+how.name, func(t *testing.T) {
				t.Parallel()
				b := newBundle(t, "sleep", "1000")
				b.spec.Hooks = c.hooks([]specs.Hook{how.hook})
				stopped := filepath.Join(b.dir, "stopped")
				b.spec.Hooks.Poststop = []specs.Hook{{Path: "/bin/false"}, {Path: "/bin/sh", Args: []string{"sh", "-c", "echo >" + stopped}}}
				b.write()
				r := b.cmd(nil, "run", "-d", "{ID}")
				if r.code != 1 || !strings.Contains(r.err, "error running "+c.name+" hook #0") || !strings.Contains(r.err, how.want) {
					t.Errorf("%+v", r)
				}
				if _, err := os.Stat(stopped); err != nil {
					t.Error("the poststop hooks did not run")
				}
				b.refused("does not exist", "state", "{ID}")
				if l, _ := filepath.Glob("/sys/fs/cgroup/*" + b.spec.Linux.CgroupsPath); len(l) != 0 {
					t.Errorf("left of the cgroup: %v", l)
				}
			})
		}
	}
}

// TestOldPoststart: with configurations of 1.0 a poststart hook that fails is a
// warning, and hooks are told of that version.
func TestOldPoststart(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.spec.Version = "1.0.2"
	told := filepath.Join(b.dir, "told")
	b.spec.Hooks = &specs.Hooks{Poststart: []specs.Hook{{Path: "/bin/false"}, {Path: "/bin/sh", Args: []string{"sh", "-c", "cat >" + told}}}}
	b.write()
	log := filepath.Join(b.dir, "log")
	b.ok("--log", log, "run", "-d", "{ID}")
	if s := readBack(t, log); !strings.Contains(s, "error running poststart hook #0") {
		t.Errorf("log: %q", s)
	}
	if s := readBack(t, told); !strings.Contains(s, `"ociVersion":"1.0.2"`) {
		t.Errorf("the second hook was told %q", s)
	}
	if s := b.status(); s != "running" {
		t.Errorf("status %s", s)
	}
}

// TestMountTableOrder: the mount table shows mounts in the order of the spec.
func TestMountTableOrder(t *testing.T) {
	b := newBundle(t, "cat", "/proc/self/mountinfo")
	b.spec.Mounts = append(b.spec.Mounts, []specs.Mount{
		{Destination: "/a", Type: "tmpfs"},
		{Destination: "/b", Source: b.dir, Options: []string{"rbind"}},
		{Destination: "/c", Type: "tmpfs"},
		{Destination: "/d", Source: b.dir, Options: []string{"bind", "ro"}},
	}...)
	b.write()
	var got []string
	for l := range strings.Lines(b.ok("run", "{ID}")) {
		if f := strings.Fields(l)[4]; len(f) == 2 {
			got = append(got, f)
		}
	}
	var u unix.Utsname
	must(t, unix.Uname(&u))
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major*100+minor < 615 {
		t.Skip("Linux " + release + " does not copy detached trees")
	}
	if s := strings.Join(got, ""); s != "/a/b/c/d" {
		t.Errorf("order %s", s)
	}
}

// TestRootWithHooks: however the root is entered, hooks see the mounts below the
// bundle's path, and the program sees nothing of the host.
func TestRootWithHooks(t *testing.T) {
	for _, flags := range [][]string{nil, {"--no-pivot"}} {
		for _, propagation := range []string{"", "rprivate", "rslave", "rshared"} {
			for _, hooks := range []bool{false, true} {
				t.Run(fmt.Sprint(flags, propagation, hooks), func(t *testing.T) {
					b := newBundle(t, "sh", "-c", "ls /; ls /proc/self/exe >/dev/null; cd /; ls ..; ls -d "+"/bin/../../../../bin")
					b.spec.Linux.RootfsPropagation = propagation
					if hooks {
						b.spec.Hooks = &specs.Hooks{
							CreateRuntime:   []specs.Hook{{Path: "/bin/true"}},
							CreateContainer: []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", "test -e " + b.dir + "/rootfs/proc/self/exe"}}},
						}
					}
					b.write()
					r := b.cmd(nil, append(append([]string{"run"}, flags...), "{ID}")...)
					if want := "bin\ndev\nproc\nbin\ndev\nproc\n/bin/../../../../bin\n"; r.out != want || r.code != 0 {
						t.Errorf("%+v", r)
					}
					if mounts := readBack(t, "/proc/self/mountinfo"); strings.Contains(mounts, b.dir) {
						t.Error("a mount travelled to the host")
					}
				})
			}
		}
	}
}
