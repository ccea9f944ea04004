package oci_test

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gantry/gantry/oci"
	ociinit "github.com/gantry/gantry/oci/init"
	"github.com/gantry/gantry/oci/launch/selfexe"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// stay in the environment has the test binary wait for the end of its input.
const stay = "GANTRY_TEST_STAY"

func TestMain(m *testing.M) {
	ociinit.Main()
	if os.Getenv(stay) != "" {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	if err := selfexe.Run(); err != nil { // as the shim does
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	// The parent of the tests' cgroups; the kernel refuses while one is left in it.
	left, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-test")
	for _, d := range append(left, "/sys/fs/cgroup/gantry-test") {
		_ = os.Remove(d)
	}
	os.Exit(code)
}

var serial atomic.Int64

// newRootfs makes a root with busybox, as root only.
func newRootfs(t testing.TB) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	bb, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	root := filepath.Join(t.TempDir(), "root")
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "root"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	must(t, os.Chmod(filepath.Join(root, "tmp"), 0o1777))
	b, err := os.ReadFile(bb)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755))
	out, err := exec.Command(bb, "--list").Output()
	must(t, err)
	for _, a := range strings.Fields(string(out)) {
		if a != "busybox" {
			must(t, os.Symlink("busybox", filepath.Join(root, "bin", a)))
		}
	}
	must(t, os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"), 0o644))
	return root
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
	"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

// dockerSpec is a spec as Docker makes one.
func dockerSpec(args ...string) *specs.Spec {
	ns := func(ts ...specs.LinuxNamespaceType) (out []specs.LinuxNamespace) {
		for _, t := range ts {
			out = append(out, specs.LinuxNamespace{Type: t})
		}
		return out
	}
	mnt := func(dest, typ string, opts ...string) specs.Mount {
		return specs.Mount{Destination: dest, Type: typ, Source: typ, Options: opts}
	}
	return &specs.Spec{
		Version:  specs.Version,
		Hostname: "box",
		Process: &specs.Process{
			Args: args, Cwd: "/",
			Env:          []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps},
		},
		Root: &specs.Root{},
		Mounts: []specs.Mount{
			mnt("/proc", "proc", "nosuid", "noexec", "nodev"),
			mnt("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
			mnt("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"),
			mnt("/sys", "sysfs", "nosuid", "noexec", "nodev", "ro"),
			mnt("/sys/fs/cgroup", "cgroup", "ro", "nosuid", "noexec", "nodev"),
			mnt("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
			mnt("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=67108864"),
		},
		Linux: &specs.Linux{
			Resources:  &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}},
			Namespaces: ns(specs.MountNamespace, specs.NetworkNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.IPCNamespace, specs.CgroupNamespace),
			MaskedPaths: []string{
				"/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys",
				"/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",
				"/sys/firmware", "/sys/devices/virtual/powercap",
			},
			ReadonlyPaths: []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"},
		},
	}
}

// box is one test container.
type box struct {
	opts oci.CreateOpts
}

func newBox(root string, args ...string) *box {
	id := fmt.Sprintf("test-%d-%d", os.Getpid(), serial.Add(1))
	b := &box{opts: oci.CreateOpts{ID: id, Spec: dockerSpec(args...), Rootfs: oci.Rootfs{Path: root}}}
	b.opts.Spec.Linux.CgroupsPath = "/gantry-test/" + id
	return b
}

// newBoxBy is newBox for a container that starts in the way fresh says.
func newBoxBy(fresh bool, root string, args ...string) *box {
	b := newBox(root, args...)
	b.opts.Fresh = fresh
	return b
}

// wait reaps a process and returns its status as a shell would.
func wait(t testing.TB, p *oci.Process) int {
	t.Helper()
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(p.Pid, &ws, 0, nil)
		if err == unix.EINTR {
			continue
		}
		must(t, err)
		break
	}
	p.PidFD.Close()
	if ws.Signaled() {
		return 128 + int(ws.Signal())
	}
	return ws.ExitStatus()
}

// run runs the box to its end and returns what it wrote.
func (b *box) run(t testing.TB) (string, int) {
	t.Helper()
	out, code, err := b.tryRun(t)
	if err != nil {
		t.Fatalf("create: %v", err)
	}
	return out, code
}

func (b *box) tryRun(t testing.TB) (string, int, error) {
	t.Helper()
	p, collect, err := b.start(t)
	if err != nil {
		return "", 0, err
	}
	code := wait(t, p)
	out := collect()
	must(t, oci.DeleteCgroup(p.Cgroup))
	return out, code, nil
}

func (b *box) start(t testing.TB) (*oci.Process, func() string, error) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	b.opts.Stdio.Out, b.opts.Stdio.Err = w, w
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	p, err := oci.Create(ctx, &b.opts)
	w.Close()
	if err != nil {
		r.Close()
		return nil, nil, err
	}
	return p, func() string {
		defer r.Close()
		var buf bytes.Buffer
		_, err := io.Copy(&buf, r)
		must(t, err)
		return buf.String()
	}, nil
}

// needsStatic skips where this program wants a loader, as builds with the race
// detector do, for tests that execute it inside a container.
func needsStatic(t testing.TB) {
	t.Helper()
	f, err := elf.Open("/proc/self/exe")
	must(t, err)
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			t.Skip("needs a static test binary")
		}
	}
}

// needsTimeNS skips where execve does not enter a new time namespace.
func needsTimeNS(t testing.TB) {
	t.Helper()
	if release, ok := kernelSince(t, 6, 3); !ok {
		t.Skip("new time namespaces need Linux 6.3, this is " + release)
	}
}

// kernelSince tells whether the kernel is at least of that version.
func kernelSince(t testing.TB, major, minor int) (release string, ok bool) {
	t.Helper()
	var u unix.Utsname
	must(t, unix.Uname(&u))
	release = unix.ByteSliceToString(u.Release[:])
	var a, b int
	_, err := fmt.Sscanf(release, "%d.%d", &a, &b)
	return release, err == nil && (a > major || a == major && b >= minor)
}
