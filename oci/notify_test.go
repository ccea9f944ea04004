package oci_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"unsafe"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/plan/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// notification and answer are struct seccomp_notif and seccomp_notif_resp
// (seccomp_unotify(2)).
type notification struct {
	id         uint64
	pid, flags uint32
	nr, arch   uint32
	ip         uint64
	args       [6]uint64
}

type answer struct {
	id    uint64
	val   int64
	err   int32
	flags uint32
}

// agent serves one listener after the other: mkdir fails with ENOMSG, all else
// goes on.
type agent struct {
	path   string
	mu     sync.Mutex
	states []specs.ContainerProcessState
	mkdirs int
}

func newAgent(t *testing.T) *agent {
	t.Helper()
	a := &agent{path: filepath.Join(t.TempDir(), "agent.sock")}
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(t, err)
	must(t, unix.Bind(l, &unix.SockaddrUnix{Name: a.path}))
	must(t, unix.Listen(l, 10))
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = unix.Shutdown(l, unix.SHUT_RDWR); wg.Wait(); unix.Close(l) })
	wg.Go(func() {
		for {
			c, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
			if err != nil {
				return
			}
			wg.Go(func() {
				if err := a.serve(c); err != nil {
					t.Errorf("agent: %v", err)
				}
			})
		}
	})
	return a
}

func (a *agent) serve(c int) error {
	defer unix.Close(c)
	b, oob := make([]byte, 64<<10), make([]byte, 64)
	n, oobn, _, _, err := unix.Recvmsg(c, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(msgs) != 1 {
		return fmt.Errorf("%d messages: %w", len(msgs), err)
	}
	fds, err := unix.ParseUnixRights(&msgs[0])
	if err != nil || len(fds) != 1 {
		return fmt.Errorf("%v: %w", fds, err)
	}
	defer unix.Close(fds[0])
	var s specs.ContainerProcessState
	if err := json.Unmarshal(b[:n], &s); err != nil {
		return err
	}
	a.mu.Lock()
	a.states = append(a.states, s)
	a.mu.Unlock()
	for {
		p := []unix.PollFd{{Fd: int32(fds[0]), Events: unix.POLLIN}}
		if _, err := unix.Poll(p, -1); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		if p[0].Revents&unix.POLLIN == 0 {
			return nil // no process has the filter any more
		}
		var req notification
		if e := ioctl(fds[0], unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&req)); e != 0 {
			continue // ended meanwhile
		}
		resp := answer{id: req.id, flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}
		if req.nr == unix.SYS_MKDIR || req.nr == unix.SYS_MKDIRAT {
			resp.flags, resp.err = 0, -int32(unix.ENOMSG)
			a.mu.Lock()
			a.mkdirs++
			a.mu.Unlock()
		}
		_ = ioctl(fds[0], unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&resp))
	}
}

func ioctl(fd int, req uint, p unsafe.Pointer) unix.Errno {
	_, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), uintptr(req), uintptr(p))
	return e
}

// refusedMkdir is what mkdir says when the agent has answered it.
const refusedMkdir = "mkdir: can't create directory '/x': No message of desired type\n"

// notified starts the box, whose filter asks the agent about mkdir, and looks at what the
// program and the agent were told.
func (a *agent) notified(t *testing.T, b *box) {
	t.Helper()
	b.opts.Bundle = "/bundle"
	b.opts.Spec.Annotations = map[string]string{"a": "b"}
	p, out, err := b.start(t)
	must(t, err)
	code := wait(t, p)
	if got := out(); got != refusedMkdir || code != 1 {
		t.Errorf("no_new_privs %v: %q %d", b.opts.Spec.Process.NoNewPrivileges, got, code)
	}
	must(t, oci.DeleteCgroup(p.Cgroup))
	st := a.states[len(a.states)-1]
	if st.Pid != p.Pid || st.State.Pid != p.Pid || st.State.ID != b.opts.ID || st.State.Bundle != "/bundle" || st.State.Annotations["a"] != "b" ||
		st.Metadata != "meta" || len(st.Fds) != 1 || st.Fds[0] != specs.SeccompFdName || st.State.Status != specs.StateCreating {
		t.Errorf("%+v", st)
	}
}

func TestSeccompNotify(t *testing.T) {
	root := newRootfs(t)
	a := newAgent(t)
	profile := func(def specs.LinuxSeccompAction, names ...string) *specs.LinuxSeccomp {
		return &specs.LinuxSeccomp{
			DefaultAction: def, ListenerPath: a.path, ListenerMetadata: "meta",
			Syscalls: []specs.LinuxSyscall{{Names: names, Action: specs.ActNotify}},
		}
	}
	few := profile(specs.ActAllow, "mkdir", "mkdirat")
	// Calls that a runtime may need itself; ours makes none between filter and program.
	many := profile(specs.ActAllow, "mkdir", "mkdirat", "write", "sendmsg", "read", "futex", "close", "execve", "execveat", "capset",
		"prctl", "rt_sigreturn", "sched_yield", "openat", "mmap")
	for name, s := range map[string]*specs.LinuxSeccomp{"few": few, "many": many} {
		t.Run(name, func(t *testing.T) {
			for _, nnp := range []bool{false, true} {
				b := newBox(root, "mkdir", "/x")
				b.opts.Spec.Linux.Seccomp, b.opts.Spec.Process.NoNewPrivileges = s, nnp
				a.notified(t, b)
			}
		})
	}
	// Started by somebody else.
	dir, err := os.Open(t.TempDir())
	must(t, err)
	defer dir.Close()
	b := newBox(root, "mkdir", "/x")
	b.opts.Spec.Linux.Seccomp, b.opts.Hold = few, true
	b.opts.StartSocket, err = oci.ListenStart(dir, "start")
	must(t, err)
	p, out, err := b.start(t)
	b.opts.StartSocket.Close()
	must(t, err)
	must(t, oci.StartHeld(dir, "start"))
	if code := wait(t, p); code != 1 || out() != refusedMkdir {
		t.Errorf("held: %d", code)
	}
	must(t, oci.DeleteCgroup(p.Cgroup))
	// Further processes have a filter of their own.
	run, rb := running(t, root)
	prog, flags, err := seccomp.Compile(few)
	must(t, err)
	r, w, err := os.Pipe()
	must(t, err)
	e, err := oci.Exec(t.Context(), &oci.ExecOpts{
		ContainerID: rb.opts.ID, Init: run.PidFD, InitPid: run.Pid, Cgroup: run.Cgroup,
		Process: &specs.Process{Args: []string{"mkdir", "/x"}, Env: []string{"PATH=/bin", "HOME=/"}, Cwd: "/"}, Seccomp: prog, SeccompFlags: flags,
		Stdio: oci.Stdio{Out: w, Err: w}, Notify: &oci.Notify{Path: a.path},
	})
	w.Close()
	must(t, err)
	code := wait(t, e)
	if got := readAll(r); got != refusedMkdir || code != 1 {
		t.Errorf("exec: %q %d", got, code)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if st := a.states[len(a.states)-1]; st.Pid != e.Pid || st.State.Pid != run.Pid || st.State.Status != specs.StateRunning {
		t.Errorf("%+v", st)
	}
	if a.mkdirs != 6 {
		t.Errorf("%d calls handled", a.mkdirs)
	}
	// Nobody there: the program never runs.
	gone := newBox(root, "true")
	gone.opts.Spec.Linux.Seccomp = profile(specs.ActAllow, "mkdir")
	gone.opts.Spec.Linux.Seccomp.ListenerPath = a.path + ".not"
	if _, _, err := gone.tryRun(t); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("no agent: %v", err)
	}
}
