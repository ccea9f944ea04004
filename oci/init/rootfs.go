package ociinit

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// setUpRoot assembles the container's tree and makes it the root of this mount
// namespace; nothing of the host's tree stays reachable. The descriptor returned
// is the new root's.
func setUpRoot(c *conn, m *initmsg.Message) (int, error) {
	// Devices and directories get the modes asked for.
	unix.Umask(0)
	if err := setPropagation(unix.AT_FDCWD, "/", m.Root.Propagation, m.Root.PropagationRec); err != nil {
		return -1, fail("set propagation of /", err)
	}
	// The host's files are opened while its tree still has the propagation asked for.
	sources := make([]int, len(m.Mounts))
	for i := range m.Mounts {
		fd, err := openSource(&m.Mounts[i])
		if err != nil {
			return -1, err
		}
		sources[i] = fd
	}
	tree, err := rootTree(&m.Root)
	if err != nil {
		return -1, err
	}
	// Whatever is mounted from now on must not travel to the host.
	if err := setPropagation(unix.AT_FDCWD, "/", unix.MS_PRIVATE, false); err != nil {
		return -1, fail("make / private", err)
	}
	if err := attachRoot(m, tree); err != nil {
		return -1, err
	}
	r := root{tree}
	for i := range m.Mounts {
		if err := mountOne(r, &m.Mounts[i], sources[i]); err != nil {
			return -1, err
		}
	}
	if m.SetupDev {
		if err := setUpDev(r, m); err != nil {
			return -1, err
		}
	}
	if p := m.Process.Cwd; p != "/" {
		// Docker's users expect a working directory to be made. When it cannot be,
		// entering it says why.
		if fd, err := r.dir(p, 0); err == nil {
			unix.Close(fd)
		}
	}
	if err := maskPaths(r, m); err != nil {
		return -1, err
	}
	if err := hooksBeforePivot(c, m); err != nil {
		return -1, err
	}
	change := pivot
	if m.Extra.NoPivot {
		change = chroot
	}
	if err := change(tree); err != nil {
		return -1, err
	}
	if m.Root.Own != 0 {
		if err := setPropagation(tree, "", m.Root.Own, false); err != nil {
			return -1, fail("set propagation of the root", err)
		}
	}
	if m.Root.Readonly {
		if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
			return -1, fail("make the root read-only", err)
		}
	}
	return tree, nil
}

// rootTree makes the root as a mount that is not attached anywhere.
func rootTree(r *initmsg.Root) (int, error) {
	if len(r.Lower) == 0 {
		fd, err := unix.OpenTree(unix.AT_FDCWD, r.Path, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE)
		if err != nil {
			return -1, errclass.Invalid("invalid rootfs %q: %w", r.Path, err)
		}
		if err := setPropagation(fd, "", unix.MS_PRIVATE, true); err != nil {
			return -1, fail("make the root private", err)
		}
		return fd, nil
	}
	// Before Linux 6.7 fsconfig knows no lowerdir+, and logs every try.
	if kernelBefore(6, 7) {
		return overlayByMount(r)
	}
	fd, err := overlayTree(r)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) {
		return overlayByMount(r)
	}
	return fd, err
}

func overlayTree(r *initmsg.Root) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fail("open overlayfs", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigSetString(fs, "source", "overlay"); err != nil {
		return -1, fsError(fs, "overlay source", err)
	}
	for _, l := range r.Lower {
		if err := unix.FsconfigSetString(fs, "lowerdir+", l); err != nil {
			return -1, fsError(fs, "overlay layer "+l, err)
		}
	}
	if r.Upper != "" {
		if err := unix.FsconfigSetString(fs, "upperdir", r.Upper); err != nil {
			return -1, fsError(fs, "overlay upper "+r.Upper, err)
		}
		if err := unix.FsconfigSetString(fs, "workdir", r.Work); err != nil {
			return -1, fsError(fs, "overlay work "+r.Work, err)
		}
	}
	// Without an index the layers may be in use by other mounts; a kernel that has
	// none says so, which is as good.
	_ = unix.FsconfigSetString(fs, "index", "off")
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "make overlay", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fsError(fs, "mount overlay", err)
	}
	return fd, nil
}

// overlayByMount is overlayTree by mount(2), limited to a page of options; so they
// name the layers from the directory that all are in. It mounts over the lowest
// layer, which only this mount namespace sees, and takes the mount off again by
// cloning it.
func overlayByMount(r *initmsg.Root) (int, error) {
	dir, opts := overlayOptions(r)
	if len(opts) >= unix.Getpagesize() {
		return -1, errclass.NotImplemented("mount overlay: this kernel takes no more than %d bytes of options, %d layers need %d", unix.Getpagesize()-1, len(r.Lower), len(opts))
	}
	if err := unix.Chdir(dir); err != nil {
		return -1, fail("enter "+dir, err)
	}
	defer func() { _ = unix.Chdir("/") }() // where it was born
	at := r.Lower[len(r.Lower)-1]
	if err := privateAround(at); err != nil {
		return -1, err
	}
	if err := unix.Mount("overlay", at, "overlay", 0, opts); err != nil {
		return -1, fail("mount overlay", err)
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, at, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fail("clone overlay", err)
	}
	if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
		return -1, fail("detach overlay", err)
	}
	return fd, nil
}

// overlayOptions are mount(2)'s options of an overlay, with the layers named
// relative to dir.
func overlayOptions(r *initmsg.Root) (dir, opts string) {
	all := slices.Clone(r.Lower)
	if r.Upper != "" {
		all = append(all, r.Upper, r.Work)
	}
	dir = path.Dir(all[0])
	for _, p := range all[1:] {
		for !strings.HasPrefix(p, strings.TrimSuffix(dir, "/")+"/") {
			dir = path.Dir(dir)
		}
	}
	esc := strings.NewReplacer(`\`, `\\`, ":", `\:`, ",", `\,`)
	for i, p := range all {
		all[i] = esc.Replace(strings.TrimPrefix(strings.TrimPrefix(p, dir), "/"))
	}
	opts = "lowerdir=" + strings.Join(all[:len(r.Lower)], ":")
	if r.Upper != "" {
		opts += ",upperdir=" + all[len(all)-2] + ",workdir=" + all[len(all)-1]
	}
	return dir, opts
}

// fsError adds what the file system context has to say about err.
func fsError(fs int, what string, err error) error {
	var b [512]byte
	n, rerr := unix.Read(fs, b[:])
	if rerr == nil && n > 2 {
		return fmt.Errorf("%s: %w (%s)", what, err, strings.TrimSpace(string(b[2:n])))
	}
	return fail(what, err)
}

func setPropagation(dir int, p string, prop uint64, rec bool) error {
	if prop == 0 {
		return nil
	}
	flags := uint(0)
	if p == "" {
		flags |= unix.AT_EMPTY_PATH
	}
	if rec {
		flags |= unix.AT_RECURSIVE
	}
	return unix.MountSetattr(dir, p, flags, &unix.MountAttr{Propagation: prop})
}

// pivot makes tree, mounted over the old root, the root, and lets go of the old.
func pivot(tree int) error {
	old, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fail("open the old root", err)
	}
	defer unix.Close(old)
	if err := unix.Fchdir(tree); err != nil {
		return fail("enter the root", err)
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fail("pivot_root", err)
	}
	// The old root is now stacked on the new one. What is below it may still be
	// shared with the host (rootfsPropagation), whose mounts would go as well. To
	// umount(2) "." is what is stacked there; to all others it is the new root, whose
	// mounts stay as the spec wants them.
	if err := setPropagation(old, "", unix.MS_SLAVE, true); err != nil {
		return fail("keep the host's mounts", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fail("detach the host's root", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fail("chdir /", err)
	}
	return nil
}

// maskPaths hides and write-protects what the spec lists. Paths that are missing
// have nothing to hide.
func maskPaths(r root, m *initmsg.Message) error {
	for _, p := range m.ReadonlyPaths {
		if err := readonlyPath(r, p); err != nil {
			return fail("make "+p+" read-only", err)
		}
	}
	if len(m.MaskedPaths) == 0 {
		return nil
	}
	covers := masks{empty: -1, null: -1}
	defer covers.close()
	for _, p := range m.MaskedPaths {
		fd, err := r.open(p, unix.O_PATH, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err == nil {
			err = covers.cover(r, fd)
			unix.Close(fd)
		}
		if err != nil {
			return fail("mask "+p, err)
		}
	}
	return nil
}

// masks are what covers masked paths; -1 until there is one.
type masks struct{ empty, null int }

func (m *masks) close() {
	for _, fd := range [...]int{m.empty, m.null} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// cover hides the file or directory fd.
func (m *masks) cover(r root, fd int) error {
	isDir, err := isDirectory(fd)
	if err != nil {
		return err
	}
	if isDir && m.empty < 0 {
		const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
		m.empty, err = newMount("tmpfs", attrs, []initmsg.KV{{Key: "source", Value: "tmpfs"}, {Key: "size", Value: "4k"}, {Key: "nr_inodes", Value: "2"}, {Key: "mode", Value: "755"}}, nil)
		if err != nil {
			return err
		}
		// The first directory gets it, the others copies of it: before Linux 6.15 only
		// what is attached can be copied.
		return unix.MoveMount(m.empty, "", fd, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
	}
	over := m.empty
	if !isDir {
		if m.null < 0 {
			if m.null, err = nullNode(r); err != nil {
				return err
			}
		}
		over = m.null
	}
	clone, err := unix.OpenTree(over, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	return attach(clone, fd)
}

// nullNode opens the container's /dev/null and proves that it is the null device.
func nullNode(r root) (int, error) {
	fd, err := r.open("/dev/null", unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return -1, fail("/dev/null", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(1, 3) {
		return -1, errors.New("/dev/null of the container is not the null device")
	}
	return fd, nil
}

func readonlyPath(r root, p string) error {
	fd, err := r.open(p, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH|unix.AT_RECURSIVE)
	if err != nil {
		return err
	}
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return attach(tree, fd)
}

func isDirectory(fd int) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return false, err
	}
	return st.Mode&unix.S_IFMT == unix.S_IFDIR, nil
}

// attach mounts the detached tree on target and closes tree.
func attach(tree, target int) error {
	defer unix.Close(tree)
	return unix.MoveMount(tree, "", target, "", unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH)
}
