package oci_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/plan/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// look is what a process can see of how it was started. Numbers that differ from
// one process to the next are left out.
const look = `
grep -E '^(Uid|Gid|Groups|NStgid|Cap|NoNewPrivs|Seccomp|Umask|Sig[^Q]|Shd|CoreDumping|THP|TracerPid|State|Threads|Cpus_allowed:|Speculation)' /proc/self/status | sed 's/^NStgid.*	/NStgid /; s/^NStgid .*/NStgid/'
cat /proc/self/limits /proc/self/cgroup /proc/self/oom_score_adj /proc/self/personality /proc/self/timerslack_ns 2>&1
ls -l /proc/self/ns/ | sed 's/.*-> //'
for f in /proc/$$/fd/*; do echo ${f##*/}; done; readlink /proc/$$/fd/0
pwd; for f in self/cwd self/root $$/exe; do readlink /proc/$f; done
env | sort; umask; id; tty
set -- $(cat /proc/$$/stat); [ $5 = $$ ] && [ $6 = $$ ] && echo leader; echo $4 $7 nice ${19}
cat /proc/$$/cmdline | tr '\0' ' '
cat /proc/self/coredump_filter /proc/self/sessionid 2>&1
mount | wc -l; hostname; ulimit -a`

func TestExecWaysAreTheSame(t *testing.T) {
	root := newRootfs(t)
	p, b := running(t, root)
	umask := uint32(0o077)
	caps := func(names ...string) *specs.LinuxCapabilities {
		return &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: names, Permitted: names}
	}
	ambient := caps("CAP_NET_RAW")
	ambient.Ambient, ambient.Inheritable = []string{"CAP_NET_RAW"}, []string{"CAP_NET_RAW"}
	filter, flags, err := seccomp.Compile(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{
		{Names: []string{"mkdir", "execveat", "statx", "faccessat2"}, Action: specs.ActErrno},
	}})
	must(t, err)
	score := 77
	env := []string{"PATH=/nowhere:/bin", "HOME=/h", "A=1", "A=2", "B="}
	for name, c := range map[string]struct {
		proc specs.Process
		with func(*oci.ExecOpts)
	}{
		"root":    {proc: specs.Process{Capabilities: caps(dockerCaps...)}},
		"none":    {proc: specs.Process{}},
		"user":    {proc: specs.Process{User: specs.User{UID: 1000, GID: 50, AdditionalGids: []uint32{60, 7, 50}}, Capabilities: caps()}},
		"umask":   {proc: specs.Process{User: specs.User{Umask: &umask}, NoNewPrivileges: true, Cwd: "/tmp"}},
		"ambient": {proc: specs.Process{User: specs.User{UID: 1000}, Capabilities: ambient}},
		"seccomp": {proc: specs.Process{NoNewPrivileges: true, User: specs.User{UID: 3}}, with: func(o *oci.ExecOpts) { o.Seccomp, o.SeccompFlags = filter, flags }},
		"seccompCaps": {
			proc: specs.Process{User: specs.User{UID: 3}, Capabilities: caps()},
			with: func(o *oci.ExecOpts) { o.Seccomp, o.SeccompFlags = filter, flags },
		},
		"limits": {proc: specs.Process{OOMScoreAdj: &score, Rlimits: []specs.POSIXRlimit{
			{Type: "RLIMIT_NOFILE", Soft: 100, Hard: 200}, {Type: "RLIMIT_CORE"}, {Type: "RLIMIT_NPROC", Soft: 50, Hard: 60},
		}}},
	} {
		t.Run(name, func(t *testing.T) {
			var outs [2]string
			for i, w := range ways {
				proc := c.proc
				proc.Args, proc.Env = []string{"sh", "-c", look, "arg zero", ""}, env
				out, code, err := execBy(t, p, b, &proc, w.fresh, func(o *oci.ExecOpts) {
					if c.with != nil {
						c.with(o)
					}
				})
				if err != nil || code != 0 {
					t.Fatalf("%s: %d %v", w.name, code, err)
				}
				outs[i] = out
			}
			a, z := strings.Split(outs[0], "\n"), strings.Split(outs[1], "\n")
			for i := range max(len(a), len(z)) {
				if i >= len(a) || i >= len(z) || a[i] != z[i] {
					t.Fatalf("line %d differs:\n%s\nthrough init:\n%s", i, outs[0], outs[1])
				}
			}
			if len(a) < 60 {
				t.Errorf("saw too little:\n%s", outs[0])
			}
		})
	}
}

func TestExecErrorsAreTheSame(t *testing.T) {
	root := newRootfs(t)
	must(t, os.WriteFile(filepath.Join(root, "bin/plain"), nil, 0o644))
	must(t, os.WriteFile(filepath.Join(root, "bin/script"), []byte("#!/no/such/sh\n"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "bin/junk"), []byte("junk"), 0o755))
	must(t, os.Mkdir(filepath.Join(root, "private"), 0o700))
	must(t, os.WriteFile(filepath.Join(root, "private/x"), nil, 0o755))
	must(t, os.Symlink("loop", filepath.Join(root, "loop")))
	p, b := running(t, root)
	user := specs.User{UID: 1000}
	for _, c := range []struct {
		proc  specs.Process
		class error
		text  string
	}{
		{specs.Process{Args: []string{"nope"}}, errdefs.ErrNotFound, `exec: "nope": executable file not found in $PATH`},
		{specs.Process{Args: []string{"nope"}, Env: []string{"HOME=/", "A=b"}}, errdefs.ErrNotFound, `exec: "nope": executable file not found in $PATH`},
		{specs.Process{Args: []string{"sh"}, Env: []string{"HOME=/", "PATH=:.:bin"}}, errdefs.ErrNotFound, `exec: "sh": executable file not found in $PATH`},
		{specs.Process{Args: []string{""}}, errdefs.ErrNotFound, `exec: "": executable file not found in $PATH`},
		{specs.Process{Args: []string{"/nope"}}, errdefs.ErrNotFound, `exec: "/nope": stat /nope: no such file or directory`},
		{specs.Process{Args: []string{"/bin/sh/x"}}, errdefs.ErrNotFound, `exec: "/bin/sh/x": stat /bin/sh/x: not a directory`},
		{specs.Process{Args: []string{"/loop"}}, errdefs.ErrNotFound, `exec: "/loop": stat /loop: too many levels of symbolic links`},
		{specs.Process{Args: []string{"plain"}}, errdefs.ErrPermissionDenied, `exec: "plain": permission denied`},
		{specs.Process{Args: []string{"/bin/plain"}}, errdefs.ErrPermissionDenied, `exec: "/bin/plain": permission denied`},
		{specs.Process{Args: []string{"/bin"}}, errdefs.ErrPermissionDenied, `exec: "/bin": is a directory`},
		{specs.Process{Args: []string{"/private/x"}, User: user}, errdefs.ErrPermissionDenied, `exec: "/private/x": permission denied`},
		{specs.Process{Args: []string{"script"}}, errdefs.ErrNotFound, `exec /bin/script: no such file or directory`},
		{specs.Process{Args: []string{"junk"}}, errdefs.ErrInvalidArgument, `exec /bin/junk: exec format error`},
		{specs.Process{Args: []string{"true"}, Cwd: "/nope"}, errdefs.ErrInvalidArgument, `chdir to cwd ("/nope") set in config.json failed: no such file or directory`},
		{specs.Process{Args: []string{"true"}, Cwd: "/bin/sh"}, errdefs.ErrInvalidArgument, `chdir to cwd ("/bin/sh") set in config.json failed: not a directory`},
		{specs.Process{Args: []string{"true"}, Cwd: "/proc/self/fd/3"}, errdefs.ErrInvalidArgument, ""},
		{specs.Process{Args: []string{"true"}, Cwd: "/proc/self/root"}, errdefs.ErrInvalidArgument, ""},
		{specs.Process{Args: []string{"true"}, Cwd: "/proc/1/cwd"}, errdefs.ErrInvalidArgument, ""},
	} {
		t.Run(c.text, func(t *testing.T) {
			for _, w := range ways {
				proc := c.proc
				_, _, err := execBy(t, p, b, &proc, w.fresh, func(*oci.ExecOpts) {})
				if !errors.Is(err, c.class) || c.text != "" && err.Error() != c.text {
					t.Errorf("%s %q in %q: %v", w.name, c.proc.Args, c.proc.Cwd, err)
				}
			}
		})
	}
}

// TestExecCwdByDescriptor: no descriptor that init or a program of system calls has leads
// out of the container, whatever its number (CVE-2024-21626).
func TestExecCwdByDescriptor(t *testing.T) {
	p, b := running(t, newRootfs(t))
	for _, w := range ways {
		for fd := range 40 {
			out, _, err := execBy(t, p, b, &specs.Process{Args: []string{"pwd"}, Cwd: fmt.Sprintf("/proc/self/fd/%d", fd)}, w.fresh, func(*oci.ExecOpts) {})
			if err == nil {
				t.Errorf("%s, descriptor %d: %q", w.name, fd, out)
			}
		}
	}
}

func TestExecTakesInitWhereForkIsNotSafe(t *testing.T) {
	root := newRootfs(t)
	for name, change := range map[string]func(*box){
		"ptrace": func(b *box) {
			c := *b.opts.Spec.Process.Capabilities
			c.Bounding = append(append([]string{}, c.Bounding...), "CAP_SYS_PTRACE")
			b.opts.Spec.Process.Capabilities = &c
		},
		"host pids": func(b *box) {
			l := b.opts.Spec.Linux
			l.Namespaces = append(l.Namespaces[:3:3], l.Namespaces[4:]...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(root, "sleep", "1000")
			change(b)
			p, err := oci.Create(t.Context(), &b.opts)
			must(t, err)
			defer func() {
				must(t, oci.KillAll(p.Cgroup, syscall.SIGKILL))
				wait(t, p)
				must(t, oci.DeleteCgroup(p.Cgroup))
			}()
			if _, _, err := execBy(t, p, b, &specs.Process{Args: []string{"true"}}, true, unforced); err != nil {
				t.Error(err)
			}
		})
	}
	// A joined pid namespace belongs to another container.
	first, _ := running(t, root)
	b := newBox(root, "sleep", "1000")
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/pid", first.Pid))
	must(t, err)
	defer ns.Close()
	b.opts.Namespaces = map[specs.LinuxNamespaceType]*os.File{specs.PIDNamespace: ns}
	p, err := oci.Create(t.Context(), &b.opts)
	must(t, err)
	if _, _, err := execBy(t, p, b, &specs.Process{Args: []string{"true"}}, true, unforced); err != nil {
		t.Error(err)
	}
	must(t, oci.KillAll(p.Cgroup, syscall.SIGKILL))
	wait(t, p)
	must(t, oci.DeleteCgroup(p.Cgroup))
}

func openDescriptors(t testing.TB) int {
	ents, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(ents)
}

func children(t testing.TB) (n int) {
	tasks, err := filepath.Glob("/proc/self/task/*/children")
	must(t, err)
	for _, f := range tasks {
		b, _ := os.ReadFile(f) // a thread that has ended
		n += len(strings.Fields(string(b)))
	}
	return n
}

func TestExecLeaksNothing(t *testing.T) { bothWays(t, testExecLeaksNothing) }

func testExecLeaksNothing(t *testing.T, fresh bool) {
	p, b := running(t, newRootfs(t))
	n := 500
	if testing.Short() || fresh {
		n = 50
	}
	one := func(args ...string) {
		_, _, err := execBy(t, p, b, &specs.Process{Args: args}, fresh, func(*oci.ExecOpts) {})
		if (err != nil) != (args[0] == "nope") {
			t.Fatal(err)
		}
	}
	one("true")
	one("nope")
	fds, kids := openDescriptors(t), children(t)
	maps := mappings(t)
	for i := range n {
		if i%10 == 0 {
			one("nope")
		}
		one("true")
	}
	if f, k := openDescriptors(t), children(t); f > fds || k != kids {
		t.Errorf("descriptors %d, were %d; children %d, were %d", f, fds, k, kids)
	}
	if m := mappings(t); m > maps+20 {
		t.Errorf("%d mappings, were %d", m, maps)
	}
}

func mappings(t testing.TB) int {
	b, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return strings.Count(string(b), "\n")
}

func TestExecsAndStartsTogether(t *testing.T) {
	root := newRootfs(t)
	p, b := running(t, root)
	n := 50
	if testing.Short() {
		n = 8
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			want := fmt.Sprint("exec ", i, "\n")
			if out, code, err := execBy(t, p, b, &specs.Process{Args: []string{"echo", "exec", fmt.Sprint(i)}}, false, func(*oci.ExecOpts) {}); err != nil || code != 0 || out != want {
				t.Errorf("%q %d %v", out, code, err)
			}
		})
		wg.Go(func() {
			want := fmt.Sprint("start ", i, "\n")
			if out, code, err := newBox(root, "echo", "start", fmt.Sprint(i)).tryRun(t); err != nil || code != 0 || out != want {
				t.Errorf("%q %d %v", out, code, err)
			}
		})
	}
	wg.Wait()
}

// TestExecKilledFromInside: what a container kills before it has executed anything is
// reaped like any other process, or its pid namespace would never end.
func TestExecKilledFromInside(t *testing.T) { bothWays(t, testExecKilledFromInside) }

func testExecKilledFromInside(t *testing.T, fresh bool) {
	root := newRootfs(t)
	bad := newBox(root, "sh", "-c", "while :; do kill -KILL -1; done 2>/dev/null")
	p, err := oci.Create(t.Context(), &bad.opts)
	must(t, err)
	ran, failed := 0, 0
	tries := 300
	if testing.Short() {
		tries = 50
	}
	for range tries {
		e, err := oci.Exec(t.Context(), &oci.ExecOpts{
			ContainerID: bad.opts.ID, Init: p.PidFD, InitPid: p.Pid, Cgroup: p.Cgroup,
			Fresh: fresh, Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"HOME=/", "PATH=/bin"}},
		})
		if err != nil {
			failed++
			continue
		}
		ran++
		var ws unix.WaitStatus
		if _, err := unix.Wait4(e.Pid, &ws, 0, nil); err != nil {
			t.Errorf("a process that was said to run is not there to reap: %v", err)
			_, _ = unix.Wait4(e.Pid, &ws, unix.WALL, nil) // or nothing here would ever end
		}
		e.PidFD.Close()
	}
	must(t, oci.KillAll(p.Cgroup, syscall.SIGKILL))
	wait(t, p)
	must(t, oci.DeleteCgroup(p.Cgroup))
	t.Logf("%d ran, %d were killed before", ran, failed)
}

// TestExecStoppedFromInside: a container that stops all it sees hangs only what
// is started in itself, until that is given up.
func TestExecStoppedFromInside(t *testing.T) { bothWays(t, testExecStoppedFromInside) }

func testExecStoppedFromInside(t *testing.T, fresh bool) {
	root := newRootfs(t)
	bad := newBox(root, "sh", "-c", "while :; do kill -STOP -1; done 2>/dev/null")
	p, err := oci.Create(t.Context(), &bad.opts)
	must(t, err)
	defer func() {
		must(t, oci.KillAll(p.Cgroup, syscall.SIGKILL))
		wait(t, p)
		must(t, oci.DeleteCgroup(p.Cgroup))
	}()
	good, gb := running(t, root)
	var stopped atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			e, err := oci.Exec(ctx, &oci.ExecOpts{
				ContainerID: bad.opts.ID, Init: p.PidFD, InitPid: p.Pid, Cgroup: p.Cgroup,
				Fresh: fresh, Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: []string{"HOME=/", "PATH=/bin"}},
			})
			if err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Error(err)
				}
				stopped.Add(1)
				return
			}
			_ = unix.Kill(e.Pid, unix.SIGKILL)
			wait(t, e)
		})
	}
	for range 20 {
		if out, _, err := execBy(t, good, gb, &specs.Process{Args: []string{"echo", "hi"}}, fresh, func(*oci.ExecOpts) {}); err != nil || out != "hi\n" {
			t.Errorf("%q %v", out, err)
		}
	}
	wg.Wait()
	t.Logf("%d of 20 were stopped before they ran", stopped.Load())
}
