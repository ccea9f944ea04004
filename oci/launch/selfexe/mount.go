package selfexe

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// readOnlySelf makes a read-only mount of nothing but our own executable, which is
// in no mount namespace, and returns the file, opened through it. What runs from there
// has an exe link through that mount: opening it for writing is refused (EROFS), and
// so is every other change. Nobody can make the mount writable again: remounting wants a
// mount of the caller's own namespace, and so does cloning it; mount_setattr(2) takes a
// detached mount too, from anybody who gets at it by a link and has CAP_SYS_ADMIN in his
// namespaces, but not one whose descriptor is closed, for which it is no mount any more.
// It costs four system calls where a copy costs 2 ms. It fails without CAP_SYS_ADMIN, on
// kernels before 5.12, and in a process that runs from a memfd, which is no mount's.
func readOnlySelf() (int, error) {
	fd, err := readOnlyFile()
	if err != nil {
		return -1, fmt.Errorf("clone the mount of the own executable: %w", err)
	}
	if !detached(fd) {
		unix.Close(fd)
		return -1, fmt.Errorf("clone the mount of the own executable: %w", unix.EINVAL)
	}
	return fd, nil
}

func readOnlyFile() (int, error) {
	tree, err := unix.OpenTree(unix.AT_FDCWD, "/proc/self/exe", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(tree)
	err = unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		Propagation: unix.MS_PRIVATE,
	})
	if err != nil {
		return -1, err
	}
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", tree), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}

// detached tells whether the mount that fd was opened through is read-only and in no mount
// namespace, as the one is that package entry has this program executed from again: its
// last descriptor was closed by execve. Nobody can make such a mount writable: changing
// one takes a descriptor of it that is older than that, or its place in the caller's
// namespace. It is not in ours, or it could be cloned; who has us execute a file through a
// mount of another's namespace could as well have us execute any file.
func detached(fd int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(fd, &st) != nil || st.Flags&unix.ST_RDONLY == 0 {
		return false
	}
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err == nil {
		unix.Close(tree)
	}
	return err == unix.EINVAL
}
