package ociruntime

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sort"
	"strings"
	"syscall"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	ociinit "github.com/gantry/gantry/oci/init"
	"github.com/gantry/gantry/oci/launch/selfexe"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// What makes a process of this program a launcher: its name and its first argument.
const (
	launcherArg0 = "gantry-runtime"
	launcherArg1 = "runtime-launcher"
)

// The launcher's own descriptors: where it says why it failed, and then the namespaces.
const (
	launcherReport = 3
	launcherFirst  = 4
)

// launcher is what a process of ours does before it executes an external runtime: in a mount
// namespace of its own it assembles the container's root and binds the namespaces to join at
// places that have a path. Nothing of it shows in the host's mount table, and it ends with
// the last process in it or in a namespace that was copied from it: the container's.
type launcher struct {
	// Dir is the bundle. What is mounted is below it.
	Dir string `json:"dir"`
	// Overlay, if any, is mounted at Dir/rootfs.
	Overlay *oci.Overlay `json:"overlay,omitempty"`
	// Namespaces are bound at Dir/ns/TYPE.
	Namespaces []specs.LinuxNamespaceType `json:"namespaces,omitempty"`
	// Path and Argv are what is executed then.
	Path string   `json:"path"`
	Argv []string `json:"argv"`
}

// files are the namespaces in the launcher's order.
func (st *launcher) files(o *StartOpts) []*os.File {
	list := make([]*os.File, 0, len(st.Namespaces))
	for _, t := range st.Namespaces {
		list = append(list, o.Namespaces[t])
	}
	return list
}

// launch is a command that a launcher executes.
type launch struct {
	in, out *os.File
	exe     int
}

// wrap has cmd, which is not started yet, be executed by the launcher.
func (st *launcher) wrap(cmd *exec.Cmd, namespaces []*os.File) (*launch, error) {
	path, err := exec.LookPath(cmd.Path)
	if err != nil {
		return nil, errclass.Internal("runtime %s: %v", cmd.Path, err)
	}
	s := *st
	s.Path, s.Argv = path, cmd.Args
	b, err := json.Marshal(&s)
	if err != nil {
		return nil, err
	}
	exe, err := selfexe.Exe()
	if err != nil {
		return nil, err
	}
	// Out of the way of the descriptors that the launcher gets.
	const high = 100
	if exe, err = unix.FcntlInt(uintptr(exe), unix.F_DUPFD_CLOEXEC, high); err != nil {
		return nil, err
	}
	in, out, err := os.Pipe()
	if err != nil {
		unix.Close(exe)
		return nil, err
	}
	cmd.Path = fmt.Sprintf("/proc/self/fd/%d", exe)
	cmd.Args = []string{launcherArg0, launcherArg1, string(b)}
	cmd.ExtraFiles = append([]*os.File{out}, namespaces...)
	cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWNS
	return &launch{in: in, out: out, exe: exe}, nil
}

// started lets go of what the process has by now.
func (s *launch) started() {
	s.out.Close()
	unix.Close(s.exe)
	s.exe = -1
}

// failure is why the launcher did not execute the runtime; nil: it did.
func (s *launch) failure() error {
	b, _ := io.ReadAll(io.LimitReader(s.in, 4<<10))
	if len(b) == 0 {
		return nil
	}
	return errors.New(string(b))
}

func (s *launch) close() {
	s.in.Close()
	s.out.Close()
	if s.exe >= 0 {
		unix.Close(s.exe)
	}
}

// Main runs a launcher, when this process was started for that, and never returns then.
// Otherwise it returns at once. It must be one of the first calls of main, and of TestMain
// in tests that start containers.
func Main() {
	if len(os.Args) != 3 || os.Args[0] != launcherArg0 || os.Args[1] != launcherArg1 {
		return
	}
	unix.CloseOnExec(launcherReport)
	err := runLauncher(os.Args[2])
	_, _ = unix.Write(launcherReport, []byte(err.Error()))
	os.Exit(1)
}

func runLauncher(arg string) error {
	runtime.LockOSThread() // what executes the runtime is this thread
	st := new(launcher)
	if err := json.Unmarshal([]byte(arg), st); err != nil {
		return err
	}
	if err := st.mount(); err != nil {
		return err
	}
	if err := unix.CloseRange(launcherReport, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fmt.Errorf("close_range: %w", err)
	}
	return fmt.Errorf("execute runtime %s: %w", st.Path, syscall.Exec(st.Path, st.Argv, os.Environ()))
}

func (st *launcher) mount() error {
	if err := keepIn(st.Dir); err != nil {
		return err
	}
	if o := st.Overlay; o != nil {
		tree, err := ociinit.RootTree(&initmsg.Root{Lower: o.Lower, Upper: o.Upper, Work: o.Work})
		if err != nil {
			return err
		}
		defer unix.Close(tree)
		if err := unix.MoveMount(tree, "", unix.AT_FDCWD, filepath.Join(st.Dir, rootDir), unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fmt.Errorf("mount the root for the runtime: %w", err)
		}
	}
	for i, t := range st.Namespaces {
		at := filepath.Join(st.Dir, nsDir, string(t))
		if err := unix.Mount(fmt.Sprintf("/proc/self/fd/%d", launcherFirst+i), at, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("%s namespace for the runtime: %w", t, err)
		}
	}
	return nil
}

// keepIn makes the mount that p is in one of this namespace's alone as far as what is
// mounted on it goes: nothing of that travels to the host. Everything else stays as it is,
// so that volumes with propagation work as the specification says.
func keepIn(p string) error {
	for {
		err := unix.MountSetattr(unix.AT_FDCWD, p, 0, &unix.MountAttr{Propagation: unix.MS_SLAVE})
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINVAL) || p == "/" {
			return fmt.Errorf("keep mounts on %s from the host: %w", p, err)
		}
		p = filepath.Dir(p) // no mount point
	}
}

// bundle writes what the runtime finds of a container, and says what is to be launched.
func (r *Command) bundle(o *StartOpts) (*launcher, error) {
	dir := r.path(o.ID, bundleDir)
	st := &launcher{Dir: dir, Overlay: o.Rootfs.Overlay}
	for t := range o.Namespaces {
		if !nsName(string(t)) {
			return nil, errclass.Invalid("namespace type %q", t)
		}
		st.Namespaces = append(st.Namespaces, t)
	}
	sort.Slice(st.Namespaces, func(i, j int) bool { return st.Namespaces[i] < st.Namespaces[j] })
	self := ""
	if o.InitReaper {
		self = filepath.Join(r.dir, initName)
	}
	spec, err := bundleSpec(o, dir, self)
	if err != nil {
		return nil, err
	}
	for _, d := range []string{filepath.Join(dir, nsDir), filepath.Join(dir, rootDir), r.path(o.ID, stateDir)} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	for _, t := range st.Namespaces {
		if err := os.WriteFile(filepath.Join(dir, nsDir, string(t)), nil, 0o600); err != nil {
			return nil, err
		}
	}
	if self != "" {
		if err := copySelf(self); err != nil {
			return nil, err
		}
	}
	return st, writeJSON(filepath.Join(dir, "config.json"), spec)
}

func nsName(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz") == ""
}

// bundleVersion is the version that the specification says it is of: one that every
// runtime knows. What later versions have added is read, or passed over, all the same.
const bundleVersion = "1.0.2"

// bundleSpec is the specification as the runtime reads it.
func bundleSpec(o *StartOpts, dir, self string) (*specs.Spec, error) {
	if o.Spec == nil || o.Spec.Process == nil || len(o.Spec.Process.Args) == 0 {
		return nil, errclass.Invalid("a container needs a spec with a process")
	}
	s := *o.Spec
	if len(o.Seccomp) != 0 && (s.Linux == nil || s.Linux.Seccomp == nil) {
		return nil, errclass.NotImplemented("an external runtime compiles filters itself")
	}
	root := specs.Root{Path: filepath.Join(dir, rootDir), Readonly: o.Rootfs.Readonly}
	if o.Rootfs.Overlay == nil {
		root.Path = o.Rootfs.Path
	}
	if o.Spec.Root != nil {
		root.Readonly = root.Readonly || o.Spec.Root.Readonly
	}
	s.Root = &root
	s.Version = bundleVersion
	p := *s.Process
	s.Process = &p
	if p.Terminal {
		p.ConsoleSize = &specs.Box{Height: uint(o.ConsoleSize.Rows), Width: uint(o.ConsoleSize.Cols)}
	}
	if self != "" {
		p.Args = append([]string{initmsg.ReaperArg0, "--", p.Args[0]}, p.Args...)
		s.Mounts = append(s.Mounts[:len(s.Mounts):len(s.Mounts)], specs.Mount{
			Destination: initmsg.ReaperArg0, Type: "bind", Source: self, Options: []string{"bind", "ro", "nosuid", "nodev"},
		})
	}
	var l specs.Linux
	if s.Linux != nil {
		l = *s.Linux
	}
	s.Linux = &l
	l.Namespaces = nil
	for _, n := range linuxOf(o.Spec).Namespaces {
		if o.Namespaces[n.Type] == nil {
			l.Namespaces = append(l.Namespaces, n)
		}
	}
	for t := range o.Namespaces {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: t, Path: filepath.Join(dir, nsDir, string(t))})
	}
	sort.SliceStable(l.Namespaces, func(i, j int) bool { return l.Namespaces[i].Type < l.Namespaces[j].Type })
	return &s, nil
}

func linuxOf(s *specs.Spec) *specs.Linux {
	if s.Linux == nil {
		return &specs.Linux{}
	}
	return s.Linux
}

// initName is the file in the runtimes' directory that is a container's init (--init).
const initName = ".init"

// copySelf has a copy of our executable at a place that a container's mount can be made
// of: what we run from has none. All containers share one, read-only. That it is ours is
// seen by its content, so that a shim of another version replaces it; who uses the old one
// keeps it.
func copySelf(to string) error {
	from, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer from.Close()
	if there, err := os.Open(to); err == nil {
		same := sameContent(from, there)
		there.Close()
		if same {
			return nil
		}
		if _, err := from.Seek(0, io.SeekStart); err != nil {
			return err
		}
	}
	f, err := os.CreateTemp(filepath.Dir(to), initName)
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // unless it has got its name
	defer f.Close()
	if _, err := io.Copy(f, from); err != nil {
		return fmt.Errorf("copy of the init program: %w", err)
	}
	if err := f.Chmod(0o555); err != nil {
		return err
	}
	if err := f.Close(); err != nil { // nobody may execute what is open for writing
		return err
	}
	return os.Rename(f.Name(), to)
}

func sameContent(a, b io.Reader) bool {
	x, y := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, err := io.ReadFull(a, x)
		m, berr := io.ReadFull(b, y)
		if n != m || !bytes.Equal(x[:n], y[:m]) {
			return false
		}
		if err != nil || berr != nil {
			ends := func(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
			return ends(err) && ends(berr)
		}
	}
}
