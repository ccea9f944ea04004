package oci_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountPoints of this mount namespace, sorted.
func mountPoints(t testing.TB) []string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	var out []string
	for l := range strings.Lines(string(b)) {
		out = append(out, strings.Fields(l)[4])
	}
	slices.Sort(out)
	return out
}

// TestSharedHost: on a host whose mounts are shared, as systemd makes them, a
// container changes nothing of the host's mount table, whatever propagation it
// asks for. Leaving the old root once took all the host's mounts along.
func TestSharedHost(t *testing.T) { bothWays(t, testSharedHost) }

func testSharedHost(t *testing.T, fresh bool) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	const inside = "GANTRY_TEST_SHARED_HOST"
	if os.Getenv(inside) == "" {
		cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestSharedHost$", "-test.v")
		cmd.Env = append(os.Environ(), inside+"=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	// The machine itself stays out of it: Unshareflags made all mounts private.
	must(t, unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""))
	root := newRootfs(t)
	work := t.TempDir()
	for _, d := range []string{"u", "w"} {
		must(t, os.Mkdir(filepath.Join(work, d), 0o755))
	}
	before := mountPoints(t)
	for _, prop := range []string{"", "private", "rprivate", "slave", "rslave", "shared", "rshared", "unbindable", "runbindable"} {
		for _, overlay := range []bool{false, true} {
			b := newBoxBy(fresh, root, "sh", "-c", "grep -q ' /proc ' /proc/self/mountinfo && umount /proc 2>/dev/null; echo ok")
			b.opts.Spec.Linux.RootfsPropagation = prop
			if overlay {
				b.opts.Rootfs = oci.Rootfs{Overlay: &oci.Overlay{Lower: []string{root}, Upper: work + "/u", Work: work + "/w"}}
			}
			if out, code, err := b.tryRun(t); err != nil || out != "ok\n" || code != 0 {
				t.Errorf("%q, overlay %v: %q, %d, %v", prop, overlay, out, code, err)
			}
			if after := mountPoints(t); !slices.Equal(before, after) {
				t.Fatalf("%q, overlay %v: the host's mounts were\n%s\nand are\n%s", prop, overlay, strings.Join(before, "\n"), strings.Join(after, "\n"))
			}
		}
	}
}

// TestSharedMountsStay: letting go of the old root once made the container's own
// shared mounts slaves.
func TestSharedMountsStay(t *testing.T) {
	b := newBox(newRootfs(t), "grep", "-E", " /(s|p) ", "/proc/self/mountinfo")
	for dest, prop := range map[string]string{"/s": "shared", "/p": "private"} {
		b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, specs.Mount{Destination: dest, Type: "tmpfs", Source: "tmpfs", Options: []string{prop}})
	}
	out, code := b.run(t)
	for l := range strings.Lines(out) {
		if shared := strings.Contains(l, " shared:"); shared != strings.Contains(l, " /s ") {
			t.Errorf("%q", l)
		}
	}
	if strings.Count(out, "\n") != 2 || code != 0 {
		t.Errorf("%q %d", out, code)
	}
}
