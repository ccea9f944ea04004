package shimd_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
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

// inCgroup lists the processes of a request's container, and tells whether its
// cgroup is there.
func inCgroup(t testing.TB, q *shim.StartRequest) (pids []int, exists bool) {
	t.Helper()
	ref, err := oci.CgroupOf(t.Context(), q.Key.Container, q.Spec, false)
	must(t, err)
	for _, pattern := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/*"} {
		dirs, err := filepath.Glob(pattern + "/gantry-shim-test/" + q.Key.Container)
		must(t, err)
		exists = exists || len(dirs) > 0
	}
	pids, err = oci.Pids(ref)
	must(t, err)
	return pids, exists
}

// TestStartWithoutDescriptors starts containers in a shim that may open n descriptors
// more than it has, for all n up to where it succeeds: wherever a start fails, nothing
// of it is left.
func TestStartWithoutDescriptors(t *testing.T) {
	for _, tty := range []bool{false, true} {
		t.Run(fmt.Sprintf("tty=%t", tty), func(t *testing.T) {
			r := newRig(t)
			warm := r.request("true")
			r.start(warm)
			r.exited(warm.Key)
			must(t, r.c.Forget(ctxOf(t), warm.Key))
			pid := r.c.Pid()
			old := unix.Rlimit{}
			must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, nil, &old))
			failed, worked := 0, 0
			for n := uint64(6); worked < 10; n++ {
				if failed > 200 {
					t.Fatal("it never starts")
				}
				q := r.request("sleep", "100")
				if tty {
					q.Spec.Process.Terminal, q.OpenStdin = true, true
					q.Spec.Mounts = append(q.Spec.Mounts,
						specs.Mount{Destination: "/dev", Type: "tmpfs", Source: "tmpfs"},
						specs.Mount{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"newinstance", "ptmxmode=0666"}})
				}
				must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: old.Max}, nil))
				_, err := r.c.Start(ctxOf(t), q, nil)
				must(t, unix.Prlimit(pid, unix.RLIMIT_NOFILE, &old, nil))
				if err == nil {
					worked++
					must(t, r.c.Signal(ctxOf(t), q.Key, int(unix.SIGKILL)))
					if x := r.exited(q.Key); x.Signal != 9 {
						t.Errorf("with %d descriptors: exit %+v", n, x)
					}
					must(t, r.c.Forget(ctxOf(t), q.Key))
					continue
				}
				failed, worked = failed+1, 0
				if pids, exists := inCgroup(t, q); len(pids) > 0 || exists {
					t.Errorf("with %d descriptors: %v, but processes %v, cgroup %t", n, err, pids, exists)
					ref, _ := oci.CgroupOf(t.Context(), q.Key.Container, q.Spec, false)
					_ = oci.KillAll(ref, unix.SIGKILL)
					_ = oci.DeleteCgroup(ref)
				}
				if list, err := r.c.List(ctxOf(t)); err != nil || len(list) != 0 {
					t.Errorf("with %d descriptors: the shim holds %+v, %v", n, list, err)
				}
			}
			if failed < 5 {
				t.Errorf("only %d starts failed: the limit does not bite", failed)
			}
			eventually(t, "no child is left a zombie", func() bool { return zombiesOf(t, pid) == 0 })
		})
	}
}

// zombiesOf counts the children of pid that were not reaped.
func zombiesOf(t testing.TB, pid int) int {
	t.Helper()
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	must(t, err)
	n := 0
	for _, task := range tasks {
		b, _ := os.ReadFile(task)
		for _, child := range strings.Fields(string(b)) {
			if st, err := os.ReadFile("/proc/" + child + "/stat"); err == nil && strings.Contains(string(st), ") Z ") {
				n++
			}
		}
	}
	return n
}

// TestStartCutOff kills the shim while a container starts, at many moments: a start
// that the client says failed leaves no process and no cgroup.
func TestStartCutOff(t *testing.T) {
	r := newRig(t)
	r.start(r.request("sleep", "100"))
	cut := 0
	for i := range 40 {
		q := r.request("sleep", "100")
		pid := r.c.Pid()
		if pid == 0 {
			eventually(t, "a shim", func() bool { return r.c.Pid() != 0 })
			pid = r.c.Pid()
		}
		timer := time.AfterFunc(time.Duration(i)*400*time.Microsecond, func() { _ = unix.Kill(pid, unix.SIGKILL) })
		_, err := r.c.Start(ctxOf(t), q, nil)
		if timer.Stop() {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		if err == nil {
			continue // the rig's end kills it
		}
		cut++
		if !errors.Is(err, errdefs.ErrUnavailable) {
			t.Errorf("cut off after %d: %v", i, err)
		}
		if pids, exists := inCgroup(t, q); len(pids) > 0 || exists {
			t.Errorf("cut off after %d: processes %v, cgroup %t", i, pids, exists)
		}
	}
	t.Logf("%d of 40 starts were cut off", cut)
	eventually(t, "a shim answers", func() bool {
		_, err := r.c.List(ctxOf(t))
		return err == nil
	})
}

// TestStartOfDeadDaemon kills a daemon while it starts a container: the next daemon
// finds in the shim's list what runs, and nothing comes later.
func TestStartOfDeadDaemon(t *testing.T) {
	r := newRig(t)
	for i := range 20 {
		q := r.request("sleep", "100")
		file := filepath.Join(t.TempDir(), "request")
		b, err := json.Marshal(q)
		must(t, err)
		must(t, os.WriteFile(file, b, 0o600))
		must(t, r.c.Close())
		cmd := exec.Command("/proc/self/exe", "daemon", r.dir, file)
		must(t, cmd.Start())
		time.Sleep(time.Duration(i) * 500 * time.Microsecond)
		eventually(t, "daemon connected or started", func() bool {
			_, exists := inCgroup(t, q)
			return exists
		})
		must(t, cmd.Process.Kill())
		_ = cmd.Wait()
		r.connect()
		list, err := r.c.List(ctxOf(t))
		must(t, err)
		held := false
		for _, st := range list {
			held = held || st.Key == q.Key
		}
		if !held {
			if pids, _ := inCgroup(t, q); len(pids) > 0 {
				t.Errorf("try %d: processes %v, but the shim does not list them", i, pids)
			}
		}
	}
}
