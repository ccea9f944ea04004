package oci_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// The table "Known attacks" of docs/SPEC.md says which test stands for which.

// TestRuntimeExecutable: the container's first process is the runtime's own
// executable by #!/proc/self/exe; nobody inside can open it for writing (CVE-2019-5736).
func TestRuntimeExecutable(t *testing.T) { bothWays(t, testRuntimeExecutable) }

func testRuntimeExecutable(t *testing.T, fresh bool) {
	needsStatic(t)
	root := newRootfs(t)
	must(t, os.WriteFile(filepath.Join(root, "bin/trap"), []byte("#!/proc/self/exe -test.v=true\n"), 0o755))
	b := newBoxBy(fresh, root, "trap")
	b.opts.Spec.Process.Env = append(b.opts.Spec.Process.Env, stay+"=1")
	in, hold, err := os.Pipe()
	must(t, err)
	defer hold.Close()
	b.opts.Stdio.In = in
	p := sleeping(t, b)
	in.Close()
	out, code, err := execIn(t, p, b, &specs.Process{Args: []string{"sh", "-c", "(: >>/proc/1/exe) || (: >>/proc/self/exe)"}})
	if err != nil || code == 0 || strings.Count(out, "can't create") != 2 {
		t.Errorf("%q %d %v", out, code, err)
	}
}

// TestMaskedPaths: every path that Docker hides reads as nothing and takes nothing
// (CVE-2020-8694, CVE-2018-10892).
func TestMaskedPaths(t *testing.T) { bothWays(t, testMaskedPaths) }

func testMaskedPaths(t *testing.T, fresh bool) {
	root := newRootfs(t)
	masked := dockerSpec().Linux.MaskedPaths
	var script strings.Builder
	for _, p := range masked {
		fmt.Fprintf(&script, "if [ -d %[1]s ]; then ls -A %[1]s; touch %[1]s/x 2>/dev/null && echo %[1]s; elif [ -e %[1]s ]; then cat %[1]s; [ -c %[1]s ] || echo %[1]s; fi\n", p)
	}
	b := newBoxBy(fresh, root, "sh", "-c", script.String()+"for p in $(grep -c . /proc/self/mountinfo); do echo end; done")
	if out, _ := b.run(t); out != "end\n" {
		t.Errorf("%q", out)
	}
}

// TestNullDevice: files are masked by the null device alone: not by what the image
// has at /dev/null, whether the spec mounts a /dev or not, and not by what a bound
// /dev has there (CVE-2025-31133).
func TestNullDevice(t *testing.T) { bothWays(t, testNullDevice) }

func testNullDevice(t *testing.T, fresh bool) {
	outside := t.TempDir()
	must(t, os.WriteFile(outside+"/null", []byte("x"), 0o666))
	for name, prepare := range map[string]func(dev string) error{
		"link":  func(dev string) error { return os.Symlink(outside+"/null", dev+"/null") },
		"file":  func(dev string) error { return os.WriteFile(dev+"/null", []byte("x"), 0o666) },
		"is it": func(dev string) error { return os.Symlink(outside, dev+"/pts") },
	} {
		root := newRootfs(t)
		must(t, prepare(root+"/dev"))
		for _, bare := range []bool{false, true} {
			b := newBoxBy(fresh, root, "stat", "-c", "%t:%T", "/dev/null", "/proc/interrupts")
			if bare {
				b.opts.Spec.Mounts = withoutMount(b.opts.Spec.Mounts, "/dev")
			}
			if out, _ := b.run(t); out != "1:3\n1:3\n" {
				t.Errorf("%s, %v: %q", name, bare, out)
			}
		}
	}
	b := newBoxBy(fresh, newRootfs(t), "cat", "/proc/interrupts")
	b.opts.Spec.Mounts = append(withoutMount(b.opts.Spec.Mounts, "/dev"), specs.Mount{Destination: "/dev", Type: "bind", Source: outside, Options: []string{"rbind"}})
	if out, _, err := b.tryRun(t); err == nil || !strings.Contains(err.Error(), "not the null device") {
		t.Errorf("a file as /dev/null: %q, %v", out, err)
	}
}

// TestConsoleLinks: what an image puts at /dev/console and /dev/pts is not where the
// terminal goes (CVE-2025-52565).
func TestConsoleLinks(t *testing.T) { bothWays(t, testConsoleLinks) }

func testConsoleLinks(t *testing.T, fresh bool) {
	outside := filepath.Join(t.TempDir(), "target")
	must(t, os.WriteFile(outside, []byte("old"), 0o644))
	root := newRootfs(t)
	must(t, os.Mkdir(root+"/dev/pts", 0o755))
	for _, l := range []string{"console", "ptmx", "pts/0", "pts/ptmx"} {
		must(t, os.Symlink(outside, filepath.Join(root, "dev", l)))
	}
	b := newBoxBy(fresh, root, "sh", "-c", "tty; stat -c %t:%T /dev/console")
	b.opts.Spec.Process.Terminal = true
	p, err := oci.Create(t.Context(), &b.opts)
	must(t, err)
	out := readAll(p.Console)
	wait(t, p)
	must(t, oci.DeleteCgroup(p.Cgroup))
	if out != "/dev/pts/0\n88:0\n" {
		t.Errorf("%q", out)
	}
	// Nor does the image's devpts give one where the spec mounts none.
	b.opts.Spec.Mounts = withoutMount(b.opts.Spec.Mounts, "/dev")
	b.opts.Spec.Linux.MaskedPaths = nil
	if p, err := oci.Create(t.Context(), &b.opts); err == nil {
		p.Console.Close()
		wait(t, p)
		must(t, oci.DeleteCgroup(p.Cgroup))
		t.Error("the image's /dev/pts/ptmx gave a terminal")
	}
	if s, _ := os.ReadFile(outside); string(s) != "old" {
		t.Errorf("outside: %q", s)
	}
}

// TestProcOvermounts: nothing can stand in for what labels and sysctls are written
// to (CVE-2019-16884, CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-52881).
func TestProcOvermounts(t *testing.T) { bothWays(t, testProcOvermounts) }

func testProcOvermounts(t *testing.T, fresh bool) {
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "f"), nil, 0o644))
	root := newRootfs(t)
	for _, dest := range []string{
		"/proc/self", "/proc/self/attr", "/proc/self/attr/exec", "/proc/thread-self", "/proc/thread-self/attr/apparmor/exec",
		"/proc/sys", "/proc/sys/kernel/hostname", "/proc/sysrq-trigger", "/proc/1/attr", "/proc/../proc/self/attr", "/proc//self",
	} {
		for _, m := range []specs.Mount{{Type: "tmpfs", Source: "tmpfs"}, {Type: "bind", Source: src, Options: []string{"rbind"}}, {Type: "bind", Source: src + "/f", Options: []string{"bind"}}} {
			m.Destination = dest
			b := newBoxBy(fresh, root, "true")
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, m)
			if _, _, err := b.tryRun(t); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s over %s: %v", m.Type, dest, err)
			}
		}
	}
	// Through a link of the image, from a volume mounted elsewhere before.
	must(t, os.Symlink("/proc/self", filepath.Join(root, "way")))
	for _, dest := range []string{"/way/attr", "/way"} {
		for _, m := range []specs.Mount{{Type: "tmpfs", Source: "tmpfs"}, {Type: "bind", Source: src, Options: []string{"rbind"}}} {
			m.Destination = dest
			b := newBoxBy(fresh, root, "true")
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, m)
			if _, _, err := b.tryRun(t); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s over %s: %v", m.Type, dest, err)
			}
		}
	}
	// A sysctl is not written where the image's /proc leads.
	must(t, relink(root, "proc", src))
	b := newBoxBy(fresh, root, "true")
	b.opts.Spec.Linux.Sysctl = map[string]string{"net.ipv4.ip_forward": "1"}
	if _, _, err := b.tryRun(t); err == nil {
		t.Error("started with /proc as a link")
	}
	if ents, _ := os.ReadDir(src); len(ents) != 1 {
		t.Errorf("made outside: %v", ents)
	}
}

// TestGroupsAreExplicit: a file that a group may not read is not readable to its
// members, the primary group included, and no group of the runtime is inherited
// (CVE-2022-36109, CVE-2023-25173, CVE-2022-2989).
func TestGroupsAreExplicit(t *testing.T) { bothWays(t, testGroupsAreExplicit) }

func testGroupsAreExplicit(t *testing.T, fresh bool) {
	root := newRootfs(t)
	for name, gid := range map[string]int{"primary": 10, "additional": 20, "root": 0, "other": 30} {
		f := filepath.Join(root, "tmp", name)
		must(t, os.WriteFile(f, []byte("x"), 0o604))
		must(t, os.Chown(f, 0, gid))
		must(t, os.Chmod(f, 0o604))
	}
	user := specs.User{UID: 1000, GID: 10, AdditionalGids: []uint32{20}}
	const script = "for f in primary additional root other; do cat /tmp/$f >/dev/null 2>&1 && echo $f; done; true"
	b := newBoxBy(fresh, root, "sh", "-c", script)
	b.opts.Spec.Process.User = user
	if out, _ := b.run(t); out != "root\nother\n" {
		t.Errorf("%q", out)
	}
	p, rb := running(t, root)
	for _, w := range ways {
		out, _, err := execBy(t, p, rb, &specs.Process{Args: []string{"sh", "-c", script}, User: user}, w.fresh, func(*oci.ExecOpts) {})
		if err != nil || out != "root\nother\n" {
			t.Errorf("%s: %q %v", w.name, out, err)
		}
	}
}

// TestReleaseAgent: a container can neither write a release agent nor mount a
// hierarchy that has one (CVE-2022-0492, CVE-2023-25809).
func TestReleaseAgent(t *testing.T) { bothWays(t, testReleaseAgent) }

func testReleaseAgent(t *testing.T, fresh bool) {
	b := newBoxBy(fresh, newRootfs(t), "sh", "-c", `for f in $(find /sys/fs/cgroup -name release_agent -o -name cgroup.procs); do echo 0 2>/dev/null >$f && echo $f; done
		mkdir /tmp/c; for c in rdma memory; do mount -t cgroup -o $c c /tmp/c 2>/dev/null && echo $c; done
		unshare -C true 2>/dev/null && echo unshared; echo end`)
	if out, _ := b.run(t); out != "end\n" {
		t.Errorf("%q", out)
	}
}
