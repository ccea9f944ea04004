package ociinit

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/rootfs"
	"golang.org/x/sys/unix"
)

// setUpRoot assembles the container's tree and makes it the root of this mount
// namespace; nothing of the host's tree stays reachable. The descriptor returned
// is the new root's.
func setUpRoot(c *conn, m *initmsg.Message) (int, error) {
	// Devices and directories get the modes asked for.
	unix.Umask(0)
	a := assembler{conn: c, msg: m, root: root{-1}, dev: -1, masks: masks{empty: -1, null: -1}}
	steps := rootfs.Steps(m, unix.Access(rootfs.Kcore, unix.F_OK) == nil)
	for i := range steps {
		if err := a.step(&steps[i]); err != nil {
			return -1, err
		}
	}
	return a.root.fd, nil
}

// assembler makes the root. After an error the process ends, and its descriptors with it.
type assembler struct {
	conn    *conn
	msg     *initmsg.Message
	root    root
	sources []int // by mount; -1: none
	dev     int
	masks   masks
}

// step is one step; package rootfs says what it is.
func (a *assembler) step(s *rootfs.Step) (err error) {
	r := &a.msg.Root
	switch s.Kind {
	case rootfs.SetPropagation:
		return failed("set propagation of /", setPropagation(unix.AT_FDCWD, "/", r.Propagation, r.PropagationRec))
	case rootfs.OpenSources:
		a.sources, err = openSources(a.msg.Mounts)
	case rootfs.MakeTree:
		a.root.fd, err = rootTree(r)
	case rootfs.MakePrivate:
		return failed("make / private", setPropagation(unix.AT_FDCWD, "/", unix.MS_PRIVATE, false))
	case rootfs.AttachTree:
		return attachRoot(a.msg, a.root.fd)
	case rootfs.Mount:
		return mountOne(a.root, s.Mount, a.sources[s.Index])
	case rootfs.MakeCwd:
		if fd, err := a.root.dir(s.Path, 0); err == nil {
			unix.Close(fd)
		}
	case rootfs.RunHooks:
		return hooksBeforePivot(a.conn, a.msg)
	case rootfs.ChangeRoot:
		if a.msg.Extra.NoPivot {
			return chroot(a.root.fd)
		}
		return pivot(a.root.fd)
	case rootfs.SetRootPropagation:
		return failed("set propagation of the root", setPropagation(a.root.fd, "", r.Own, false))
	case rootfs.ProtectRoot:
		return failed("make the root read-only", mountAttr(a.root.fd, unix.MOUNT_ATTR_RDONLY, 0, 0))
	default:
		return a.fill(s)
	}
	return err
}

// fill is one of the steps that make devices and protect paths.
func (a *assembler) fill(s *rootfs.Step) (err error) {
	switch s.Kind {
	case rootfs.OpenDev:
		a.dev, err = a.root.open(rootfs.Dev, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
		return failed("open "+rootfs.Dev, err)
	case rootfs.MakeDevice:
		return makeDevice(a.root, s.Device)
	case rootfs.MakeLink:
		return makeLink(a.dev, s.Link)
	case rootfs.ProtectDev:
		return failed("make "+rootfs.Dev+" read-only", mountAttr(a.dev, unix.MOUNT_ATTR_RDONLY, 0, 0))
	case rootfs.CloseDev:
		unix.Close(a.dev)
	case rootfs.ProtectPath:
		return failed("make "+s.Path+" read-only", readonlyPath(a.root, s.Path))
	case rootfs.OpenMasks: // each when it is needed
	case rootfs.MaskPath:
		return failed("mask "+s.Path, a.masks.hide(a.root, s.Path))
	case rootfs.CloseMasks:
		a.masks.close()
	default:
		return errclass.Internal("step %d of the root is not known", s.Kind)
	}
	return err
}

// failed is fail for an error that may be none.
func failed(what string, err error) error {
	if err == nil {
		return nil
	}
	return fail(what, err)
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
	if r.Volatile {
		if err := allowVolatile(r); err != nil {
			return -1, err
		}
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

// allowVolatile takes away overlayfs's note that the work directory was mounted volatile, with which it refuses the next
// mount: by an earlier run, or by the start without init that failed just now. The note is there so that nobody takes for whole
// what the machine's end made of the upper layer; who asks for a volatile mount keeps no layer over that.
func allowVolatile(r *initmsg.Root) error {
	if err := os.RemoveAll(path.Join(r.Work, "work", "incompat")); err != nil {
		return fmt.Errorf("prepare the overlay's work directory: %w", err)
	}
	return nil
}

func overlayTree(r *initmsg.Root) (int, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return -1, fail("open overlayfs", err)
	}
	defer unix.Close(fs)
	for _, kv := range rootfs.OverlayFS(r).Data {
		if err := unix.FsconfigSetString(fs, kv.Key, kv.Value); err != nil {
			return -1, fsError(fs, overlayPart(kv), err)
		}
	}
	optional := rootfs.OverlayOptional(r)
	for _, kv := range optional.Data {
		_ = unix.FsconfigSetString(fs, kv.Key, kv.Value)
	}
	for _, flag := range optional.Flags {
		_ = unix.FsconfigSetFlag(fs, flag)
	}
	if err := unix.FsconfigCreate(fs); err != nil {
		return -1, fsError(fs, "make overlay", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return -1, fsError(fs, "mount overlay", err)
	}
	return fd, nil
}

// overlayPart is what messages call a parameter of an overlay.
func overlayPart(kv initmsg.KV) string {
	switch kv.Key {
	case "lowerdir+":
		return "overlay layer " + kv.Value
	case "upperdir":
		return "overlay upper " + kv.Value
	case "workdir":
		return "overlay work " + kv.Value
	}
	return "overlay " + kv.Key
}

// overlayByMount is overlayTree by mount(2), limited to a page of options; so they
// name the layers from the directory that all are in. It mounts over the lowest
// layer, which only this mount namespace sees, and takes the mount off again by
// cloning it.
func overlayByMount(r *initmsg.Root) (int, error) {
	dir, opts := overlayOptions(r)
	if len(opts)+len(",volatile") >= unix.Getpagesize() {
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
	err := error(unix.EINVAL)
	if r.Volatile {
		err = unix.Mount("overlay", at, "overlay", 0, opts+",volatile")
	}
	if errors.Is(err, unix.EINVAL) { // before Linux 5.10 there is no such option
		err = unix.Mount("overlay", at, "overlay", 0, opts)
	}
	if err != nil {
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

// masks are what covers masked paths; -1 until there is one.
type masks struct{ empty, null int }

func (m *masks) close() {
	for _, fd := range [...]int{m.empty, m.null} {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}

// hide covers p; a path that is missing has nothing to hide.
func (m *masks) hide(r root, p string) error {
	fd, err := r.open(p, unix.O_PATH, 0)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return m.cover(r, fd)
}

// cover hides the file or directory fd.
func (m *masks) cover(r root, fd int) error {
	isDir, err := isDirectory(fd)
	if err != nil {
		return err
	}
	if isDir && m.empty < 0 {
		m.empty, err = newMount(rootfs.MaskFS())
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
	fd, err := r.open(rootfs.Null, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return -1, fail(rootfs.Null, err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return -1, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFCHR || st.Rdev != unix.Mkdev(rootfs.NullMajor, rootfs.NullMinor) {
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
