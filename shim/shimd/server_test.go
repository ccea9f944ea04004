package shimd_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestStartLogExit(t *testing.T) {
	r := newRig(t)
	for _, c := range []struct {
		script string
		code   int
		signal int
		lines  []string
	}{
		{"echo out; echo err >&2; exit 7", 7, 0, []string{"stdout:out\n", "stderr:err\n"}},
		{"printf partial", 0, 0, []string{"stdout:partial"}},
		{"kill -9 $$; echo never", 0, 0, nil}, // pid 1 is immune to itself
		{"true", 0, 0, nil},
	} {
		t.Run(c.script, func(t *testing.T) {
			q := r.request("sh", "-c", c.script)
			if strings.HasPrefix(c.script, "kill") {
				c.lines = []string{"stdout:never\n"}
			}
			r.start(q)
			x := r.exited(q.Key)
			if x.Code != c.code || x.Signal != c.signal || x.Unknown || x.OOMKilled {
				t.Errorf("%s: exit %+v", c.script, x)
			}
			got := lines(t, q.Log.Path)
			if len(got) == 2 && got[0] > got[1] != (c.lines[0] > c.lines[1]) {
				got[0], got[1] = got[1], got[0] // two streams have no order
			}
			if !reflect.DeepEqual(got, c.lines) {
				t.Errorf("%s: log %q, want %q", c.script, got, c.lines)
			}
			must(t, r.c.Forget(ctxOf(t), q.Key))
			must(t, r.c.Forget(ctxOf(t), q.Key))
		})
	}
	if list, err := r.c.List(ctxOf(t)); err != nil || len(list) != 0 {
		t.Errorf("still listed: %+v, %v", list, err)
	}
}

func TestStartErrors(t *testing.T) {
	r := newRig(t)
	q := r.request("nosuchprogram")
	_, err := r.c.Start(ctxOf(t), q, nil)
	if !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), `exec: "nosuchprogram": executable file not found in $PATH`) {
		t.Errorf("missing program: %v", err)
	}
	q.Spec.Process.Args = []string{"sleep", "100"}
	r.start(q)
	if _, err := r.c.Start(ctxOf(t), q, nil); !errors.Is(err, errdefs.ErrAlreadyExists) {
		t.Errorf("second start: %v", err)
	}
	if err := r.c.Forget(ctxOf(t), q.Key); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("forget while running: %v", err)
	}
	if err := r.c.Shutdown(ctxOf(t)); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("shutdown while running: %v", err)
	}
	must(t, r.c.Signal(ctxOf(t), q.Key, int(unix.SIGKILL)))
	if x := r.exited(q.Key); x.Code != 137 || x.Signal != 9 {
		t.Errorf("killed: %+v", x)
	}
	if err := r.c.Signal(ctxOf(t), q.Key, 15); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("signal after the end: %v", err)
	}
	if err := r.c.Signal(ctxOf(t), shim.Key{Container: "none"}, 15); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("signal to nobody: %v", err)
	}
}

// demux splits a multiplexed stream.
func demux(t testing.TB, rd io.Reader) (out, errOut []byte) {
	t.Helper()
	for {
		var h [8]byte
		if _, err := io.ReadFull(rd, h[:]); err == io.EOF {
			return out, errOut
		} else if err != nil {
			t.Fatalf("header: %v", err)
		}
		b := make([]byte, binary.BigEndian.Uint32(h[4:]))
		if _, err := io.ReadFull(rd, b); err != nil {
			t.Fatalf("frame: %v", err)
		}
		switch h[0] {
		case 1:
			out = append(out, b...)
		case 2:
			errOut = append(errOut, b...)
		default:
			t.Fatalf("stream %d", h[0])
		}
	}
}

func TestAttachAtStart(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "cat; echo done >&2; exit 3")
	q.OpenStdin, q.StdinOnce = true, true
	q.Attach = []shim.AttachSpec{{Client: "a", Stdin: true, Stdout: true, Stderr: true, Mux: true, StdinOnce: true, Prefix: []byte("first ")}}
	ours, theirs := pair(t)
	r.start(q, theirs)
	theirs.Close()
	_, err := ours.WriteString("second\n")
	must(t, err)
	halfClose(t, ours)
	go func() {
		for e := range r.c.Events() {
			if e.Exit != nil {
				_ = r.c.Ended(context.Background(), e.Exit.Key)
			}
		}
	}()
	out, errOut := demux(t, ours)
	if string(out) != "first second\n" || string(errOut) != "done\n" {
		t.Errorf("client got %q, %q", out, errOut)
	}
	list, err := r.c.List(ctxOf(t))
	must(t, err)
	if len(list) != 1 || list[0].Exit == nil || list[0].Exit.Code != 3 {
		t.Errorf("at the stream's end: %+v", list)
	}
}

func TestTerminal(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "stty size; read x; echo got $x; read y; stty size; exit 5")
	q.Spec.Process.Terminal, q.OpenStdin = true, true
	q.Spec.Mounts = append(q.Spec.Mounts,
		specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
		specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
	q.ConsoleSize = oci.WinSize{Rows: 33, Cols: 77}
	q.Attach = []shim.AttachSpec{{Client: "a", Stdin: true, Stdout: true, DetachKeys: []byte{16, 17}}}
	ours, theirs := pair(t)
	r.start(q, theirs)
	rd := bufio.NewReader(ours)
	if l, _ := rd.ReadString('\n'); l != "33 77\r\n" {
		t.Errorf("size %q", l)
	}
	fmt.Fprint(ours, "hello\n\x10")
	for _, want := range []string{"hello\r\n", "got hello\r\n"} {
		t.Run(want, func(t *testing.T) {
			if l, _ := rd.ReadString('\n'); l != want {
				t.Errorf("line %q, want %q", l, want)
			}
		})
	}
	fmt.Fprint(ours, "\x11")
	e := r.event("detach", func(e shim.Event) bool { return e.Detached != nil })
	if !e.Detached.Keys || e.Detached.Client != "a" {
		t.Errorf("detached %+v", e.Detached)
	}
	if _, err := rd.ReadByte(); err != io.EOF {
		t.Errorf("after detaching: %v", err)
	}
	must(t, r.c.Resize(ctxOf(t), q.Key, oci.WinSize{Rows: 10, Cols: 20}))
	ours2, theirs2 := pair(t)
	must(t, r.c.Attach(ctxOf(t), q.Key, shim.AttachSpec{Client: "b", Stdin: true, Stdout: true}, theirs2))
	theirs2.Close()
	fmt.Fprint(ours2, "y\n")
	b, err := io.ReadAll(ours2)
	if !strings.Contains(string(b), "10 20\r\n") || err != nil {
		t.Errorf("second client got %q, %v", b, err)
	}
	if x := r.exited(q.Key); x.Code != 5 {
		t.Errorf("exit %+v", x)
	}
}

func TestExec(t *testing.T) {
	r := newRig(t)
	q := r.request("sleep", "100")
	r.start(q)
	key := q.Key
	key.Exec = "e1"
	ours, theirs := pair(t)
	_, err := r.c.Exec(ctxOf(t), &shim.ExecRequest{
		Key: key, Process: &specs.Process{Args: []string{"sh", "-c", "sleep 50 & echo hi; cat; exit 9"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		OpenStdin: true, Attach: []shim.AttachSpec{{Client: "x", Stdin: true, Stdout: true, Stderr: true, Mux: true}},
	}, []*os.File{theirs})
	must(t, err)
	theirs.Close()
	fmt.Fprint(ours, "input")
	halfClose(t, ours)
	out, _ := demux(t, ours)
	if string(out) != "hi\ninput" {
		t.Errorf("output %q", out)
	}
	if x := r.exited(key); x.Code != 9 {
		t.Errorf("exit %+v", x)
	}
	key.Exec = "e2"
	_, err = r.c.Exec(ctxOf(t), &shim.ExecRequest{Key: key, Process: &specs.Process{Args: []string{"nope"}, Cwd: "/", Env: []string{"PATH=/bin"}}}, nil)
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("missing program: %v", err)
	}
	_, err = r.c.Exec(ctxOf(t), &shim.ExecRequest{Key: shim.Key{Container: "no", Exec: "e"}, Process: &specs.Process{Args: []string{"nope"}, Cwd: "/"}}, nil)
	if !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("missing container: %v", err)
	}
}

// TestExecBulk moves much through an exec in both directions at once.
func TestExecBulk(t *testing.T) {
	r := newRig(t)
	size := 64 << 20
	if s := os.Getenv("GANTRY_BULK_MB"); s != "" {
		fmt.Sscan(s, &size)
		size <<= 20
	}
	q := r.request("sleep", "1000")
	r.start(q)
	key := q.Key
	key.Exec = "bulk"
	ours, theirs := pair(t)
	_, err := r.c.Exec(ctxOf(t), &shim.ExecRequest{
		Key: key, Process: &specs.Process{Args: []string{"cat"}, Cwd: "/", Env: []string{"PATH=/bin"}},
		// Keys are for terminals: in data they mean nothing.
		OpenStdin: true, Attach: []shim.AttachSpec{{Client: "x", Stdin: true, Stdout: true, Stderr: true, Mux: true, DetachKeys: []byte{16, 17}}},
	}, []*os.File{theirs})
	must(t, err)
	theirs.Close()
	begin := time.Now()
	sent, got := sha256.New(), sha256.New()
	go func() {
		src := rand.NewChaCha8([32]byte{1})
		buf := make([]byte, 1<<20)
		for n := 0; n < size; n += len(buf) {
			_, _ = src.Read(buf)
			sent.Write(buf)
			if _, err := ours.Write(buf); err != nil {
				return
			}
		}
		halfClose(t, ours)
	}()
	total := 0
	rd := bufio.NewReaderSize(ours, 256<<10)
	for {
		var h [8]byte
		if _, err := io.ReadFull(rd, h[:]); err != nil {
			break
		}
		n, err := io.CopyN(got, rd, int64(binary.BigEndian.Uint32(h[4:])))
		must(t, err)
		total += int(n)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", r.c.Pid()))
	must(t, err)
	t.Logf("%d MB in %v; ticks of the shim %v", total>>20, time.Since(begin).Round(time.Millisecond), strings.Fields(string(stat))[13:15])
	if total != size || !bytes.Equal(sent.Sum(nil), got.Sum(nil)) {
		t.Errorf("%d bytes of %d came back, or others", total, size)
	}
	if x := r.exited(key); x.Code != 0 {
		t.Errorf("exit %+v", x)
	}
}

// counter prints numbered lines until a file appears.
const counter = `i=0; while [ ! -e /tmp/stop ]; do i=$((i+1)); echo line $i; sleep 0.01; done; exit 42`

// TestShimKilled: the shim dies, containers go on in its successor.
func TestShimKilled(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", counter)
	q.Attach = []shim.AttachSpec{{Client: "a", Stdout: true, Mux: true}}
	ours, theirs := pair(t)
	r.start(q, theirs)
	theirs.Close()
	f, err := os.Open(os.DevNull)
	must(t, err)
	must(t, r.c.FDStore().Store(ctxOf(t), "api", f))
	f.Close()
	var echo bytes.Buffer
	read := make(chan struct{})
	go func() { _, _ = io.Copy(&echo, ours); close(read) }()
	for range 3 {
		n := len(lines(t, q.Log.Path))
		eventually(t, "more lines", func() bool { return len(lines(t, q.Log.Path)) > n+5 })
		pid := r.c.Pid()
		must(t, unix.Kill(pid, unix.SIGKILL))
		r.event("successor", func(e shim.Event) bool { return e == shim.Event{} })
		eventually(t, "another shim", func() bool { now := r.c.Pid(); return now != pid && now != 0 })
	}
	n := len(lines(t, q.Log.Path))
	eventually(t, "more lines", func() bool { return len(lines(t, q.Log.Path)) > n+5 })
	list, err := r.c.List(ctxOf(t))
	must(t, err)
	if len(list) != 1 || !list[0].Adopted || list[0].LostOutput || list[0].Exit != nil {
		t.Errorf("list %+v", list)
	}
	must(t, os.WriteFile(filepath.Join(r.root, "tmp/stop"), nil, 0o644))
	if x := r.exited(q.Key); x.Code != 42 || x.Unknown {
		t.Errorf("exit %+v", x)
	}
	for i, l := range lines(t, q.Log.Path) {
		if want := fmt.Sprintf("stdout:line %d\n", i+1); l != want {
			t.Fatalf("line %d is %q", i+1, l)
		}
	}
	must(t, r.c.Ended(ctxOf(t), q.Key))
	<-read
	if !strings.Contains(echo.String(), fmt.Sprintf("line %d\n", n+5)) {
		t.Errorf("the client's stream ended early")
	}
	fds, err := r.c.FDStore().All(ctxOf(t))
	must(t, err)
	if len(fds) != 1 || fds["api"] == nil {
		t.Errorf("stored: %v", fds)
	}
	for _, f := range fds {
		f.Close()
	}
}

// TestExitWhileShimDead: the process ends while no shim is there to see it.
func TestExitWhileShimDead(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "sleep 0.3; exit 11")
	st := r.start(q)
	pidfd, err := r.c.PidFD(q.Key)
	must(t, err)
	defer pidfd.Close()
	must(t, unix.Kill(r.c.Pid(), unix.SIGKILL))
	must(t, unix.PidfdSendSignal(int(pidfd.Fd()), unix.SIGKILL, nil, 0))
	if x := r.exited(q.Key); x.Code != 137 || x.Unknown {
		t.Errorf("exit of %d: %+v", st.Pid, x)
	}
}

// TestDaemonReconnects: the client goes, exits are kept for the next.
func TestDaemonReconnects(t *testing.T) {
	r := newRig(t)
	q := r.request("sh", "-c", "while [ ! -e /tmp/stop ]; do sleep 0.01; done; echo bye; exit 4")
	r.start(q)
	q2 := r.request("sleep", "100")
	r.start(q2)
	pid := r.c.Pid()
	must(t, r.c.Close())
	must(t, os.WriteFile(filepath.Join(r.root, "tmp/stop"), nil, 0o644))
	eventually(t, "bye in the log", func() bool { return len(lines(t, q.Log.Path)) == 1 })
	r.connect()
	if r.c.Pid() != pid {
		t.Errorf("another shim")
	}
	eventually(t, "exit listed", func() bool {
		list, err := r.c.List(ctxOf(t))
		must(t, err)
		for _, s := range list {
			if s.Key == q.Key && s.Exit != nil {
				return s.Exit.Code == 4 && len(list) == 2
			}
		}
		return false
	})
	// The second daemon takes over from the first.
	old := r.c
	r.connect()
	eventually(t, "the old client is closed", func() bool {
		select {
		case _, ok := <-old.Events():
			return !ok
		default:
			return false
		}
	})
	if _, err := old.List(ctxOf(t)); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Errorf("old client: %v", err)
	}
	// And the shim dies under the new one: it has the descriptors too.
	must(t, unix.Kill(pid, unix.SIGKILL))
	r.event("successor", func(e shim.Event) bool { return e == shim.Event{} })
	must(t, r.c.Signal(ctxOf(t), q2.Key, 9))
	if x := r.exited(q2.Key); x.Code != 137 || x.Unknown {
		t.Errorf("exit %+v", x)
	}
}

// TestBothKilled: a new daemon finds the container by pid and start time.
func TestBothKilled(t *testing.T) {
	r := newRig(t)
	must(t, r.c.Shutdown(ctxOf(t)))
	q := r.request("sh", "-c", "while [ ! -e /tmp/stop ]; do sleep 0.01; done; exit 6")
	b, err := json.Marshal(q)
	must(t, err)
	file := filepath.Join(t.TempDir(), "request")
	must(t, os.WriteFile(file, b, 0o600))
	cmd := exec.Command("/proc/self/exe", "daemon", r.dir, file)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, _ := bufio.NewReader(out).ReadString('\n')
	var said struct {
		Shim    int
		Started shim.Started
	}
	if err := json.Unmarshal([]byte(line), &said); err != nil {
		t.Fatalf("daemon said %q", line)
	}
	must(t, unix.Kill(said.Shim, unix.SIGKILL))
	must(t, cmd.Process.Kill())
	_ = cmd.Wait()
	r.connect()
	list, err := r.c.List(ctxOf(t))
	must(t, err)
	if len(list) == 1 {
		// The daemon was quick enough to hand over before it died.
		t.Logf("adopted already: %+v", list)
	} else {
		pidfd, err := shim.OpenRunning(said.Started.Pid, said.Started.StartTicks)
		must(t, err)
		must(t, r.c.Adopt(ctxOf(t), shim.Status{Key: q.Key, Started: said.Started}, pidfd))
		pidfd.Close()
		list, err = r.c.List(ctxOf(t))
		must(t, err)
		if len(list) != 1 || !list[0].LostOutput {
			t.Errorf("list %+v", list)
		}
	}
	if _, err := shim.OpenRunning(said.Started.Pid, said.Started.StartTicks+1); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("wrong start time: %v", err)
	}
	must(t, os.WriteFile(filepath.Join(r.root, "tmp/stop"), nil, 0o644))
	if x := r.exited(q.Key); x.Code != 6 && !x.Unknown {
		t.Errorf("exit %+v", x)
	}
}

// TestMany starts a hundred at once; nothing is left in the shim afterwards.
func TestMany(t *testing.T) {
	r := newRig(t)
	fdsOf := func(pid int) int {
		d, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		must(t, err)
		return len(d)
	}
	warm := r.request("true")
	r.start(warm)
	r.exited(warm.Key)
	must(t, r.c.Forget(ctxOf(t), warm.Key))
	shimFDs, ownFDs := fdsOf(r.c.Pid()), fdsOf(os.Getpid())
	before := pss(r.c.Pid())
	n := 100
	begin := time.Now()
	errs := make(chan error, n)
	keys := make([]shim.Key, n)
	for i := range n {
		q := r.request("sh", "-c", "echo hello; exec sleep 1000")
		keys[i] = q.Key
		go func() {
			_, err := r.c.Start(ctxOf(t), q, nil)
			errs <- err
		}()
	}
	for range n {
		must(t, <-errs)
	}
	t.Logf("%d containers in %v, shim grew by %d KiB each", n, time.Since(begin).Round(time.Millisecond), (pss(r.c.Pid())-before)/n)
	if os.Getenv("GANTRY_MEASURE") != "" {
		time.Sleep(5 * time.Second)
		t.Logf("idle: %d KiB in all, %d KiB each", pss(r.c.Pid()), (pss(r.c.Pid())-before)/n)
	}
	if list, err := r.c.List(ctxOf(t)); err != nil || len(list) != n {
		t.Fatalf("%d listed, %v", len(list), err)
	}
	must(t, unix.Kill(r.c.Pid(), unix.SIGKILL))
	r.event("successor", func(e shim.Event) bool { return e == shim.Event{} })
	if list, err := r.c.List(ctxOf(t)); err != nil || len(list) != n {
		t.Fatalf("%d listed after the shim's death, %v", len(list), err)
	}
	for _, k := range keys {
		must(t, r.c.Signal(ctxOf(t), k, 9))
	}
	left := map[shim.Key]bool{}
	for _, k := range keys {
		left[k] = true
	}
	r.event("all exits", func(e shim.Event) bool {
		if e.Exit != nil {
			if e.Exit.Code != 137 {
				t.Errorf("exit %+v", e.Exit)
			}
			delete(left, e.Exit.Key)
		}
		return len(left) == 0
	})
	for _, k := range keys {
		must(t, r.c.Forget(ctxOf(t), k))
	}
	eventually(t, "no descriptors left in the shim", func() bool { return fdsOf(r.c.Pid()) <= shimFDs })
	eventually(t, "no descriptors left in the client", func() bool { return fdsOf(os.Getpid()) <= ownFDs })
}

func pss(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	for _, l := range strings.Split(string(b), "\n") {
		var n int
		if c, _ := fmt.Sscanf(l, "Pss: %d kB", &n); c == 1 {
			return n
		}
	}
	return 0
}
