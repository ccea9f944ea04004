package ociruntime

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/launch/entry"
	"golang.org/x/sys/unix"
)

// maxOutput bounds what is kept of a runtime's log and output.
const maxOutput = 64 << 10

// call is one command to run.
type call struct {
	args  []string
	input []byte
	// stdio are the streams of the process that the command makes; nil: it makes none, and
	// its output is the answer.
	stdio *oci.Stdio
	// launcher assembles the root first; namespaces are what it binds.
	launcher   *launcher
	namespaces []*os.File
}

// run runs a command of the runtime and waits for its end, which the end of ctx forces.
// The error has the class and the text that the runtime's log says.
func (r *Command) run(ctx context.Context, c *Container, cl call) ([]byte, error) {
	log := r.path(c.ID, "log-"+strconv.Itoa(os.Getpid())+"-"+strconv.FormatUint(r.last.Add(1), 10))
	defer os.Remove(log)
	args := append([]string{}, r.ref.Args...)
	args = append(args, "--root", r.path(c.ID, stateDir), "--log", log, "--log-format", "json")
	if c.Cgroup.Systemd != "" {
		args = append(args, "--systemd-cgroup")
	}
	args = append(args, cl.args...)
	cmd := exec.CommandContext(ctx, r.ref.Path, args...)
	cmd.Dir = r.path(c.ID, bundleDir)
	cmd.WaitDelay = time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out := &tail{max: maxOutput}
	switch {
	case cl.stdio != nil:
		setStdio(cmd, cl.stdio)
	default:
		cmd.Stdout, cmd.Stderr = out, out
		if cl.input != nil {
			cmd.Stdin = bytes.NewReader(cl.input)
		}
	}
	var launched *launch
	if cl.launcher != nil {
		var err error
		if launched, err = cl.launcher.wrap(cmd, cl.namespaces); err != nil {
			return nil, err
		}
		defer launched.close()
	}
	err := start(cmd)
	if err == nil {
		if launched != nil {
			launched.started()
		}
		err = cmd.Wait()
	}
	switch {
	case err == nil:
		return out.bytes(), nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		// Not of class NotFound: it is not what the user has asked to run.
		return nil, errclass.Internal("runtime %s: %v", r.ref.Path, err)
	}
	if launched != nil {
		if serr := launched.failure(); serr != nil {
			return nil, serr
		}
	}
	text := lastError(log)
	if text == "" {
		text = strings.TrimSpace(string(out.bytes()))
	}
	if text == "" {
		text = err.Error()
	}
	return nil, classify(text)
}

// start is cmd.Start from a thread that is as the program was started: what the runtime
// starts inherits it.
func start(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	entry.Settle()
	return cmd.Start()
}

func setStdio(cmd *exec.Cmd, s *oci.Stdio) {
	// Files themselves, so that no goroutine copies; nil is /dev/null.
	if s.In != nil {
		cmd.Stdin = s.In
	}
	if s.Out != nil {
		cmd.Stdout = s.Out
	}
	if s.Err != nil {
		cmd.Stderr = s.Err
	}
}

// tail keeps the last bytes that are written to it.
type tail struct {
	max int
	b   []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > t.max {
		t.b = append([]byte(nil), t.b[len(t.b)-t.max:]...)
	}
	return len(p), nil
}

func (t *tail) bytes() []byte { return t.b }

// lastError is the message of the last error in a runtime's log in JSON; "": none.
func lastError(path string) (text string) {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	if size, err := f.Seek(0, io.SeekEnd); err == nil && size > maxOutput {
		_, _ = f.Seek(-maxOutput, io.SeekEnd)
	} else {
		_, _ = f.Seek(0, io.SeekStart)
	}
	sc := bufio.NewScanner(io.LimitReader(f, maxOutput))
	sc.Buffer(nil, maxOutput+1)
	for sc.Scan() {
		var line struct{ Level, Msg string }
		if json.Unmarshal(sc.Bytes(), &line) == nil && line.Level == "error" && line.Msg != "" {
			text = line.Msg
		}
	}
	return text
}

// classify makes an error of what a runtime has said, without the words by which it names
// itself and the step: the caller has words of its own for those.
func classify(text string) error {
	text = strings.TrimSpace(text)
	for _, p := range []string{"unable to start container process: ", "exec failed: "} {
		if i := strings.LastIndex(text, p); i >= 0 {
			text = text[i+len(p):]
		}
	}
	err := errors.New(text)
	has := func(parts ...string) bool {
		for _, p := range parts {
			if strings.Contains(text, p) {
				return true
			}
		}
		return false
	}
	switch {
	case has("container does not exist", "container with given ID already", "executable file not found", "not found in $PATH", "does not exist"),
		has("no such file or directory", "No such file or directory") && has("exec", "stat "):
		return errclass.With(errdefs.ErrNotFound, err)
	case has("permission denied", "Permission denied", "is a directory"):
		return errclass.With(errdefs.ErrPermissionDenied, err)
	case has("not running", "not paused", "is paused", "stopped"):
		return errclass.With(errdefs.ErrFailedPrecondition, err)
	case has("invalid argument", "Invalid argument", "invalid value", "numerical result out of range"):
		return errclass.With(errdefs.ErrInvalidArgument, err)
	}
	return err
}

// notRunning tells that a command failed because the container has ended.
func notRunning(err error) bool {
	return errors.Is(err, errdefs.ErrFailedPrecondition) || strings.Contains(err.Error(), unix.ESRCH.Error()) || strings.Contains(err.Error(), "No such process")
}
