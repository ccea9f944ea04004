package oci_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// sleeping starts the box, whose program sleeps until the test ends.
func sleeping(t testing.TB, b *box) *oci.Process {
	t.Helper()
	p, err := oci.Create(t.Context(), &b.opts)
	must(t, err)
	t.Cleanup(func() {
		must(t, oci.KillAll(p.Cgroup, syscall.SIGKILL))
		wait(t, p)
		must(t, oci.DeleteCgroup(p.Cgroup))
	})
	return p
}

// from makes the box join these namespaces of a process.
func (b *box) from(pid int, kinds ...specs.LinuxNamespaceType) {
	l := b.opts.Spec.Linux
	for _, k := range kinds {
		file := map[specs.LinuxNamespaceType]string{specs.NetworkNamespace: "net", specs.MountNamespace: "mnt"}[k]
		if file == "" {
			file = string(k)
		}
		ns := specs.LinuxNamespace{Type: k, Path: fmt.Sprintf("/proc/%d/ns/%s", pid, file)}
		found := false
		for i := range l.Namespaces {
			if l.Namespaces[i].Type == k {
				l.Namespaces[i], found = ns, true
			}
		}
		if !found {
			l.Namespaces = append(l.Namespaces, ns)
		}
	}
}

func nsOf(t testing.TB, pid int, kinds ...string) (out []string) {
	t.Helper()
	for _, k := range kinds {
		l, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, k))
		must(t, err)
		out = append(out, l)
	}
	return out
}

func TestExecInUserAndTimeNamespace(t *testing.T) {
	needsTimeNS(t)
	root := newRootfs(t)
	reachable(t, root, 100000)
	b := newBox(root, "sleep", "1000")
	b.userNS(100000)
	l := b.opts.Spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1e9}}
	p := sleeping(t, b)
	for name, c := range map[string]struct {
		user specs.User
		caps []string
		want string
	}{
		"root": {specs.User{UID: 0, AdditionalGids: []uint32{7}}, []string{"CAP_CHOWN"}, "0:0 0 7\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000001\nCapEff:\t0000000000000001\nCapBnd:\t0000000000000001\nCapAmb:\t0000000000000000\n"},
		"user": {specs.User{UID: 1000, GID: 50}, nil, "1000:50 50\nCapInh:\t0000000000000000\nCapPrm:\t0000000000000000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nCapAmb:\t0000000000000000\n"},
	} {
		t.Run(name, func(t *testing.T) {
			out, code, err := execBy(t, p, b, &specs.Process{
				User: c.user, Capabilities: &specs.LinuxCapabilities{Bounding: c.caps, Permitted: c.caps, Effective: c.caps},
				Args: []string{"sh", "-c", "echo $(id -u):$(id -g) $(id -G); grep Cap /proc/self/status; cat /proc/self/uid_map | xargs; cut -c1-2 /proc/uptime; for i in user time mnt net; do readlink /proc/self/ns/$i; done; grep -c gantry-test /proc/self/cgroup; ls /proc/self/fd | wc -l"},
			}, true, unforced)
			must(t, err)
			want := c.want + "0 100000 65536\n10\n" + strings.Join(nsOf(t, p.Pid, "user", "time", "mnt", "net"), "\n") + "\n0\n4\n"
			if out != want || code != 0 {
				t.Errorf("%s: %q %d\nwant %q", name, out, code, want)
			}
		})
	}
	// With a terminal, and with a program that is not there.
	e, err := oci.Exec(t.Context(), &oci.ExecOpts{
		ContainerID: b.opts.ID, Init: p.PidFD, InitPid: p.Pid, Cgroup: p.Cgroup,
		Process: &specs.Process{Terminal: true, Args: []string{"tty"}, Cwd: "/", Env: b.opts.Spec.Process.Env},
	})
	must(t, err)
	out := readAll(e.Console)
	if code := wait(t, e); out != "/dev/pts/0\n" || code != 0 {
		t.Errorf("%q %d", out, code)
	}
	if _, _, err := execIn(t, p, b, &specs.Process{Args: []string{"nope"}}); err == nil {
		t.Error("nope runs")
	}
}

// TestJoinUserNamespace: a pod's second container lives in the first one's
// namespaces; its network belongs to the host.
func TestJoinUserNamespace(t *testing.T) {
	root := newRootfs(t)
	reachable(t, root, 100000)
	first := newBox(root, "sleep", "1000")
	first.userNS(100000)
	fd, done := hostNetNS(t)
	defer done()
	first.opts.Namespaces = map[specs.LinuxNamespaceType]*os.File{specs.NetworkNamespace: fd}
	first.opts.Spec.Mounts = withoutMount(first.opts.Spec.Mounts, "/sys")
	p := sleeping(t, first)
	st, err := fd.Stat()
	must(t, err)
	if got := nsOf(t, p.Pid, "net")[0]; got != fmt.Sprintf("net:[%d]", st.Sys().(*syscall.Stat_t).Ino) {
		t.Errorf("network: %s", got)
	}
	second := newBox(root, "sh", "-c", "id -u; xargs </proc/self/uid_map; for i in user net ipc uts pid; do readlink /proc/self/ns/$i; done; ps | grep -c '[s]leep 1000$'; grep CapEff /proc/self/status")
	second.opts.Spec.Hostname = ""
	second.opts.Spec.Mounts = withoutMount(second.opts.Spec.Mounts, "/sys")
	second.from(p.Pid, specs.UserNamespace, specs.NetworkNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.PIDNamespace)
	out, code := second.run(t)
	want := "0\n0 100000 65536\n" + strings.Join(nsOf(t, p.Pid, "user", "net", "ipc", "uts", "pid"), "\n") + "\n1\nCapEff:\t00000000a80425fb\n"
	if out != want || code != 0 {
		t.Errorf("%q %d\nwant %q", out, code, want)
	}
}

func withoutMount(ms []specs.Mount, dest string) (out []specs.Mount) {
	for _, m := range ms {
		if m.Destination != dest && !strings.HasPrefix(m.Destination, dest+"/") {
			out = append(out, m)
		}
	}
	return out
}

// hostNetNS makes a network namespace of the host's user namespace.
func hostNetNS(t testing.TB) (*os.File, func()) {
	t.Helper()
	type result struct {
		f   *os.File
		err error
	}
	c := make(chan result)
	go func() {
		runtime.LockOSThread() // it ends with the goroutine
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			c <- result{nil, err}
			return
		}
		f, err := os.Open("/proc/thread-self/ns/net")
		c <- result{f, err}
	}()
	r := <-c
	must(t, r.err)
	return r.f, func() { r.f.Close() }
}

func TestJoinTimeAndMountNamespace(t *testing.T) {
	needsTimeNS(t)
	root := newRootfs(t)
	first := newBox(root, "sleep", "1000")
	l := first.opts.Spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1e9}}
	p := sleeping(t, first)
	b := newBox(root, "sh", "-c", "cut -c1-2 /proc/uptime; readlink /proc/self/ns/time")
	b.from(p.Pid, specs.TimeNamespace)
	want := "10\n" + nsOf(t, p.Pid, "time")[0] + "\n"
	if out, code := b.run(t); out != want || code != 0 {
		t.Errorf("time: %q %d, want %q", out, code, want)
	}
	// A mount namespace that the host has prepared: the container's root is made in it.
	holder := newMountNS(t)
	b = newBox(root, "sh", "-c", "readlink /proc/self/ns/mnt; ls /bin/busybox")
	b.from(holder, specs.MountNamespace)
	want = nsOf(t, holder, "mnt")[0] + "\n/bin/busybox\n"
	if out, code := b.run(t); out != want || code != 0 {
		t.Errorf("mount: %q %d, want %q", out, code, want)
	}
}

// newMountNS starts a process in a mount namespace of its own and returns its pid.
func newMountNS(t testing.TB) int {
	t.Helper()
	pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "1000"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}})
	must(t, err)
	t.Cleanup(func() {
		_ = unix.Kill(pid, unix.SIGKILL)
		_, _ = unix.Wait4(pid, nil, 0, nil)
	})
	return pid
}

// sleepingRootless is sleeping where there may be no cgroup to kill.
func sleepingRootless(t testing.TB, b *box) *oci.Process {
	t.Helper()
	p, err := oci.Create(t.Context(), &b.opts)
	must(t, err)
	t.Cleanup(func() {
		_ = unix.Kill(p.Pid, unix.SIGKILL)
		wait(t, p)
	})
	return p
}
