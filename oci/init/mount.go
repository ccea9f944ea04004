package ociinit

import (
	"errors"
	"fmt"

	"github.com/gantry/gantry/internal/copyup"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/rootfs"
	"golang.org/x/sys/unix"
)

// openSources opens the sources of all binds; -1 for other mounts.
func openSources(mounts []initmsg.Mount) ([]int, error) {
	sources := make([]int, len(mounts))
	for i := range mounts {
		fd, err := openSource(&mounts[i])
		if err != nil {
			return nil, err
		}
		sources[i] = fd
	}
	return sources, nil
}

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

func bind(r root, m *initmsg.Mount, source int) error {
	isDir, err := isDirectory(source)
	if err != nil {
		return err
	}
	if rootfs.MustBeProc(m) {
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
		target, err = r.dir(m.Dest, rootfs.ResolveFlags(m))
	} else {
		target, err = r.file(m.Dest, rootfs.ResolveFlags(m))
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
	if !rootfs.OutsideProc(m) {
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
func newMount(what rootfs.FS) (int, error) {
	fs, err := unix.Fsopen(what.Type, unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fs)
	for _, kv := range what.Data {
		if err := unix.FsconfigSetString(fs, kv.Key, kv.Value); err != nil {
			return -1, fsError(fs, kv.Key+"="+kv.Value, err)
		}
	}
	for _, f := range what.Flags {
		if err := unix.FsconfigSetFlag(fs, f); err != nil {
			return -1, fsError(fs, f, err)
		}
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "make "+what.Type, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(what.Attrs))
	if err != nil {
		return -1, fsError(fs, "mount "+what.Type, err)
	}
	return fd, nil
}

func fsMount(r root, m *initmsg.Mount) error {
	target, err := r.dir(m.Dest, rootfs.ResolveFlags(m))
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
	fs, inherit, late := rootfs.MountFS(m)
	if inherit {
		var st unix.Stat_t
		if err := unix.Fstat(target, &st); err != nil {
			return err
		}
		fs.Data = append(fs.Data, initmsg.KV{Key: "mode", Value: fmt.Sprintf("%o", st.Mode&0o7777)})
	}
	fd, err := newMount(fs)
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

// cgroup1 makes the tmpfs with one bind of the container's own cgroup for each v1
// hierarchy, as people know /sys/fs/cgroup.
func cgroup1(r root, m *initmsg.Mount) error {
	target, err := r.dir(m.Dest, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(target)
	want := rootfs.CgroupFS(m)
	tmpfs, err := newMount(want.FS)
	if err != nil {
		return err
	}
	for _, l := range want.Links {
		if err := unix.Symlinkat(l.Target, tmpfs, l.Name); err != nil {
			return fail(l.Name, err)
		}
	}
	for _, b := range want.Binds {
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
	for _, b := range want.Binds {
		tree, err := unix.OpenTree(unix.AT_FDCWD, b.Value, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
		if err != nil {
			return fail(b.Key, err)
		}
		// nosuid, nodev and noexec as asked; relatime is what the host has.
		if err := mountAttr(tree, want.Set, 0, 0); err != nil {
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
	if want.Late != 0 {
		return mountAttr(keep, want.Late, 0, 0)
	}
	return nil
}
