package shimd_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/shim"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestSlowClient: a client that does not read is waited for, within a buffer, and
// forgotten at once when it leaves.
func TestSlowClient(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "head -c 8000000 /dev/zero | tr '\\0' 'x' | fold -w 99; echo; echo end")
	q.Attach = []shim.AttachSpec{{Client: "slow", Stdout: true, Stderr: true, Mux: true}}
	ours, theirs := pair(t)
	r.start(q, theirs)
	theirs.Close()
	size := func() int64 {
		st, err := os.Stat(q.Log.Path)
		must(t, err)
		return st.Size()
	}
	eventually(t, "a full buffer", func() bool { return size() > 1<<20 })
	last, since := size(), time.Now()
	eventually(t, "the process waits", func() bool {
		if now := size(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 100*time.Millisecond
	})
	if last > 4<<20 {
		t.Errorf("%d bytes in the log before the client has read any", last)
	}
	second, theirs2 := pair(t)
	must(t, r.c.Attach(ctxOf(t), q.Key, shim.AttachSpec{Client: "other", Stdout: true}, theirs2))
	theirs2.Close()
	got := make(chan []byte, 1)
	go func() { b, _ := io.ReadAll(second); got <- b }()
	ours.Close() // it leaves without reading
	if x := r.exited(q.Key); x.Code != 0 {
		t.Errorf("exit %+v", x)
	}
	l := lines(t, q.Log.Path)
	if l[len(l)-1] != "stdout:end\n" {
		t.Errorf("log ends with %q", l[len(l)-1])
	}
	if b := <-got; !bytes.HasSuffix(b, []byte("x\nend\n")) {
		t.Errorf("second client's stream ends with %q", b[max(0, len(b)-20):])
	}
}

// TestExitDoesNotWaitForClient: the exit comes although a client never reads.
func TestExitDoesNotWaitForClient(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "head -c 900000 /dev/zero")
	q.Log = nil
	q.Attach = []shim.AttachSpec{{Client: "stuck", Stdout: true, Mux: true}}
	ours, theirs := pair(t)
	r.start(q, theirs)
	theirs.Close()
	q2 := r.request("true")
	r.start(q2)
	r.exited(q2.Key)
	// It reads late, and gets everything.
	out := make(chan []byte)
	go func() { b, _ := demux(t, ours); out <- b }()
	r.exited(q.Key)
	if b := <-out; len(b) != 900000 {
		t.Errorf("late reader got %d bytes", len(b))
	}
}

// TestStreamEndWithUnreadInput: input that nobody reads does not cost output.
func TestStreamEndWithUnreadInput(t *testing.T) {
	r := newRig(t)
	box := r.request("sleep", "1000")
	r.start(box)
	go func() {
		for e := range r.c.Events() {
			if e.Exit != nil {
				_ = r.c.Forget(context.Background(), e.Exit.Key)
			}
		}
	}()
	for i := range 20 {
		key := box.Key
		key.Exec = fmt.Sprint("e", i)
		ours, theirs := pair(t)
		go func() { _, _ = ours.Write(bytes.Repeat([]byte("input\n"), 100000)) }()
		_, err := r.c.Exec(ctxOf(t), &shim.ExecRequest{
			Key: key, Process: &specs.Process{Args: []string{"sh", "-c", "echo one; read x; echo $x"}, Cwd: "/", Env: []string{"PATH=/bin"}},
			OpenStdin: true, Attach: []shim.AttachSpec{{Client: key.Exec, Stdin: true, Stdout: true, Stderr: true, Mux: true}},
		}, []*os.File{theirs})
		must(t, err)
		theirs.Close()
		if out, _ := demux(t, ours); string(out) != "one\ninput\n" {
			t.Errorf("output %q", out)
		}
		ours.Close()
	}
}

func TestClients(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "while read x; do echo got $x; done; echo eof")
	q.OpenStdin = true
	r.start(q)
	attach := func(name string) *os.File {
		ours, theirs := pair(t)
		must(t, r.c.Attach(ctxOf(t), q.Key, shim.AttachSpec{Client: name, Stdin: true, Stdout: true}, theirs))
		theirs.Close()
		return ours
	}
	a, b := attach("a"), attach("b")
	fmt.Fprintln(a, "x")
	for _, f := range []*os.File{a, b} {
		buf := make([]byte, 6)
		if _, err := io.ReadFull(f, buf); err != nil || string(buf) != "got x\n" {
			t.Errorf("client read %q, %v", buf, err)
		}
	}
	_, theirs := pair(t)
	if err := r.c.Attach(ctxOf(t), q.Key, shim.AttachSpec{Client: "a"}, theirs); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("same name: %v", err)
	}
	a.Close() // not StdinOnce: the process's input stays open
	r.event("a leaves", func(e shim.Event) bool { return e.Detached != nil && e.Detached.Client == "a" && !e.Detached.Keys })
	must(t, r.c.Detach(ctxOf(t), q.Key, "b"))
	if _, err := io.ReadAll(b); err != nil {
		t.Errorf("detached client: %v", err)
	}
	must(t, r.c.CloseStdin(ctxOf(t), q.Key))
	must(t, r.c.CloseStdin(ctxOf(t), q.Key))
	r.exited(q.Key)
	if l := lines(t, q.Log.Path); strings.Join(l, "") != "stdout:got x\nstdout:eof\n" {
		t.Errorf("log %q", l)
	}
	if err := r.c.Attach(ctxOf(t), q.Key, shim.AttachSpec{Client: "late"}, theirs); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("attach after the end: %v", err)
	}
}

// TestClientDies: the input of a process whose only client broke off ends.
func TestClientDies(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "echo ready; cat; exit 8")
	q.OpenStdin, q.StdinOnce = true, true
	q.Attach = []shim.AttachSpec{{Client: "a", Stdin: true, Stdout: true, StdinOnce: true}}
	ours, theirs := pair(t)
	r.start(q, theirs)
	theirs.Close()
	ours.Close() // with output unread: a reset
	if x := r.exited(q.Key); x.Code != 8 {
		t.Errorf("exit %+v", x)
	}
}

func TestCgroupCalls(t *testing.T) {
	r := newRig(t)
	limit := int64(32 << 20)
	q := r.request("sh", "-c", "sleep 1000 & wait")
	q.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	r.start(q)
	eventually(t, "two processes", func() bool {
		pids, err := r.c.Pids(ctxOf(t), q.Key)
		must(t, err)
		return len(pids) == 2
	})
	st, err := r.c.Stats(ctxOf(t), q.Key)
	if err != nil || st.Memory.Limit != uint64(limit) || st.Memory.Usage == 0 {
		t.Errorf("stats %+v, %v", st, err)
	}
	must(t, r.c.Pause(ctxOf(t), q.Key))
	must(t, unix.Kill(r.c.Pid(), unix.SIGKILL)) // a successor knows that it is paused
	r.event("successor", func(e shim.Event) bool { return e == shim.Event{} })
	list, err := r.c.List(ctxOf(t))
	must(t, err)
	if len(list) != 1 || !list[0].Paused {
		t.Errorf("list %+v", list)
	}
	must(t, r.c.Resume(ctxOf(t), q.Key))
	limit *= 2
	must(t, r.c.Update(ctxOf(t), q.Key, q.Spec.Linux.Resources))
	must(t, r.c.Pause(ctxOf(t), q.Key))
	must(t, r.c.Signal(ctxOf(t), q.Key, 9)) // a paused container can be killed
	if x := r.exited(q.Key); x.Code != 137 {
		t.Errorf("exit %+v", x)
	}
}

func TestOOM(t *testing.T) {
	r := newRig(t)
	limit := int64(16 << 20)
	q := r.request("sh", "-c", "head -c 200m /dev/zero | tail -c 100m | cat >/dev/null; exit 3")
	q.Spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit, Swap: &limit}}
	r.start(q)
	r.event("oom", func(e shim.Event) bool { return e.OOM != nil && *e.OOM == q.Key })
	if x := r.exited(q.Key); !x.OOMKilled || x.Code != 3 {
		t.Errorf("exit %+v", x)
	}
}

// TestHostPIDs: what outlives the first process of a container without a pid
// namespace is killed with it, and reaped by the shim.
func TestHostPIDs(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "sleep 1000 & echo started")
	q.Spec.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	st := r.start(q)
	r.exited(q.Key)
	must(t, r.c.Forget(ctxOf(t), q.Key))
	if _, err := shim.OpenRunning(st.Pid, st.StartTicks); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("first process: %v", err)
	}
	eventually(t, "no children left", func() bool {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", r.c.Pid(), r.c.Pid()))
		must(t, err)
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", r.c.Pid()))
		for _, f := range tasks {
			c, _ := os.ReadFile(f)
			b = append(b, c...)
		}
		return len(bytes.TrimSpace(b)) == 0
	})
}
