package unpack

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage/tree"
	"golang.org/x/sys/unix"
)

// create makes one entry that is no whiteout. at is its parent, name its path.
func (x *extractor) create(at int, name, base string, hdr *tar.Header, r io.Reader) error {
	uid, gid, err := owner(hdr)
	if err != nil {
		return err
	}
	opaque, err := x.makeRoom(at, name, base, hdr.Typeflag == tar.TypeDir)
	if err != nil {
		return err
	}
	mode := uint32(hdr.Mode) & 0o7777
	switch hdr.Typeflag {
	case tar.TypeDir:
		return x.directory(at, name, base, hdr, opaque)
	case tar.TypeReg, tar.TypeRegA, tar.TypeGNUSparse: //nolint:staticcheck // old archives have RegA
		return x.file(at, base, hdr, r)
	case tar.TypeLink:
		return x.link(at, base, hdr.Linkname)
	case tar.TypeSymlink:
		if len(hdr.Linkname) == 0 || len(hdr.Linkname) >= maxPath {
			return errclass.Invalid("symbolic link with an impossible target of %d bytes", len(hdr.Linkname))
		}
		err = unix.Symlinkat(hdr.Linkname, at, base)
	case tar.TypeChar:
		err = unix.Mknodat(at, base, unix.S_IFCHR|mode, mkdev(hdr))
	case tar.TypeBlock:
		err = unix.Mknodat(at, base, unix.S_IFBLK|mode, mkdev(hdr))
	case tar.TypeFifo:
		err = unix.Mknodat(at, base, unix.S_IFIFO|mode, 0)
	default:
		return errclass.Invalid("unknown type %q of entry", hdr.Typeflag)
	}
	if err != nil {
		return err
	}
	if err := unix.Fchownat(at, base, uid, gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if hdr.Typeflag != tar.TypeSymlink {
		// Freshly made in a directory that only we write to, so it is no link.
		if err := unix.Fchmodat(at, base, mode, 0); err != nil {
			return err
		}
	}
	if err := x.pathXattrs(at, base, hdr); err != nil {
		return err
	}
	ts := times(hdr)
	return unix.UtimesNanoAt(at, base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

// makeRoom removes what an earlier entry of the same name made, unless both are
// directories. It tells whether that was a whiteout, so that a directory in its place
// has to hide what is below.
func (x *extractor) makeRoom(at int, name, base string, dir bool) (opaque bool, err error) {
	var st unix.Stat_t
	err = unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	isDir := st.Mode&unix.S_IFMT == unix.S_IFDIR
	if isDir && dir {
		return false, nil
	}
	if isDir {
		x.dirs.forget(name)
	}
	return isWhiteout(&st), tree.Remove(at, base)
}

func isWhiteout(st *unix.Stat_t) bool {
	return st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0
}

func (x *extractor) directory(at int, name, base string, hdr *tar.Header, opaque bool) error {
	if err := unix.Mkdirat(at, base, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if opaque {
		if err := unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0); err != nil {
			return err
		}
	}
	return x.directoryAttributes(fd, name, hdr)
}

func (x *extractor) directoryAttributes(fd int, name string, hdr *tar.Header) error {
	uid, gid, err := owner(hdr)
	if err != nil {
		return err
	}
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return err
	}
	if err := fdXattrs(fd, hdr); err != nil {
		return err
	}
	if err := x.remember(name); err != nil {
		return err
	}
	x.explicit[name] = struct{}{}
	x.times = append(x.times, dirTime{name, times(hdr)})
	return nil
}

func (x *extractor) file(at int, base string, hdr *tar.Header, r io.Reader) error {
	if hdr.Size < 0 || hdr.Size > x.left {
		return errclass.Invalid("layer holds more than %d bytes", x.o.Limits.Bytes)
	}
	x.left -= hdr.Size
	fd, err := unix.Openat(at, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := x.content(fd, hdr, r); err != nil {
		return err
	}
	uid, gid, err := owner(hdr)
	if err != nil {
		return err
	}
	// In this order: a change of owner takes setuid and capabilities away.
	if err := unix.Fchown(fd, uid, gid); err != nil {
		return err
	}
	if err := unix.Fchmod(fd, uint32(hdr.Mode)&0o7777); err != nil {
		return err
	}
	if err := fdXattrs(fd, hdr); err != nil {
		return err
	}
	ts := times(hdr)
	return unix.UtimesNanoAt(at, base, ts[:], unix.AT_SYMLINK_NOFOLLOW)
}

// content copies a file. Long runs of zeros become holes in files the archive calls
// sparse: their size may be far beyond what the archive, or the disk, holds.
func (x *extractor) content(fd int, hdr *tar.Header, r io.Reader) error {
	sparse := isSparse(hdr)
	var off int64
	for off < hdr.Size {
		n, err := io.ReadFull(r, x.buf[:min(int64(len(x.buf)), hdr.Size-off)])
		if n > 0 {
			if !sparse || !allZero(x.buf[:n]) {
				if err := writeAt(fd, x.buf[:n], off); err != nil {
					return err
				}
			}
			off += int64(n)
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return errclass.Invalid("layer is cut off: %d of %d bytes", off, hdr.Size)
		}
		if err != nil {
			return badArchive(err)
		}
	}
	if sparse {
		return unix.Ftruncate(fd, hdr.Size)
	}
	return nil
}

func writeAt(fd int, p []byte, off int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, off)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p, off = p[n:], off+int64(n)
	}
	return nil
}

func isSparse(hdr *tar.Header) bool {
	if hdr.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range hdr.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

func allZero(p []byte) bool {
	for _, b := range p {
		if b != 0 {
			return false
		}
	}
	return true
}

// link makes a hard link. Its target is a file of this layer, else one of a layer
// below, which is then copied up first, as it would be in a mounted image.
func (x *extractor) link(at int, base, linkname string) error {
	target, err := cleanName(linkname)
	if err != nil {
		return err
	}
	if target == "." {
		return errclass.Invalid("hard link to the root")
	}
	parent, tbase := path.Split(target)
	where, err := x.view.resolve(path.Clean(parent))
	if errors.Is(err, unix.ENOENT) {
		return x.missing(target)
	}
	if err != nil {
		return err
	}
	target = path.Join(where, tbase)
	tat, err := openBeneath(x.root, where, unix.O_PATH|unix.O_DIRECTORY)
	if err == nil {
		defer unix.Close(tat)
		var st unix.Stat_t
		err = unix.Fstatat(tat, tbase, &st, unix.AT_SYMLINK_NOFOLLOW)
		if err == nil {
			if isWhiteout(&st) || st.Mode&unix.S_IFMT == unix.S_IFDIR {
				return errclass.Invalid("hard link to %q, which is no file", linkname)
			}
			return unix.Linkat(tat, tbase, at, base, 0)
		}
	}
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	if !x.o.KnowBase {
		return errNeedBase
	}
	// Copying up opens directories, which may close this one behind our back.
	if at, err = unix.FcntlInt(uintptr(at), unix.F_DUPFD_CLOEXEC, 0); err != nil {
		return err
	}
	defer unix.Close(at)
	if err := x.copyUp(target); err != nil {
		return err
	}
	tat, err = openBeneath(x.root, where, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(tat)
	return unix.Linkat(tat, tbase, at, base, 0)
}

// errNeedBase says that an entry cannot be made without the layers below.
var errNeedBase = errors.New("the layers below are needed")

func (x *extractor) missing(target string) error {
	if !x.o.KnowBase {
		return errNeedBase
	}
	return errclass.Invalid("hard link to %q, which does not exist", target)
}

func owner(hdr *tar.Header) (uid, gid int, err error) {
	if hdr.Uid < 0 || hdr.Gid < 0 || int64(hdr.Uid) >= math.MaxUint32 || int64(hdr.Gid) >= math.MaxUint32 {
		return 0, 0, errclass.Invalid("impossible owner %d:%d", hdr.Uid, hdr.Gid)
	}
	return hdr.Uid, hdr.Gid, nil
}

func mkdev(hdr *tar.Header) int {
	return int(unix.Mkdev(uint32(hdr.Devmajor), uint32(hdr.Devminor)))
}

// times returns access and modification time, within what every file system can keep.
func times(hdr *tar.Header) [2]unix.Timespec {
	m := hdr.ModTime
	if m.Before(time.Unix(0, 0)) || m.Unix() > math.MaxUint32 {
		m = time.Unix(0, 0)
	}
	ts := unix.Timespec{Sec: m.Unix(), Nsec: int64(m.Nanosecond())}
	return [2]unix.Timespec{ts, ts}
}

const xattrRecord = "SCHILY.xattr."

// xattrs yields the extended attributes of an entry that an image may set. Those of
// overlay itself (trusted.*, user.overlay.*) would change what a mount shows.
func xattrs(hdr *tar.Header, set func(key, value string) error) error {
	count := 0
	for k, v := range hdr.PAXRecords {
		key, ok := strings.CutPrefix(k, xattrRecord)
		if !ok {
			continue
		}
		if count++; count > maxXattrs || len(v) > maxXattrValue || len(key) > 255 {
			return errclass.Invalid("too many or too large extended attributes")
		}
		switch {
		case strings.HasPrefix(key, "user.overlay."):
			continue
		case strings.HasPrefix(key, "user."), key == "security.capability", key == "security.selinux",
			key == "system.posix_acl_access", key == "system.posix_acl_default":
		default:
			continue
		}
		err := set(key, v)
		if errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EPERM) && key != "security.capability" {
			continue // the file system has none, or none on such a file
		}
		if err != nil {
			return fmt.Errorf("extended attribute %s: %w", key, err)
		}
	}
	return nil
}

func fdXattrs(fd int, hdr *tar.Header) error {
	if len(hdr.PAXRecords) == 0 {
		return nil
	}
	return xattrs(hdr, func(k, v string) error { return unix.Fsetxattr(fd, k, []byte(v), 0) })
}

// pathXattrs is for what can't be opened: links and devices.
func (x *extractor) pathXattrs(at int, base string, hdr *tar.Header) error {
	if len(hdr.PAXRecords) == 0 {
		return nil
	}
	return xattrs(hdr, func(k, v string) error {
		return unix.Lsetxattr(fmt.Sprintf("/proc/self/fd/%d/%s", at, base), k, []byte(v), 0)
	})
}
