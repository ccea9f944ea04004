package ocicli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/atomicfile"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/plainjson"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// createFlags are the options of create and run.
type createFlags struct {
	bundle, console, pidFile string
	preserve                 int
	noPivot, noKeyring       bool
	detach, keep             bool
}

func (c *createFlags) declare(f *flags) {
	f.str(&c.bundle, "bundle,b", "DIR", "the bundle (default: the current directory)")
	f.str(&c.console, "console-socket", "SOCKET", "a unix socket that gets the master side of the terminal")
	f.str(&c.pidFile, "pid-file", "FILE", "where to write the process id")
	f.count(&c.preserve, "preserve-fds", "N", "pass N more descriptors, from 3 on")
	f.boolean(&c.noPivot, "no-pivot", "change the root without pivot_root(2), for ramdisks")
	f.boolean(&c.noKeyring, "no-new-keyring", "keep the caller's session keyring")
}

func setupCreate(a *app, f *flags) func([]string) error {
	c := &createFlags{detach: true, keep: true}
	c.declare(f)
	return func(args []string) error {
		return failed("create", a.create(args[0], c, false))
	}
}

func setupRun(a *app, f *flags) func([]string) error {
	c := new(createFlags)
	c.declare(f)
	f.boolean(&c.detach, "detach,d", "return when the program runs")
	f.boolean(&c.keep, "keep", "do not delete the container when it has ended")
	f.ignored("no-subreaper", "", "accepted: orphans are not adopted")
	return func(args []string) error {
		return failed("run", a.create(args[0], c, true))
	}
}

// failed words an error as runc does, which callers search for known parts.
func failed(what string, err error) error {
	var code exitError
	if err == nil || errors.As(err, &code) || errors.Is(err, errExists) {
		return err
	}
	return fmt.Errorf("%s %s failed: %w", program, what, err)
}

// launch is what create, run and exec prepare before a process starts.
type launch struct {
	preserve []*os.File
	env      []string // LISTEN_FDS and LISTEN_PID
	console  string   // socket to send the terminal to
	terminal bool
	detach   bool
	fg       *foreground // nil when detached
}

// newLaunch collects inherited descriptors. It must run before this process opens
// any of its own with such a number.
func newLaunch(n int, console string, terminal, detach bool) (*launch, error) {
	l := &launch{console: console, terminal: terminal, detach: detach}
	if err := l.check(); err != nil {
		return nil, err
	}
	if v := os.Getenv("LISTEN_FDS"); v != "" {
		k, err := strconv.ParseUint(v, 10, 10)
		if err != nil {
			return nil, errclass.Invalid("unable to convert LISTEN_FDS=%s to an integer", v)
		}
		l.env = []string{"LISTEN_FDS=" + v, "LISTEN_PID=1"}
		n += int(k)
	}
	const first = 3
	for fd := first; fd < first+n; fd++ {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
			return nil, errclass.Invalid("please check that preserved-fd %d (of %d) is present", fd-first, n)
		}
		unix.CloseOnExec(fd)
		l.preserve = append(l.preserve, os.NewFile(uintptr(fd), "preserved"))
	}
	return l, nil
}

// check proves that a terminal has somebody to go to, as runc does.
func (l *launch) check() error {
	switch {
	case l.console != "" && (!l.terminal || !l.detach):
		return errclass.Invalid("cannot use console socket if runc will not detach or allocate tty")
	case l.console == "" && l.terminal && l.detach:
		return errclass.Invalid("cannot allocate tty if runc will detach without setting console socket")
	}
	return nil
}

// underlying is the system's word in an error about a path.
func underlying(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

func stdio() oci.Stdio { return oci.Stdio{In: os.Stdin, Out: os.Stdout, Err: os.Stderr} }

// loadBundle reads and completes a bundle's specification.
func loadBundle(dir string) (bundle string, raw []byte, spec *specs.Spec, err error) {
	if bundle, err = filepath.Abs(dir); err != nil {
		return "", nil, nil, err
	}
	if st, err := os.Stat(bundle); err != nil {
		return "", nil, nil, fmt.Errorf("chdir %s: %w", bundle, underlying(err))
	} else if !st.IsDir() {
		return "", nil, nil, fmt.Errorf("chdir %s: %w", bundle, unix.ENOTDIR)
	}
	if raw, err = readAll(filepath.Join(bundle, specFile)); err != nil {
		if errors.Is(err, os.ErrNotExist) {
			return "", nil, nil, errclass.NotFound("JSON specification file %s not found", filepath.Join(bundle, specFile))
		}
		return "", nil, nil, err
	}
	spec = new(specs.Spec)
	if err := plainjson.Unmarshal(raw, spec); err != nil {
		return "", nil, nil, errclass.Invalid("%s: %w", specFile, err)
	}
	return bundle, raw, spec, completeSpec(spec, bundle)
}

// completeSpec checks what oci does not, and makes the bundle's relative paths
// absolute.
func completeSpec(s *specs.Spec, bundle string) error {
	switch {
	case s.Version != "" && !strings.HasPrefix(s.Version, "1."):
		return errclass.Invalid("unsupported ociVersion %q", s.Version)
	case s.Root == nil || s.Root.Path == "":
		return errclass.Invalid("root property must not be empty")
	case s.Process == nil:
		return errclass.Invalid("process property must not be empty")
	}
	abs := func(p string) string {
		if filepath.IsAbs(p) {
			return filepath.Clean(p)
		}
		return filepath.Join(bundle, p)
	}
	s.Root.Path = abs(s.Root.Path)
	for i := range s.Mounts {
		m := &s.Mounts[i]
		if isBind(m) && m.Source != "" {
			m.Source = abs(m.Source)
		}
	}
	return nil
}

func isBind(m *specs.Mount) bool {
	if m.Type == "bind" {
		return true
	}
	for _, o := range m.Options {
		if o == "bind" || o == "rbind" {
			return true
		}
	}
	return false
}

// create makes a container; with start its program runs, too.
func (a *app) create(id string, f *createFlags, start bool) error {
	if err := checkID(id); err != nil {
		return err
	}
	n, err := a.prepare(id, f)
	if err != nil {
		return err
	}
	if err := n.claim(); err != nil {
		return err
	}
	defer n.c.close()
	return n.finish(n.make(start))
}

// creation is a container on its way from a bundle to a process: what create, run and
// restore share.
type creation struct {
	app    *app
	id     string
	bundle string
	raw    []byte // the specification as the bundle has it
	spec   *specs.Spec
	flags  *createFlags
	launch *launch
	c      *container // from claim on
}

// prepare reads the bundle and collects what the process is to inherit. Nothing is made yet.
func (a *app) prepare(id string, f *createFlags) (*creation, error) {
	n := &creation{app: a, id: id, flags: f}
	var err error
	if n.bundle, n.raw, n.spec, err = loadBundle(f.bundle); err != nil {
		return nil, err
	}
	if n.launch, err = newLaunch(f.preserve, f.console, n.spec.Process.Terminal, f.detach); err != nil {
		return nil, err
	}
	return n, nil
}

// claim makes the container's state directory, which finish removes if nothing comes of it.
// The caller closes n.c.
func (n *creation) claim() error {
	ref, err := oci.CgroupOf(n.app.ctx, n.id, n.spec, n.app.systemd)
	if err != nil {
		return err
	}
	c, err := n.app.store.create(n.id)
	if err != nil {
		return err
	}
	c.OCIVersion, c.Bundle, c.Rootfs, c.Annots = n.spec.Version, n.bundle, n.spec.Root.Path, n.spec.Annotations
	c.Created, c.Cgroup = time.Now().UTC(), ref
	n.c = c
	return nil
}

// finish attends to the process that was made; after an error it removes the container.
func (n *creation) finish(p *oci.Process, err error) error {
	if err != nil {
		n.launch.stop()
		n.app.hooks(n.c, "poststop", n.spec)
		_ = n.c.remove()
		return err
	}
	return n.attend(p)
}

// attend waits for a container's end in the foreground, and deletes it then.
func (n *creation) attend(p *oci.Process) error {
	if n.flags.detach {
		return nil
	}
	n.c.unlock() // others may handle it while we wait
	code, err := n.launch.fg.wait(p)
	if err != nil {
		return err
	}
	if !n.flags.keep {
		if err := n.app.destroy(n.c, n.spec); err != nil {
			n.app.log.warn("delete container %s: %v", n.id, err)
		}
	}
	return exitError(code)
}

// make does create's work on a fresh state directory. After an error nothing
// runs, and only the directory is left.
func (n *creation) make(start bool) (*oci.Process, error) {
	if err := n.c.create(specFile, n.raw); err != nil {
		return nil, fmt.Errorf("writing %s: %w", filepath.Join(n.c.path, specFile), err)
	}
	if err := n.c.save(); err != nil {
		return nil, err
	}
	l := n.launch
	n.spec.Process.Env = append(n.spec.Process.Env, l.env...)
	o := &oci.CreateOpts{
		ID: n.id, Spec: n.spec, Rootfs: oci.Rootfs{Path: n.spec.Root.Path}, Bundle: n.bundle, Hold: true,
		Preserve: l.preserve, NoPivot: n.flags.noPivot, NoNewKeyring: n.flags.noKeyring, SystemdCgroup: n.app.systemd, Stdio: stdio(),
	}
	if !n.flags.detach {
		l.fg = newForeground(l.terminal, n.spec.Hooks != nil)
		o.ConsoleSize = l.fg.size()
	}
	if !start {
		s, err := oci.ListenStart(n.c.dir, startFile)
		if err != nil {
			return nil, err
		}
		defer s.Close()
		o.StartSocket = s
	}
	p, err := oci.Create(n.app.ctx, o)
	if err != nil {
		return nil, fmt.Errorf("unable to start container process: %w", err)
	}
	for _, w := range p.Warnings {
		n.app.log.warn("%s", w)
	}
	err = n.made(p)
	if err == nil && start {
		if err = p.Release(); err != nil {
			err = fmt.Errorf("unable to start container process: %w", err)
		} else {
			err = n.app.poststart(n.c, n.spec)
		}
	}
	if err != nil {
		unmake(p)
		return nil, err
	}
	return p, nil
}

// unmake ends a process that was made, and what belongs to it.
func unmake(p *oci.Process) {
	_ = oci.KillAll(p.Cgroup, unix.SIGKILL)
	_ = signalProcess(p.PidFD, unix.SIGKILL)
	_, _ = reap(p.Pid)
	_ = oci.DeleteCgroup(p.Cgroup)
}

// made publishes a process that is ready: state, terminal, pid file.
func (n *creation) made(p *oci.Process) error {
	st, err := readStat(p.Pid)
	if err != nil {
		return err
	}
	n.c.Pid, n.c.StartTime, n.c.Cgroup = p.Pid, st.start, p.Cgroup
	if err := n.c.save(); err != nil {
		return err
	}
	if err := n.launch.terminalReady(p); err != nil {
		return err
	}
	return writePidFile(n.flags.pidFile, p.Pid)
}

// poststart runs the poststart hooks. One that fails ends the container; for
// configurations of versions before 1.1, which asked for that, it is a warning,
// and the other hooks run (runtime-spec, "Lifecycle", step 10).
func (a *app) poststart(c *container, s *specs.Spec) error {
	if s.Hooks == nil {
		return nil
	}
	st := c.state(specs.StateRunning)
	if !strings.HasPrefix(s.Version, "1.0.") {
		return oci.RunHooks(a.ctx, "poststart", s.Hooks.Poststart, st)
	}
	for _, h := range s.Hooks.Poststart {
		if err := oci.RunHooks(a.ctx, "poststart", []specs.Hook{h}, st); err != nil {
			a.log.warn("%v", err)
		}
	}
	return nil
}

// hooks runs the poststop hooks, each in any case; failures are warnings (spec).
func (a *app) hooks(c *container, kind string, s *specs.Spec) {
	if s == nil || s.Hooks == nil {
		return
	}
	for _, h := range s.Hooks.Poststop {
		if err := oci.RunHooks(a.ctx, kind, []specs.Hook{h}, c.state(specs.StateStopped)); err != nil {
			a.log.warn("%v", err)
		}
	}
}

func writePidFile(path string, pid int) error {
	if path == "" {
		return nil
	}
	return atomicfile.Write(path, strconv.AppendInt(nil, int64(pid), 10), 0o644, false)
}

func setupStart(a *app, _ *flags) func([]string) error {
	return func(args []string) error {
		c, err := a.store.open(args[0])
		if err != nil {
			return err
		}
		defer c.close()
		if err := c.lock(true); err != nil {
			return err
		}
		switch st := c.status(); st {
		case specs.StateCreated:
		case specs.StateRunning:
			return precondition("cannot start an already running container")
		case specs.StateStopped:
			return precondition("cannot start a container that has stopped")
		default:
			return precondition("cannot start a container in the %s state", st)
		}
		if err := oci.StartHeld(c.dir, startFile); err != nil {
			return failed("start", fmt.Errorf("unable to start container process: %w", err))
		}
		if err := os.Remove(filepath.Join(c.path, startFile)); err != nil {
			return err
		}
		spec, err := c.spec()
		if err != nil {
			return err
		}
		if err := a.poststart(c, spec); err != nil {
			if kerr := a.kill(c); kerr != nil {
				a.log.warn("%v", kerr)
			}
			return err
		}
		return nil
	}
}
