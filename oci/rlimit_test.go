package oci_test

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestOpenFilesLimit: a program without limits of its own gets the runtime's own
// one, not the one that Go raised for itself, however its process is started.
func TestOpenFilesLimit(t *testing.T) {
	const inside = "GANTRY_TEST_NOFILE"
	if os.Getenv(inside) == "" {
		root := newRootfs(t)
		reachable(t, root, 100000)
		// A shell sets the limit that this test, started again, finds.
		cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "ulimit -Sn 321 && exec /proc/self/fd/3 -test.run='^TestOpenFilesLimit$' -test.v")
		self, err := os.Open("/proc/self/exe")
		must(t, err)
		defer self.Close()
		cmd.ExtraFiles = []*os.File{self}
		cmd.Env = append(os.Environ(), inside+"="+root)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	root := os.Getenv(inside)
	const script = "ulimit -Sn"
	b := newBox(root, "sh", "-c", script)
	if out, _ := b.run(t); out != "321\n" {
		t.Errorf("plain: %q", out)
	}
	host, done := hostNetNS(t)
	defer done()
	b.userNS(100000)
	b.opts.Namespaces = map[specs.LinuxNamespaceType]*os.File{specs.NetworkNamespace: host}
	b.opts.Spec.Mounts = withoutMount(b.opts.Spec.Mounts, "/sys")
	if out, _ := b.run(t); out != "321\n" {
		t.Errorf("through nsenter: %q", out)
	}
	b = newBox(root, "sleep", "1000")
	b.userNS(100000)
	p := sleeping(t, b)
	for range 2 {
		if out, _, err := execBy(t, p, b, &specs.Process{Args: []string{"sh", "-c", script}}, true, func(*oci.ExecOpts) {}); err != nil || out != "321\n" {
			t.Errorf("exec: %q %v", out, err)
		}
	}
	p, b = running(t, root)
	bothWays(t, func(t *testing.T, fresh bool) {
		if out, _, err := execBy(t, p, b, &specs.Process{Args: []string{"sh", "-c", script}}, fresh, func(*oci.ExecOpts) {}); err != nil || out != "321\n" {
			t.Errorf("plain exec: %q %v", out, err)
		}
	})
	var own unix.Rlimit
	must(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &own))
	if own.Cur <= 321 {
		t.Errorf("this process's own limit is %d now", own.Cur)
	}
	if out, err := exec.CommandContext(t.Context(), "/bin/sh", "-c", script).Output(); err != nil || string(out) != "321\n" {
		t.Errorf("a child of Go: %q %v", out, err)
	}
}
