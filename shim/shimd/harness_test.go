package shimd_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	ociinit "github.com/gantry/gantry/oci/init"
	"github.com/gantry/gantry/oci/ocicli"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/shim/ociruntime"
	"github.com/gantry/gantry/shim/shimd"
	"github.com/gantry/gantry/test/poll"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The test binary is the shim and a container's init too.
func TestMain(m *testing.M) {
	ociinit.Main()
	ociruntime.Main()
	if len(os.Args) > 1 && os.Args[1] == asRuntime {
		os.Exit(ocicli.Main(os.Args[2:]))
	}
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(shimd.Main(os.Args[2:]))
	}
	if len(os.Args) > 2 && os.Args[1] == "daemon" {
		os.Exit(daemonMain(os.Args[2:]))
	}
	if err := shim.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	// The parent of the tests' cgroups, where it is empty.
	for _, pattern := range []string{"/sys/fs/cgroup/gantry-shim-test", "/sys/fs/cgroup/*/gantry-shim-test"} {
		dirs, _ := filepath.Glob(pattern)
		for _, dir := range dirs {
			_ = os.Remove(dir)
		}
	}
	os.Exit(code)
}

// asRuntime makes the test binary our command line, as an external OCI runtime.
const asRuntime = "runtime"

func external(t testing.TB) *ociruntime.Ref {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	return &ociruntime.Ref{Path: exe, Args: []string{asRuntime}}
}

const deadline = 20 * time.Second

var serial atomic.Int64

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// rig is a shim of its own with a client and a root file system.
type rig struct {
	t    testing.TB
	root string // rootfs
	dir  string // the shim's
	c    *shim.Client
}

func newRig(t testing.TB) *rig {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	bb, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	dir := t.TempDir()
	r := &rig{t: t, root: filepath.Join(dir, "root"), dir: filepath.Join(dir, "shim")}
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev"} {
		must(t, os.MkdirAll(filepath.Join(r.root, d), 0o755))
	}
	b, err := os.ReadFile(bb)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(r.root, "bin/busybox"), b, 0o755))
	out, err := exec.Command(bb, "--list").Output()
	must(t, err)
	for _, a := range strings.Fields(string(out)) {
		if a != "busybox" {
			must(t, os.Symlink("busybox", filepath.Join(r.root, "bin", a)))
		}
	}
	r.connect()
	t.Cleanup(r.close)
	return r
}

func (r *rig) config() shim.Config {
	return shim.Config{Root: r.dir, Binary: "/proc/self/exe", Logf: r.t.Logf}
}

func (r *rig) connect() {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	c, err := shim.Connect(ctx, r.config())
	must(r.t, err)
	r.c = c
}

// close ends everything the rig still runs, and the shim.
func (r *rig) close() {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	list, err := r.c.List(ctx)
	if err != nil {
		r.t.Errorf("list: %v", err)
	}
	for _, st := range list {
		if st.Exit == nil && st.Key.Exec == "" {
			_ = r.c.KillAll(ctx, st.Key, int(unix.SIGKILL))
		}
	}
	for _, st := range list {
		poll.Within(deadline, func() bool { return r.c.Forget(ctx, st.Key) == nil || ctx.Err() != nil })
	}
	if err := r.c.Shutdown(ctx); err != nil {
		r.t.Errorf("shutdown: %v", err)
	}
	if b, _ := os.ReadFile(filepath.Join(r.dir, "shim.log")); bytes.Contains(b, []byte("panic")) || r.t.Failed() {
		r.t.Logf("shim.log:\n%s", b)
		if bytes.Contains(b, []byte("panic")) {
			r.t.Error("the shim panicked")
		}
	}
}

func ctxOf(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*deadline)
	t.Cleanup(cancel)
	return ctx
}

// request makes a start request for a command.
func (r *rig) request(args ...string) *shim.StartRequest {
	id := fmt.Sprintf("shimtest-%d-%d", os.Getpid(), serial.Add(1))
	ns := func(ts ...specs.LinuxNamespaceType) (out []specs.LinuxNamespace) {
		for _, t := range ts {
			out = append(out, specs.LinuxNamespace{Type: t})
		}
		return out
	}
	return &shim.StartRequest{
		Key:    shim.Key{Container: id, Run: 1},
		Rootfs: oci.Rootfs{Path: r.root},
		Log:    &logs.Config{Path: filepath.Join(filepath.Dir(r.dir), id+".log"), MaxFiles: 1},
		Spec: &specs.Spec{
			Version: specs.Version, Root: &specs.Root{},
			Process: &specs.Process{Args: args, Cwd: "/", Env: []string{"PATH=/bin"}},
			Mounts:  []specs.Mount{{Destination: "/proc", Type: "proc", Source: "proc"}},
			Linux: &specs.Linux{
				CgroupsPath: "/gantry-shim-test/" + id,
				Namespaces:  ns(specs.MountNamespace, specs.UTSNamespace, specs.PIDNamespace, specs.IPCNamespace),
			},
		},
	}
}

func (r *rig) start(q *shim.StartRequest, files ...*os.File) *shim.Started {
	r.t.Helper()
	st, err := r.c.Start(ctxOf(r.t), q, files)
	must(r.t, err)
	return st
}

// event waits for the first event that f accepts; others are dropped.
func (r *rig) event(what string, f func(shim.Event) bool) shim.Event {
	r.t.Helper()
	timeout := time.After(deadline)
	for {
		select {
		case e, ok := <-r.c.Events():
			if !ok {
				r.t.Fatalf("no event %s: the client is closed", what)
			}
			if f(e) {
				return e
			}
		case <-timeout:
			r.t.Fatalf("no event %s", what)
		}
	}
}

func (r *rig) exited(k shim.Key) shim.Exit {
	r.t.Helper()
	e := r.event("exit of "+k.Container+k.Exec, func(e shim.Event) bool { return e.Exit != nil && e.Exit.Key == k })
	return *e.Exit
}

// lines reads the texts of a log.
func lines(t testing.TB, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	var out []string
	for _, l := range bytes.Split(bytes.TrimSpace(b), []byte("\n")) {
		if len(l) == 0 {
			continue
		}
		var v struct{ Log, Stream string }
		if err := json.Unmarshal(l, &v); err != nil {
			t.Fatalf("log line %q: %v", l, err)
		}
		out = append(out, v.Stream+":"+v.Log)
	}
	return out
}

// eventually polls, since processes are involved.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	if !poll.Within(deadline, f) {
		t.Fatalf("never: %s", what)
	}
}

// pair is a client's connection: our end, and the one to send.
func pair(t testing.TB) (ours *os.File, theirs *os.File) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.SetNonblock(p[0], true))
	ours, theirs = os.NewFile(uintptr(p[0]), "ours"), os.NewFile(uintptr(p[1]), "theirs")
	t.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

func halfClose(t testing.TB, f *os.File) {
	t.Helper()
	raw, err := f.SyscallConn()
	must(t, err)
	must(t, raw.Control(func(fd uintptr) { err = unix.Shutdown(int(fd), unix.SHUT_WR) }))
	must(t, err)
}

// daemonMain is a daemon to be killed: it connects, starts a container that the
// request in the file says, says "started" and waits.
func daemonMain(args []string) int {
	fail := func(err error) int { fmt.Println("error:", err); return 1 }
	b, err := os.ReadFile(args[1])
	if err != nil {
		return fail(err)
	}
	q := new(shim.StartRequest)
	if err := json.Unmarshal(b, q); err != nil {
		return fail(err)
	}
	if err := shim.BecomeSubreaper(); err != nil {
		return fail(err)
	}
	c, err := shim.Connect(context.Background(), shim.Config{Root: args[0], Binary: "/proc/self/exe"})
	if err != nil {
		return fail(err)
	}
	st, err := c.Start(context.Background(), q, nil)
	if err != nil {
		return fail(err)
	}
	out, _ := json.Marshal(map[string]any{"shim": c.Pid(), "started": st})
	fmt.Println(string(out))
	select {}
}
