package ociruntime

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Command is a runtime that is another program, with a command line as runc's. All it
// keeps of a container is below one directory, dir/ID, its own state included, so that a
// container that nobody remembers is removed by its name alone.
//
// Its mounts stay out of the host's table: the container's root is assembled in a mount
// namespace that only the command has which creates the container (see launcher), and lives on
// in the container's own.
//
// A filter for system calls is the specification's; a further process gets the container's.
type Command struct {
	ref  Ref
	dir  string
	last atomic.Uint64 // numbers what belongs to one exec
}

var _ Runtime = (*Command)(nil)

// Bounds of one call where the caller has set none.
const (
	callWait   = time.Minute      // to change a container
	deleteWait = 30 * time.Second // to remove one, before its cgroup is emptied by us
)

// Names below a container's directory.
const (
	stateDir  = "state"  // the runtime's --root
	bundleDir = "bundle" // where it finds config.json
	rootDir   = "rootfs" // in the bundle; an overlay is mounted there in the command's own namespace
	nsDir     = "ns"     // in the bundle; namespaces to join are bound there in that namespace
)

func (r *Command) path(id string, elem ...string) string {
	return filepath.Join(append([]string{r.dir, id}, elem...)...)
}

// check refuses a name that is no name of a directory.
func check(id string) error {
	if id == "" || id == "." || id == ".." || strings.ContainsAny(id, "/\x00") {
		return errclass.Invalid("container id %q is not valid", id)
	}
	return nil
}

// Start creates a container and starts it; see Runtime.
func (r *Command) Start(ctx context.Context, o *StartOpts) (_ *oci.Process, err error) {
	if err := check(o.ID); err != nil {
		return nil, err
	}
	ref, err := oci.CgroupOf(ctx, o.ID, o.Spec, o.SystemdCgroup)
	if err != nil {
		return nil, err
	}
	c := &Container{ID: o.ID, Cgroup: ref}
	if _, err := os.Lstat(r.path(o.ID)); err == nil { // of a shim that died
		if err := r.Delete(ctx, c); err != nil {
			return nil, err
		}
	}
	defer func() {
		if err != nil {
			if derr := r.Delete(context.WithoutCancel(ctx), c); derr != nil {
				err = fmt.Errorf("%w (and what is left of it could not be removed: %w)", err, derr)
			}
		}
	}()
	st, err := r.bundle(o)
	if err != nil {
		return nil, err
	}
	p, err := r.process(ctx, c, o.Spec.Process.Terminal, o.Stdio, o.ConsoleSize, func(args []string) call {
		return call{args: append(append([]string{"create", "--bundle", r.path(o.ID, bundleDir)}, args...), o.ID), launcher: st, namespaces: st.files(o)}
	})
	if err != nil {
		return nil, err
	}
	if _, err = r.run(ctx, c, call{args: []string{"start", o.ID}}); err != nil {
		abandon(p)
		return nil, err
	}
	p.Started = time.Now()
	return p, nil
}

// Exec runs a further process; see Runtime.
func (r *Command) Exec(ctx context.Context, c *Container, o *ExecOpts) (*oci.Process, error) {
	if err := check(c.ID); err != nil {
		return nil, err
	}
	n := strconv.FormatUint(r.last.Add(1), 10)
	process := *o.Process
	if process.Terminal {
		process.ConsoleSize = &specs.Box{Height: uint(o.ConsoleSize.Rows), Width: uint(o.ConsoleSize.Cols)}
	}
	file := r.path(c.ID, "process-"+strconv.Itoa(os.Getpid())+"-"+n+".json")
	if err := writeJSON(file, &process); err != nil {
		return nil, err
	}
	defer os.Remove(file)
	return r.process(ctx, c, process.Terminal, o.Stdio, o.ConsoleSize, func(args []string) call {
		return call{args: append(append([]string{"exec", "--process", file, "--detach"}, args...), c.ID)}
	})
}

// process has the runtime make a process, gets hold of it and, with a terminal, of that.
// It is of a program that runs, but for create's, which waits.
func (r *Command) process(ctx context.Context, c *Container, tty bool, stdio oci.Stdio, size oci.WinSize, with func(args []string) call) (_ *oci.Process, err error) {
	name := strconv.Itoa(os.Getpid()) + "-" + strconv.FormatUint(r.last.Add(1), 10)
	pidFile := r.path(c.ID, "pid-"+name)
	defer os.Remove(pidFile)
	args := []string{"--pid-file", pidFile}
	var console *consoleSocket
	if tty {
		// Named from the bundle, where the command runs: a whole path may be too long.
		if console, err = listenConsole(r.path(c.ID, bundleDir), "tty-"+name); err != nil {
			return nil, err
		}
		defer console.close()
		args = append(args, "--console-socket", console.name)
		stdio = oci.Stdio{}
	}
	cl := with(args)
	cl.stdio = &stdio
	_, err = r.run(ctx, c, cl)
	pid, perr := readPid(pidFile)
	if err != nil {
		if perr == nil { // it ended after it had made one, which is our child by now
			endChild(pid)
		}
		return nil, err
	}
	if perr != nil {
		return nil, errclass.Internal("%s has told no process id: %v", r.name(), perr)
	}
	p := &oci.Process{Pid: pid, Cgroup: c.Cgroup, Started: time.Now()}
	// Nobody has reaped it, so the number is still its own.
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		endChild(pid)
		return nil, fmt.Errorf("open process %d of %s: %w", pid, r.name(), err)
	}
	p.PidFD = os.NewFile(uintptr(fd), "pidfd")
	if console != nil {
		if p.Console, err = console.receive(ctx, size); err != nil {
			abandon(p)
			return nil, err
		}
	}
	return p, nil
}

func readPid(file string) (int, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	var b [32]byte
	n, err := f.Read(b[:])
	if err != nil {
		return 0, err
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b[:n])))
	if err == nil && pid < 2 {
		err = fmt.Errorf("%d is no process id", pid)
	}
	return pid, err
}

// abandon ends and reaps a process that is not to be.
func abandon(p *oci.Process) {
	p.PidFD.Close()
	if p.Console != nil {
		p.Console.Close()
	}
	endChild(p.Pid)
}

// endChild kills and reaps a child of ours that nobody else reaps; of another's process it
// lets go.
func endChild(pid int) {
	if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT|unix.WALL, nil); err != nil {
		return // not our child
	}
	_ = unix.Kill(pid, unix.SIGKILL)
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WALL, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// Kill sends a signal to the first process; see Runtime.
func (r *Command) Kill(ctx context.Context, c *Container, sig syscall.Signal) error {
	if sig < 1 || sig > 64 {
		return errclass.Invalid("signal %d does not exist", sig)
	}
	_, err := r.change(ctx, c, "kill", c.ID, strconv.Itoa(int(sig)))
	if err != nil && (errors.Is(err, errdefs.ErrNotFound) || notRunning(err)) {
		return ended(c.ID)
	}
	return err
}

// KillAll sends a signal to every process; see Runtime.
func (r *Command) KillAll(ctx context.Context, c *Container, sig syscall.Signal) error {
	if sig < 1 || sig > 64 {
		return errclass.Invalid("signal %d does not exist", sig)
	}
	if _, err := r.change(ctx, c, "kill", "--all", c.ID, strconv.Itoa(int(sig))); err == nil && sig != unix.SIGKILL {
		return nil
	}
	// Newer ones know no --all, or none once the first process has ended; and what is to
	// be dead is dead.
	return oci.KillAll(c.Cgroup, sig)
}

// Pause stops every process; see Runtime.
func (r *Command) Pause(ctx context.Context, c *Container) error {
	return r.freeze(ctx, c, "pause", true)
}

// Resume lets them go on; see Runtime.
func (r *Command) Resume(ctx context.Context, c *Container) error {
	return r.freeze(ctx, c, "resume", false)
}

func (r *Command) freeze(ctx context.Context, c *Container, verb string, want bool) error {
	if is, err := oci.Frozen(c.Cgroup); err == nil && is == want {
		return nil
	}
	_, err := r.change(ctx, c, verb, c.ID)
	return err
}

// Update changes limits; see Runtime.
func (r *Command) Update(ctx context.Context, c *Container, res *specs.LinuxResources) error {
	b, err := json.Marshal(res)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	_, err = r.run(ctx, c, call{args: []string{"update", "--resources", "-", c.ID}, input: b})
	return err
}

// Delete removes a container; see Runtime.
func (r *Command) Delete(ctx context.Context, c *Container) error {
	if err := check(c.ID); err != nil {
		return err
	}
	var rerr error
	if _, err := os.Lstat(r.path(c.ID, stateDir, c.ID)); err == nil {
		ctx, cancel := context.WithTimeout(ctx, deleteWait)
		_, rerr = r.run(ctx, c, call{args: []string{"delete", "--force", c.ID}})
		cancel()
		if errors.Is(rerr, errdefs.ErrNotFound) {
			rerr = nil
		}
	}
	// Whatever the runtime says: no process outlives its container's end.
	if err := deleteCgroup(c.Cgroup); err != nil {
		return errors.Join(err, rerr)
	}
	if rerr != nil {
		if _, err := os.Stat(r.ref.Path); err == nil {
			return rerr
		}
	}
	if err := os.RemoveAll(r.path(c.ID)); err != nil {
		return fmt.Errorf("state of container %s: %w", c.ID, err)
	}
	return nil
}

func (r *Command) change(ctx context.Context, c *Container, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, callWait)
	defer cancel()
	return r.run(ctx, c, call{args: args})
}

func (r *Command) name() string { return filepath.Base(r.ref.Path) }

// writeJSON writes a file that only we read, and the runtime.
func writeJSON(path string, v any) error {
	var b bytes.Buffer
	if err := json.NewEncoder(&b).Encode(v); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o600)
}
