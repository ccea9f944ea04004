package ocicli_test

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go/features"
)

// TestAgainstRunc compares the shape of what is printed with an installed runc's.
// Callers parse it, so nothing that runc has may be missing.
func TestAgainstRunc(t *testing.T) {
	peer, err := exec.LookPath("runc")
	if err != nil {
		t.Skip("needs runc")
	}
	b := newBundle(t, "sleep", "1000")
	b.write()
	b.ok("run", "-d", "{ID}")
	root := t.TempDir()
	runc := func(args ...string) []byte {
		t.Helper()
		c := exec.Command(peer, append([]string{"--root", root}, args...)...)
		c.Dir = b.dir
		out, err := c.Output()
		if err != nil {
			t.Fatalf("runc %v: %v", args, err)
		}
		return out
	}
	// The other one's container has another cgroup.
	id := b.id + "-r"
	b.spec.Linux.CgroupsPath = "/gantry-runc-test/" + id
	b.write()
	c := exec.Command(peer, "--root", root, "run", "-d", id)
	c.Dir = b.dir
	must(t, c.Run())
	t.Cleanup(func() {
		c := exec.Command(peer, "--root", root, "delete", "--force", id)
		c.Dir = b.dir // runc leaves files where it is called
		if err := c.Run(); err != nil {
			t.Errorf("runc delete: %v", err)
		}
	})
	compare := func(name string, ours, theirs []byte, lacking ...string) {
		t.Helper()
		o, p := keys(t, ours), keys(t, theirs)
		for _, k := range slices.Sorted(maps.Keys(p)) {
			if !o[k] && !slices.ContainsFunc(lacking, func(l string) bool { return strings.HasPrefix(k, l) }) {
				t.Errorf("%s: runc prints %s, we do not", name, k)
			}
		}
		for _, k := range slices.Sorted(maps.Keys(o)) {
			if !p[k] {
				t.Logf("%s: we print %s, runc does not", name, k)
			}
		}
	}
	compare("state", []byte(b.ok("state", "{ID}")), runc("state", id))
	compare("list", []byte(b.ok("list", "-f", "json")), runc("list", "-f", "json"))
	compare("ps", []byte(b.ok("ps", "-f", "json", "{ID}")), runc("ps", "-f", "json", id))
	// Counters of what has not happened yet are left out by both.
	compare("events", []byte(b.ok("events", "--stats", "{ID}")), runc("events", "--stats", id),
		".data.blkio", ".data.memory.raw", ".data.memory.cache", ".data.memory.kernelTCP.usage", ".data.memory.kernelTCP.max")
	compare("features", []byte(b.ok("features")), runc("features"), ".annotations.")
	var ours, theirs features.Features
	must(t, json.Unmarshal([]byte(b.ok("features")), &ours))
	must(t, json.Unmarshal(runc("features"), &theirs))
	for name, l := range map[string][2][]string{
		"hooks": {ours.Hooks, theirs.Hooks}, "namespaces": {ours.Linux.Namespaces, theirs.Linux.Namespaces},
		"capabilities": {ours.Linux.Capabilities, theirs.Linux.Capabilities}, "actions": {ours.Linux.Seccomp.Actions, theirs.Linux.Seccomp.Actions},
		"operators": {ours.Linux.Seccomp.Operators, theirs.Linux.Seccomp.Operators}, "mount options": {ours.MountOptions, theirs.MountOptions},
	} {
		t.Run(name, func(t *testing.T) {
			for _, x := range l[1] {
				if !slices.Contains(l[0], x) {
					t.Errorf("features: runc has %s among %s, we do not", x, name)
				}
			}
		})
	}
	mine, other := t.TempDir(), t.TempDir()
	for _, flags := range [][]string{nil, {"--rootless"}} {
		b.ok(append([]string{"spec", "--bundle", mine}, flags...)...)
		runc(append([]string{"spec", "--bundle", other}, flags...)...)
		o, p := filepath.Join(mine, "config.json"), filepath.Join(other, "config.json")
		compare("spec", []byte(readBack(t, o)), []byte(readBack(t, p)), ".process.capabilities.ambient")
		must(t, os.Remove(o))
		must(t, os.Remove(p))
	}
	b.ok("spec", "--bundle", mine)
	b.refused("exists, remove it first", "spec", "--bundle", mine)
}
