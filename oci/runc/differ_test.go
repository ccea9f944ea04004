package runc_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
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
		if err := exec.Command(peer, "--root", root, "delete", "--force", id).Run(); err != nil {
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
	// What the shim's statistics need is there; cpuset and the kernel's part of the
	// memory accounting are not.
	compare("events", []byte(b.ok("events", "--stats", "{ID}")), runc("events", "--stats", id),
		".data.cpuset", ".data.memory.kernel", ".data.memory.swap", ".data.hugetlb", ".data.cpu.usage.percpu_", ".data.blkio", ".data.memory.raw", ".data.memory.cache")
	compare("features", []byte(b.ok("features")), runc("features"), ".annotations.")
	ours, theirs := t.TempDir(), t.TempDir()
	for _, flags := range [][]string{nil, {"--rootless"}} {
		b.ok(append([]string{"spec", "--bundle", ours}, flags...)...)
		runc(append([]string{"spec", "--bundle", theirs}, flags...)...)
		o, p := filepath.Join(ours, "config.json"), filepath.Join(theirs, "config.json")
		compare("spec", []byte(readBack(t, o)), []byte(readBack(t, p)), ".process.capabilities.ambient")
		must(t, os.Remove(o))
		must(t, os.Remove(p))
	}
	b.ok("spec", "--bundle", ours)
	b.refused("exists, remove it first", "spec", "--bundle", ours)
}
