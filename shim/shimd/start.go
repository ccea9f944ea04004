package shimd

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/jsonfile"
	"github.com/gantry/gantry/logs/local"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/shim/ociruntime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// execPipe is the pipe size for execs with clients: fewer wake-ups a gigabyte.
const execPipe = 256 << 10

// execStarts is how long an exec may take to start. The container can stop the
// process that starts in it at any moment, and who asked for it may be long gone.
const execStarts = time.Minute

// streams are the two ends of a new process's standard streams.
type streams struct {
	theirs           oci.Stdio
	in, out, err     *os.File
	closeTheirsFiles []*os.File
}

func (t *streams) closeTheirs() {
	for _, f := range t.closeTheirsFiles {
		f.Close()
	}
	t.closeTheirsFiles = nil
}

func (t *streams) closeOurs() {
	for _, f := range []*os.File{t.in, t.out, t.err} {
		if f != nil {
			f.Close()
		}
	}
}

// makeStreams makes pipes for what is wanted, /dev/null for the rest.
func makeStreams(stdin, out bool, size int, uid uint32, maps []specs.LinuxIDMapping) (*streams, error) {
	t := &streams{}
	fail := func(err error) (*streams, error) {
		t.closeTheirs()
		t.closeOurs()
		return nil, err
	}
	theirs := func(f *os.File) *os.File {
		t.closeTheirsFiles = append(t.closeTheirsFiles, f)
		return f
	}
	if !stdin || !out {
		null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
		if err != nil {
			return fail(fmt.Errorf("standard streams: %w", err))
		}
		t.theirs.In, t.theirs.Out, t.theirs.Err = null, null, null
		theirs(null)
	}
	if stdin {
		ours, their, err := pipe("stdin", false, size)
		if err != nil {
			return fail(err)
		}
		t.in, t.theirs.In = ours, theirs(their)
		chownTo(their, uid, maps)
	}
	if !out {
		return t, nil
	}
	for _, o := range []struct {
		name         string
		ours, theirs **os.File
	}{{"stdout", &t.out, &t.theirs.Out}, {"stderr", &t.err, &t.theirs.Err}} {
		ours, their, err := pipe(o.name, true, size)
		if err != nil {
			return fail(err)
		}
		*o.ours, *o.theirs = ours, theirs(their)
		chownTo(their, uid, maps)
	}
	return t, nil
}

// connect makes files of clients' descriptors, which it takes over.
func connect(fds []int) ([]*os.File, error) {
	files := make([]*os.File, 0, len(fds))
	for i, fd := range fds {
		f, err := own(fd, "client")
		if err != nil {
			fdpass.Close(fds[i+1:])
			closeFiles(files)
			return nil, err
		}
		files = append(files, f)
	}
	return files, nil
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		if f != nil {
			f.Close()
		}
	}
}

// start runs a container. It owns fds.
func (s *Server) start(ctx context.Context, r *shim.StartRequest, fds []int) (*proc, []*client, error) {
	nns := len(r.NamespaceFDs)
	if r.Key.Container == "" || r.Key.Exec != "" || r.Spec == nil || r.Spec.Process == nil || len(fds) != nns+len(r.Attach) {
		fdpass.Close(fds)
		return nil, nil, errclass.Invalid("malformed start request")
	}
	namespaces := make(map[specs.LinuxNamespaceType]*os.File, nns)
	for i, t := range r.NamespaceFDs {
		f := os.NewFile(uintptr(fds[i]), string(t))
		defer f.Close()
		namespaces[t] = f
	}
	conns, err := connect(fds[nns:])
	if err != nil {
		return nil, nil, err
	}
	undo := true
	defer func() {
		if undo {
			closeFiles(conns)
		}
	}()
	release, err := s.reserve(r.Key)
	if err != nil {
		return nil, nil, err
	}
	defer release()

	t, err := startStreams(r)
	if err != nil {
		return nil, nil, err
	}
	defer t.closeTheirs()
	p := &proc{
		s: s, key: r.Key, tty: r.Spec.Process.Terminal, once: r.StdinOnce, logCfg: r.Log, sharedPID: sharedPID(r.Spec, namespaces),
		rt: s.runtime(r.Runtime), runtimeRef: r.Runtime,
	}
	if p.log, err = s.openLog(r.Log); err != nil {
		t.closeOurs()
		return nil, nil, err
	}
	s.spawning.RLock()
	op, err := p.rt.Start(ctx, &ociruntime.StartOpts{
		ID: r.Key.Container, Spec: r.Spec, Rootfs: r.Rootfs, Seccomp: r.Seccomp, SeccompFlags: r.SeccompFlags,
		Namespaces: namespaces, Stdio: t.theirs, ConsoleSize: r.ConsoleSize, InitReaper: r.InitReaper,
		SystemdCgroup: r.SystemdCgroup,
	})
	if err == nil {
		if err = s.hold(p, op, t, r.OpenStdin); err != nil {
			s.abandon(op, p)
		}
	}
	s.spawning.RUnlock()
	s.lookForStrangers()
	if err != nil {
		t.closeOurs()
		if p.log != nil {
			p.log.Close()
		}
		return nil, nil, aborted(ctx, err)
	}
	undo = false
	if limitsMemory(r.Spec) {
		s.watchOOM(p)
	}
	return p, s.join(p, r.Attach, conns), nil
}

// startStreams makes a container's streams; none with a terminal.
func startStreams(r *shim.StartRequest) (*streams, error) {
	if r.Spec.Process.Terminal {
		return &streams{}, nil
	}
	var maps []specs.LinuxIDMapping
	if r.Spec.Linux != nil {
		maps = r.Spec.Linux.UIDMappings
	}
	return makeStreams(r.OpenStdin, true, 0, r.Spec.Process.User.UID, maps)
}

func limitsMemory(s *specs.Spec) bool {
	return s.Linux != nil && s.Linux.Resources != nil && s.Linux.Resources.Memory != nil && s.Linux.Resources.Memory.Limit != nil
}

// exec runs a further process. It owns fds.
func (s *Server) exec(ctx context.Context, r *shim.ExecRequest, fds []int) (*proc, []*client, error) {
	if r.Key.Container == "" || r.Key.Exec == "" || r.Process == nil || len(fds) != len(r.Attach) {
		fdpass.Close(fds)
		return nil, nil, errclass.Invalid("malformed exec request")
	}
	conns, err := connect(fds)
	if err != nil {
		return nil, nil, err
	}
	undo := true
	defer func() {
		if undo {
			closeFiles(conns)
		}
	}()
	release, err := s.reserve(r.Key)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	box, err := s.running(shim.Key{Container: r.Key.Container, Run: r.Key.Run})
	if err != nil {
		return nil, nil, err
	}
	pidfd, err := unix.FcntlInt(uintptr(box.pidfd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, nil, fmt.Errorf("duplicate pidfd: %w", err)
	}
	initFile := os.NewFile(uintptr(pidfd), "pidfd")
	defer initFile.Close()

	p := &proc{s: s, key: r.Key, tty: r.Process.Terminal, once: true}
	var t streams
	if !p.tty {
		stdin := r.OpenStdin
		for _, a := range r.Attach {
			stdin = stdin || a.Stdin
		}
		ts, err := makeStreams(stdin, len(r.Attach) > 0, execPipe, r.Process.User.UID, nil)
		if err != nil {
			return nil, nil, err
		}
		t = *ts
	}
	defer t.closeTheirs()
	ctx, cancel := context.WithTimeout(ctx, execStarts)
	defer cancel()
	s.spawning.RLock()
	op, err := box.rt.Exec(ctx, box.container(initFile), &ociruntime.ExecOpts{
		Process: r.Process, Seccomp: r.Seccomp, SeccompFlags: r.SeccompFlags, Stdio: t.theirs, ConsoleSize: r.ConsoleSize,
	})
	if err == nil {
		if err = s.hold(p, op, &t, true); err != nil {
			s.abandon(op, p)
		}
	}
	s.spawning.RUnlock()
	s.lookForStrangers()
	if err != nil {
		t.closeOurs()
		return nil, nil, aborted(ctx, err)
	}
	undo = false
	return p, s.join(p, r.Attach, conns), nil
}

// hold takes the process of the runtime over into p and registers it; s.spawning is
// read-locked, so that nobody takes it for a stranger in between. Everything that can
// fail for want of descriptors is done here: after an error the caller abandons op.
func (s *Server) hold(p *proc, op *oci.Process, t *streams, stdin bool) (err error) {
	p.pidfd = -1
	defer func() {
		if err != nil {
			p.drop()
		}
	}()
	pidfd, err := dup(op.PidFD)
	op.PidFD.Close()
	if err != nil {
		return fmt.Errorf("duplicate pidfd: %w", err)
	}
	p.pidfd, p.told = pidfd, make(chan struct{})
	if p.watch, err = shim.WatchPidfd(pidfd); err != nil {
		return err
	}
	p.started = shim.Started{Pid: op.Pid, Started: op.Started.UTC(), Cgroup: op.Cgroup, Runtime: p.runtimeRef}
	// An ended child stays in /proc until it is reaped, so this cannot miss it.
	p.started.StartTicks, _ = shim.StartTicks(op.Pid)
	s.warn(op.Warnings)
	if op.Console != nil {
		fd, err := dup(op.Console)
		op.Console.Close()
		if err != nil {
			return fmt.Errorf("duplicate terminal: %w", err)
		}
		if p.pty, err = own(fd, "pty"); err != nil {
			return err
		}
		if stdin {
			p.stdin = p.pty
		}
	} else {
		p.stdin = t.in
	}
	if err := p.sources(t); err != nil {
		return err
	}
	if p.answer, err = p.firstStatus(); err != nil {
		return err
	}
	s.put(p)
	return nil
}

// sources prepares reading what the process prints.
func (p *proc) sources(t *streams) (err error) {
	set := func(name string, f *os.File) *source {
		if f == nil || err != nil {
			return nil
		}
		src, serr := newSource(f)
		if serr != nil {
			err = fmt.Errorf("%s: %w", name, serr)
		}
		return src
	}
	if p.pty != nil {
		p.out = set("pty", p.pty)
	} else {
		p.out, p.errOut = set("stdout", t.out), set("stderr", t.err)
	}
	return err
}

// firstStatus is the answer to the request that started p; its descriptors are
// duplicated before anybody knows of p, so that they cannot be missing.
func (p *proc) firstStatus() (*firstAnswer, error) {
	st, fds := p.status(true)
	want := 1
	for _, there := range []bool{p.stdin != nil && p.pty == nil, p.out != nil, p.errOut != nil} {
		if there {
			want++
		}
	}
	if len(fds) != want {
		fdpass.Close(fds)
		return nil, fmt.Errorf("duplicate the descriptors of %s: %w", name(p.key), unix.EMFILE)
	}
	return &firstAnswer{started: st.Started, fds: fds}, nil
}

// firstAnswer waits to be sent to the daemon.
type firstAnswer struct {
	started shim.Started
	fds     []int
}

// drop closes what hold has taken, but for the streams, which are start's.
func (p *proc) drop() {
	if p.pidfd >= 0 {
		unix.Close(p.pidfd)
		p.pidfd = -1
	}
	if p.watch != nil {
		p.watch.Close()
	}
	if p.pty != nil {
		p.pty.Close()
	}
}

// abandon ends a process that was started and cannot be held; with a container go its
// other processes and what the runtime has made. It is our child and not reaped, so its
// number is its own. s.spawning is read-locked.
func (s *Server) abandon(op *oci.Process, p *proc) {
	op.PidFD.Close()
	if op.Console != nil {
		op.Console.Close()
	}
	if err := unix.Kill(op.Pid, unix.SIGKILL); err != nil && err != unix.ESRCH {
		s.logf("end process %d: %v", op.Pid, err)
	}
	ctx, c := context.Background(), &ociruntime.Container{ID: p.key.Container, Cgroup: op.Cgroup}
	if p.key.Exec == "" {
		if err := p.rt.KillAll(ctx, c, unix.SIGKILL); err != nil {
			s.logf("end the processes beside %d: %v", op.Pid, err)
		}
	}
	if err := shim.WaitPid(op.Pid); err != nil {
		s.logf("reap process %d: %v", op.Pid, err)
	}
	if p.key.Exec == "" {
		if err := p.rt.Delete(ctx, c); err != nil {
			s.logf("cgroup of process %d: %v", op.Pid, err)
		}
	}
}

// join makes clients of the connections, before any output is read.
func (s *Server) join(p *proc, list []shim.AttachSpec, conns []*os.File) []*client {
	var clients []*client
	for i, a := range list {
		c, err := newClient(p, a, conns[i])
		if err == nil {
			err = p.add(c)
		}
		if err != nil {
			conns[i].Close()
			s.logf("attach to %s: %v", p.key.Container, err)
			continue
		}
		clients = append(clients, c)
	}
	return clients
}

// logDrivers are the formats that the shim writes. Drivers that send logs elsewhere read
// what it wrote, in the daemon.
func logDrivers() logs.Drivers { return logs.Drivers{jsonfile.Driver{}, local.Driver{}} }

func (s *Server) openLog(cfg *logs.Config) (logs.Writer, error) {
	if cfg == nil {
		return nil, nil
	}
	return logDrivers().OpenWriter(cfg, s.logf)
}

// sharedPID tells that the container has no pid namespace of its own.
func sharedPID(spec *specs.Spec, joined map[specs.LinuxNamespaceType]*os.File) bool {
	if spec.Linux == nil || joined[specs.PIDNamespace] != nil {
		return true
	}
	for _, n := range spec.Linux.Namespaces {
		if n.Type == specs.PIDNamespace {
			return n.Path != ""
		}
	}
	return true
}

// aborted classes an error that the request's end caused.
func aborted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errclass.With(errdefs.ErrAborted, err)
	}
	return err
}
