// Package runtimetest is the suite that every ociruntime.Runtime passes, with real containers. It
// needs root and a static busybox.
package runtimetest

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/ocicli/forms"
	"github.com/gantry/gantry/shim/ociruntime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Factory makes the runtime under test, with a state of its own that ends with the test.
type Factory func(t *testing.T) ociruntime.Runtime

// Run runs the suite. The process must be a subreaper (Setup), and call ociinit.Main and
// ociruntime.Main first.
func Run(t *testing.T, factory Factory) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	for name, test := range map[string]func(*suite){
		"start":               testStart,
		"streams":             testStreams,
		"overlay":             testOverlay,
		"namespace":           testNamespace,
		"terminal":            testTerminal,
		"init":                testInit,
		"missing program":     testMissing,
		"not executable":      testNotExecutable,
		"cancelled":           testCancelled,
		"exec":                testExec,
		"exec with terminal":  testExecTerminal,
		"exec that fails":     testExecFails,
		"execs at once":       testExecsAtOnce,
		"kill":                testKill,
		"kill all":            testKillAll,
		"pause":               testPause,
		"update":              testUpdate,
		"delete":              testDelete,
		"delete what is lost": testDeleteLost,
		"invalid":             testInvalid,
	} {
		t.Run(name, func(t *testing.T) {
			before := hostMounts(t)
			s := &suite{T: t, rt: factory(t), root: rootfs(t), known: map[int]bool{}}
			test(s)
			s.end()
			if after := hostMounts(t); after != before {
				t.Errorf("the host's mount table has changed:\n%s\nwas\n%s", after, before)
			}
		})
	}
}

// needsStatic skips in a test binary that wants libraries (the race detector's): it is what
// a container gets as its init, and there are none.
func (s *suite) needsStatic() {
	f, err := elf.Open("/proc/self/exe")
	s.must(err)
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			s.Skip("needs a static test binary")
		}
	}
}

// Setup makes this process what Runtime wants its caller to be.
func Setup() error { return unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

const wait = 20 * time.Second

type suite struct {
	*testing.T
	rt   ociruntime.Runtime
	root string
	all  []*box

	// calls is read-locked while a process may have been started that is not in known yet.
	calls sync.RWMutex
	mu    sync.Mutex
	known map[int]bool // not reaped
}

func (s *suite) know(pid int, is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.known[pid] = is
}

// strangers reaps what nobody here knows, as every subreaper does: a process of the
// container's pid namespace that is not reaped keeps its first process from ending.
func (s *suite) strangers() {
	if !s.calls.TryLock() {
		return
	}
	defer s.calls.Unlock()
	for _, pid := range children() {
		s.mu.Lock()
		known := s.known[pid]
		s.mu.Unlock()
		if !known {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG|unix.WALL, nil)
		}
	}
}

func children() (pids []int) {
	tasks, _ := filepath.Glob("/proc/self/task/*/children")
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

func (s *suite) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

func (s *suite) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	s.Cleanup(cancel)
	return ctx
}

// end proves that nothing of the containers is left.
func (s *suite) end() {
	for _, b := range s.all {
		if b.p != nil && !b.reaped {
			_ = unix.Kill(b.p.Pid, unix.SIGKILL)
			b.wait()
		}
		if err := s.rt.Delete(s.ctx(), b.c()); err != nil {
			s.Errorf("delete %s: %v", b.o.ID, err)
		}
		s.gone(b)
	}
	s.noChildren()
}

// gone proves that a container's cgroup does not exist.
func (s *suite) gone(b *box) {
	s.Helper()
	left, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-rt-test/" + b.o.ID)
	more, _ := filepath.Glob("/sys/fs/cgroup/gantry-rt-test/" + b.o.ID)
	if left = append(left, more...); len(left) != 0 {
		s.Errorf("cgroups are left: %v", left)
	}
	parents, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-rt-test")
	for _, dir := range append(parents, "/sys/fs/cgroup/gantry-rt-test") {
		_ = os.Remove(dir) // when it is empty
	}
}

// noChildren proves that no child of this process runs. Those of a runtime's command that
// outlived it are a subreaper's to reap.
func (s *suite) noChildren() {
	s.Helper()
	s.until("all children end", func() bool {
		for {
			pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WALL, nil)
			if errors.Is(err, unix.ECHILD) {
				return true
			}
			if pid <= 0 && !errors.Is(err, unix.EINTR) {
				return false
			}
		}
	})
}

// pipe makes a pipe of which the process gets one end, blocking.
func (s *suite) pipe(processReads bool) (ours, theirs *os.File) {
	s.Helper()
	var p [2]int
	s.must(unix.Pipe2(p[:], unix.O_CLOEXEC))
	o, t := p[0], p[1]
	if processReads {
		o, t = t, o
	}
	s.must(unix.SetNonblock(o, true))
	ours, theirs = os.NewFile(uintptr(o), "ours"), os.NewFile(uintptr(t), "theirs")
	s.Cleanup(func() { ours.Close(); theirs.Close() })
	return ours, theirs
}

// box is a container of the suite.
type box struct {
	s      *suite
	o      ociruntime.StartOpts
	p      *oci.Process
	out    *os.File // what it prints; nil with a terminal
	reaped bool
}

// box describes a container that runs args.
func (s *suite) box(args ...string) *box {
	id := fmt.Sprintf("rt%d-%x", os.Getpid(), time.Now().UnixNano())
	sp := forms.Spec("box")
	sp.Process.Terminal, sp.Process.Args, sp.Root = false, args, nil
	sp.Linux.CgroupsPath = "/gantry-rt-test/" + id
	b := &box{s: s, o: ociruntime.StartOpts{ID: id, Spec: sp, Rootfs: oci.Rootfs{Path: s.root}}}
	s.all = append(s.all, b)
	return b
}

func (b *box) c() *ociruntime.Container {
	c := &ociruntime.Container{ID: b.o.ID}
	if b.p != nil {
		c.Cgroup, c.Init, c.Pid = b.p.Cgroup, b.p.PidFD, b.p.Pid
		return c
	}
	var err error
	c.Cgroup, err = oci.CgroupOf(context.Background(), b.o.ID, b.o.Spec, false)
	b.s.must(err)
	return c
}

// start starts it with its output on a pipe, and proves what is true of every start.
func (b *box) start() *box {
	b.s.Helper()
	b.s.must(b.try())
	return b
}

func (b *box) try() error {
	if !b.o.Spec.Process.Terminal {
		r, w := b.s.pipe(false)
		defer w.Close()
		b.out, b.o.Stdio.Out, b.o.Stdio.Err = r, w, w
	}
	b.s.calls.RLock()
	p, err := b.s.rt.Start(b.s.ctx(), &b.o)
	if err == nil {
		b.s.know(p.Pid, true)
	}
	b.s.calls.RUnlock()
	if err != nil {
		return err
	}
	b.p = p
	b.s.Cleanup(func() { p.PidFD.Close() })
	if p.Console != nil {
		b.s.Cleanup(func() { p.Console.Close() })
	}
	if p.Pid < 2 || p.Started.IsZero() || (p.Console != nil) != b.o.Spec.Process.Terminal {
		b.s.Errorf("started: %+v", p)
	}
	return nil
}

// wait reaps the first process and returns its status as a shell counts it.
func (b *box) wait() int {
	b.s.Helper()
	b.reaped = true
	return reap(b.s, b.p)
}

func reap(s *suite, p *oci.Process) int {
	s.Helper()
	done := time.AfterFunc(wait, func() { _ = unix.Kill(p.Pid, unix.SIGKILL) })
	defer done.Stop()
	defer s.know(p.Pid, false)
	var ws unix.WaitStatus
	for {
		pid, err := unix.Wait4(p.Pid, &ws, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			s.Errorf("the process is not this one's child: %v", err)
			return -1
		case pid == 0:
			s.strangers()
			time.Sleep(2 * time.Millisecond)
			continue
		case ws.Signaled():
			return 128 + int(ws.Signal())
		}
		return ws.ExitStatus()
	}
}

// output is all that the container prints, to its end.
func (b *box) output() string {
	b.s.Helper()
	return readAll(b.s, b.out)
}

func readAll(s *suite, f *os.File) string {
	s.Helper()
	_ = f.SetReadDeadline(time.Now().Add(wait))
	var buf bytes.Buffer
	// A terminal's end is EIO.
	if _, err := io.Copy(&buf, f); err != nil && !errors.Is(err, unix.EIO) {
		s.Errorf("output: %v", err)
	}
	return strings.ReplaceAll(buf.String(), "\r\n", "\n")
}

// execProcess runs a further process and returns what it prints and its status.
func (b *box) exec(p *specs.Process) (string, int, error) {
	r, w := b.s.pipe(false)
	if p.Cwd == "" {
		p.Cwd = "/"
	}
	if p.Env == nil {
		p.Env = []string{"PATH=/bin"}
	}
	o := &ociruntime.ExecOpts{Process: p, Stdio: oci.Stdio{Out: w, Err: w}, ConsoleSize: oci.WinSize{Rows: 11, Cols: 22}}
	b.s.calls.RLock()
	got, err := b.s.rt.Exec(b.s.ctx(), b.c(), o)
	if err == nil {
		b.s.know(got.Pid, true)
	}
	b.s.calls.RUnlock()
	w.Close()
	if err != nil {
		return "", 0, err
	}
	defer got.PidFD.Close()
	from := r
	if got.Console != nil {
		defer got.Console.Close()
		from = got.Console
	}
	out := readAll(b.s, from)
	return out, reap(b.s, got), nil
}

// rootfs is a root with busybox.
func rootfs(t *testing.T) string {
	t.Helper()
	bb, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	root := filepath.Join(t.TempDir(), "root")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, d := range []string{"bin", "etc", "tmp", "proc", "sys", "dev", "sbin"} {
		must(os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	b, err := os.ReadFile(bb)
	must(err)
	must(os.WriteFile(filepath.Join(root, "bin/busybox"), b, 0o755))
	out, err := exec.CommandContext(t.Context(), bb, "--list").Output()
	must(err)
	for _, a := range strings.Fields(string(out)) {
		if a != "busybox" {
			must(os.Symlink("busybox", filepath.Join(root, "bin", a)))
		}
	}
	must(os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0:root:/root:/bin/sh\n"), 0o644))
	must(os.WriteFile(filepath.Join(root, "etc/nox"), []byte("#!/bin/sh\n"), 0o644))
	return root
}

// hostMounts is the mount table without the changes that others may make meanwhile: only
// what is below the test's own directories is of interest.
func hostMounts(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	var own []string
	for _, l := range strings.Split(string(b), "\n") {
		if strings.Contains(l, os.TempDir()+"/") || strings.Contains(l, "rt"+fmt.Sprint(os.Getpid())) {
			own = append(own, l)
		}
	}
	return strings.Join(own, "\n")
}

func running(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i > 0 && i+2 < len(b) && b[i+2] != 'Z' && b[i+2] != 'X'
}

// until waits for a condition that the kernel brings about.
func (s *suite) until(what string, ok func() bool) {
	s.Helper()
	for end := time.Now().Add(wait); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			s.Fatalf("waited in vain: %s", what)
		}
	}
}

func killed(sig syscall.Signal) int { return 128 + int(sig) }
