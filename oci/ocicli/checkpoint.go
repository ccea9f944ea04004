package ocicli

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/gantry/gantry/internal/atomicfile"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/checkpoint"
	"github.com/gantry/gantry/oci/checkpoint/criu"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// criuFlags are the options that checkpoint and restore share.
type criuFlags struct {
	images, work, mode  string
	tcp, ext, shell     bool
	lazy, locks, dedup  bool
	emptyNS             []string
	profile, mountLabel string
	parent, server      string
	leave, preDump      bool
	status              int
	create              createFlags
}

func (c *criuFlags) declare(f *flags) {
	f.str(&c.images, "image-path", "DIR", "directory of the images (default: checkpoint below the current one)")
	f.str(&c.work, "work-path", "DIR", "directory of criu's logs and temporary files")
	f.boolean(&c.tcp, "tcp-established", "also open TCP connections")
	f.boolean(&c.ext, "ext-unix-sk", "also unix sockets whose other end is outside")
	f.boolean(&c.shell, "shell-job", "also what belongs to a shell's session")
	f.boolean(&c.lazy, "lazy-pages", "leave the memory to a page server (criu lazy-pages)")
	f.boolean(&c.locks, "file-locks", "also locks of files")
	f.str(&c.mode, "manage-cgroups-mode", "MODE", "what is saved of cgroups: soft (default), ignore, full or strict; a restore makes the configuration's")
	f.list(&c.emptyNS, "empty-ns", "NAMESPACE", "leave a namespace empty: network")
	f.boolean(&c.dedup, "auto-dedup", "drop memory that newer images replace")
}

// imagePath is runc's default.
const imagePath = "checkpoint"

// open opens the directories; the images' is made if need be.
func (c *criuFlags) open(a *app, fresh bool) (i checkpoint.Images, done func(), err error) {
	mode, ok := criu.ParseMode(c.mode)
	if !ok {
		return i, nil, usageError("invalid manage-cgroups-mode value: %q", c.mode)
	}
	for _, ns := range c.emptyNS {
		if ns != "network" {
			return i, nil, usageError("namespace %q is not supported", ns)
		}
	}
	if c.images == "" {
		c.images = imagePath
	}
	var files []*os.File
	done = func() {
		for _, f := range files {
			f.Close()
		}
	}
	dir := func(p string, create bool) (*os.File, error) {
		p, err := filepath.Abs(p)
		if err != nil {
			return nil, err
		}
		if create {
			if err := os.MkdirAll(p, 0o700); err != nil {
				return nil, err
			}
		}
		fd, err := unix.Open(p, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, &os.PathError{Op: "open", Path: p, Err: err}
		}
		f := os.NewFile(uintptr(fd), p)
		files = append(files, f)
		return f, nil
	}
	i = checkpoint.Images{
		Criu: a.criu, Mode: mode, TCPEstablished: c.tcp, ExtUnix: c.ext, ShellJob: c.shell, FileLocks: c.locks,
		AutoDedup: c.dedup, LazyPages: c.lazy, EmptyNetwork: len(c.emptyNS) != 0, LSMProfile: c.profile, LSMMountContext: c.mountLabel,
	}
	if i.Dir, err = dir(c.images, fresh); err == nil && c.work != "" {
		i.Work, err = dir(c.work, true)
	}
	if err != nil {
		done()
		return i, nil, err
	}
	return i, done, nil
}

// statusFile is the descriptor that --status-fd names; nil without.
func (c *criuFlags) statusFile() (*os.File, error) {
	if c.status <= 0 {
		return nil, nil
	}
	if _, err := unix.FcntlInt(uintptr(c.status), unix.F_GETFD, 0); err != nil {
		return nil, usageError("invalid --status-fd argument %d: %v", c.status, err)
	}
	unix.CloseOnExec(c.status)
	return os.NewFile(uintptr(c.status), "status"), nil
}

func setupCheckpoint(a *app, f *flags) func([]string) error {
	c := new(criuFlags)
	c.declare(f)
	f.str(&c.parent, "parent-path", "DIR", "directory of the images before these, relative to image-path")
	f.boolean(&c.leave, "leave-running", "let the container run on")
	f.str(&c.server, "page-server", "ADDRESS:PORT", "send the memory to a page server")
	f.boolean(&c.preDump, "pre-dump", "save the memory only, and let the container run on")
	f.count(&c.status, "status-fd", "N", "descriptor that gets a zero byte when lazy pages are ready")
	return func(args []string) error { return a.checkpoint(args[0], c) }
}

func (a *app) checkpoint(id string, c *criuFlags) error {
	status, err := c.statusFile()
	if err != nil {
		return err
	}
	ct, err := a.store.open(id)
	if err != nil {
		return err
	}
	defer ct.close()
	if err := ct.lock(true); err != nil {
		return err
	}
	if st := ct.status(); st != specs.StateRunning && st != statusPaused {
		return precondition("Container cannot be checkpointed in %s state", st)
	}
	spec, err := ct.spec()
	if err != nil {
		return err
	}
	if err := completeSpec(spec, ct.Bundle); err != nil {
		return err
	}
	server, err := c.pageServer()
	if err != nil {
		return err
	}
	images, done, err := c.open(a, true)
	if err != nil {
		return err
	}
	defer done()
	if err := c.checkParent(); err != nil {
		return err
	}
	proc, err := openProcess(ct.Pid, ct.StartTime)
	if err != nil {
		return err
	}
	defer proc.Close()
	err = checkpoint.Dump(a.ctx, &checkpoint.DumpOpts{
		Images: images, ID: ct.ID, Pid: ct.Pid, Spec: spec, Rootfs: oci.Rootfs{Path: ct.Rootfs}, Cgroup: ct.Cgroup,
		Parent: c.parent, LeaveRunning: c.leave, PreDump: c.preDump, PageServer: server, Status: status,
	})
	if err != nil || c.leave || c.preDump {
		return err
	}
	if err := awaitEnd(proc, killTime); err != nil {
		return fmt.Errorf("container %s: %w", id, err)
	}
	return a.destroy(ct, spec)
}

func (c *criuFlags) checkParent() error {
	if c.parent == "" {
		return nil
	}
	if filepath.IsAbs(c.parent) {
		return usageError("--parent-path %q must be relative to --image-path", c.parent)
	}
	if st, err := os.Stat(filepath.Join(c.images, c.parent)); err != nil || !st.IsDir() {
		return usageError("invalid --parent-path %q: no such directory below the images", c.parent)
	}
	return nil
}

func (c *criuFlags) pageServer() (*criu.PageServer, error) {
	if c.server == "" {
		return nil, nil //nolint:nilnil // none was asked for
	}
	host, port, err := net.SplitHostPort(c.server)
	if err != nil || host == "" || port == "" {
		return nil, usageError("use --page-server ADDRESS:PORT to specify page server")
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, usageError("invalid port number %q of --page-server", port)
	}
	return &criu.PageServer{Address: host, Port: int(n)}, nil
}

func setupRestore(a *app, f *flags) func([]string) error {
	c := new(criuFlags)
	c.declare(f)
	f.str(&c.create.console, "console-socket", "SOCKET", "a unix socket that gets the master side of the terminal")
	f.str(&c.create.bundle, "bundle,b", "DIR", "the bundle (default: the current directory)")
	f.boolean(&c.create.detach, "detach,d", "return when the container runs")
	f.str(&c.create.pidFile, "pid-file", "FILE", "where to write the process id")
	f.ignored("no-subreaper", "", "accepted: orphans are not adopted")
	f.ignored("no-pivot", "", "accepted: criu changes the root by itself")
	f.count(&c.status, "status-fd", "N", "descriptor that gets a zero byte when lazy pages are ready")
	f.str(&c.profile, "lsm-profile", "TYPE:NAME", "security label instead of the saved one")
	f.str(&c.mountLabel, "lsm-mount-context", "CONTEXT", "label of mounts instead of the saved one")
	return func(args []string) error { return failed("restore", a.restore(args[0], c)) }
}

// scratchDir, in the state directory, is mounted on by a restore, in a namespace of its own.
const scratchDir = "criu"

func (a *app) restore(id string, c *criuFlags) error {
	if err := checkID(id); err != nil {
		return err
	}
	status, err := c.statusFile()
	if err != nil {
		return err
	}
	n, err := a.prepare(id, &c.create)
	if err != nil {
		return err
	}
	images, done, err := c.open(a, false)
	if err != nil {
		return err
	}
	defer done()
	if err := n.claim(); err != nil {
		return err
	}
	defer n.c.close()
	return n.finish(n.remake(&checkpoint.RestoreOpts{Images: images, Status: status, CreateOpts: oci.CreateOpts{ID: id, Spec: n.spec}}))
}

// remake is make for a container that is restored.
func (n *creation) remake(o *checkpoint.RestoreOpts) (*oci.Process, error) {
	if err := atomicfile.Write(filepath.Join(n.c.path, specFile), n.raw, 0o600, false); err != nil {
		return nil, err
	}
	if err := n.c.save(); err != nil {
		return nil, err
	}
	o.Scratch = filepath.Join(n.c.path, scratchDir)
	if err := os.Mkdir(o.Scratch, 0o700); err != nil {
		return nil, err
	}
	o.Rootfs, o.Bundle, o.Stdio, o.SystemdCgroup = oci.Rootfs{Path: n.spec.Root.Path}, n.bundle, stdio(), n.app.systemd
	if !n.flags.detach {
		n.launch.fg = newForeground(n.launch.terminal, true)
	}
	p, err := checkpoint.Restore(n.app.ctx, o)
	if err != nil {
		return nil, err
	}
	for _, w := range p.Warnings {
		n.app.log.warn("%s", w)
	}
	if err := os.Remove(o.Scratch); err != nil {
		n.app.log.warn("%v", err)
	}
	if err = n.made(p); err == nil {
		err = n.app.poststart(n.c, n.spec)
	}
	if err != nil {
		unmake(p)
		return nil, err
	}
	return p, nil
}
