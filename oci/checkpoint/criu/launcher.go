package criu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	ociinit "github.com/gantry/gantry/oci/init"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// What makes a process of this program a launcher: its name and its first argument.
const (
	LauncherArg0 = "gantry-runtime"
	LauncherArg1 = "criu-launcher"
)

// launcherError begins the message of a launcher that failed; no answer of criu's does.
const launcherError = 0xff

// The launcher's own descriptors.
const launcherSocket = 3

// Launcher is what a process of ours does before it executes criu to restore. criu
// resolves paths and mounts by them; so it gets none but those below Dir, in a mount
// namespace that ends with it, where every source has been opened by us.
type Launcher struct {
	Criu string `json:"criu"`
	// Dir is an empty directory to mount on.
	Dir string `json:"dir"`
	// Root is the container's root, seen by criu at Dir/root. It is writable: criu makes a
	// directory there to pivot.
	Root initmsg.Root `json:"root"`
	// Targets are places in Root that are mounted on, "/" at the end marking
	// directories. They are made where they are missing, and no link is followed.
	Targets []string `json:"targets,omitempty"`
	// Binds are the host's files and directories that criu sees at Dir/NAME.
	Binds []Bind `json:"binds,omitempty"`
	// NewCgroup gives criu, and with it the container, a cgroup namespace.
	NewCgroup bool `json:"new_cgroup,omitempty"`
	// NoNewPrivs is for what is restored: criu forgets it (3.17).
	NoNewPrivs bool `json:"no_new_privs,omitempty"`
}

// Bind is a source of a mount.
type Bind struct {
	Name      string `json:"name"`
	Source    string `json:"source"`
	Recursive bool   `json:"recursive,omitempty"`
}

// RootPath is where criu sees the container's root.
func (s *Launcher) RootPath() string { return filepath.Join(s.Dir, "root") }

// Path is where criu sees a bind.
func (s *Launcher) Path(name string) string { return filepath.Join(s.Dir, name) }

// RunLauncher is the main function of a launcher; it returns when it failed, after it has
// told so.
func RunLauncher(arg string) int {
	err := runLauncher(arg)
	_ = unix.Sendmsg(launcherSocket, append([]byte{launcherError}, err.Error()...), nil, nil, unix.MSG_NOSIGNAL)
	// The request is read before the socket is closed, or the other side gets
	// ECONNRESET in place of the message.
	_, _ = unix.Read(launcherSocket, make([]byte, 1))
	return 1
}

func runLauncher(arg string) error {
	runtime.LockOSThread() // what executes criu is this thread
	s := new(Launcher)
	if err := json.Unmarshal([]byte(arg), s); err != nil {
		return err
	}
	for {
		b := make([]byte, 1)
		n, err := unix.Read(launcherSocket, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != 1 || err != nil {
			return errors.New("nobody wants this launcher any more")
		}
		break
	}
	flags := unix.CLONE_NEWNS
	if s.NewCgroup {
		flags |= unix.CLONE_NEWCGROUP
	}
	if err := unix.Unshare(flags); err != nil {
		return fmt.Errorf("namespaces of criu: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make / private: %w", err)
	}
	if err := s.mount(); err != nil {
		return err
	}
	if s.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return fmt.Errorf("no_new_privs: %w", err)
		}
	}
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	return fmt.Errorf("execute %s: %w", s.Criu, syscall.Exec(s.Criu, []string{s.Criu, "swrk", fmt.Sprint(launcherSocket)}, env))
}

func (s *Launcher) mount() error {
	if err := unix.Mount("tmpfs", s.Dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=700,size=1m"); err != nil {
		return fmt.Errorf("mount on %s: %w", s.Dir, err)
	}
	root, err := ociinit.RootTree(&s.Root)
	if err != nil {
		return err
	}
	defer unix.Close(root)
	if err := attach(root, s.RootPath()); err != nil {
		return fmt.Errorf("show the root to criu: %w", err)
	}
	for _, t := range s.Targets {
		if err := makeTarget(root, t); err != nil {
			return fmt.Errorf("mount point %s of the container: %w", t, err)
		}
	}
	for _, b := range s.Binds {
		fd, err := bind(b.Source, s.Path(b.Name), b.Recursive)
		if err != nil {
			return err
		}
		// What followed the host's mounts follows these, which nobody else has: criu
		// refuses sources without a group.
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Propagation: unix.MS_SHARED})
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("share %s with criu: %w", b.Source, err)
		}
	}
	return nil
}

// bind shows source at target, which does not exist yet, and returns the mount.
func bind(source, target string, recursive bool) (int, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, source, flags)
	if err != nil {
		return -1, fmt.Errorf("open %s: %w", source, err)
	}
	if err := attach(fd, target); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("show %s to criu: %w", source, err)
	}
	return fd, nil
}

// attach mounts a detached tree at target, which does not exist yet.
func attach(fd int, target string) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		err = unix.Mkdir(target, 0o700)
	} else {
		err = os.WriteFile(target, nil, 0o600)
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// makeTarget makes a mount point below root. A link on the way is refused: criu would
// follow it, out of the container.
func makeTarget(root int, target string) error {
	isDir := strings.HasSuffix(target, "/")
	parts := strings.Split(strings.Trim(target, "/"), "/")
	at, err := unix.Dup(root)
	if err != nil {
		return err
	}
	defer func() { unix.Close(at) }()
	for i, p := range parts {
		if p == "" || p == "." || p == ".." {
			return fmt.Errorf("%q is not a clean path", target)
		}
		how := unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
		next, err := unix.Openat2(at, p, &how)
		if errors.Is(err, unix.ENOENT) {
			if i < len(parts)-1 || isDir {
				err = unix.Mkdirat(at, p, 0o755)
			} else {
				err = unix.Mknodat(at, p, unix.S_IFREG|0o644, 0)
			}
			if err == nil {
				next, err = unix.Openat2(at, p, &how)
			}
		}
		if err != nil {
			return err
		}
		unix.Close(at)
		at = next
	}
	return nil
}
