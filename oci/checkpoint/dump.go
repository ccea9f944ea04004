// Package checkpoint saves containers and restores them by CRIU (package criu), where
// it is installed. What a checkpoint says is nobody's to trust: a restored container
// has what its configuration gives it, and that is proven before it runs.
package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/checkpoint/criu"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Images says where a checkpoint is, and how criu is to go about it. Files stay the
// caller's.
type Images struct {
	// Criu is the program's path; "" looks for it.
	Criu string
	// Dir is the directory of the images, Work that of logs; nil: the same.
	Dir, Work *os.File
	// Mode is what criu does with cgroups.
	Mode criu.Mode
	// TCPEstablished also takes connections, ExtUnix sockets whose other end is
	// outside, ShellJob processes of a terminal's session, FileLocks locks of files.
	TCPEstablished, ExtUnix, ShellJob, FileLocks bool
	// AutoDedup drops what newer images replace, LazyPages leaves the memory to a
	// server (criu lazy-pages).
	AutoDedup, LazyPages bool
	// EmptyNetwork leaves the network namespace out.
	EmptyNetwork bool
	// LSMProfile and LSMMountContext replace what the images say (restore).
	LSMProfile, LSMMountContext string
}

// DumpOpts says which container to save.
type DumpOpts struct {
	Images
	ID     string
	Pid    int
	Spec   *specs.Spec
	Rootfs oci.Rootfs
	Cgroup oci.CgroupRef
	// Parent is the path of earlier images, below Dir: only what has changed is saved.
	Parent string
	// LeaveRunning lets the container run on; PreDump saves its memory only.
	LeaveRunning, PreDump bool
	// PageServer takes the memory in place of the images.
	PageServer *criu.PageServer
	// Status is a pipe that gets a zero byte when lazy pages are ready.
	Status *os.File
}

// descriptorsFile names what a container's standard streams were; runc writes it, too.
const descriptorsFile = "descriptors.json"

// The names of namespaces that a container was given by path.
const (
	externalNet = "extRootNetNS"
	externalPid = "extRootPidNS"
)

const logDump, logRestore = "dump.log", "restore.log"

// Dump saves a container by CRIU. Its processes have ended then, unless they are
// left running. Class ErrNotImplemented where criu is missing, too old, or what the
// container is made of cannot be saved; ErrFailedPrecondition when it is not running.
func Dump(ctx context.Context, o *DumpOpts) error {
	if err := checkpointable(o.Spec); err != nil {
		return err
	}
	path, version, err := findCriu(ctx, &o.Images)
	if err != nil {
		return err
	}
	if o.PreDump || o.LazyPages {
		mem, lazy, err := criu.CheckFeatures(ctx, path)
		if err != nil {
			return err
		}
		if o.PreDump && !mem || o.LazyPages && !lazy {
			return errclass.NotImplemented("criu or this kernel cannot do what was asked: memory tracking %v, lazy pages %v", mem, lazy)
		}
	}
	pre, err := oci.Prepare(ctx, &oci.CreateOpts{ID: o.ID, Spec: o.Spec, Rootfs: o.Rootfs}, &o.Cgroup)
	if err != nil {
		return err
	}
	streams, files, err := standardStreams(o.Pid)
	if err != nil {
		return err
	}
	opts, err := o.criuOptions(version, mountsOf(pre.Message), files, pre.FreezeDir())
	if err != nil {
		return err
	}
	var extra []*os.File
	if o.Status != nil {
		extra = append(extra, o.Status)
		opts.Status = firstExtra
	}
	svc, err := criu.StartWith(ctx, path, extra)
	if err != nil {
		return err
	}
	defer svc.Close()
	if err := svc.Dump(opts, o.PreDump); err != nil {
		return o.failed(err, logDump)
	}
	if o.PreDump {
		return nil
	}
	return writeStreams(o.Dir, streams)
}

// firstExtra is the number of the first further descriptor in criu.
const firstExtra = 4

// failed adds where to look, and what stands there.
func (i *Images) failed(err error, log string) error {
	var f *criu.FailedError
	if !errors.As(err, &f) {
		return err
	}
	dir := i.Work
	if dir == nil {
		dir = i.Dir
	}
	name := path.Join(dir.Name(), log)
	if line := lastError(dir, log); line != "" && !strings.Contains(f.Text, "Error (") {
		return fmt.Errorf("%w: %s (log file: %s)", err, line, name)
	}
	return fmt.Errorf("%w (log file: %s)", err, name)
}

// lastError is the first line of criu's log that is an error.
func lastError(dir *os.File, log string) string {
	b, err := readAt(dir, log, 64<<20)
	if err != nil {
		return ""
	}
	for line := range bytes.Lines(b) {
		if _, msg, ok := bytes.Cut(line, []byte("Error (")); ok {
			return "Error (" + strings.TrimSpace(string(msg[:min(len(msg), 500)]))
		}
	}
	return ""
}

// readAt reads a regular file of a directory, up to limit bytes. The last component is
// no link.
func readAt(dir *os.File, name string, limit int64) ([]byte, error) {
	fd, err := rawFD(dir)
	if err != nil {
		return nil, err
	}
	fd, err = unix.Openat(fd, name, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path.Join(dir.Name(), name), Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > limit {
		return nil, errclass.Invalid("%s of the checkpoint is no regular file of at most %d bytes", name, limit)
	}
	return io.ReadAll(io.LimitReader(f, limit))
}

func findCriu(ctx context.Context, i *Images) (path string, version int, err error) {
	if path, err = criu.Find(i.Criu); err != nil {
		return "", 0, err
	}
	version, err = criu.CheckVersion(ctx, path)
	return path, version, err
}

// checkpointable refuses what cannot be saved, or not restored.
func checkpointable(s *specs.Spec) error {
	if oci.Confined() {
		return errclass.NotImplemented("an ordinary user cannot checkpoint or restore containers: criu needs root")
	}
	if s.Linux == nil {
		s = &specs.Spec{Linux: &specs.Linux{}}
	}
	if !slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace }) {
		return errclass.NotImplemented("a container without a mount namespace cannot be checkpointed")
	}
	if len(s.Linux.NetDevices) != 0 {
		return errclass.NotImplemented("containers with network devices of the host's cannot be checkpointed")
	}
	for _, ns := range s.Linux.Namespaces {
		switch {
		case ns.Type == specs.UserNamespace:
			return errclass.NotImplemented("containers with a user namespace cannot be checkpointed")
		case ns.Path != "" && ns.Type != specs.NetworkNamespace && ns.Type != specs.PIDNamespace:
			return errclass.NotImplemented("a container that has joined another's %s namespace cannot be checkpointed", ns.Type)
		}
	}
	return nil
}

// hostMount is a mount of a container that comes from the host.
type hostMount struct {
	id     string
	dest   string
	source string
	// recursive takes what is mounted below the source along.
	recursive bool
}

// mountsOf lists them, with ids of ours: what the images say of them is no path.
func mountsOf(m *initmsg.Message) []hostMount {
	var out []hostMount
	for i := range m.Mounts {
		x := &m.Mounts[i]
		id := fmt.Sprintf("gantry-%d", x.Index)
		switch x.Kind {
		case initmsg.KindBind:
			out = append(out, hostMount{id, x.Dest, x.Source, x.Recursive})
		case initmsg.KindCgroup1:
			for _, b := range x.Binds {
				if !strings.HasPrefix(b.Value, "@") {
					out = append(out, hostMount{id + "-" + b.Key, path.Join(x.Dest, b.Key), b.Value, false})
				}
			}
		}
	}
	return out
}

func (o *DumpOpts) criuOptions(version int, mounts []hostMount, files []string, freeze string) (*criu.Options, error) {
	c, err := o.common(logDump)
	if err != nil {
		return nil, err
	}
	c.Pid, c.Parent, c.LeaveRunning, c.PageServer = o.Pid, o.Parent, o.LeaveRunning, o.PageServer
	c.TrackMemory = o.PreDump || o.Parent != ""
	c.Freeze, c.Root = freeze, o.Rootfs.Path
	for _, m := range mounts {
		c.External = append(c.External, fmt.Sprintf("mnt[%s]:%s", m.dest, m.id))
	}
	c.External = append(c.External, slices.Compact(slices.Sorted(slices.Values(files)))...)
	for _, ns := range joinedNamespaces(o.Spec) {
		const sincePid = 31500
		if ns.Type == specs.PIDNamespace && version < sincePid {
			return nil, errclass.NotImplemented("a container that has joined a pid namespace needs criu 3.15 to be checkpointed")
		}
		var st unix.Stat_t
		if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", o.Pid, nsFile(ns.Type)), &st); err != nil {
			return nil, precondition("container is not running")
		}
		c.External = append(c.External, fmt.Sprintf("%s[%d]:%s", nsFile(ns.Type), st.Ino, nsKey(ns.Type)))
	}
	return c, nil
}

// common are the options that dumps and restores share.
func (i *Images) common(log string) (*criu.Options, error) {
	c := &criu.Options{
		Log: log, Mode: i.Mode, TCPEstablished: i.TCPEstablished, ExtUnix: i.ExtUnix, ShellJob: i.ShellJob, FileLocks: i.FileLocks,
		AutoDedup: i.AutoDedup, LazyPages: i.LazyPages, EmptyNetwork: i.EmptyNetwork,
	}
	var err error
	if c.Images, err = rawFD(i.Dir); err != nil {
		return nil, err
	}
	if i.Work != nil {
		c.Work, err = rawFD(i.Work)
	}
	return c, err
}

// joinedNamespaces are those that the container was given, and will be again.
func joinedNamespaces(s *specs.Spec) (out []specs.LinuxNamespace) {
	if s.Linux == nil {
		return nil
	}
	for _, ns := range s.Linux.Namespaces {
		if ns.Path != "" {
			out = append(out, ns)
		}
	}
	return out
}

func nsKey(t specs.LinuxNamespaceType) string {
	if t == specs.NetworkNamespace {
		return externalNet
	}
	return externalPid
}

// nsFile is a namespace's name in /proc/PID/ns.
func nsFile(t specs.LinuxNamespaceType) string {
	switch t {
	case specs.NetworkNamespace:
		return "net"
	case specs.MountNamespace:
		return "mnt"
	}
	return string(t)
}

// standardStreams tells what a process's first three descriptors are. files are those
// that lie outside of its mounts, as criu names them: they are not saved, and given
// again.
func standardStreams(pid int) (streams [3]string, files []string, err error) {
	table, err := mountTable(pid)
	if err != nil {
		return streams, nil, precondition("container is not running")
	}
	for i := range streams {
		at := fmt.Sprintf("/proc/%d/fd/%d", pid, i)
		link, err := os.Readlink(at)
		if err != nil {
			continue // closed
		}
		streams[i] = link
		if !strings.HasPrefix(link, "/") {
			continue // a pipe, a socket
		}
		id, err := mountID(pid, i)
		if err != nil {
			return streams, nil, err
		}
		if slices.ContainsFunc(table, func(m mountEntry) bool { return m.id == id }) {
			continue
		}
		var st unix.Stat_t
		if err := unix.Stat(at, &st); err != nil {
			return streams, nil, err
		}
		streams[i] = fmt.Sprintf("file[%x:%x]", id, st.Ino)
		files = append(files, streams[i])
	}
	return streams, files, nil
}

// mountID is the mount of an open file.
func mountID(pid, fd int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "mnt_id:"); ok {
			id := 0
			_, err := fmt.Sscan(v, &id)
			return id, err
		}
	}
	return 0, errclass.Internal("the kernel tells no mount of descriptor %d of process %d", fd, pid)
}

func writeStreams(dir *os.File, streams [3]string) error {
	b, err := json.Marshal(streams)
	if err != nil {
		return err
	}
	fd, err := rawFD(dir)
	if err != nil {
		return err
	}
	fd, err = unix.Openat(fd, descriptorsFile, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return &os.PathError{Op: "create", Path: path.Join(dir.Name(), descriptorsFile), Err: err}
	}
	f := os.NewFile(uintptr(fd), descriptorsFile)
	_, err = f.Write(b)
	return errors.Join(err, f.Close())
}

// readStreams reads what a checkpoint says of its streams: three short strings.
func readStreams(dir *os.File) ([]string, error) {
	const most, longest = 4096, 300
	b, err := readAt(dir, descriptorsFile, most)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // nothing is known, nothing is given
	}
	if err != nil {
		return nil, err
	}
	var out []string
	if err := json.Unmarshal(b, &out); err != nil {
		return nil, errclass.Invalid("%s of the checkpoint: %w", descriptorsFile, err)
	}
	if len(out) > 3 || slices.ContainsFunc(out, func(s string) bool { return len(s) > longest }) {
		return nil, errclass.Invalid("%s of the checkpoint names more than three streams", descriptorsFile)
	}
	return out, nil
}

// inherited are the streams that a restored container gets from us: pipes and files
// of the host's.
func inherited(streams []string) (out []criu.Inherited) {
	for i, s := range streams {
		if strings.HasPrefix(s, "pipe:[") || strings.HasPrefix(s, "file[") {
			if !slices.ContainsFunc(out, func(x criu.Inherited) bool { return x.Key == s }) {
				out = append(out, criu.Inherited{Key: s, FD: i})
			}
		}
	}
	return out
}

// rawFD is a directory's or a pipe's descriptor, in the mode it is in.
func rawFD(f *os.File) (fd int, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = rc.Control(func(u uintptr) { fd = int(u) })
	return fd, err
}

func precondition(format string, a ...any) error {
	return errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf(format, a...))
}
