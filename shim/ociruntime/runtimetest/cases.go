package runtimetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func testStart(s *suite) {
	b := s.box("sh", "-c", "echo $$; hostname; exit 3").start()
	if out := b.output(); out != "1\nbox\n" {
		s.Errorf("output %q", out)
	}
	if code := b.wait(); code != 3 {
		s.Errorf("status %d", code)
	}
}

func testStreams(s *suite) {
	b := s.box("sh", "-c", "cat; echo err >&2")
	w, r := s.pipe(true)
	b.o.Stdio.In = r
	b.start()
	r.Close()
	_, err := w.WriteString("in\n")
	s.must(err)
	w.Close()
	if out := b.output(); out != "in\nerr\n" {
		s.Errorf("output %q", out)
	}
	b.wait()
}

// testOverlay: the root is an overlay, what the container writes is in its upper layer,
// and nothing of it is mounted on the host, while it runs or later.
func testOverlay(s *suite) {
	dir := s.TempDir()
	upper, work := filepath.Join(dir, "u"), filepath.Join(dir, "w")
	s.must(os.Mkdir(upper, 0o755))
	s.must(os.Mkdir(work, 0o755))
	before := hostMounts(s.T)
	b := s.box("sh", "-c", "echo hi >/new && rm /etc/nox && echo done && exec sleep 1000")
	b.o.Rootfs = oci.Rootfs{Overlay: &oci.Overlay{Lower: []string{s.root}, Upper: upper, Work: work}}
	b.start()
	s.until("the container writes", func() bool {
		_, err := os.Stat(filepath.Join(upper, "etc/nox"))
		_, lerr := os.Lstat(filepath.Join(upper, "new"))
		return lerr == nil && (err == nil || !errors.Is(err, os.ErrNotExist))
	})
	if after := hostMounts(s.T); after != before {
		s.Errorf("mounted on the host: %s", after)
	}
	if out, code, err := b.exec(&specs.Process{Args: []string{"cat", "/new"}}); out != "hi\n" || code != 0 || err != nil {
		s.Errorf("%q %d %v", out, code, err)
	}
	s.must(s.rt.Kill(s.ctx(), b.c(), unix.SIGKILL))
	b.wait()
	if _, err := os.Stat(filepath.Join(s.root, "etc/nox")); err != nil {
		s.Errorf("the lower layer has changed: %v", err)
	}
	ro := s.box("sh", "-c", "(echo x >/y) 2>/dev/null || echo read-only")
	ro.o.Rootfs = oci.Rootfs{Overlay: &oci.Overlay{Lower: []string{s.root}, Upper: upper, Work: work}, Readonly: true}
	ro.start()
	if out := ro.output(); out != "read-only\n" {
		s.Errorf("a root that is to be read-only: %q", out)
	}
	ro.wait()
}

// testNamespace: a namespace is joined by descriptor.
func testNamespace(s *suite) {
	f, err := os.Open("/proc/self/ns/ipc")
	s.must(err)
	defer f.Close()
	want, err := os.Readlink("/proc/self/ns/ipc")
	s.must(err)
	b := s.box("readlink", "/proc/self/ns/ipc")
	b.o.Namespaces = map[specs.LinuxNamespaceType]*os.File{specs.IPCNamespace: f}
	b.o.Spec.Mounts = without(b.o.Spec.Mounts, "/dev/mqueue")
	b.start()
	if out := b.output(); out != want+"\n" {
		s.Errorf("in namespace %q, want %q", out, want)
	}
	b.wait()
}

func without(ms []specs.Mount, dest string) (rest []specs.Mount) {
	for _, m := range ms {
		if m.Destination != dest {
			rest = append(rest, m)
		}
	}
	return rest
}

func testTerminal(s *suite) {
	b := s.box("sh", "-c", "stty size; tty; read x; echo got $x")
	b.o.Spec.Process.Terminal = true
	b.o.ConsoleSize = oci.WinSize{Rows: 33, Cols: 44}
	b.start()
	_, err := b.p.Console.WriteString("word\n")
	s.must(err)
	out := readAll(s, b.p.Console)
	if !strings.HasPrefix(out, "33 44\n") && !strings.Contains(out, "\n33 44\n") || !strings.Contains(out, "got word\n") || !strings.Contains(out, "/dev/") {
		s.Errorf("%q", out)
	}
	b.wait()
}

// testInit: a small process of ours is the first one, passes signals on and reaps.
func testInit(s *suite) {
	s.needsStatic()
	b := s.box("sh", "-c", "trap 'exit 7' TERM; tr '\\0' ' ' </proc/1/cmdline; echo; (sleep 0.01 &); echo ready; while :; do sleep 0.01; done")
	b.o.InitReaper = true
	b.start()
	buf := make([]byte, 4096)
	got := ""
	for !strings.HasSuffix(got, "ready\n") {
		n, err := b.out.Read(buf)
		s.must(err)
		got += string(buf[:n])
	}
	if !strings.HasPrefix(got, "/sbin/docker-init -- ") {
		s.Errorf("process 1 is %q", got)
	}
	s.must(s.rt.Kill(s.ctx(), b.c(), unix.SIGTERM))
	if code := b.wait(); code != 7 {
		s.Errorf("status %d", code)
	}
}

func testMissing(s *suite) {
	b := s.box("/nonsense")
	if err := b.try(); !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "nonsense") {
		s.Errorf("a program that is missing: %v", err)
	}
	s.gone(b)
	b = s.box("nonsense")
	if err := b.try(); !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "executable file not found in $PATH") && !strings.Contains(err.Error(), "not found in $PATH") {
		s.Errorf("a program that is not in the path: %v", err)
	}
	s.gone(b)
	s.noChildren()
}

func testNotExecutable(s *suite) {
	b := s.box("/etc/nox")
	if err := b.try(); !errors.Is(err, errdefs.ErrPermissionDenied) {
		s.Errorf("a program that cannot be executed: %v", err)
	}
	s.gone(b)
	s.noChildren()
}

func testCancelled(s *suite) {
	for _, after := range []time.Duration{0, time.Millisecond, 5 * time.Millisecond, 20 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(context.Background(), after)
		b := s.box("sleep", "1000")
		s.calls.RLock()
		p, err := s.rt.Start(ctx, &b.o)
		if err == nil {
			s.know(p.Pid, true)
		}
		s.calls.RUnlock()
		cancel()
		if err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				s.Errorf("ended after %v: %v", after, err)
			}
			s.gone(b)
			s.noChildren()
			continue
		}
		b.p = p
		s.must(s.rt.KillAll(s.ctx(), b.c(), unix.SIGKILL))
		b.wait()
		p.PidFD.Close()
	}
}

func testExec(s *suite) {
	b := s.box("sleep", "1000").start()
	out, code, err := b.exec(&specs.Process{Args: []string{"sh", "-c", "echo $X; pwd; id -u; exit 5"}, Env: []string{"PATH=/bin", "X=1"}, Cwd: "/tmp", User: specs.User{UID: 12}})
	if out != "1\n/tmp\n12\n" || code != 5 || err != nil {
		s.Errorf("%q %d %v", out, code, err)
	}
	if out, _, err := b.exec(&specs.Process{Args: []string{"cat", "/proc/1/cmdline"}}); out != "sleep\x001000\x00" || err != nil {
		s.Errorf("the process is not in the container: %q %v", out, err)
	}
}

func testExecTerminal(s *suite) {
	b := s.box("sleep", "1000").start()
	out, code, err := b.exec(&specs.Process{Args: []string{"sh", "-c", "stty size; tty >/dev/null && echo terminal"}, Terminal: true})
	if out != "11 22\nterminal\n" || code != 0 || err != nil {
		s.Errorf("%q %d %v", out, code, err)
	}
}

func testExecFails(s *suite) {
	b := s.box("sleep", "1000").start()
	if _, _, err := b.exec(&specs.Process{Args: []string{"/nonsense"}}); !errors.Is(err, errdefs.ErrNotFound) || !strings.Contains(err.Error(), "nonsense") {
		s.Errorf("a program that is missing: %v", err)
	}
	if _, _, err := b.exec(&specs.Process{Args: []string{"/etc/nox"}}); !errors.Is(err, errdefs.ErrPermissionDenied) {
		s.Errorf("a program that cannot be executed: %v", err)
	}
	if !running(b.p.Pid) {
		s.Error("the container has ended")
	}
	_ = unix.Kill(b.p.Pid, unix.SIGKILL)
	b.wait()
	if _, _, err := b.exec(&specs.Process{Args: []string{"true"}}); err == nil {
		s.Error("a process in a container that has ended")
	}
	s.noChildren()
}

func testExecsAtOnce(s *suite) {
	b := s.box("sleep", "1000").start()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			want := strconv.Itoa(i)
			if out, code, err := b.exec(&specs.Process{Args: []string{"sh", "-c", "echo " + want + "; exit " + want}}); out != want+"\n" || code != i || err != nil {
				s.Errorf("%q %d %v", out, code, err)
			}
		}()
	}
	wg.Wait()
}

func testKill(s *suite) {
	b := s.box("sh", "-c", "trap 'exit 9' USR1; echo ready; while :; do sleep 0.01; done").start()
	_, err := b.out.Read(make([]byte, 16))
	s.must(err)
	if err := s.rt.Kill(s.ctx(), b.c(), 77); !errors.Is(err, errdefs.ErrInvalidArgument) {
		s.Errorf("a signal that does not exist: %v", err)
	}
	s.must(s.rt.Kill(s.ctx(), b.c(), unix.SIGUSR1))
	if code := b.wait(); code != 9 {
		s.Errorf("status %d", code)
	}
	if err := s.rt.Kill(s.ctx(), b.c(), unix.SIGTERM); !errors.Is(err, errdefs.ErrNotFound) {
		s.Errorf("kill of a container that has ended: %v", err)
	}
	s.must(s.rt.KillAll(s.ctx(), b.c(), unix.SIGKILL)) // nobody is there
}

// testKillAll: every process, in a container without a pid namespace of its own, whose
// others the kernel does not end with the first.
func testKillAll(s *suite) {
	b := s.box("sh", "-c", "sleep 1000 & echo ready; wait")
	var rest []specs.LinuxNamespace
	for _, n := range b.o.Spec.Linux.Namespaces {
		if n.Type != specs.PIDNamespace {
			rest = append(rest, n)
		}
	}
	b.o.Spec.Linux.Namespaces = rest
	b.start()
	_, err := b.out.Read(make([]byte, 16))
	s.must(err)
	pids, err := oci.Pids(b.p.Cgroup)
	s.must(err)
	if len(pids) != 2 {
		s.Errorf("processes: %v", pids)
	}
	s.must(s.rt.KillAll(s.ctx(), b.c(), unix.SIGKILL))
	if code := b.wait(); code != killed(unix.SIGKILL) {
		s.Errorf("status %d", code)
	}
	for _, pid := range pids {
		if pid != b.p.Pid {
			s.until("the other process ends", func() bool { return !running(pid) })
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil) // ours by now
		}
	}
}

func testPause(s *suite) {
	b := s.box("sh", "-c", "while :; do echo x; sleep 0.01; done").start()
	for range 2 { // the second time it is no error
		s.must(s.rt.Pause(s.ctx(), b.c()))
	}
	if is, err := oci.Frozen(b.p.Cgroup); !is || err != nil {
		s.Errorf("paused: %v %v", is, err)
	}
	for range 2 {
		s.must(s.rt.Resume(s.ctx(), b.c()))
	}
	if is, err := oci.Frozen(b.p.Cgroup); is || err != nil {
		s.Errorf("paused after resume: %v %v", is, err)
	}
	// What is paused dies, too.
	s.must(s.rt.Pause(s.ctx(), b.c()))
	s.must(s.rt.KillAll(s.ctx(), b.c(), unix.SIGKILL))
	if code := b.wait(); code != killed(unix.SIGKILL) {
		s.Errorf("status %d", code)
	}
	paused := s.box("sleep", "1000").start()
	s.must(s.rt.Pause(s.ctx(), paused.c()))
	s.must(s.rt.Delete(s.ctx(), paused.c()))
	paused.wait()
}

func testUpdate(s *suite) {
	b := s.box("sleep", "1000").start()
	limit := int64(64 << 20)
	for range 2 {
		s.must(s.rt.Update(s.ctx(), b.c(), &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}))
	}
	st, err := oci.ReadStats(b.p.Cgroup)
	s.must(err)
	if st.Memory.Limit != uint64(limit) {
		s.Errorf("limit %d, want %d", st.Memory.Limit, limit)
	}
	pids := int64(77)
	s.must(s.rt.Update(s.ctx(), b.c(), &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &pids}}))
	if st, err = oci.ReadStats(b.p.Cgroup); err != nil || st.Pids.Limit != uint64(pids) || st.Memory.Limit != uint64(limit) {
		s.Errorf("limits %d and %d: %v", st.Pids.Limit, st.Memory.Limit, err)
	}
}

func testDelete(s *suite) {
	b := s.box("sleep", "1000").start()
	c := b.c()
	s.must(s.rt.Delete(s.ctx(), c))
	if code := b.wait(); code != killed(unix.SIGKILL) {
		s.Errorf("status %d", code)
	}
	s.gone(b)
	for range 2 {
		s.must(s.rt.Delete(s.ctx(), c))
	}
	// The name is free again.
	again := s.box("true")
	again.o.ID, again.o.Spec.Linux.CgroupsPath = b.o.ID, b.o.Spec.Linux.CgroupsPath
	again.start().wait()
}

// testDeleteLost: a start whose caller died is ended by the name alone.
func testDeleteLost(s *suite) {
	b := s.box("sleep", "1000").start()
	c := b.c()
	c.Init, c.Pid = nil, 0
	var err error
	c.Cgroup, err = oci.CgroupOf(s.ctx(), b.o.ID, b.o.Spec, false)
	s.must(err)
	s.must(s.rt.Delete(s.ctx(), c))
	if code := b.wait(); code != killed(unix.SIGKILL) {
		s.Errorf("status %d", code)
	}
}

func testInvalid(s *suite) {
	for _, id := range []string{"", "a/b"} {
		b := s.box("true")
		was := b.o.ID
		b.o.ID = id
		if err := b.try(); !errors.Is(err, errdefs.ErrInvalidArgument) {
			s.Errorf("a container of name %q: %v", id, err)
		}
		b.o.ID = was
	}
	b := s.box("true")
	b.o.Spec.Mounts = append(b.o.Spec.Mounts, specs.Mount{Destination: "/x", Type: "bind", Source: "/nonsense/of/the/host", Options: []string{"bind"}})
	if err := b.try(); err == nil {
		s.Error("a bind of what is missing")
	}
	s.gone(b)
}
