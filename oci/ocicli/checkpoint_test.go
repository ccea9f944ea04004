package ocicli_test

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// counting is a container that counts on its standard output, made of what restores
// have to get right. Skipped where criu does not work (test/vm/systemd.sh has one).
func counting(t *testing.T) *bundle {
	t.Helper()
	b := newBundle(t, "sh", "-c", "i=0; while ! [ -e /data/go ]; do echo $i; i=$((i+1)); sleep 0.1; done; exit 7")
	if out, err := exec.Command("criu", "check").CombinedOutput(); err != nil {
		t.Skipf("criu does not work here (%v): %s", err, strings.SplitN(string(out), "\n", 2)[0])
	}
	must(t, os.Mkdir(filepath.Join(b.dir, "data"), 0o755))
	must(t, os.Symlink("busybox", filepath.Join(b.dir, "rootfs/bin/[")))
	must(t, os.Symlink("busybox", filepath.Join(b.dir, "rootfs/bin/touch")))
	limit, pids := int64(96<<20), int64(20)
	b.spec.Mounts = append(b.spec.Mounts,
		specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{"nosuid", "noexec", "nodev", "ro"}},
		specs.Mount{Destination: "/data", Type: "bind", Source: filepath.Join(b.dir, "data"), Options: []string{"rbind", "ro", "nosuid"}},
		specs.Mount{Destination: "/scratch", Type: "tmpfs", Source: "tmpfs"},
	)
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	b.spec.Linux.MaskedPaths = []string{"/proc/kcore", "/proc/acpi", "/sys/firmware"}
	b.spec.Linux.ReadonlyPaths = []string{"/proc/sys", "/proc/bus"}
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}, Pids: &specs.LinuxPids{Limit: &pids}}
	b.spec.Linux.Seccomp = &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Syscalls:      []specs.LinuxSyscall{{Names: []string{"swapon"}, Action: specs.ActErrno}},
	}
	b.spec.Process.NoNewPrivileges = true
	b.spec.Root.Readonly = true
	must(t, os.MkdirAll(filepath.Join(b.dir, "rootfs/scratch"), 0o755))
	b.write()
	return b
}

// piped runs the runtime with a pipe as its output and returns the pipe's other end,
// line by line.
func (b *bundle) piped(args ...string) *bufio.Scanner {
	b.t.Helper()
	r, w, err := os.Pipe()
	must(b.t, err)
	b.t.Cleanup(func() { r.Close() })
	defer w.Close()
	log := filepath.Join(b.dir, "log")
	res := b.cmd(func(c *exec.Cmd) { c.Stdout, c.Stderr = w, w }, append([]string{"--log", log}, args...)...)
	if res.code != 0 {
		b.t.Fatalf("%v: status %d: %s%s", args, res.code, readBack(b.t, log), b.criuLog())
	}
	return bufio.NewScanner(r)
}

// criuLog is the end of the last restore's log.
func (b *bundle) criuLog() string {
	out, _ := exec.Command("sh", "-c", "cd "+b.dir+" && for l in $(ls -t */*.log 2>/dev/null | head -1); do echo; echo $l; tail -n 25 $l; done").Output()
	return string(out)
}

// next is the next number.
func next(t *testing.T, s *bufio.Scanner) int {
	t.Helper()
	if !s.Scan() {
		t.Fatalf("no more numbers: %v", s.Err())
	}
	n, err := strconv.Atoi(s.Text())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// nothingLeft looks for what a failed or ended restore may leave.
func (b *bundle) nothingLeft() {
	b.t.Helper()
	if l, err := os.ReadDir(b.root); err != nil || len(l) != 0 {
		b.t.Errorf("left in the state directory: %v %v", l, err)
	}
	out, err := exec.Command("find", "/sys/fs/cgroup", "-name", b.id).Output()
	if err != nil || len(out) != 0 {
		b.t.Errorf("left of the cgroup: %s %v", out, err)
	}
	if s := readBack(b.t, "/proc/self/mountinfo"); strings.Contains(s, b.root) {
		b.t.Errorf("left of mounts: %s", s)
	}
}

func TestCheckpoint(t *testing.T) {
	b := counting(t)
	out := b.piped("run", "-d", "{ID}")
	for next(t, out) < 3 {
	}
	b.ok("checkpoint", "--image-path", "{DIR}/img", "{ID}")
	b.refused("container does not exist", "state", "{ID}")
	b.nothingLeft()
	last := 3
	for out.Scan() {
		last, _ = strconv.Atoi(out.Text())
	}
	out = b.piped("restore", "-d", "--image-path", "{DIR}/img", "--pid-file", "{DIR}/pid", "{ID}")
	if n := next(t, out); n != last+1 {
		t.Errorf("counts on with %d after %d", n, last)
	}
	if s := b.status(); s != "running" {
		t.Errorf("status %s", s)
	}
	if got := readBack(t, filepath.Join(b.dir, "pid")); got != b.field("pid") {
		t.Errorf("pid file %s, state %s", got, b.field("pid"))
	}
	got := b.ok("exec", "{ID}", "sh", "-c", `grep -E "NoNewPrivs|Seccomp:" /proc/1/status; cat /proc/1/cgroup | grep -v ':/$'; head -c1 /proc/kcore; ls /proc/acpi; echo x >/data/x; echo x >/x; ls /sys/firmware; echo end`)
	if got != "NoNewPrivs:\t1\nSeccomp:\t2\nend\n" {
		t.Errorf("inside: %q", got)
	}
	mem := b.cgroupFile("memory", "memory.limit_in_bytes", "memory.max")
	if pids := b.cgroupFile("pids", "pids.max", "pids.max"); mem != "100663296" || pids != "20" {
		t.Errorf("limits: %s, %s", mem, pids)
	}
	b.ok("pause", "{ID}")
	b.ok("resume", "{ID}")
	b.ok("kill", "{ID}", "KILL")
	await(t, "the end", func() bool { return b.status() == "stopped" })
	b.ok("delete", "{ID}")
	b.nothingLeft()

	// In the foreground its status is followed.
	must(t, os.WriteFile(filepath.Join(b.dir, "data/go"), nil, 0o644))
	if r := b.cmd(nil, "restore", "--image-path", "{DIR}/img", "{ID}"); r.code != 7 {
		t.Errorf("%+v%s", r, b.criuLog())
	}
	b.nothingLeft()
}

func (b *bundle) cgroupFile(controller, v1, v2 string) string {
	b.t.Helper()
	p := filepath.Join("/sys/fs/cgroup", b.spec.Linux.CgroupsPath, v2)
	if !unifiedHere() {
		p = filepath.Join("/sys/fs/cgroup", controller, b.spec.Linux.CgroupsPath, v1)
	}
	return strings.TrimSpace(readBack(b.t, p))
}

// TestCheckpointSteps: memory first, while it runs, and what changed since.
func TestCheckpointSteps(t *testing.T) {
	b := counting(t)
	out := b.piped("run", "-d", "{ID}")
	next(t, out)
	b.refused("must be relative", "checkpoint", "--parent-path", "/x", "--image-path", "{DIR}/img", "{ID}")
	b.refused("invalid --parent-path", "checkpoint", "--parent-path", "../nosuch", "--image-path", "{DIR}/img", "{ID}")
	b.refused("page-server", "checkpoint", "--page-server", "x", "{ID}")
	b.refused("manage-cgroups-mode", "checkpoint", "--manage-cgroups-mode", "x", "{ID}")
	b.refused("not supported", "checkpoint", "--empty-ns", "pid", "{ID}")
	b.ok("checkpoint", "--pre-dump", "--image-path", "{DIR}/pre", "{ID}")
	next(t, out)
	b.ok("checkpoint", "--leave-running", "--parent-path", "../pre", "--image-path", "{DIR}/img", "--work-path", "{DIR}/work", "{ID}")
	if _, err := os.Stat(filepath.Join(b.dir, "work/dump.log")); err != nil {
		t.Error(err)
	}
	next(t, out)
	if s := b.status(); s != "running" {
		t.Errorf("status %s", s)
	}
	b.refused("container with given ID already exists", "restore", "-d", "--image-path", "{DIR}/img", "{ID}")
	b.ok("delete", "--force", "{ID}")
	out = b.piped("restore", "-d", "--image-path", "{DIR}/img", "{ID}")
	next(t, out)
	b.ok("pause", "{ID}")
	b.ok("checkpoint", "--image-path", "{DIR}/img2", "{ID}")
	b.nothingLeft()
}

// TestCheckpointHostile: the configuration counts, whatever the images say.
func TestCheckpointHostile(t *testing.T) {
	b := counting(t)
	loose := *b.spec
	proc, linux := *b.spec.Process, *b.spec.Linux
	loose.Process, loose.Linux = &proc, &linux
	strict := b.spec
	// What it was when it was saved: less strict in all.
	proc.NoNewPrivileges = true
	linux.Seccomp, linux.MaskedPaths, linux.ReadonlyPaths = nil, nil, nil
	loose.Mounts = append([]specs.Mount{}, strict.Mounts...)
	for i := range loose.Mounts {
		if m := &loose.Mounts[i]; m.Destination == "/data" || m.Destination == "/sys" {
			m.Options = []string{"rbind"}
			if m.Type == "sysfs" {
				m.Options = nil
			}
		}
	}
	loose.Root = &specs.Root{Path: "rootfs"}
	b.spec = &loose
	b.write()
	out := b.piped("run", "-d", "{ID}")
	next(t, out)
	b.ok("checkpoint", "--image-path", "{DIR}/img", "{ID}")
	fails := func(name, want string, change func(s *specs.Spec)) {
		t.Helper()
		s := loose
		p, l := *loose.Process, *loose.Linux
		s.Process, s.Linux = &p, &l
		s.Mounts = append([]specs.Mount{}, loose.Mounts...)
		change(&s)
		b.spec = &s
		b.write()
		r := b.cmd(nil, "restore", "-d", "--image-path", "{DIR}/img", "{ID}")
		if r.code != 1 || !strings.Contains(r.err, want) {
			t.Errorf("%s: %+v, want %q%s", name, r, want, b.criuLog())
		}
		b.nothingLeft()
	}
	mount := func(s *specs.Spec, dest string) *specs.Mount {
		for i := range s.Mounts {
			if s.Mounts[i].Destination == dest {
				return &s.Mounts[i]
			}
		}
		return nil
	}
	fails("capabilities", "capabilities", func(s *specs.Spec) {
		few := []string{"CAP_KILL"}
		s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: few, Effective: few, Permitted: few}
	})
	fails("seccomp", "seccomp filter", func(s *specs.Spec) { s.Linux.Seccomp = strict.Linux.Seccomp })
	fails("masks", "/proc/kcore is not masked", func(s *specs.Spec) { s.Linux.MaskedPaths = strict.Linux.MaskedPaths })
	fails("read-only paths", "/proc/sys is not read-only", func(s *specs.Spec) { s.Linux.ReadonlyPaths = strict.Linux.ReadonlyPaths })
	fails("read-only bind", "/data is mounted without ro", func(s *specs.Spec) { mount(s, "/data").Options = []string{"rbind", "ro"} })
	fails("read-only sysfs", "/sys is not read-only", func(s *specs.Spec) { mount(s, "/sys").Options = []string{"ro"} })
	fails("namespace", "network namespace", func(s *specs.Spec) {
		s.Linux.Namespaces = nil
		for _, n := range loose.Linux.Namespaces {
			if n.Type != specs.NetworkNamespace {
				s.Linux.Namespaces = append(s.Linux.Namespaces, n)
			}
		}
	})
	fails("a mount less", "criu failed", func(s *specs.Spec) {
		*mount(s, "/data") = specs.Mount{Destination: "/data", Type: "tmpfs", Source: "tmpfs"}
	})
	fails("user namespace", "user namespace", func(s *specs.Spec) {
		s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		id := []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 1000}}
		s.Linux.UIDMappings, s.Linux.GIDMappings = id, id
	})
	// Links in the root, where criu would mount.
	must(t, os.Remove(filepath.Join(b.dir, "rootfs/data")))
	must(t, os.Symlink("/etc", filepath.Join(b.dir, "rootfs/data")))
	fails("a link", "mount point /data/ of the container", func(*specs.Spec) {})
	must(t, os.Remove(filepath.Join(b.dir, "rootfs/data")))
	// What says which streams there were.
	file := filepath.Join(b.dir, "img/descriptors.json")
	saved := readBack(t, file)
	for _, bad := range []string{`["a","b","c","d"]`, `{`, strings.Repeat(" ", 5000), fmt.Sprintf("[%q]", strings.Repeat("x", 400))} {
		must(t, os.WriteFile(file, []byte(bad), 0o600))
		fails("descriptors", "descriptors.json", func(*specs.Spec) {})
	}
	must(t, os.Remove(file))
	must(t, os.Symlink("/etc/passwd", file))
	fails("descriptors by a link", "descriptors.json", func(*specs.Spec) {})
	must(t, os.Remove(file))
	must(t, unix.Mkfifo(file, 0o600))
	fails("a pipe", "descriptors.json", func(*specs.Spec) {})
	must(t, os.Remove(file))
	must(t, os.WriteFile(file, []byte(saved), 0o600))
	// And as it was, it restores; /data is made again.
	b.spec = &loose
	b.write()
	next(t, b.piped("restore", "-d", "--image-path", "{DIR}/img", "{ID}"))
	b.ok("delete", "-f", "{ID}")
	b.nothingLeft()
}

func TestCheckpointRefused(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	b.ok("create", "{ID}")
	b.refused("Container cannot be checkpointed in created state", "checkpoint", "{ID}")
	b.ok("start", "{ID}")
	b.refused("CRIU, which is not installed here", "--criu", "/nosuch/criu", "checkpoint", "--image-path", "{DIR}/img", "{ID}")
	// A program that is no criu.
	b.refused("criu does not work here", "--criu", "/bin/true", "checkpoint", "--image-path", "{DIR}/img", "{ID}")
	if s := b.status(); s != "running" {
		t.Errorf("status %s", s)
	}
	b.ok("delete", "-f", "{ID}")
	b.refused("CRIU, which is not installed here", "--criu", "/nosuch/criu", "restore", "--image-path", "{DIR}/img", "{ID}")
	b.refused("no such file", "restore", "--image-path", "{DIR}/nosuch", "{ID}")
	b.refused("container does not exist", "checkpoint", "{ID}")
	b.nothingLeft()
}

// TestCheckpointTerminal: the terminal's master side is handed over again.
func TestCheckpointTerminal(t *testing.T) {
	b := counting(t)
	b.spec.Process.Terminal = true
	b.write()
	path := filepath.Join(b.dir, "console.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	defer l.Close()
	b.ok("run", "-d", "--console-socket", path, "{ID}")
	master := receive(t, l)
	next(t, bufio.NewScanner(master))
	b.ok("checkpoint", "--shell-job", "--image-path", "{DIR}/img", "{ID}")
	master.Close()
	b.refused("cannot allocate tty if runc will detach without setting console socket", "restore", "-d", "--shell-job", "--image-path", "{DIR}/img", "{ID}")
	b.ok("restore", "-d", "--shell-job", "--console-socket", path, "--image-path", "{DIR}/img", "{ID}")
	master = receive(t, l)
	defer master.Close()
	next(t, bufio.NewScanner(master))
	b.ok("delete", "-f", "{ID}")
	b.nothingLeft()
}
