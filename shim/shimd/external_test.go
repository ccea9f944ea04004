package shimd_test

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// runtimeLeft lists what external runtimes have left in the shim's directory.
func (r *rig) runtimeLeft() (left []string) {
	ents, _ := os.ReadDir(filepath.Join(r.dir, shim.RuntimesName))
	for _, e := range ents {
		if !strings.HasPrefix(e.Name(), ".") {
			left = append(left, e.Name())
		}
	}
	return left
}

func (r *rig) forgotten(k shim.Key) {
	r.t.Helper()
	must(r.t, r.c.Forget(ctxOf(r.t), k))
	if left := r.runtimeLeft(); len(left) != 0 {
		r.t.Errorf("left of the runtime's state: %v", left)
	}
}

// The shim's part is the same with another OCI runtime: the log, the clients, the exit, and
// who holds what.

func TestExternalLogAndExit(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "echo out; echo err >&2; exit 4")
	q.Runtime = external(t)
	st := r.start(q)
	if st.Runtime == nil || st.Runtime.Path != q.Runtime.Path {
		t.Errorf("started by %v", st.Runtime)
	}
	if x := r.exited(q.Key); x.Code != 4 {
		t.Errorf("%+v", x)
	}
	if got := strings.Join(lines(t, q.Log.Path), ""); got != "stdout:out\nstderr:err\n" && got != "stderr:err\nstdout:out\n" {
		t.Errorf("log %q", got)
	}
	r.forgotten(q.Key)
}

func TestExternalStartFails(t *testing.T) {
	r := newRig(t)
	q := r.request("/nonsense")
	q.Runtime = external(t)
	if _, err := r.c.Start(ctxOf(t), q, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("%v", err)
	}
	if left := r.runtimeLeft(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	q.Runtime.Path = "/nonsense"
	if _, err := r.c.Start(ctxOf(t), q, nil); err == nil || errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a runtime that does not exist: %v", err)
	}
}

func TestExternalExec(t *testing.T) {
	r := newRig(t)
	q := r.request("sleep", "1000")
	q.Runtime = external(t)
	r.start(q)
	ours, theirs := pair(t)
	k := shim.Key{Container: q.Key.Container, Exec: "e1", Run: 1}
	_, err := r.c.Exec(ctxOf(t), &shim.ExecRequest{
		Key: k, Process: &specs.Process{Args: []string{"sh", "-c", "cat; exit 6"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		Attach: []shim.AttachSpec{{Client: "c", Stdin: true, Stdout: true, StdinOnce: true}},
	}, []*os.File{theirs})
	must(t, err)
	theirs.Close()
	_, err = ours.WriteString("word\n")
	must(t, err)
	halfClose(t, ours)
	must(t, ours.SetReadDeadline(time.Now().Add(deadline)))
	b, err := io.ReadAll(ours)
	if string(b) != "word\n" || err != nil {
		t.Errorf("%q %v", b, err)
	}
	if x := r.exited(k); x.Code != 6 {
		t.Errorf("%+v", x)
	}
	must(t, r.c.Signal(ctxOf(t), q.Key, int(unix.SIGKILL)))
	if x := r.exited(q.Key); x.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", x)
	}
	r.forgotten(q.Key)
}

func TestExternalTerminal(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "read x; stty size")
	q.Runtime, q.Spec.Process.Terminal, q.ConsoleSize, q.OpenStdin = external(t), true, oci.WinSize{Rows: 7, Cols: 9}, true
	q.Spec.Mounts = append(q.Spec.Mounts,
		specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
	ours, theirs := pair(t)
	q.Attach = []shim.AttachSpec{{Client: "c", Stdin: true, Stdout: true}}
	r.start(q, theirs)
	must(t, r.c.Resize(ctxOf(t), q.Key, oci.WinSize{Rows: 12, Cols: 34}))
	_, err := ours.WriteString("go\n")
	must(t, err)
	r.exited(q.Key)
	if got := strings.Join(lines(t, q.Log.Path), ""); !strings.Contains(got, "12 34") {
		t.Errorf("log %q", got)
	}
	r.forgotten(q.Key)
}

func TestExternalPauseUpdateKill(t *testing.T) {
	r := newRig(t)
	q := r.request("sleep", "1000")
	q.Runtime = external(t)
	r.start(q)
	must(t, r.c.Pause(ctxOf(t), q.Key))
	limit := int64(99 << 20)
	must(t, r.c.Update(ctxOf(t), q.Key, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}))
	st, err := r.c.Stats(ctxOf(t), q.Key)
	if err != nil || st.Memory.Limit != uint64(limit) {
		t.Errorf("%+v %v", st, err)
	}
	must(t, r.c.Resume(ctxOf(t), q.Key))
	must(t, r.c.Pause(ctxOf(t), q.Key))
	must(t, r.c.KillAll(ctxOf(t), q.Key, int(unix.SIGKILL)))
	if x := r.exited(q.Key); x.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", x)
	}
	r.forgotten(q.Key)
}

func TestExternalShimDies(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "while :; do echo x; sleep 0.01; done")
	q.Runtime = external(t)
	r.start(q)
	must(t, unix.Kill(r.c.Pid(), unix.SIGKILL))
	r.event("a new shim", func(e shim.Event) bool { return e == (shim.Event{}) })
	list, err := r.c.List(ctxOf(t))
	must(t, err)
	if len(list) != 1 || list[0].Runtime == nil || list[0].Runtime.Path != q.Runtime.Path {
		t.Errorf("%+v", list)
	}
	n := len(lines(t, q.Log.Path))
	eventually(t, "output after the shim's death", func() bool { return len(lines(t, q.Log.Path)) > n })
	must(t, r.c.Pause(ctxOf(t), q.Key))
	must(t, r.c.Resume(ctxOf(t), q.Key))
	must(t, r.c.Signal(ctxOf(t), q.Key, int(unix.SIGKILL)))
	if x := r.exited(q.Key); x.Signal != int(unix.SIGKILL) {
		t.Errorf("%+v", x)
	}
	r.forgotten(q.Key)
}
