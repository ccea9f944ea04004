package runtime

import (
	"encoding/json"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var starts = flag.Int("starts", 100, "containers to start and stop in the leak test")

// TestLeaks starts and stops containers and looks for what is left: mounts, cgroups,
// state, processes.
func TestLeaks(t *testing.T) {
	bundle := t.TempDir()
	busybox(t, filepath.Join(bundle, "rootfs"))
	s := &specs.Spec{
		Version: specs.Version, Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{Args: []string{"/bin/true"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
		Linux: &specs.Linux{CgroupsPath: "/gruntime-leak", Namespaces: []specs.LinuxNamespace{
			{Type: specs.MountNamespace},
			{Type: specs.PIDNamespace},
			{Type: specs.UTSNamespace},
			{Type: specs.IPCNamespace},
			{Type: specs.NetworkNamespace},
		}},
	}
	root := t.TempDir()
	call := func(args ...string) {
		t.Helper()
		c := exec.Command(ours(), append([]string{"--root", root}, args...)...)
		c.Dir = bundle
		if r := run(t, c); r.code != 0 {
			t.Fatalf("%v: %+v", args, r)
		}
	}
	save := func(program ...string) {
		s.Process.Args = program
		j, err := json.Marshal(s)
		must(t, err)
		must(t, os.WriteFile(filepath.Join(bundle, "config.json"), j, 0o644))
	}
	mounts := func() int {
		b, err := os.ReadFile("/proc/self/mountinfo")
		must(t, err)
		return strings.Count(string(b), "\n")
	}
	before := mounts()
	save("/bin/true")
	for range *starts {
		call("run", "x")
	}
	save("/bin/sleep", "1000")
	for range max(1, *starts/10) {
		call("create", "x")
		call("start", "x")
		call("exec", "x", "/bin/true")
		call("kill", "x", "KILL")
		call("delete", "x")
	}
	if n := mounts(); n != before {
		t.Errorf("%d mounts before, %d after", before, n)
	}
	if l, _ := filepath.Glob("/sys/fs/cgroup/*/gruntime-leak"); len(l) != 0 {
		t.Errorf("cgroups left: %v", l)
	}
	if l, err := os.ReadDir(root); err != nil || len(l) != 0 {
		t.Errorf("state left: %v %v", l, err)
	}
	await(t, "the end of all processes", func() bool {
		exes, _ := filepath.Glob("/proc/[0-9]*/root")
		for _, e := range exes {
			if l, err := os.Readlink(e); err == nil && strings.HasPrefix(l, bundle) {
				return false
			}
			if l, err := os.Readlink(filepath.Dir(e) + "/exe"); err == nil && l == ours() {
				return false
			}
		}
		return true
	})
}
