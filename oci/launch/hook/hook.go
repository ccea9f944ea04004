// Package hook runs the hooks of an OCI specification. The runtime uses it as well as the process inside the
// container, so it starts no goroutine and uses system calls only.
package hook

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"runtime"
	"syscall"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/launch/entry"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// maxOutput is how much of the end of a failing hook's output its error quotes.
const maxOutput = 1024

// RunAll runs hooks one after the other and stops at the first that fails. kind
// is their name in the spec, for errors; state goes to each one's standard input.
// When done (which may be nil) is closed the running one is killed.
func RunAll(kind string, hooks []initmsg.Hook, state []byte, done <-chan struct{}) error {
	for i := range hooks {
		if err := Run(&hooks[i], state, done); err != nil {
			return fmt.Errorf("error running %s hook #%d: %w", kind, i, err)
		}
	}
	return nil
}

// Run runs one hook to its end. Its environment is exactly what the spec says, and
// it has no descriptors but its streams: standard input is state, the output
// is kept for the error. It is the leader of a process group, which is killed when
// the hook's time is over. Errors: a path that is not absolute,
// ErrInvalidArgument; a program that is missing, ErrNotFound; others have no class.
func Run(h *initmsg.Hook, state []byte, done <-chan struct{}) error {
	if !path.IsAbs(h.Path) {
		return errclass.Invalid("hook path %q is not absolute", h.Path)
	}
	in, err := memfile("hook-state", state)
	if err != nil {
		return err
	}
	defer unix.Close(in)
	out, err := memfile("hook-output", nil)
	if err != nil {
		return err
	}
	defer unix.Close(out)
	args := h.Args
	if len(args) == 0 {
		args = []string{h.Path}
	}
	pidfd := -1
	env := h.Env
	if env == nil {
		env = []string{} // nil would mean ours
	}
	pid, err := forkExec(h.Path, args, &syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{uintptr(in), uintptr(out), uintptr(out)},
		Sys:   &syscall.SysProcAttr{Setpgid: true, PidFD: &pidfd},
	})
	if err != nil {
		err = fmt.Errorf("exec %s: %w", h.Path, err)
		if errors.Is(err, unix.ENOENT) {
			return errclass.NotFound("%w", err)
		}
		return err
	}
	defer func() {
		if pidfd >= 0 {
			unix.Close(pidfd)
		}
	}()
	why := wait(pidfd, time.Duration(h.Timeout)*time.Second, done)
	if why != nil {
		_ = unix.Kill(-pid, unix.SIGKILL) // its group
		_ = unix.Kill(pid, unix.SIGKILL)
	}
	var ws unix.WaitStatus
	for {
		if _, err = unix.Wait4(pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	switch {
	case why != nil:
		return fmt.Errorf("%s: %w", h.Path, why)
	case err != nil:
		return fmt.Errorf("wait for %s: %w", h.Path, err)
	case ws.Signaled():
		return fmt.Errorf("%s: signal: %v%s", h.Path, ws.Signal(), output(out))
	case ws.ExitStatus() != 0:
		return fmt.Errorf("%s: exit status %d%s", h.Path, ws.ExitStatus(), output(out))
	}
	return nil
}

// forkExec starts a program with no signal blocked: we may have begun with all of
// them blocked (package entry), and a child gets the mask of the thread that forks, and
// its timer slack.
func forkExec(file string, args []string, attr *syscall.ProcAttr) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var none, old unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, &old); err != nil {
		return 0, err
	}
	entry.Settle()
	pid, err := syscall.ForkExec(file, args, attr)
	if serr := unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil); err == nil {
		err = serr // never: the arguments are ours
	}
	return pid, err
}

func memfile(name string, content []byte) (int, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("hook streams: %w", err)
	}
	for len(content) > 0 {
		n, err := unix.Write(fd, content)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("hook streams: %w", err)
		}
		content = content[n:]
	}
	if _, err := unix.Seek(fd, 0, 0); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("hook streams: %w", err)
	}
	return fd, nil
}

// step is how often wait looks whether it is to give up.
const step = 50 * time.Millisecond

// wait waits for the process to end; 0 waits for ever.
func wait(pidfd int, limit time.Duration, done <-chan struct{}) error {
	if pidfd < 0 {
		return nil // no pidfd, no deadline
	}
	start := time.Now()
	for {
		d := step
		if done == nil && limit == 0 {
			d = -time.Millisecond
		} else if limit > 0 {
			d = min(d, limit-time.Since(start))
			if d <= 0 {
				return fmt.Errorf("timed out after %v", limit)
			}
		}
		ms := int(d / time.Millisecond)
		if d > 0 && ms == 0 {
			ms = 1
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}, ms)
		if n > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		select {
		case <-done:
			return errors.New("interrupted")
		default:
		}
	}
}

// output is the end of what the hook wrote, worded as part of an error.
func output(fd int) string {
	end, err := unix.Seek(fd, 0, 2)
	if err != nil || end == 0 {
		return ""
	}
	b := make([]byte, maxOutput)
	n, err := unix.Pread(fd, b, max(0, end-maxOutput))
	if err != nil || n <= 0 {
		return ""
	}
	return ", output: " + string(bytes.ToValidUTF8(bytes.TrimSpace(b[:n]), []byte("?")))
}
