package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Create makes the directories. On failure it removes what it made.
func (g *Group) Create() (err error) {
	for i, d := range g.unique {
		if err := mkdirs(d); err != nil {
			for _, made := range g.unique[:i] {
				_ = unix.Rmdir(made)
			}
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	defer func() {
		if err != nil {
			_ = g.Delete()
		}
	}()
	if d, ok := g.dirs["cpuset"]; ok {
		m, _ := g.sys.mountOf("cpuset")
		if err := inheritCpuset(m, d); err != nil {
			return fmt.Errorf("make cgroup: %w", err)
		}
	}
	if g.sys.Unified() {
		return enableControllers(g.sys.V2, g.dirs[""])
	}
	return nil
}

// mkdirs is MkdirAll that tries the last component first.
func mkdirs(dir string) error {
	err := unix.Mkdir(dir, 0o755)
	if errors.Is(err, unix.ENOENT) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		return nil
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return &os.PathError{Op: "mkdir", Path: dir, Err: err}
	}
	return nil
}

// inheritCpuset fills cpus and mems of dir and its ancestors from above where
// they are empty: nothing can be put into an empty cpuset.
func inheritCpuset(mount, dir string) error {
	if dir == mount || !strings.HasPrefix(dir, mount) {
		return nil
	}
	for _, f := range [...]string{"cpuset.cpus", "cpuset.mems"} {
		cur, err := readFile(filepath.Join(dir, f))
		if err != nil {
			return err
		}
		if len(bytes.TrimSpace(cur)) != 0 {
			continue
		}
		if err := inheritCpuset(mount, filepath.Dir(dir)); err != nil {
			return err
		}
		up, err := readFile(filepath.Join(filepath.Dir(dir), f))
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(dir, f), string(bytes.TrimSpace(up))); err != nil {
			return err
		}
	}
	return nil
}

// enableControllers gives dir all controllers that the root has (v2: each
// ancestor passes them on by its cgroup.subtree_control).
func enableControllers(mount, dir string) error {
	b, err := readFile(filepath.Join(mount, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	rel, err := filepath.Rel(mount, filepath.Dir(dir))
	if err != nil {
		return fmt.Errorf("make cgroup: %w", err)
	}
	at := mount
	parts := []string{""}
	if rel != "." {
		parts = append(parts, strings.Split(rel, "/")...)
	}
	for _, part := range parts {
		at = filepath.Join(at, part)
		for c := range bytes.FieldsSeq(b) {
			// One that cannot be enabled is missed where a limit needs it.
			_ = writeFile(filepath.Join(at, "cgroup.subtree_control"), "+"+string(c))
		}
	}
	return nil
}

// Join puts a process with all its threads into the cgroup.
func (g *Group) Join(pid int) error { return join(g.unique, pid) }

func join(dirs []string, pid int) error {
	p := strconv.Itoa(pid)
	for _, d := range dirs {
		if err := writeFile(d+"/cgroup.procs", p); err != nil {
			if errors.Is(err, unix.ENOENT) {
				return errclass.NotFound("join cgroup: %w", err)
			}
			return fmt.Errorf("join cgroup: %w", err)
		}
	}
	return nil
}

// Procs is what a process without threads puts itself into a cgroup by: a file to
// write "0" to, or, with Into, a directory to be born in (CLONE_INTO_CGROUP).
type Procs struct {
	FD   int
	Path string
	Into bool
}

// OpenProcs opens what JoinBeside writes to, for a process that is to put itself there
// when it can no longer open them, and has no threads yet. At most one of them, the
// last, is a directory. The caller closes the descriptors, which are close-on-exec.
// Class ErrNotFound when the cgroup is gone.
//
// Writing to cgroup.procs takes a lock that waits for an RCU grace period, some 10 ms
// when nobody did so before; "0" written to version 1's tasks does not take it
// (cgroup_procs_write_start in the kernel), nor does a birth there. Where version 2 has
// limits, a birth would be subject to the number of processes, which joining is not; and
// where it is mounted with nsdelegate, as by systemd, nobody is born into a cgroup out
// of a cgroup namespace that does not hold his own.
func (g *Group) OpenProcs(other int) ([]Procs, error) {
	out := make([]Procs, 0, len(g.unique))
	dirs := g.beside(other)
	if v2, ok := g.dirs[""]; ok && !g.sys.Unified() {
		dirs = append(slices.DeleteFunc(slices.Clone(dirs), func(d string) bool { return d == v2 }), v2)
	}
	for _, d := range dirs {
		p, flags, into := d+"/tasks", unix.O_WRONLY, false
		switch {
		case g.sys.Unified(), d == g.dirs[""] && g.sys.NSDelegate:
			p = d + "/cgroup.procs"
		case d == g.dirs[""]:
			p, flags, into = d, unix.O_RDONLY|unix.O_DIRECTORY, true
		}
		fd, err := unix.Open(p, flags|unix.O_CLOEXEC, 0)
		if err == nil {
			out = append(out, Procs{fd, p, into})
			continue
		}
		for i := range out {
			unix.Close(out[i].FD)
		}
		err = &os.PathError{Op: "open", Path: p, Err: err}
		if errors.Is(err, unix.ENOENT) {
			return nil, errclass.NotFound("join cgroup: %w", err)
		}
		return nil, fmt.Errorf("join cgroup: %w", err)
	}
	return out, nil
}

// JoinBeside is Join for a process that belongs with another one, a container's
// first. On version 2 a cgroup that passes controllers on holds no processes itself;
// when the container has made its own such, the process goes where the other is.
func (g *Group) JoinBeside(pid, other int) error { return join(g.beside(other), pid) }

// beside lists the directories that a process joining other belongs into.
func (g *Group) beside(other int) []string {
	if !g.sys.Unified() {
		return g.unique
	}
	own := g.dirs[""]
	if b, err := readFile(own + "/cgroup.subtree_control"); err != nil || len(bytes.TrimSpace(b)) == 0 {
		return g.unique
	}
	b, err := readFile(fmt.Sprintf("/proc/%d/cgroup", other))
	if err != nil {
		return g.unique
	}
	_, p, ok := strings.Cut(string(bytes.TrimSpace(b)), "0::")
	dir := filepath.Join(g.sys.V2, p)
	if !ok || !strings.HasPrefix(dir, own+"/") {
		return g.unique // not below: no business of this process
	}
	return []string{dir}
}

// Set applies limits; what res does not mention stays. Devices are set only by
// SetDevices.
func (g *Group) Set(res *specs.LinuxResources) error {
	ws, err := writes(res, g.sys.Unified())
	if err != nil {
		return err
	}
	if g.unit != nil {
		// First: it writes the files it knows, too, by its own rules.
		if err := g.unit.Limit(settings(ws)); err != nil {
			return err
		}
	}
	for i := 0; i < len(ws); i++ {
		err := g.write(ws[i])
		if err != nil && ws[i].swap && i+1 < len(ws) {
			// The kernel wants the two in the other order when they move past each other.
			if g.write(ws[i+1]) == nil {
				err = g.write(ws[i])
				i++
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (g *Group) write(w write) error {
	dir, ok := g.dirs[w.controller]
	if !ok {
		if w.optional {
			return nil
		}
		return errclass.NotImplemented("cannot set %s: the %s cgroup controller is not mounted", w.file, w.controller)
	}
	err := writeFile(filepath.Join(dir, w.file), w.value)
	if errors.Is(err, fs.ErrNotExist) && exists(dir) {
		if w.alternative != "" {
			alt := write{controller: w.controller, file: w.alternative, value: w.value, optional: w.optional}
			if w.altValue != "" {
				alt.value = w.altValue
			}
			return g.write(alt)
		}
		if w.optional {
			return nil
		}
		return errclass.NotImplemented("cannot set %s: this kernel does not support it", w.file)
	}
	if err != nil && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ERANGE) || errors.Is(err, unix.EBUSY)) {
		return errclass.Invalid("%w", err)
	}
	return err
}

// SetDevices sets which devices may be used: nothing but what the rules allow,
// later rules winning.
func (g *Group) SetDevices(rules []specs.LinuxDeviceCgroup) error {
	if g.sys.Unified() {
		return attachDeviceProgram(g.dirs[""], deviceProgram(rules))
	}
	if g.unit != nil {
		if err := g.unit.AllowDevices(rules); err != nil {
			return err
		}
	}
	dir, ok := g.dirs["devices"]
	if !ok {
		return errclass.NotImplemented("the devices cgroup controller is not mounted")
	}
	var fds [2]int
	names := [2]string{dir + "/devices.deny", dir + "/devices.allow"}
	for i, n := range names {
		fd, err := unix.Open(n, unix.O_WRONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: n, Err: err}
		}
		defer unix.Close(fd)
		fds[i] = fd
	}
	for _, l := range deviceLines(rules) {
		i := 0
		if l.allow {
			i = 1
		}
		if err := writeFD(fds[i], names[i], l.text); err != nil {
			return err
		}
	}
	return nil
}

// Writable tells whether this process, an ordinary user or root of a user namespace
// only, may change the settings of a controller.
func (g *Group) Writable(controller string) bool {
	if g.sys.Unified() && controller == "devices" {
		return false // by eBPF, which the kernel keeps from such users
	}
	d, ok := g.dirs[controller]
	if !ok {
		d, ok = g.dirs[""]
	}
	return ok && unix.Access(d+"/cgroup.procs", unix.W_OK) == nil && unix.Geteuid() == 0
}

// all returns dir and the cgroups below it, deepest first.
func all(dir string) []string {
	var out []string
	ents, err := os.ReadDir(dir)
	if err != nil {
		return []string{dir}
	}
	for _, e := range ents {
		if e.IsDir() {
			out = append(out, all(filepath.Join(dir, e.Name()))...)
		}
	}
	return append(out, dir)
}

// procsDir is the hierarchy that membership is read from.
func (g *Group) procsDir() string {
	for _, c := range [...]string{"pids", "memory", "freezer", "devices", ""} {
		if d, ok := g.dirs[c]; ok {
			return d
		}
	}
	if len(g.unique) > 0 {
		return g.unique[0]
	}
	return ""
}

// Pids lists the processes in the cgroup and in those below. None when it is gone.
func (g *Group) Pids() ([]int, error) {
	var out []int
	for _, d := range all(g.procsDir()) {
		p, err := readPids(d)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, p...)
	}
	slices.Sort(out)
	return slices.Compact(out), nil
}

// The bounds on waiting for the kernel. The first tries are close together:
// usually the last process is gone and only its cleanup is not.
const (
	deleteTries = 40
	killRounds  = 60
)

func backoff(try int) time.Duration {
	return min(time.Millisecond<<min(try, 6), 50*time.Millisecond) / 2
}

// Delete removes the directories, nested ones first. Class ErrFailedPrecondition
// when processes are left after about a second of trying.
func (g *Group) Delete() error {
	if g.unit != nil {
		// It removes the directories it made; what is left is the rest of us.
		if err := g.unit.Stop(); err != nil {
			return err
		}
	}
	var last error
	for _, d := range g.unique {
		for try := range deleteTries {
			last = remove(d)
			if last == nil {
				break
			}
			time.Sleep(backoff(try))
		}
		if last != nil {
			return errclass.With(errdefs.ErrFailedPrecondition, last)
		}
	}
	return nil
}

func remove(dir string) error {
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, unix.ENOENT) {
		return nil
	}
	for _, d := range all(dir) {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, unix.ENOENT) {
			return &os.PathError{Op: "rmdir", Path: d, Err: err}
		}
	}
	return nil
}

// Kill sends sig to all processes. SIGKILL is repeated until none is left, for
// about two seconds, also against processes that fork all the time. The freezer of
// version 1 holds it back: a frozen group that was sent it is thawed.
func (g *Group) Kill(sig syscall.Signal) error {
	if sig == unix.SIGKILL {
		if d, ok := g.dirs[""]; ok {
			// cgroup.kill (Linux 5.14) takes the whole tree at once.
			_ = writeFile(d+"/cgroup.kill", "1")
		}
	}
	for round := range killRounds {
		n, err := g.signalOnce(sig)
		if err != nil || n == 0 || sig != unix.SIGKILL {
			return err
		}
		if _, v1 := g.dirs["freezer"]; v1 {
			if frozen, err := g.Frozen(); err == nil && frozen {
				_ = g.Freeze(false)
			}
		}
		time.Sleep(backoff(round))
	}
	return fmt.Errorf("processes of the cgroup %s do not end", g.procsDir())
}

// signalOnce signals by pidfd, and only what is a member after its pidfd was
// opened: a number that another process got meanwhile is not hit.
func (g *Group) signalOnce(sig syscall.Signal) (int, error) {
	pids, err := g.Pids()
	if err != nil || len(pids) == 0 {
		return 0, err
	}
	fds := make(map[int]int, len(pids))
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			fds[pid] = fd
		}
	}
	if pids, err = g.Pids(); err != nil {
		return 0, err
	}
	for _, pid := range pids {
		if fd, ok := fds[pid]; ok {
			if err := unix.PidfdSendSignal(fd, sig, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
				return 0, fmt.Errorf("signal process %d: %w", pid, err)
			}
		}
	}
	return len(pids), nil
}

// Freeze stops or continues all processes and waits until they have.
func (g *Group) Freeze(freeze bool) error {
	dir, v1 := g.dirs["freezer"]
	if !v1 {
		if dir = g.dirs[""]; dir == "" || !g.sys.Unified() {
			return errclass.NotImplemented("the freezer cgroup controller is not mounted")
		}
	}
	file, value, done := "cgroup.freeze", "0", ""
	if v1 {
		file, value, done = "freezer.state", "THAWED", "THAWED"
	}
	if freeze {
		value = "1"
		if v1 {
			value, done = "FROZEN", "FROZEN"
		}
	}
	for try := range killRounds {
		// v1 needs repeating: a process may have forked while it froze.
		if err := writeFile(filepath.Join(dir, file), value); err != nil {
			if errors.Is(err, fs.ErrNotExist) {
				return errclass.NotFound("the cgroup is gone")
			}
			return err
		}
		state, err := g.frozen(dir, v1)
		if err != nil {
			return err
		}
		if v1 && state == done || !v1 && state == value {
			return nil
		}
		time.Sleep(backoff(try))
	}
	if freeze {
		_ = g.Freeze(false)
	}
	return fmt.Errorf("the processes of %s do not freeze or thaw", dir)
}

// Frozen tells whether the cgroup is frozen (or freezing).
func (g *Group) Frozen() (bool, error) {
	if d, ok := g.dirs["freezer"]; ok {
		st, err := g.frozen(d, true)
		return err == nil && st != "THAWED", err
	}
	if !g.sys.Unified() {
		return false, nil
	}
	st, err := g.frozen(g.dirs[""], false)
	return st == "1", err
}

func (g *Group) frozen(dir string, v1 bool) (string, error) {
	if v1 {
		b, err := readFile(dir + "/freezer.state")
		return string(bytes.TrimSpace(b)), err
	}
	ev, err := readKeyed(dir + "/cgroup.events")
	return strconv.FormatUint(ev["frozen"], 10), err
}
