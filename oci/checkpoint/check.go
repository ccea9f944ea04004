package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// mountEntry is a line of a mountinfo (proc(5)).
type mountEntry struct {
	id          int
	dev         string // MAJOR:MINOR
	root, point string
	options     []string
	fstype      string
}

func (m *mountEntry) has(option string) bool { return slices.Contains(m.options, option) }

// maxMountTable bounds a mountinfo: a container may have thousands of mounts.
const maxMountTable = 16 << 20

func mountTable(pid int) ([]mountEntry, error) {
	f, err := os.Open(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMountTable+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxMountTable {
		return nil, fmt.Errorf("process %d has more mounts than can be looked at", pid)
	}
	return parseMountTable(b), nil
}

// parseMountTable reads the lines that have the form; the kernel writes no others.
func parseMountTable(b []byte) (out []mountEntry) {
	undo := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	for line := range bytes.Lines(b) {
		pre, post, ok := strings.Cut(strings.TrimSuffix(string(line), "\n"), " - ")
		a, f := strings.Split(pre, " "), strings.Split(post, " ")
		if !ok || len(a) < 6 {
			continue
		}
		id, err := strconv.Atoi(a[0])
		if err != nil {
			continue
		}
		out = append(out, mountEntry{id: id, dev: a[2], root: undo.Replace(a[3]), point: undo.Replace(a[4]), options: strings.Split(a[5], ","), fstype: f[0]})
	}
	return out
}

// wanted is what a restored container may be.
type wanted struct {
	spec   *specs.Spec
	msg    *initmsg.Message
	mounts []hostMount
}

// checkNamespaces proves that the container is in the namespaces the configuration
// gives it, and not in the host's. A time namespace is criu's to make: clocks go on in
// it where they stopped.
func (w *wanted) checkNamespaces(pid int) error {
	given := map[specs.LinuxNamespaceType]string{}
	own := map[specs.LinuxNamespaceType]bool{}
	for _, ns := range w.spec.Linux.Namespaces {
		own[ns.Type], given[ns.Type] = true, ns.Path
	}
	for _, t := range []specs.LinuxNamespaceType{
		specs.PIDNamespace, specs.NetworkNamespace, specs.MountNamespace, specs.IPCNamespace, specs.UTSNamespace, specs.UserNamespace, specs.CgroupNamespace,
	} {
		same, err := sameNamespace(pid, nsFile(t))
		if err != nil {
			return err
		}
		if want := !own[t] && t != specs.MountNamespace; same != want {
			return errMore("its %s namespace", t)
		}
		if p := given[t]; p != "" {
			var a, b unix.Stat_t
			if err := errors.Join(unix.Stat(p, &a), unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, nsFile(t)), &b)); err != nil {
				return err
			}
			if a.Ino != b.Ino || a.Dev != b.Dev {
				return errMore("its %s namespace is not %s", t, p)
			}
		}
	}
	return nil
}

// checkProcess compares what a process, with all its threads, may do.
func (w *wanted) checkProcess(first, pid int) error {
	ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return err
	}
	for _, e := range ents {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/status", pid, e.Name()))
		if err != nil {
			return err
		}
		if err := w.checkStatus(string(b)); err != nil {
			return fmt.Errorf("process %d: %w", pid, err)
		}
	}
	for _, ns := range []string{"pid", "mnt", "user", "net", "ipc", "uts", "cgroup"} {
		var a, b, host unix.Stat_t
		err := errors.Join(unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", first, ns), &a), unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, ns), &b),
			unix.Stat("/proc/self/ns/"+ns, &host))
		if err != nil {
			return err
		}
		if b.Ino == host.Ino && a.Ino != host.Ino {
			return errMore("process %d is in the host's %s namespace", pid, ns)
		}
	}
	return nil
}

// checkStatus compares a status file of proc(5) with the configuration.
func (w *wanted) checkStatus(s string) error {
	p := &w.msg.Process
	most := p.Caps.Bounding | p.Caps.Permitted
	for _, set := range []string{"CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"} {
		if more := statusNumber(s, set, 16) &^ most; more != 0 {
			return errMore("%s has capabilities %x that it does not give", set, more)
		}
	}
	if p.NoNewPrivs && statusNumber(s, "NoNewPrivs", 10) != 1 {
		return errMore("no_new_privs is not set")
	}
	const filter = 2
	if len(p.Seccomp) != 0 && statusNumber(s, "Seccomp", 10) != filter {
		return errMore("there is no seccomp filter")
	}
	return nil
}

// statusNumber is a line of a status file; a missing one reads as all bits, which no
// comparison takes.
func statusNumber(s, name string, base int) uint64 {
	for line := range strings.Lines(s) {
		if v, ok := strings.CutPrefix(line, name+":"); ok {
			if n, err := strconv.ParseUint(strings.TrimSpace(v), base, 64); err == nil {
				return n
			}
		}
	}
	return ^uint64(0)
}

// checkMounts proves of each mount that it is the root, one that the configuration
// takes from the host, with its flags, or a file system of the kernel's that is no
// one of the host's; and that what is to be masked and read-only is.
func (w *wanted) checkMounts(pid int, table []mountEntry) error {
	root, err := unix.Open(fmt.Sprintf("/proc/%d/root", pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("root of the restored process: %w", err)
	}
	defer unix.Close(root)
	var rootStat unix.Stat_t
	if err := unix.Fstat(root, &rootStat); err != nil {
		return err
	}
	if w.msg.Root.Path != "" {
		var want unix.Stat_t
		if err := unix.Stat(w.msg.Root.Path, &want); err != nil {
			return err
		}
		if want.Dev != rootStat.Dev || want.Ino != rootStat.Ino {
			return errMore("its root is another directory")
		}
	}
	host, err := mountTable(os.Getpid())
	if err != nil {
		return err
	}
	top := topMounts(table)
	if top["/"] == nil {
		return errMore("it has no root")
	}
	for _, m := range top {
		if err := w.checkMount(root, m, top["/"], host); err != nil {
			return err
		}
	}
	for _, m := range table {
		if t := top[m.point]; t.id != m.id && !w.kernels(&m, host) && !sameTree(&m, top["/"]) && w.bound(m.point) == nil {
			return errMore("something is mounted below another mount at %s", m.point)
		}
	}
	return w.checkCovers(root, top)
}

// topMounts are the mounts that paths lead to: the last at each point.
func topMounts(table []mountEntry) map[string]*mountEntry {
	out := make(map[string]*mountEntry, len(table))
	for i := range table {
		out[table[i].point] = &table[i]
	}
	return out
}

// bound is the mount from the host that the configuration has at a point.
func (w *wanted) bound(point string) *hostMount {
	for i := range w.mounts {
		if w.mounts[i].dest == point {
			return &w.mounts[i]
		}
	}
	return nil
}

// kernels tells a file system that the kernel makes for the container: no one of the
// host's, but where the namespace it tells of is the host's.
func (w *wanted) kernels(m *mountEntry, host []mountEntry) bool {
	shared := false
	switch m.fstype {
	case "tmpfs", "devpts":
	case "proc":
		shared = !w.private(specs.PIDNamespace)
	case "sysfs":
		shared = !w.private(specs.NetworkNamespace)
	case "mqueue":
		shared = !w.private(specs.IPCNamespace)
	default:
		return false
	}
	return shared || !slices.ContainsFunc(host, func(h mountEntry) bool { return h.dev == m.dev })
}

func (w *wanted) private(t specs.LinuxNamespaceType) bool {
	return slices.ContainsFunc(w.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == t })
}

// sameTree tells a bind of something in the root.
func sameTree(m, root *mountEntry) bool {
	return m.dev == root.dev && (m.root == root.root || strings.HasPrefix(m.root, strings.TrimSuffix(root.root, "/")+"/"))
}

func (w *wanted) checkMount(root int, m, top *mountEntry, host []mountEntry) error {
	b := w.bound(m.point)
	switch {
	case m.point == "/":
		if w.msg.Root.Readonly && !m.has("ro") {
			return errMore("its root is not read-only")
		}
		return nil
	case b != nil:
		return w.checkBound(root, m, b)
	case w.kernels(m, host), sameTree(m, top):
		return nil
	}
	// What was mounted below a source of a recursive bind comes with it.
	for i := range w.mounts {
		if w.mounts[i].recursive && strings.HasPrefix(m.point, w.mounts[i].dest+"/") &&
			slices.ContainsFunc(host, func(h mountEntry) bool {
				return h.dev == m.dev && h.root == m.root && h.point == w.mounts[i].source+strings.TrimPrefix(m.point, w.mounts[i].dest)
			}) {
			return nil
		}
	}
	return errMore("%s (%s) is mounted at %s", m.fstype, m.root, m.point)
}

// checkBound proves that a mount shows its source, with no flag less.
func (w *wanted) checkBound(root int, m *mountEntry, b *hostMount) error {
	fd, err := openInRoot(root, m.point)
	if err != nil {
		return errMore("%s: %w", m.point, err)
	}
	defer unix.Close(fd)
	var is, want unix.Stat_t
	if err := errors.Join(unix.Fstat(fd, &is), unix.Stat(b.source, &want)); err != nil {
		return err
	}
	if is.Dev != want.Dev || is.Ino != want.Ino {
		return errMore("at %s is not %s", m.point, b.source)
	}
	set := uint64(0)
	for i := range w.msg.Mounts {
		if x := &w.msg.Mounts[i]; x.Dest == b.dest || strings.HasPrefix(b.dest, x.Dest+"/") && x.Kind == initmsg.KindCgroup1 {
			set = x.Set | x.RecSet
		}
	}
	for _, f := range []struct {
		attr uint64
		name string
	}{{unix.MOUNT_ATTR_RDONLY, "ro"}, {unix.MOUNT_ATTR_NOSUID, "nosuid"}, {unix.MOUNT_ATTR_NODEV, "nodev"}, {unix.MOUNT_ATTR_NOEXEC, "noexec"}} {
		if set&f.attr != 0 && !m.has(f.name) {
			return errMore("%s is mounted without %s", m.point, f.name)
		}
	}
	return nil
}

// openInRoot opens a path of the container, in which there is no link.
func openInRoot(root int, p string) (int, error) {
	return unix.Openat2(root, strings.TrimPrefix(p, "/"), &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
}

// checkCovers proves that masked paths are covered and read-only ones are read-only.
// What is missing, or behind a link, is nothing that is covered at a create either.
func (w *wanted) checkCovers(root int, top map[string]*mountEntry) error {
	exists := func(p string) bool {
		fd, err := openInRoot(root, p)
		if err == nil {
			unix.Close(fd)
		}
		return err == nil
	}
	for _, p := range w.msg.MaskedPaths {
		p = path.Clean("/" + p)
		if m := top[p]; exists(p) && (m == nil || m.fstype != "tmpfs" && path.Base(m.root) != "null") {
			return errMore("%s is not masked", p)
		}
	}
	for _, p := range w.msg.ReadonlyPaths {
		p = path.Clean("/" + p)
		if m := covering(top, p); exists(p) && !m.has("ro") {
			return errMore("%s is not read-only", p)
		}
	}
	for i := range w.msg.Mounts {
		x := &w.msg.Mounts[i]
		if m := top[x.Dest]; x.Kind == initmsg.KindFS && x.Set&unix.MOUNT_ATTR_RDONLY != 0 && (m == nil || !m.has("ro")) {
			return errMore("%s is not read-only", x.Dest)
		}
	}
	return nil
}

// covering is the mount that a path lies on.
func covering(top map[string]*mountEntry, p string) *mountEntry {
	for ; p != "/"; p = path.Dir(p) {
		if m := top[p]; m != nil {
			return m
		}
	}
	return top["/"]
}

func sameNamespace(pid int, ns string) (bool, error) {
	var a, b unix.Stat_t
	if err := errors.Join(unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, ns), &a), unix.Stat("/proc/self/ns/"+ns, &b)); err != nil {
		return false, err
	}
	return a.Ino == b.Ino && a.Dev == b.Dev, nil
}
