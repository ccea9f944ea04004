package oci_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/plan/seccomp"
	"github.com/gantry/gantry/test/poll"
	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestRunExitStatus(t *testing.T) {
	root := newRootfs(t)
	for _, c := range []struct {
		script string
		code   int
	}{{"true", 0}, {"false", 1}, {"exit 7", 7}, {"sh -c 'kill -9 $$'; exit $?", 137}} {
		t.Run(c.script, func(t *testing.T) {
			b := newBox(root, "sh", "-c", c.script)
			if out, code := b.run(t); code != c.code {
				t.Errorf("%s: status %d, want %d (%s)", c.script, code, c.code, out)
			}
		})
	}
}

func TestErrorsUsersKnow(t *testing.T) {
	root := newRootfs(t)
	must(t, os.WriteFile(filepath.Join(root, "etc/notelf"), []byte("junk"), 0o755))
	for _, c := range []struct {
		args  []string
		cwd   string
		class error
		text  string
	}{
		{[]string{"foo"}, "/", errdefs.ErrNotFound, `exec: "foo": executable file not found in $PATH`},
		{[]string{""}, "/", errdefs.ErrNotFound, `exec: "": executable file not found in $PATH`},
		{[]string{"/foo"}, "/", errdefs.ErrNotFound, `exec: "/foo": stat /foo: no such file or directory`},
		{[]string{"/etc/passwd"}, "/", errdefs.ErrPermissionDenied, `exec: "/etc/passwd": permission denied`},
		{[]string{"/etc"}, "/", errdefs.ErrPermissionDenied, `exec: "/etc": is a directory`},
		{[]string{"/etc/notelf"}, "/", errdefs.ErrInvalidArgument, `exec /etc/notelf: exec format error`},
		{[]string{"true"}, "/etc/passwd", errdefs.ErrInvalidArgument, `chdir to cwd ("/etc/passwd") set in config.json failed: not a directory`},
		{[]string{"true"}, "/proc/self/fd/4", errdefs.ErrInvalidArgument, `chdir to cwd ("/proc/self/fd/4") set in config.json failed: too many levels of symbolic links`},
		{nil, "/", errdefs.ErrInvalidArgument, `args must not be empty`},
	} {
		t.Run(c.cwd+" "+c.text, func(t *testing.T) {
			b := newBox(root, c.args...)
			b.opts.Spec.Process.Cwd = c.cwd
			_, _, err := b.tryRun(t)
			if err == nil || err.Error() != c.text || !errors.Is(err, c.class) {
				t.Errorf("%q in %s: %v (class %v)", c.args, c.cwd, err, errors.Is(err, c.class))
			}
		})
	}
}

// TestCwdThroughDescriptors: no working directory through a leaked descriptor
// (CVE-2024-21626), for a container and for an exec.
func TestCwdThroughDescriptors(t *testing.T) { bothWays(t, testCwdThroughDescriptors) }

func testCwdThroughDescriptors(t *testing.T, fresh bool) {
	root := newRootfs(t)
	p, b := running(t, root)
	for fd := range 20 {
		cwd := fmt.Sprintf("/proc/self/fd/%d", fd)
		b2 := newBoxBy(fresh, root, "pwd")
		b2.opts.Spec.Process.Cwd = cwd
		if out, _, err := b2.tryRun(t); err == nil {
			t.Errorf("%s: %s", cwd, out)
		}
		if out, _, err := execIn(t, p, b, &specs.Process{Args: []string{"pwd"}, Cwd: cwd}); err == nil {
			t.Errorf("exec %s: %s", cwd, out)
		}
	}
}

func TestInside(t *testing.T) { bothWays(t, testInside) }

func testInside(t *testing.T, fresh bool) {
	root := newRootfs(t)
	for _, c := range []struct {
		name, script, want string
		edit               func(*specs.Spec)
	}{
		{"hostname", "hostname", "box\n", nil},
		{"pid", "echo $$", "1\n", nil},
		{"home", "echo $HOME", "/root\n", nil},
		{"home of a user", "echo $HOME", "/home/user\n", func(s *specs.Spec) { s.Process.User.UID = 1000 }},
		{"ids", "id -u; id -g; id -G", "5\n6\n6 7 8\n", func(s *specs.Spec) {
			s.Process.User = specs.User{UID: 5, GID: 6, AdditionalGids: []uint32{7, 8}}
		}},
		{"no groups", "id -G", "0\n", nil},
		{
			"caps", "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status",
			"CapInh:\t0000000000000000\nCapPrm:\t00000000a80425fb\nCapEff:\t00000000a80425fb\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n", nil,
		},
		{
			"caps of a user", "grep -E 'Cap(Inh|Prm|Eff|Bnd|Amb)' /proc/self/status",
			"CapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t00000000a80425fb\nCapAmb:\t0000000000000000\n",
			func(s *specs.Spec) { s.Process.User.UID = 1000 },
		},
		{"no caps", "grep CapEff /proc/self/status", "CapEff:\t0000000000000000\n", func(s *specs.Spec) { s.Process.Capabilities = nil }},
		{"ambient", "grep -E 'Cap(Eff|Amb)' /proc/self/status", "CapEff:\t0000000000000400\nCapAmb:\t0000000000000400\n", func(s *specs.Spec) {
			c := []string{"CAP_NET_BIND_SERVICE"}
			s.Process.User.UID = 1000
			s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: c, Permitted: c, Effective: c, Ambient: c}
		}},
		{"no new privs", "grep NoNewPrivs /proc/self/status", "NoNewPrivs:\t1\n", func(s *specs.Spec) { s.Process.NoNewPrivileges = true }},
		{"umask", "umask", "0022\n", nil},
		{"umask asked", "umask", "0077\n", func(s *specs.Spec) { u := uint32(0o77); s.Process.User.Umask = &u }},
		{"rlimit", "ulimit -n; ulimit -Hn", "100\n200\n", func(s *specs.Spec) {
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}}
		}},
		{"small address space", "ulimit -v; ulimit -u", "8192\n1\n", func(s *specs.Spec) {
			s.Process.User.UID = 1000
			s.Process.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_AS", Soft: 8 << 20, Hard: 8 << 20}, {Type: "RLIMIT_NPROC", Soft: 1, Hard: 1}}
		}},
		{"cwd is made", "pwd", "/made/here\n", func(s *specs.Spec) { s.Process.Cwd = "/made/here" }},
		{"read-only root", "echo x 2>/dev/null >/f || echo no", "no\n", func(s *specs.Spec) { s.Root.Readonly = true }},
		{"read-only path", "echo x 2>/dev/null >/proc/sys/kernel/hostname || echo no", "no\n", nil},
		{"masked file", "wc -c </proc/interrupts; wc -c </proc/keys", "0\n0\n", nil},
		{"masked directory", "ls /sys/firmware | wc -l; touch /sys/firmware/x 2>/dev/null || echo no", "0\nno\n", nil},
		{"tmpfs", "stat -f -c %T /t; stat -c %a /t; touch /t/x && echo ok", "tmpfs\n1777\nok\n", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", Options: []string{"noexec", "mode=1777", "size=64k"}})
		}},
		{"tmpcopyup", "ls /etc", "notelf\npasswd\n", func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/etc", Type: "tmpfs", Source: "tmpfs", Options: []string{"tmpcopyup"}})
		}},
		{
			"devices", "stat -c '%n %t:%T %a' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty",
			"/dev/null 1:3 666\n/dev/zero 1:5 666\n/dev/full 1:7 666\n/dev/random 1:8 666\n/dev/urandom 1:9 666\n/dev/tty 5:0 666\n", nil,
		},
		{"links", "for l in ptmx fd stdin; do readlink /dev/$l; done", "pts/ptmx\n/proc/self/fd\n/proc/self/fd/0\n", nil},
		{"descriptors", "ls /proc/self/fd", "0\n1\n2\n3\n", nil}, // 3 is ls's own
		{"loopback", "ping -c 1 -W 1 127.0.0.1 >/dev/null && echo up", "up\n", nil},
		{"own network", "ls /sys/class/net", "lo\n", nil},
		{"cgroup root", "grep -c ':/$' /proc/self/cgroup >/dev/null && grep -cv ':/$' /proc/self/cgroup", "0\n", nil},
		{"cgroup read-only", "mkdir /sys/fs/cgroup/memory/x 2>/dev/null || mkdir /sys/fs/cgroup/x 2>/dev/null || echo no", "no\n", nil},
		{"sysctl", "cat /proc/sys/net/ipv4/ip_unprivileged_port_start", "0\n", func(s *specs.Spec) {
			s.Linux.Sysctl = map[string]string{"net.ipv4.ip_unprivileged_port_start": "0"}
		}},
		{"host devices denied", "mknod /tmp/d b 254 0; cat /tmp/d 2>&1 | grep -c 'not permitted'", "1\n", nil},
		{"env, last wins", "echo $A", "2\n", func(s *specs.Spec) { s.Process.Env = append(s.Process.Env, "A=1", "A=2") }},
		{"masked by nothing missing", "echo ok", "ok\n", func(s *specs.Spec) { s.Linux.MaskedPaths = append(s.Linux.MaskedPaths, "/no/such/path") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBoxBy(fresh, root, "sh", "-c", c.script)
			if c.edit != nil {
				c.edit(b.opts.Spec)
			}
			if c.name == "tmpcopyup" {
				must(t, os.WriteFile(filepath.Join(root, "etc/notelf"), []byte("junk"), 0o755))
			}
			if out, _ := b.run(t); out != c.want {
				t.Errorf("got %q, want %q", out, c.want)
			}
		})
	}
}

func TestBinds(t *testing.T) {
	root := newRootfs(t)
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "f"), []byte("data"), 0o644))
	bind := func(dest, source string, opts ...string) specs.Mount {
		return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: append([]string{"rbind"}, opts...)}
	}
	must(t, os.Symlink("/target", filepath.Join(root, "link")))
	must(t, os.Symlink("../../../../../../escape", filepath.Join(root, "up")))
	must(t, os.MkdirAll(filepath.Join(root, "target"), 0o755))
	b := newBox(root, "sh", "-c", "cat /a/b/f /file /target/f; echo; echo x 2>/dev/null >/file || echo ro; echo new >/a/b/g; grep -c nosuid /proc/self/mountinfo >/dev/null; touch /rro/x 2>/dev/null || echo rro")
	b.opts.Spec.Mounts = append(b.opts.Spec.Mounts,
		bind("/a/b", src, "rprivate"), bind("/file", filepath.Join(src, "f"), "ro", "rprivate"), bind("/link", src), bind("/rro", src, "rro"))
	if out, _ := b.run(t); out != "datadatadata\nro\nrro\n" {
		t.Errorf("%q", out)
	}
	if g, _ := os.ReadFile(filepath.Join(src, "g")); string(g) != "new\n" {
		t.Errorf("written through the bind: %q", g)
	}
	for i, m := range []specs.Mount{bind("/etc/passwd", src), bind("/etc", filepath.Join(src, "f")), bind("/x", filepath.Join(src, "missing"))} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			b := newBox(root, "true")
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, m)
			if _, _, err := b.tryRun(t); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s on %s: %v", m.Source, m.Destination, err)
			}
		})
	}
}

// TestDanglingLinks: a link whose target is missing (an image's /etc/resolv.conf)
// is followed inside the root, and the target made there.
func TestDanglingLinks(t *testing.T) {
	root := newRootfs(t)
	src := t.TempDir()
	must(t, os.WriteFile(filepath.Join(src, "f"), []byte("data"), 0o644))
	must(t, os.Symlink("../run/systemd/stub.conf", filepath.Join(root, "etc/resolv.conf")))
	must(t, os.Symlink("/run/lock", filepath.Join(root, "lock")))
	must(t, os.Symlink("loop", filepath.Join(root, "loop")))
	b := newBox(root, "sh", "-c", "cat /run/systemd/stub.conf /etc/resolv.conf /run/lock/in/f")
	b.opts.Spec.Mounts = append(b.opts.Spec.Mounts,
		specs.Mount{Destination: "/etc/resolv.conf", Type: "bind", Source: filepath.Join(src, "f"), Options: []string{"bind"}},
		specs.Mount{Destination: "/lock/in", Type: "bind", Source: src, Options: []string{"bind"}})
	if out, _ := b.run(t); out != "datadatadata" {
		t.Errorf("%q", out)
	}
	b = newBox(root, "true")
	b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, specs.Mount{Destination: "/loop/x", Type: "tmpfs", Source: "tmpfs"})
	if _, _, err := b.tryRun(t); err == nil {
		t.Error("a loop of links has an end")
	}
}

// TestPrivileged: everything of the host, as --privileged asks for it.
func TestPrivileged(t *testing.T) {
	root := newRootfs(t)
	b := newBox(root, "sh", "-c", "grep -c 'CapEff:.*1fffeffffff' /proc/self/status; mknod /tmp/b b 254 0 && echo mknod; mount -t tmpfs x /tmp && echo mount; cd /sys/fs/cgroup; [ ! -d memory ] || cd memory; mkdir sub && rmdir sub && echo cgroup")
	s := b.opts.Spec
	var all []string
	for _, c := range []string{
		"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
		"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
		"SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
		"LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND",
		"AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
	} {
		all = append(all, "CAP_"+c)
	}
	s.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	s.Linux.MaskedPaths, s.Linux.ReadonlyPaths = nil, nil
	s.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}
	for i := range s.Mounts {
		s.Mounts[i].Options = slices.DeleteFunc(s.Mounts[i].Options, func(o string) bool { return o == "ro" })
	}
	out, _ := b.run(t)
	if !strings.HasSuffix(out, "mknod\nmount\ncgroup\n") {
		t.Errorf("%q", out)
	}
}

// TestHostileImages: what an image prepares at the places of special mounts does
// not lead out of its root, nor in the place of what is mounted there.
func TestHostileImages(t *testing.T) { bothWays(t, testHostileImages) }

func testHostileImages(t *testing.T, fresh bool) {
	outside := t.TempDir()
	for _, c := range []struct {
		name    string
		prepare func(root string) error
		edit    func(*specs.Spec)
		fails   bool
	}{
		{"dev is a link", func(r string) error { return relink(r, "dev", outside) }, nil, true},
		{"dev is a link inside", func(r string) error { return relink(r, "dev", "/tmp") }, nil, true},
		{"proc is a link", func(r string) error { return relink(r, "proc", outside) }, nil, true},
		{"sys is a link", func(r string) error { return relink(r, "sys", outside) }, nil, true},
		{"dev/null is a link", func(r string) error { return os.Symlink(outside+"/null", r+"/dev/null") }, nil, false},
		{"dev/pts is a link", func(r string) error { return os.Symlink(outside, r+"/dev/pts") }, nil, false},
		{"bind target leads out, is made inside", func(r string) error { return os.Symlink("../../../../.."+outside, r+"/leak") }, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/leak/made", Type: "tmpfs", Source: "tmpfs"})
		}, false},
		{"mount over /proc/self", nil, func(s *specs.Spec) {
			s.Mounts = append(s.Mounts, specs.Mount{Destination: "/proc/self/attr", Type: "tmpfs", Source: "tmpfs"})
		}, true},
		{"bind over /proc", nil, func(s *specs.Spec) {
			s.Mounts[0] = specs.Mount{Destination: "/proc", Type: "bind", Source: outside, Options: []string{"rbind"}}
		}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := newRootfs(t)
			if c.prepare != nil {
				must(t, c.prepare(root))
			}
			b := newBoxBy(fresh, root, "sh", "-c", "test -c /dev/null && echo x >/dev/null && cat /proc/self/comm")
			if c.edit != nil {
				c.edit(b.opts.Spec)
			}
			out, _, err := b.tryRun(t)
			if (err != nil) != c.fails || err == nil && out != "cat\n" {
				t.Errorf("%q, %v", out, err)
			}
			if ents, _ := os.ReadDir(outside); len(ents) != 0 {
				t.Errorf("made outside: %v", ents)
			}
		})
	}
}

func relink(root, name, to string) error {
	if err := os.Remove(filepath.Join(root, name)); err != nil {
		return err
	}
	return os.Symlink(to, filepath.Join(root, name))
}

func TestOverlay(t *testing.T) {
	root := newRootfs(t)
	dir := t.TempDir()
	var lower []string
	for i := range 40 { // more than a page of options
		d := filepath.Join(dir, strings.Repeat("l", 90), fmt.Sprint(i))
		must(t, os.MkdirAll(filepath.Join(d, "layers"), 0o755))
		must(t, os.WriteFile(filepath.Join(d, "layers", fmt.Sprint(i)), nil, 0o644))
		must(t, os.WriteFile(filepath.Join(d, "top"), fmt.Append(nil, i), 0o644))
		lower = append(lower, d)
	}
	upper, work := filepath.Join(dir, "u"), filepath.Join(dir, "w")
	must(t, os.Mkdir(upper, 0o755))
	must(t, os.Mkdir(work, 0o755))
	b := newBox("", "sh", "-c", "cat /top; ls /layers | wc -l; echo hi >/written")
	b.opts.Rootfs = oci.Rootfs{Overlay: &oci.Overlay{Lower: append(lower, root), Upper: upper, Work: work}}
	if out, code := b.run(t); out != "040\n" || code != 0 {
		t.Errorf("%q %d", out, code)
	}
	if w, _ := os.ReadFile(filepath.Join(upper, "written")); string(w) != "hi\n" {
		t.Errorf("upper has %q", w)
	}
}

// TestVolatile: a volatile layer is mounted again, after a run and after a start that failed.
func TestVolatile(t *testing.T) { bothWays(t, testVolatile) }

func testVolatile(t *testing.T, fresh bool) {
	root, dir := newRootfs(t), t.TempDir()
	upper, work := filepath.Join(dir, "u"), filepath.Join(dir, "w")
	must(t, os.Mkdir(upper, 0o755))
	must(t, os.Mkdir(work, 0o755))
	run := func(args ...string) (string, int, error) {
		b := newBoxBy(fresh, "", args...)
		b.opts.Rootfs = oci.Rootfs{Overlay: &oci.Overlay{Lower: []string{root}, Upper: upper, Work: work, Volatile: true}}
		return b.tryRun(t)
	}
	for i := range 3 {
		if _, _, err := run("no-such-program"); !errdefs.IsNotFound(err) {
			t.Fatal(err)
		}
		out, code, err := run("sh", "-c", "echo hi >>/written; sync; wc -l </written; grep ' / / ' /proc/self/mountinfo | grep -c volatile")
		if want := fmt.Sprintf("%d\n1\n", i+1); err != nil || code != 0 || out != want {
			t.Errorf("run %d: %q %d %v", i, out, code, err)
		}
	}
}

func TestSeccomp(t *testing.T) {
	root := newRootfs(t)
	for _, nnp := range []bool{false, true} {
		t.Run(fmt.Sprint(nnp), func(t *testing.T) {
			for _, uid := range []uint32{0, 1000} {
				b := newBox(root, "sh", "-c", "grep Seccomp: /proc/self/status; mkdir /tmp/x 2>&1; unshare -n true 2>&1; true")
				b.opts.Spec.Process.NoNewPrivileges = nnp
				b.opts.Spec.Process.User.UID = uid
				s, err := profile.GetDefaultProfile(b.opts.Spec)
				must(t, err)
				e := uint(35)
				s.Syscalls = slices.Insert(s.Syscalls, 0, specs.LinuxSyscall{Names: []string{"mkdir", "mkdirat"}, Action: specs.ActErrno, ErrnoRet: &e})
				b.opts.Seccomp, b.opts.SeccompFlags, err = seccomp.Compile(s)
				must(t, err)
				out, _ := b.run(t)
				want := "Seccomp:\t2\nmkdir: can't create directory '/tmp/x': Resource deadlock avoided\nunshare: unshare(0x40000000): Operation not permitted\n"
				if out != want {
					t.Errorf("nnp %v uid %d: %q", nnp, uid, out)
				}
			}
		})
	}
}

func TestLimits(t *testing.T) {
	root := newRootfs(t)
	n := func(v int64) *int64 { return &v }
	b := newBox(root, "sh", "-c", "cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/cpu/cpu.cfs_quota_us 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max /sys/fs/cgroup/cpu.max")
	period := uint64(100000)
	b.opts.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: n(64 << 20), Swap: n(128 << 20)}
	b.opts.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: n(77)}
	b.opts.Spec.Linux.Resources.CPU = &specs.LinuxCPU{Quota: n(50000), Period: &period}
	if out, _ := b.run(t); out != "67108864\n77\n50000\n" && out != "67108864\n77\n50000 100000\n" {
		t.Errorf("%q", out)
	}
	b = newBox(root, "sh", "-c", "true & echo fork") // no room for a child
	b.opts.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: n(1)}
	if out, code := b.run(t); code == 0 {
		t.Errorf("forked under a limit of one: %q", out)
	}
	b = newBox(root, "sh", "-c", "tail /dev/zero; echo $?")
	b.opts.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: n(16 << 20), Swap: n(16 << 20)}
	p, collect, err := b.start(t)
	must(t, err)
	ev, err := oci.OOMEvents(p.Cgroup)
	must(t, err)
	defer ev.Close()
	must(t, ev.SetReadDeadline(time.Now().Add(20*time.Second)))
	if _, err := ev.Read(make([]byte, 64)); err != nil {
		t.Errorf("no event of the kill: %v", err)
	}
	wait(t, p)
	if out := collect(); out != "137\n" && !strings.Contains(out, "Killed") {
		t.Errorf("%q", out)
	}
	if c, err := oci.OOMCount(p.Cgroup); err != nil || c != 1 {
		t.Errorf("%d kills, %v", c, err)
	}
	must(t, oci.DeleteCgroup(p.Cgroup))
	if _, err := oci.OOMCount(p.Cgroup); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("after removal: %v", err)
	}
}

func TestInitReaper(t *testing.T) {
	root := newRootfs(t)
	b := newBox(root, "sh", "-c", "echo $$; tr '\\0' ' ' </proc/1/cmdline; (sleep 0.01 &); exit 9")
	b.opts.InitReaper = true
	if out, code := b.run(t); code != 9 || !strings.HasSuffix(strings.SplitN(out, "\n", 2)[1], "") || !strings.Contains(out, "/sbin/docker-init -- ") || strings.HasPrefix(out, "1\n") {
		t.Errorf("%q %d", out, code)
	}
	b = newBox(root, "sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.01; done")
	b.opts.InitReaper = true
	b.opts.Spec.Process.User.UID = 1000
	p, collect, err := b.start(t)
	must(t, err)
	// The signal may not come before the shell has set its trap.
	poll.Until(t, "the shell has started its child", func() bool {
		must(t, syscall.Kill(p.Pid, 0))
		pids, err := oci.Pids(p.Cgroup)
		must(t, err)
		return len(pids) >= 3
	})
	must(t, syscall.Kill(p.Pid, syscall.SIGTERM))
	if code := wait(t, p); code != 3 {
		t.Errorf("status %d, %q", code, collect())
	}
	must(t, oci.DeleteCgroup(p.Cgroup))
}

// TestInitReaperIsReady: a container with --init that has started passes a signal on, however
// soon it comes.
func TestInitReaperIsReady(t *testing.T) {
	root := newRootfs(t)
	for _, fresh := range []bool{false, true} {
		t.Run(fmt.Sprint(fresh), func(t *testing.T) {
			for range 20 {
				b := newBox(root, "sleep", "100")
				b.opts.InitReaper, b.opts.Fresh = true, fresh
				p, collect, err := b.start(t)
				must(t, err)
				must(t, syscall.Kill(p.Pid, syscall.SIGTERM))
				if code := wait(t, p); code != 143 {
					t.Errorf("fresh %v: status %d, %q", fresh, code, collect())
				}
				must(t, oci.DeleteCgroup(p.Cgroup))
			}
		})
	}
}

func TestHoldAndRelease(t *testing.T) {
	root := newRootfs(t)
	b := newBox(root, "echo", "ran")
	b.opts.Hold = true
	p, collect, err := b.start(t)
	must(t, err)
	if pids, err := oci.Pids(p.Cgroup); err != nil || !slices.Equal(pids, []int{p.Pid}) {
		t.Errorf("pids %v, %v", pids, err)
	}
	must(t, p.Release())
	must(t, p.Release())
	if code := wait(t, p); code != 0 {
		t.Errorf("status %d", code)
	}
	if out := collect(); out != "ran\n" {
		t.Errorf("%q", out)
	}
	must(t, oci.DeleteCgroup(p.Cgroup))
}

func TestJoinedNamespaces(t *testing.T) {
	root := newRootfs(t)
	p, _ := running(t, root)
	b := newBox(root, "sh", "-c", "for n in net ipc uts; do readlink /proc/self/ns/$n; done; ps | grep -c '[s]leep 1000'")
	for i, ns := range b.opts.Spec.Linux.Namespaces {
		name := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.IPCNamespace: "ipc", specs.UTSNamespace: "uts", specs.PIDNamespace: "pid"}[ns.Type]
		if name != "" {
			b.opts.Spec.Linux.Namespaces[i].Path = fmt.Sprintf("/proc/%d/ns/%s", p.Pid, name)
		}
	}
	net, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", p.Pid))
	must(t, err)
	defer net.Close()
	b.opts.Namespaces = map[specs.LinuxNamespaceType]*os.File{specs.NetworkNamespace: net}
	want := ""
	for _, n := range []string{"net", "ipc", "uts"} {
		l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", p.Pid, n))
		must(t, err)
		want += l + "\n"
	}
	if out, _ := b.run(t); out != want+"1\n" {
		t.Errorf("%q, want %q", out, want+"1\n")
	}
	b = newBox(root, "true")
	b.opts.Spec.Linux.Namespaces[1].Path = fmt.Sprintf("/proc/%d/ns/ipc", p.Pid)
	if _, _, err := b.tryRun(t); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("an ipc namespace as network: %v", err)
	}
}

func TestCancelledCreateLeavesNothing(t *testing.T) {
	root := newRootfs(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := newBox(root, "true")
	if _, err := oci.Create(ctx, &b.opts); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	noCgroup(t, b)
}

func noCgroup(t *testing.T, b *box) {
	t.Helper()
	for _, pat := range []string{"/sys/fs/cgroup/*" + b.opts.Spec.Linux.CgroupsPath, "/sys/fs/cgroup" + b.opts.Spec.Linux.CgroupsPath} {
		if left, _ := filepath.Glob(pat); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	}
}

// TestNoLeaks runs containers that succeed and fail, also side by side, and
// looks for what stays: descriptors, cgroups, mounts.
func TestNoLeaks(t *testing.T) {
	root := newRootfs(t)
	warm := newBox(root, "true") // the sealed copy and the poller stay open
	warm.run(t)
	fds, mounts := count(t, "/proc/self/fd"), lines(t, "/proc/self/mountinfo")
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			b := newBox(root, "sh", "-c", "exit 3")
			if i%5 == 0 {
				b = newBox(root, "nothing")
			}
			_, code, err := b.tryRun(t)
			if (err != nil) != (i%5 == 0) || err == nil && code != 3 {
				t.Errorf("status %d, %v", code, err)
			}
			noCgroup(t, b)
		})
	}
	wg.Wait()
	if n := count(t, "/proc/self/fd"); n > fds {
		t.Errorf("%d descriptors, before %d", n, fds)
	}
	if n := lines(t, "/proc/self/mountinfo"); n != mounts {
		t.Errorf("%d mounts, before %d", n, mounts)
	}
}

func count(t *testing.T, dir string) int {
	e, err := os.ReadDir(dir)
	must(t, err)
	return len(e)
}

func lines(t *testing.T, file string) int {
	b, err := os.ReadFile(file)
	must(t, err)
	return strings.Count(string(b), "\n")
}
