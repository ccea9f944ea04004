package sealed

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// readOnlySelf makes a read-only mount of nothing but our own executable, which is
// in no mount namespace, and returns it as a descriptor. What runs from there has
// an exe link through that mount: opening it for writing is refused (EROFS), and
// so is every other change. Nobody can make the mount writable again but by this
// descriptor, which no container gets: remounting wants a mount of the caller's
// own namespace, and so does cloning it. It costs two system calls where a copy
// costs 2 ms. It fails without CAP_SYS_ADMIN, on kernels before 5.12, and in a
// process that runs from a memfd, which is no mount's.
func readOnlySelf() (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/proc/self/exe", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("clone the mount of the own executable: %w", err)
	}
	err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{
		Attr_set:    unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV,
		Propagation: unix.MS_PRIVATE,
	})
	if err == nil {
		var st unix.Statfs_t
		if err = unix.Fstatfs(fd, &st); err == nil && st.Flags&unix.ST_RDONLY == 0 {
			err = unix.EINVAL
		}
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("clone the mount of the own executable: %w", err)
	}
	return fd, nil
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
