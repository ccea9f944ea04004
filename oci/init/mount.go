package ociinit

import (
	"errors"
	"fmt"
	"strings"

	"github.com/gantry/gantry/internal/copyup"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// openSource opens what a bind mount binds, as a detached copy of its mount; -1
// for other mounts.
func openSource(m *initmsg.Mount) (int, error) {
	if m.Kind != initmsg.KindBind {
		return -1, nil
	}
	if m.SourceFD != 0 {
		return int(m.SourceFD), nil
	}
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	if err != nil {
		return -1, mountError(m, err)
	}
	return fd, nil
}

// mountError tells which mount failed, in the words runc uses.
func mountError(m *initmsg.Mount, err error) error {
	src := m.Source
	if src == "" {
		src = m.Type
	}
	e := fmt.Errorf("error mounting %q to rootfs at %q: %w", src, m.Dest, err)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ELOOP) {
		return errclass.Invalid("%w", e)
	}
	return e
}

func mountOne(r root, m *initmsg.Mount, source int) error {
	var err error
	switch m.Kind {
	case initmsg.KindBind:
		err = bind(r, m, source)
	case initmsg.KindCgroup1:
		err = cgroup1(r, m)
	default:
		err = fsMount(r, m)
	}
	if err != nil {
		return mountError(m, err)
	}
	return nil
}

func resolveFlags(m *initmsg.Mount) uint64 {
	if m.NoSymlinks {
		return unix.RESOLVE_NO_SYMLINKS
	}
	return 0
}

func bind(r root, m *initmsg.Mount, source int) error {
	isDir, err := isDirectory(source)
	if err != nil {
		return err
	}
	if m.NoSymlinks && m.Dest == "/proc" {
		var st unix.Statfs_t
		if err := unix.Fstatfs(source, &st); err != nil {
			return err
		}
		if st.Type != unix.PROC_SUPER_MAGIC {
			return errclass.Invalid("only procfs can be mounted at /proc")
		}
	}
	var target int
	if isDir {
		target, err = r.dir(m.Dest, resolveFlags(m))
	} else {
		target, err = r.file(m.Dest, resolveFlags(m))
		if err == nil {
			if d, derr := isDirectory(target); derr == nil && d {
				unix.Close(target)
				return errclass.Invalid("not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type")
			}
		}
	}
	if errors.Is(err, unix.ENOTDIR) {
		return errclass.Invalid("not a directory: Are you trying to mount a directory onto a file (or vice-versa)? Check if the specified host path exists and is the expected type")
	}
	if err != nil {
		return err
	}
	defer unix.Close(target)
	if err := outsideProc(m, target); err != nil {
		return err
	}
	source = again(source)
	if err := setAttrs(source, m); err != nil {
		return err
	}
	return attach(source, target)
}

// outsideProc refuses a target that a link of the image has led into procfs; what the
// spec names there has been looked at already.
func outsideProc(m *initmsg.Mount, target int) error {
	if m.Dest == "/proc" || strings.HasPrefix(m.Dest, "/proc/") {
		return nil
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(target, &st); err != nil {
		return err
	}
	if st.Type == unix.PROC_SUPER_MAGIC {
		return errclass.Invalid("%q cannot be mounted because it is inside /proc", m.Dest)
	}
	return nil
}

// again copies a detached tree and closes it. The mount table lists mounts in the
// order in which they were made: sources are opened before everything else, and
// people and tests expect the order of the spec. Kernels before 6.15 cannot copy
// detached trees; the order is all that suffers.
func again(tree int) int {
	fd, err := unix.OpenTree(tree, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return tree
	}
	unix.Close(tree)
	return fd
}

// setAttrs gives a detached tree the flags and the propagation that m asks for.
func setAttrs(tree int, m *initmsg.Mount) error {
	if m.Set|m.Clear != 0 {
		if err := mountAttr(tree, m.Set, m.Clear, 0); err != nil {
			return err
		}
	}
	if m.RecSet|m.RecClear != 0 {
		if err := mountAttr(tree, m.RecSet, m.RecClear, unix.AT_RECURSIVE); err != nil {
			return err
		}
	}
	return setPropagation(tree, "", m.Propagation, m.PropagationRec)
}

func mountAttr(tree int, set, clr uint64, flags uint) error {
	return unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|flags, &unix.MountAttr{Attr_set: set, Attr_clr: clr})
}

// newMount makes a file system instance, mounted nowhere.
func newMount(typ string, attrs uint64, data []initmsg.KV, flags []string) (int, error) {
	fs, err := unix.Fsopen(typ, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	for _, kv := range data {
		if err := unix.FsconfigSetString(fs, kv.Key, kv.Value); err != nil {
			return -1, fsError(fs, kv.Key+"="+kv.Value, err)
		}
	}
	for _, f := range flags {
		if err := unix.FsconfigSetFlag(fs, f); err != nil {
			return -1, fsError(fs, f, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "make "+typ, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(attrs))
	if err != nil {
		return -1, fsError(fs, "mount "+typ, err)
	}
	return fd, nil
}

func fsMount(r root, m *initmsg.Mount) error {
	target, err := r.dir(m.Dest, resolveFlags(m))
	if err != nil {
		if m.NoSymlinks && (errors.Is(err, unix.ELOOP) || errors.Is(err, unix.ENOTDIR)) {
			return errclass.Invalid("%s must be mounted on an ordinary directory: %w", m.Type, err)
		}
		return err
	}
	defer unix.Close(target)
	if err := outsideProc(m, target); err != nil {
		return err
	}
	data := m.Data
	if m.Type == "tmpfs" && !hasKey(data, "mode") {
		// Over a directory of the image its mode is kept, as with runc.
		var st unix.Stat_t
		if err := unix.Fstat(target, &st); err != nil {
			return err
		}
		data = append(data, initmsg.KV{Key: "mode", Value: fmt.Sprintf("%o", st.Mode&0o7777)})
	}
	if m.Source != "" { // also where it is only what the mount table shows
		data = append([]initmsg.KV{{Key: "source", Value: m.Source}}, data...)
	}
	// A file system that is filled first becomes read-only afterwards.
	late := uint64(0)
	if m.CopyUp || m.Dest == "/dev" {
		late = m.Set & unix.MOUNT_ATTR_RDONLY
	}
	fd, err := newMount(m.Type, m.Set&^late, data, m.Flags)
	if err != nil {
		return err
	}
	if m.CopyUp {
		if err := copyup.Copy(target, fd); err != nil {
			return fail("tmpcopyup", err)
		}
		if late != 0 {
			if err := mountAttr(fd, late, 0, 0); err != nil {
				return err
			}
		}
	}
	if err := setPropagation(fd, "", m.Propagation, m.PropagationRec); err != nil {
		return err
	}
	return attach(fd, target)
}

func hasKey(kvs []initmsg.KV, key string) bool {
	for _, kv := range kvs {
		if kv.Key == key {
			return true
		}
	}
	return false
}

// cgroup1 makes the tmpfs with one bind of the container's own cgroup for each v1
// hierarchy, as people know /sys/fs/cgroup.
func cgroup1(r root, m *initmsg.Mount) error {
	target, err := r.dir(m.Dest, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	ro := m.Set & unix.MOUNT_ATTR_RDONLY
	tmpfs, err := newMount("tmpfs", m.Set&^ro, []initmsg.KV{{Key: "source", Value: "tmpfs"}, {Key: "mode", Value: "755"}}, nil)
	if err != nil {
		return err
	}
	for _, b := range m.Binds {
		if link, ok := strings.CutPrefix(b.Value, "@"); ok {
			if err := unix.Symlinkat(link, tmpfs, b.Key); err != nil {
				return fail(b.Key, err)
			}
			continue
		}
		if err := unix.Mkdirat(tmpfs, b.Key, 0o755); err != nil {
			return fail(b.Key, err)
		}
	}
	keep, err := unix.FcntlInt(uintptr(tmpfs), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(keep)
	if err := attach(tmpfs, target); err != nil {
		return err
	}
	for _, b := range m.Binds {
		if strings.HasPrefix(b.Value, "@") {
			continue
		}
		tree, err := unix.OpenTree(unix.AT_FDCWD, b.Value, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fail(b.Key, err)
		}
		// nosuid, nodev and noexec as asked; relatime is what the host has.
		if err := mountAttr(tree, m.Set, 0, 0); err != nil {
			return fail(b.Key, err)
		}
		if err := setPropagation(tree, "", unix.MS_PRIVATE, false); err != nil {
			return fail(b.Key, err)
		}
		if err := unix.MoveMount(tree, "", keep, b.Key, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
			return fail(b.Key, err)
		}
		unix.Close(tree)
	}
	if ro != 0 {
		return mountAttr(keep, ro, 0, 0)
	}
	return nil
}
