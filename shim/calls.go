package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim/ociruntime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// dupFiles duplicates files without touching their blocking mode, as Fd would.
func dupFiles(files []*os.File) ([]int, error) {
	fds := make([]int, 0, len(files))
	for _, f := range files {
		fd, err := dupFile(f)
		if err != nil {
			fdpass.Close(fds)
			return nil, err
		}
		fds = append(fds, fd)
	}
	return fds, nil
}

func dupFile(f *os.File) (int, error) {
	if f == nil {
		return -1, errclass.Invalid("descriptor for the shim is missing")
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, fmt.Errorf("descriptor for the shim: %w", err)
	}
	fd, derr := -1, error(nil)
	if err = raw.Control(func(n uintptr) { fd, derr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); err == nil {
		err = derr
	}
	if err != nil {
		return -1, fmt.Errorf("descriptor for the shim: %w", err)
	}
	return fd, nil
}

// Start runs a container and returns when its program runs, or failed to. files are
// the descriptors that StartRequest asks for; they stay the caller's. The error
// keeps the runtime's class and text. After an error nothing of the container is left,
// also when the shim died in the middle.
func (c *Client) Start(ctx context.Context, r *StartRequest, files []*os.File) (*Started, error) {
	if len(files) != len(r.NamespaceFDs)+len(r.Attach) {
		return nil, errclass.Invalid("start: %d descriptors for %d namespaces and %d clients", len(files), len(r.NamespaceFDs), len(r.Attach))
	}
	r, err := c.fit(ctx, r)
	if err != nil {
		return nil, err
	}
	h := &held{log: r.Log, once: r.StdinOnce, attach: r.Attach}
	if r.Spec != nil && r.Spec.Process != nil {
		h.tty = r.Spec.Process.Terminal
	}
	st, err := c.start(ctx, MethodStart, r.Key, r, h, files, len(r.NamespaceFDs))
	if err != nil && unanswered(err) {
		c.endUnheld(r)
	}
	return st, err
}

// fit makes a request one that the shim takes: it may be older than the daemon, and would pass over
// what it does not know. Class FailedPrecondition for what it cannot do.
func (c *Client) fit(ctx context.Context, r *StartRequest) (*StartRequest, error) {
	s, err := c.link.current(ctx)
	if err != nil {
		return nil, err
	}
	if r.Runtime != nil && !s.hello.Runtimes {
		return nil, errclass.With(errdefs.ErrFailedPrecondition, errors.New(
			"the process that holds the containers is older than the daemon and knows no other runtimes: restart the daemon when no container runs"))
	}
	if r.Log == nil || r.Log.Plain == nil || slices.Contains(s.hello.Logs, r.Log.Driver) {
		return r, nil
	}
	plain := *r
	plain.Log = r.Log.Plain
	return &plain, nil
}

// unanswered tells that a start failed without the shim saying so: it died, or its
// answer did not come or could not be read.
func unanswered(err error) bool {
	return errors.Is(err, errdefs.ErrUnavailable) || errors.Is(err, errdefs.ErrInternal) ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// endUnheld ends what a start without an answer may have left: a container that runs and
// that nobody holds. It can be found by its cgroup only. A shim that lives and holds it after all
// reaps it, and forgets it in time.
func (c *Client) endUnheld(r *StartRequest) {
	ref, err := oci.CgroupOf(context.Background(), r.Key.Container, r.Spec, r.SystemdCgroup)
	if err == nil {
		rt := ociruntime.Of(r.Runtime, filepath.Join(c.cfg.Root, RuntimesName))
		err = rt.Delete(context.Background(), &ociruntime.Container{ID: r.Key.Container, Cgroup: ref})
	}
	if err != nil {
		c.cfg.Logf("end what is left of a start of %s: %v", r.Key.Container, err)
	}
}

// Exec starts a further process in a running container, as Start does. Class
// NotFound when the shim does not hold the container, FailedPrecondition when it
// has ended.
func (c *Client) Exec(ctx context.Context, r *ExecRequest, files []*os.File) (*Started, error) {
	if len(files) != len(r.Attach) {
		return nil, errclass.Invalid("exec: %d descriptors for %d clients", len(files), len(r.Attach))
	}
	h := &held{once: true, attach: r.Attach}
	if r.Process != nil {
		h.tty = r.Process.Terminal
	}
	return c.start(ctx, MethodExec, r.Key, r, h, files, 0)
}

func (c *Client) start(ctx context.Context, method string, key Key, body any, h *held, files []*os.File, nns int) (*Started, error) {
	fds, err := dupFiles(files)
	if err != nil {
		return nil, err
	}
	// The clients' connections are kept; the rest is sent and closed.
	h.conns = map[string]int{}
	for i, a := range h.attach {
		h.conns[a.Client] = fds[nns+i]
	}
	defer fdpass.Close(fds[:nns])
	var st Started
	taken := false
	err = c.link.call(ctx, method, body, fds, func(b json.RawMessage, got []int) error {
		if err := json.Unmarshal(b, &st); err != nil || len(got) != len(st.FDs) {
			fdpass.Close(got)
			return errclass.Internal("answer of the shim to %s", method)
		}
		h.started = st
		h.fds = map[string]int{}
		for i, name := range st.FDs {
			h.fds[name] = got[i]
		}
		c.held.keep(key, h)
		taken = true
		return nil
	})
	if !taken {
		fdpass.Close(fds[nns:])
	}
	if err != nil {
		return nil, err
	}
	return &st, nil
}

// PidFD returns a pidfd of a held process. The caller closes it. Class NotFound
// when it is not held.
func (c *Client) PidFD(key Key) (*os.File, error) { return c.held.pidfd(key) }

// Attach connects one client to a held process; conn is the client's connection,
// a unix or tcp socket (ConnFile), and stays the caller's, who closes it.
func (c *Client) Attach(ctx context.Context, key Key, a AttachSpec, conn *os.File) error {
	fd, err := dupFile(conn)
	if err != nil {
		return err
	}
	// Kept before the call: the client may leave before the answer is here.
	if err := c.held.addConn(key, a, fd); err != nil {
		unix.Close(fd)
		return err
	}
	err = c.link.call(ctx, MethodAttach, KeyRequest{Key: key, Attach: &a}, []int{fd}, nil)
	if err != nil {
		c.held.dropConn(key, a.Client)
	}
	return err
}

// Detach ends an attachment as the client's detach keys would.
func (c *Client) Detach(ctx context.Context, key Key, client string) error {
	return c.link.call(ctx, MethodDetach, KeyRequest{Key: key, Client: client}, nil, nil)
}

// Resize sets the size of the process's terminal. Class InvalidArgument when it has none.
func (c *Client) Resize(ctx context.Context, key Key, size oci.WinSize) error {
	return c.link.call(ctx, MethodResize, KeyRequest{Key: key, Size: size}, nil, nil)
}

// CloseStdin ends the process's input. Doing it again is no error.
func (c *Client) CloseStdin(ctx context.Context, key Key) error {
	return c.link.call(ctx, MethodCloseStdin, KeyRequest{Key: key}, nil, nil)
}

// Signal sends sig to a held process; class NotFound when it has ended.
func (c *Client) Signal(ctx context.Context, key Key, sig int) error {
	return c.link.call(ctx, MethodSignal, KeyRequest{Key: key, Signal: sig}, nil, nil)
}

// KillAll sends sig to every process of the container's cgroup.
func (c *Client) KillAll(ctx context.Context, key Key, sig int) error {
	return c.link.call(ctx, MethodKillAll, KeyRequest{Key: key, Signal: sig}, nil, nil)
}

// Pause freezes the whole container.
func (c *Client) Pause(ctx context.Context, key Key) error {
	return c.held.setPaused(key, true, c.link.call(ctx, MethodPause, KeyRequest{Key: key}, nil, nil))
}

// Resume thaws what Pause froze.
func (c *Client) Resume(ctx context.Context, key Key) error {
	return c.held.setPaused(key, false, c.link.call(ctx, MethodResume, KeyRequest{Key: key}, nil, nil))
}

// Update changes the limits of a held container.
func (c *Client) Update(ctx context.Context, key Key, r *specs.LinuxResources) error {
	return c.link.call(ctx, MethodUpdate, KeyRequest{Key: key, Resources: r}, nil, nil)
}

// Stats reads the container's usage.
func (c *Client) Stats(ctx context.Context, key Key) (*oci.Stats, error) {
	var st oci.Stats
	if err := c.link.call(ctx, MethodStats, KeyRequest{Key: key}, nil, into(&st)); err != nil {
		return nil, err
	}
	return &st, nil
}

// Pids lists the container's processes as the host numbers them.
func (c *Client) Pids(ctx context.Context, key Key) ([]int, error) {
	var pids []int
	if err := c.link.call(ctx, MethodPids, KeyRequest{Key: key}, nil, into(&pids)); err != nil {
		return nil, err
	}
	return pids, nil
}

func into(v any) func(json.RawMessage, []int) error {
	return func(b json.RawMessage, fds []int) error {
		fdpass.Close(fds)
		return json.Unmarshal(b, v)
	}
}

// List tells everything the shim holds, exits not yet forgotten included.
func (c *Client) List(ctx context.Context) ([]Status, error) {
	var all []Status
	err := c.link.call(ctx, MethodList, ListRequest{}, nil, func(b json.RawMessage, fds []int) error {
		fdpass.Close(fds)
		var part []Status
		if err := json.Unmarshal(b, &part); err != nil {
			return err
		}
		all = append(all, part...)
		return nil
	})
	return all, err
}

// Ended says that the exit of key is recorded: the streams of its clients may end
// now, so that a client that sees the end of its stream finds the exit code. The
// shim does it by itself after a second, and Forget does it too.
func (c *Client) Ended(ctx context.Context, key Key) error {
	return c.link.call(ctx, MethodEnded, KeyRequest{Key: key}, nil, nil)
}

// Forget acknowledges an exit: the shim drops what it held, and for a container
// removes the cgroup. Unknown keys are no error; class FailedPrecondition while the
// process runs.
func (c *Client) Forget(ctx context.Context, key Key) error {
	err := c.link.call(ctx, MethodForget, KeyRequest{Key: key}, nil, nil)
	if err == nil {
		c.held.forget(key)
	}
	return err
}

// Adopt gives the shim a process that no shim holds, found by OpenRunning after
// both shim and daemon died: its pidfd, and nothing of its output. Its status comes
// as an Exit event when it ends, with Unknown where the kernel cannot tell.
func (c *Client) Adopt(ctx context.Context, st Status, pidfd *os.File) error {
	fd, err := dupFile(pidfd)
	if err != nil {
		return err
	}
	st.FDs = []string{"pidfd"}
	st.Attach, st.Adopted, st.LostOutput = nil, true, true
	if err := c.link.call(ctx, MethodAdopt, st, []int{fd}, nil); err != nil {
		unix.Close(fd)
		return err
	}
	c.held.keep(st.Key, &held{started: st.Started, fds: map[string]int{"pidfd": fd}, adopted: true, lost: true})
	c.reapOrphans(false)
	return nil
}

// Shutdown ends the shim. Class FailedPrecondition while it holds processes. The
// client is closed then.
func (c *Client) Shutdown(ctx context.Context) error {
	s, err := c.link.current(ctx)
	if err != nil {
		return err
	}
	pidfd := -1
	if s.pidfd >= 0 {
		if pidfd, err = unix.FcntlInt(uintptr(s.pidfd), unix.F_DUPFD_CLOEXEC, 3); err != nil {
			pidfd = -1
		}
	}
	if pidfd >= 0 {
		defer unix.Close(pidfd)
	}
	c.link.setEnding(true)
	if err := s.call(ctx, MethodShutdown, struct{}{}, nil, nil); err != nil {
		c.link.setEnding(false)
		return err
	}
	if pidfd >= 0 {
		PollPidfd(pidfd, unix.POLLIN, cancelWait)
	}
	return c.Close()
}
