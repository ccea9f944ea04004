package oci_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// running starts a container that sleeps until the test ends.
func running(t testing.TB, root string) (*oci.Process, *box) {
	t.Helper()
	b := newBox(root, "sleep", "1000")
	p, err := oci.Create(t.Context(), &b.opts)
	must(t, err)
	t.Cleanup(func() {
		must(t, oci.KillAll(p.Cgroup, syscall.SIGKILL))
		wait(t, p)
		must(t, oci.DeleteCgroup(p.Cgroup))
	})
	return p, b
}

// ways are the two by which an exec starts; what can be seen is the same.
var ways = [...]struct {
	name  string
	fresh bool
}{{"sysprog", false}, {"init", true}}

// bothWays runs f for each.
func bothWays(t *testing.T, f func(t *testing.T, fresh bool)) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) { f(t, w.fresh) })
	}
}

func execIn(t testing.TB, p *oci.Process, b *box, proc *specs.Process) (string, int, error) {
	t.Helper()
	return execBy(t, p, b, proc, false, func(*oci.ExecOpts) {})
}

// execBy runs proc to its end, in the way that fresh says.
func execBy(t testing.TB, p *oci.Process, b *box, proc *specs.Process, fresh bool, with func(*oci.ExecOpts)) (string, int, error) {
	t.Helper()
	r, w, err := os.Pipe()
	must(t, err)
	defer r.Close()
	if proc.Env == nil {
		proc.Env = b.opts.Spec.Process.Env
	}
	if !slices.ContainsFunc(proc.Env, func(kv string) bool { return strings.HasPrefix(kv, "HOME=") }) {
		proc.Env = append(slices.Clip(proc.Env), "HOME=/home/user")
	}
	if proc.Cwd == "" {
		proc.Cwd = "/"
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	o := &oci.ExecOpts{
		ContainerID: b.opts.ID, Init: p.PidFD, InitPid: p.Pid, Cgroup: p.Cgroup, Process: proc,
		Stdio: oci.Stdio{Out: w, Err: w}, Fresh: fresh,
	}
	with(o)
	e, err := oci.Exec(ctx, o)
	w.Close()
	if err != nil {
		return "", 0, err
	}
	if oci.SkippedInit(e) == fresh && oci.SysprogWorks() {
		t.Errorf("without init: %v", oci.SkippedInit(e))
	}
	var out bytes.Buffer
	_, err = io.Copy(&out, r)
	must(t, err)
	return out.String(), wait(t, e), nil
}

func TestExec(t *testing.T) { bothWays(t, testExec) }

func testExec(t *testing.T, fresh bool) {
	execIn := func(t testing.TB, p *oci.Process, b *box, proc *specs.Process) (string, int, error) {
		return execBy(t, p, b, proc, fresh, func(*oci.ExecOpts) {})
	}
	root := newRootfs(t)
	p, b := running(t, root)
	out, code, err := execIn(t, p, b, &specs.Process{
		Args: []string{"sh", "-c", "id -u; id -G; pwd; echo $X $HOME; ps | grep -c '[s]leep 1000$'; grep -cv ':/$' /proc/self/cgroup; hostname; ls /proc/self/fd; grep -E 'Cap(Inh|Eff)' /proc/self/status; exit 5"},
		Cwd:  "/tmp", Env: []string{"X=y", "PATH=/bin", "HOME=/home/user"}, User: specs.User{UID: 1000, GID: 50, AdditionalGids: []uint32{60}},
	})
	must(t, err)
	want := "1000\n50 60\n/tmp\ny /home/user\n1\n0\nbox\n0\n1\n2\n3\nCapInh:\t0000000000000000\nCapEff:\t0000000000000000\n"
	if out != want || code != 5 {
		t.Errorf("%q %d", out, code)
	}
	if _, _, err := execIn(t, p, b, &specs.Process{Args: []string{"nope"}}); !errors.Is(err, errdefs.ErrNotFound) || err.Error() != `exec: "nope": executable file not found in $PATH` {
		t.Errorf("%v", err)
	}
	must(t, oci.Pause(p.Cgroup))
	if _, _, err := execIn(t, p, b, &specs.Process{Args: []string{"true"}}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("paused: %v", err)
	}
	must(t, oci.Resume(p.Cgroup))
	if _, code, err := execIn(t, p, b, &specs.Process{Args: []string{"true"}}); err != nil || code != 0 {
		t.Errorf("resumed: %v", err)
	}
}

// TestExecAtPidsLimit: the runtime's own threads do not count against the container.
func TestExecAtPidsLimit(t *testing.T) { bothWays(t, testExecAtPidsLimit) }

func testExecAtPidsLimit(t *testing.T, fresh bool) {
	root := newRootfs(t)
	p, b := running(t, root)
	two := int64(2)
	must(t, oci.Update(p.Cgroup, &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &two}}))
	if out, code, err := execBy(t, p, b, &specs.Process{Args: []string{"echo", "hi"}}, fresh, func(*oci.ExecOpts) {}); err != nil || code != 0 || out != "hi\n" {
		t.Errorf("%q %d %v", out, code, err)
	}
}

func TestExecInStoppedContainer(t *testing.T) { bothWays(t, testExecInStoppedContainer) }

func testExecInStoppedContainer(t *testing.T, fresh bool) {
	root := newRootfs(t)
	b := newBox(root, "sleep", "1000")
	p, err := oci.Create(t.Context(), &b.opts)
	must(t, err)
	must(t, syscall.Kill(p.Pid, syscall.SIGKILL))
	pidfd, err := syscall.Dup(int(p.PidFD.Fd()))
	must(t, err)
	keep := os.NewFile(uintptr(pidfd), "pidfd")
	defer keep.Close()
	wait(t, p)
	p.PidFD = keep
	if _, _, err := execBy(t, p, b, &specs.Process{Args: []string{"true"}}, fresh, func(*oci.ExecOpts) {}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("%v", err)
	}
	must(t, oci.DeleteCgroup(p.Cgroup))
}

// TestExecHome: without HOME it comes from the image's users.
func TestExecHome(t *testing.T) {
	p, b := running(t, newRootfs(t))
	bothWays(t, func(t *testing.T, fresh bool) {
		out, _, err := execBy(t, p, b, &specs.Process{Args: []string{"sh", "-c", "echo $HOME"}, User: specs.User{UID: 1000}}, fresh,
			func(o *oci.ExecOpts) { o.Process.Env = []string{"PATH=/bin"} })
		if err != nil || out != "/home/user\n" {
			t.Errorf("%q %v", out, err)
		}
	})
}

// readAll reads a terminal until its other side is closed.
func readAll(f *os.File) string {
	b, _ := io.ReadAll(f) // ends with EIO
	f.Close()
	return strings.ReplaceAll(string(b), "\r", "")
}

func TestTerminal(t *testing.T) { bothWays(t, testTerminal) }

func testTerminal(t *testing.T, fresh bool) {
	root := newRootfs(t)
	b := newBoxBy(fresh, root, "sh", "-c", "tty; stty size; test -t 0 && echo tty0; stat -c %t:%T /dev/console; echo hi >/dev/console; ls -l /proc/self/fd/1 | sed 's/.*-> //'")
	b.opts.Spec.Process.Terminal = true
	b.opts.ConsoleSize = oci.WinSize{Rows: 40, Cols: 132}
	p, err := oci.Create(t.Context(), &b.opts)
	must(t, err)
	out := readAll(p.Console)
	wait(t, p)
	must(t, oci.DeleteCgroup(p.Cgroup))
	if want := "/dev/pts/0\n40 132\ntty0\n88:0\nhi\npipe"; !strings.HasPrefix(out, strings.TrimSuffix(want, "pipe")) {
		t.Errorf("%q", out)
	}
	r, rb := running(t, root)
	e, err := oci.Exec(t.Context(), &oci.ExecOpts{
		ContainerID: rb.opts.ID, Init: r.PidFD, InitPid: r.Pid, Cgroup: r.Cgroup,
		ConsoleSize: oci.WinSize{Rows: 7, Cols: 9}, Fresh: fresh,
		Process: &specs.Process{Terminal: true, Args: []string{"sh", "-c", "tty; stty size; stat -c %u $(tty); ls -l /proc/self/fd | sed 's/.*-> //' | sort -u; echo $HOME; " + look}, Cwd: "/", Env: rb.opts.Spec.Process.Env, User: specs.User{UID: 1000}},
	})
	must(t, err)
	if oci.SkippedInit(e) == fresh && oci.SysprogWorks() {
		t.Errorf("without init: %v", oci.SkippedInit(e))
	}
	out = readAll(e.Console)
	wait(t, e)
	if !strings.HasPrefix(out, "/dev/pts/0\n7 9\n1000\n") || !strings.Contains(out, "\n/home/user\n") || !strings.Contains(out, "\nleader\n") {
		t.Errorf("exec: %q", out)
	}
}

// TestExecTerminalWaysAreTheSame: what a process sees of its terminal, and of HOME from the
// container's passwd file.
func TestExecTerminalWaysAreTheSame(t *testing.T) {
	p, b := running(t, newRootfs(t))
	for _, uid := range []uint32{0, 1000, 77} {
		t.Run(fmt.Sprint(uid), func(t *testing.T) {
			var outs [2]string
			for i, w := range ways {
				e, err := oci.Exec(t.Context(), &oci.ExecOpts{
					ContainerID: b.opts.ID, Init: p.PidFD, InitPid: p.Pid, Cgroup: p.Cgroup, Fresh: w.fresh,
					Process: &specs.Process{
						Terminal: true, Args: []string{"sh", "-c", look + "\ntty; stty -a; stat -c '%u %g %a' $(tty); ls /dev/pts"}, Cwd: "/",
						Env: b.opts.Spec.Process.Env, User: specs.User{UID: uid},
					},
				})
				must(t, err)
				if oci.SkippedInit(e) == w.fresh && oci.SysprogWorks() {
					t.Errorf("without init: %v", oci.SkippedInit(e))
				}
				outs[i] = readAll(e.Console)
				wait(t, e)
			}
			sameLines(t, outs[0], outs[1], 60)
		})
	}
}

// TestExecTerminalByInit: without a devpts init says what is wrong.
func TestExecTerminalByInit(t *testing.T) {
	bothWays(t, func(t *testing.T, fresh bool) {
		b := newBox(newRootfs(t), "sleep", "1000")
		b.opts.Spec.Mounts = withoutMount(b.opts.Spec.Mounts, "/dev/pts")
		p := sleeping(t, b)
		_, err := oci.Exec(t.Context(), &oci.ExecOpts{
			ContainerID: b.opts.ID, Init: p.PidFD, InitPid: p.Pid, Cgroup: p.Cgroup, Fresh: fresh,
			Process: &specs.Process{Terminal: true, Args: []string{"tty"}, Cwd: "/", Env: b.opts.Spec.Process.Env},
		})
		if err == nil || err.Error() != "open /dev/pts/ptmx: no such file or directory" {
			t.Errorf("%v", err)
		}
	})
}

func TestStats(t *testing.T) {
	root := newRootfs(t)
	p, _ := running(t, root)
	s, err := oci.ReadStats(p.Cgroup)
	must(t, err)
	if s.Memory.Usage == 0 || s.Pids.Current != 1 || s.CPU.Usage == 0 || len(s.Memory.Stat) == 0 {
		t.Errorf("%+v", s)
	}
}

// unforced leaves the choice of the way to Exec.
func unforced(o *oci.ExecOpts) { o.Fresh = false }
