package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/oci/checkpoint/criu"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// RestoreOpts says what a checkpoint becomes: a container of this configuration,
// which counts, not what the images say. Of the inner Options Spec, Rootfs, ID, Bundle,
// Stdio and SystemdCgroup are looked at.
type RestoreOpts struct {
	Images
	oci.CreateOpts
	// Scratch is an empty directory; in a mount namespace of criu's it is mounted on.
	Scratch string
	// Status is as in DumpOpts.
	Status *os.File
}

// Restore restores a container by CRIU: its first process is the caller's child, which
// reaps it, as after oci.Create. The images are nobody's to trust: criu gets no path but
// those it is given, and before the first instruction of the container runs the kernel
// is asked whether its processes have no more rights, and its mounts no other sources,
// than the configuration gives. What does not hold is killed. Nothing is left after an
// error. Classes as with Dump; ErrPermissionDenied for images that want more.
func Restore(ctx context.Context, o *RestoreOpts) (*oci.Process, error) {
	if o.Spec == nil || o.Spec.Process == nil {
		return nil, errclass.Invalid("a restore needs a configuration with a process")
	}
	if o.Spec.Linux == nil {
		spec := *o.Spec
		spec.Linux = &specs.Linux{}
		c := *o
		c.Spec = &spec
		o = &c
	}
	if err := checkpointable(o.Spec); err != nil {
		return nil, err
	}
	r := &restoring{ctx: ctx, o: o}
	defer r.done()
	if err := r.restore(); err != nil {
		r.undo()
		return nil, err
	}
	return r.proc, nil
}

// restoring is one attempt to restore.
type restoring struct {
	ctx     context.Context
	o       *RestoreOpts
	pre     *oci.Prepared
	msg     *initmsg.Message // the one of pre
	made    bool             // the cgroup
	late    func() error     // sets what criu itself must not be limited by
	files   []*os.File       // to close in any case
	proc    *oci.Process
	mounts  []hostMount
	svc     *criu.Service
	console *os.File
	pid     int // of the first process, as criu tells it
	// checked: the processes were looked at before they ran.
	checked bool
}

func (r *restoring) done() {
	for _, f := range r.files {
		f.Close()
	}
}

// undo ends what a restore that failed has brought about.
func (r *restoring) undo() {
	if r.console != nil {
		r.console.Close()
	}
	if r.made {
		_ = r.pre.Group.Kill(unix.SIGKILL)
	}
	if r.pid > 0 && parentOf(r.pid) == os.Getpid() {
		_ = unix.Kill(r.pid, unix.SIGKILL) // our child, and not reaped: nobody else has the number
		var ws unix.WaitStatus
		for {
			if _, err := unix.Wait4(r.pid, &ws, 0, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	if r.proc != nil {
		r.proc.PidFD.Close()
	}
	if r.made {
		r.pre.RemoveGroup()
	}
}

func (r *restoring) restore() error {
	o := r.o
	exe, _, err := findCriu(r.ctx, &o.Images)
	if err != nil {
		return err
	}
	if r.pre, err = oci.Prepare(r.ctx, &o.CreateOpts, nil); err != nil {
		return err
	}
	r.msg = r.pre.Message
	r.mounts = mountsOf(r.msg)
	streams, err := readStreams(o.Dir)
	if err != nil {
		return err
	}
	opts, extra, err := r.options(streams)
	if err != nil {
		return err
	}
	st := r.launcher(exe)
	opts.Root = st.RootPath()
	for _, m := range r.mounts {
		opts.External = append(opts.External, fmt.Sprintf("mnt[%s]:%s", m.id, st.Path(m.id)))
	}
	var std []*os.File
	if !o.Spec.Process.Terminal {
		std = []*os.File{o.Stdio.In, o.Stdio.Out, o.Stdio.Err}
	}
	if r.svc, err = criu.StartLauncher(r.ctx, st, std, extra); err != nil {
		return err
	}
	defer r.svc.Close()
	if err := r.enter(); err != nil {
		return err
	}
	if err := r.svc.Go(); err != nil {
		return err
	}
	pid, err := r.svc.Restore(opts, r.step)
	if pid > 0 && err == nil {
		err = r.adopt(pid)
	}
	if err != nil {
		return o.failed(err, logRestore)
	}
	return nil
}

// enter makes the container's cgroup around criu, which what it restores is born in:
// what the images say of cgroups is not followed.
func (r *restoring) enter() error {
	pid, group := r.svc.Pid(), r.pre.Group
	r.made = true
	if err := r.pre.MakeGroup(r.ctx, pid); err != nil {
		return err
	}
	// criu needs processes of its own for a while.
	res := specs.LinuxResources{}
	if r.o.Spec.Linux.Resources != nil {
		res = *r.o.Spec.Linux.Resources
	}
	if p := res.Pids; p != nil {
		res.Pids = nil
		r.late = func() error { return group.Set(&specs.LinuxResources{Pids: p}) }
	}
	if err := group.Set(&res); err != nil {
		return err
	}
	if err := group.SetDevices(append(append([]specs.LinuxDeviceCgroup{}, res.Devices...), cgroup.DefaultDevices()...)); err != nil {
		return err
	}
	return group.Join(pid)
}

func (r *restoring) launcher(exe string) *criu.Launcher {
	st := &criu.Launcher{Criu: exe, Dir: r.o.Scratch, Root: r.msg.Root, NoNewPrivs: r.msg.Process.NoNewPrivs}
	for _, ns := range r.o.Spec.Linux.Namespaces {
		st.NewCgroup = st.NewCgroup || ns.Type == specs.CgroupNamespace
	}
	for _, m := range r.mounts {
		st.Binds = append(st.Binds, criu.Bind{Name: m.id, Source: m.source, Recursive: m.recursive})
	}
	st.Targets = rootTargets(r.msg.Mounts)
	return st
}

// rootTargets are the mount points that lie in the root itself.
func rootTargets(ms []initmsg.Mount) (out []string) {
	for i := range ms {
		m := &ms[i]
		if slices.ContainsFunc(ms[:i], func(o initmsg.Mount) bool { return strings.HasPrefix(m.Dest, o.Dest+"/") }) {
			continue
		}
		t := m.Dest
		if m.Kind != initmsg.KindBind || isDir(m.Source) {
			t += "/"
		}
		out = append(out, t)
	}
	return out
}

func isDir(p string) bool {
	st, err := os.Stat(p)
	return err == nil && st.IsDir()
}

// options are what criu is asked, and the descriptors that it gets from 4 on.
func (r *restoring) options(streams []string) (*criu.Options, []*os.File, error) {
	o := r.o
	c, err := o.common(logRestore)
	if err != nil {
		return nil, nil, err
	}
	// The cgroup is the configuration's, and criu is in it already: paths of cgroups in
	// the images are not followed.
	c.Mode = criu.Ignore
	c.Restore, c.LSMProfile, c.LSMMountContext = true, o.LSMProfile, o.LSMMountContext
	if !o.Spec.Process.Terminal {
		c.Inherit = inherited(streams)
	}
	var extra []*os.File
	for _, ns := range joinedNamespaces(o.Spec) {
		f, err := oci.OpenNamespace(ns.Path, ns.Type)
		if err != nil {
			return nil, nil, err
		}
		r.files = append(r.files, f)
		c.Inherit = append(c.Inherit, criu.Inherited{Key: nsKey(ns.Type), FD: firstExtra + len(extra)})
		extra = append(extra, f)
	}
	if o.Status != nil {
		c.Status = firstExtra + len(extra)
		extra = append(extra, o.Status)
	}
	return c, extra, nil
}

// step is what happens at criu's steps.
func (r *restoring) step(name string, pid int, terminal *os.File) error {
	if pid > 0 {
		r.pid = pid // told at some steps only
	}
	switch name {
	case "orphan-pts-master":
		if terminal == nil || r.console != nil {
			return errclass.Internal("criu sent no terminal")
		}
		r.console = terminal
		return nil
	case "setup-namespaces":
		return r.hooks(r.pid)
	case "pre-resume":
		err := r.protectRoot()
		if err == nil {
			err = r.check(r.pid)
		}
		if err == nil && r.late != nil {
			err = r.late()
		}
		if err != nil {
			// criu would let them run all the same.
			_ = r.pre.Group.Kill(unix.SIGKILL)
			return err
		}
		r.checked = true
	}
	if terminal != nil {
		terminal.Close()
	}
	return nil
}

// protectRoot makes a root read-only that is to be, from inside its mount namespace:
// only there it can be done. The thread that enters it ends with the goroutine.
func (r *restoring) protectRoot() error {
	if !r.msg.Root.Readonly {
		return nil
	}
	ns, err := os.Open(fmt.Sprintf("/proc/%d/ns/mnt", r.pid))
	if err != nil {
		return err
	}
	defer ns.Close()
	err = onLostThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS); err != nil {
			return err
		}
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
			return err
		}
		return unix.MountSetattr(unix.AT_FDCWD, "/", 0, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	})
	if err != nil {
		return fmt.Errorf("make the root read-only: %w", err)
	}
	return nil
}

// onLostThread runs f on a thread that ends then. It is never the first one, which
// would not end, and which /proc/self speaks of.
func onLostThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- onLostThread(f) // while this one is taken
			runtime.UnlockOSThread()
			return
		}
		done <- f()
	}()
	return <-done
}

// hooks runs the runtime's hooks, in the order of a create.
func (r *restoring) hooks(pid int) error {
	h := r.o.Spec.Hooks
	if h == nil {
		return nil
	}
	st := &specs.State{
		Version: r.o.Spec.Version, ID: r.o.ID, Status: specs.StateCreating, Pid: pid, Bundle: r.o.Bundle, Annotations: r.o.Spec.Annotations,
	}
	if err := oci.RunHooks(r.ctx, "prestart", h.Prestart, st); err != nil { //nolint:staticcheck // deprecated, and still asked for
		return err
	}
	return oci.RunHooks(r.ctx, "createRuntime", h.CreateRuntime, st)
}

// adopt takes the restored process over.
func (r *restoring) adopt(pid int) error {
	if !r.checked || pid != r.pid {
		_ = r.pre.Group.Kill(unix.SIGKILL)
		return errclass.Internal("criu did not say when the processes were there, so that they could be looked at")
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return fmt.Errorf("the restored process: %w", err)
	}
	r.proc = &oci.Process{Pid: pid, PidFD: os.NewFile(uintptr(fd), "pidfd"), Cgroup: r.pre.Ref, Console: r.console, Started: time.Now()}
	score := r.o.Spec.Process.OOMScoreAdj
	if err := oci.SetOOMScore(pid, score); err != nil && score != nil {
		r.proc.Warnings = append(r.proc.Warnings, err.Error())
	}
	if r.console != nil {
		return unix.SetNonblock(int(r.console.Fd()), true)
	}
	return nil
}

// errMore is the class of images that want more than the configuration gives.
func errMore(format string, a ...any) error {
	return errclass.Forbidden("the checkpoint does not fit the configuration: "+format, a...)
}

// check looks at what criu has restored, while nothing of it runs.
func (r *restoring) check(pid int) error {
	if pid <= 0 || parentOf(pid) != os.Getpid() {
		return errMore("process %d is not its first", pid)
	}
	table, err := mountTable(pid)
	if err != nil {
		return err
	}
	w := &wanted{msg: r.msg, mounts: r.mounts, spec: r.o.Spec}
	if err := w.checkNamespaces(pid); err != nil {
		return err
	}
	if err := w.checkMounts(pid, table); err != nil {
		return err
	}
	pids, err := r.pre.Group.Pids()
	if err != nil {
		return err
	}
	seen := false
	for _, p := range pids {
		if p == r.svc.Pid() || parentOf(p) == r.svc.Pid() {
			continue // criu's own
		}
		seen = seen || p == pid
		if err := w.checkProcess(pid, p); err != nil {
			return err
		}
	}
	if !seen {
		return errMore("its first process is not in the container's cgroup")
	}
	return nil
}

// parentOf is a process's parent, 0 when it is not known.
func parentOf(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	return int(statusNumber(string(b), "PPid", 10))
}
