package ociinit

import (
	"errors"
	"path"

	"golang.org/x/sys/unix"
)

// maxRetries bounds how often a resolution that raced with a rename is repeated.
const maxRetries = 128

// root resolves paths below the container's root, by descriptor: symbolic links
// of the image are followed inside the root only, links of procfs never. What it
// returns are descriptors, so that what was checked is what is used.
type root struct{ fd int }

// open opens p below the root. resolve adds RESOLVE_* flags.
func (r root) open(p string, flags uint64, resolve uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve,
	}
	if p == "" {
		p = "/"
	}
	for range maxRetries {
		fd, err := unix.Openat2(r.fd, p, &how)
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
			continue
		}
		return fd, err
	}
	return -1, unix.EAGAIN
}

// maxLinks bounds how many links whose target is missing are followed in one path.
const maxLinks = 40

// dir opens the directory p for use as a mount target, making what is missing.
// A missing component is made by mkdirat in its parent's descriptor and opened
// without following links, so that a link put in its place is not followed.
func (r root) dir(p string, resolve uint64) (int, error) { return r.dirLinks(p, resolve, maxLinks) }

func (r root) dirLinks(p string, resolve uint64, links int) (int, error) {
	fd, err := r.open(p, unix.O_PATH|unix.O_DIRECTORY, resolve)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, base := path.Split(path.Clean(p))
	if base == "" {
		return -1, err
	}
	pfd, err := r.dirLinks(path.Clean(parent), resolve, links)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pfd)
	if err := unix.Mkdirat(pfd, base, 0o755); errors.Is(err, unix.EEXIST) {
		if to, ok := danglingLink(pfd, parent, base, resolve, links); ok {
			return r.dirLinks(to, resolve, links-1)
		}
	} else if err != nil {
		return -1, err
	}
	return unix.Openat(pfd, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

// danglingLink tells where base in pfd leads when it is a link, as a path below
// the root. Whoever uses the path resolves it again, inside the root.
func danglingLink(pfd int, parent, base string, resolve uint64, links int) (string, bool) {
	if resolve&unix.RESOLVE_NO_SYMLINKS != 0 || links <= 0 {
		return "", false
	}
	var b [unix.PathMax]byte
	n, err := unix.Readlinkat(pfd, base, b[:])
	if err != nil || n <= 0 || n == len(b) {
		return "", false
	}
	to := string(b[:n])
	if !path.IsAbs(to) {
		to = path.Join(parent, to)
	}
	return path.Clean("/" + to), true
}

// file opens p, which may be anything but a directory, as a mount target, making
// an empty file when it is missing.
func (r root) file(p string, resolve uint64) (int, error) { return r.fileLinks(p, resolve, maxLinks) }

func (r root) fileLinks(p string, resolve uint64, links int) (int, error) {
	fd, err := r.open(p, unix.O_PATH, resolve)
	if !errors.Is(err, unix.ENOENT) {
		return fd, err
	}
	parent, base := path.Split(path.Clean(p))
	if base == "" {
		return -1, err
	}
	pfd, err := r.dirLinks(path.Clean(parent), resolve, links)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pfd)
	fd, err = unix.Openat(pfd, base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o644)
	if err == nil {
		unix.Close(fd)
	} else if !errors.Is(err, unix.EEXIST) {
		return -1, err
	} else if to, ok := danglingLink(pfd, parent, base, resolve, links); ok {
		return r.fileLinks(to, resolve, links-1)
	}
	return unix.Openat(pfd, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
}

func closeOnExec(from uint) error {
	if err := unix.CloseRange(from, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return fail("close_range", err)
	}
	return nil
}

// procfs is a private instance of procfs that is mounted nowhere: nothing in the
// container's tree can stand in for its files.
type procfs struct{ fd int }

func openProc() (procfs, error) {
	fs, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return procfs{}, fail("open procfs", err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return procfs{}, fail("make procfs", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return procfs{}, fail("mount private procfs", err)
	}
	return procfs{fd}, nil
}

func (p procfs) close() { unix.Close(p.fd) }

// write writes value to an existing file; links (thread-self) stay in this instance.
func (p procfs) write(name, value string) error {
	fd, err := unix.Openat2(p.fd, name, &unix.OpenHow{
		Flags:   unix.O_WRONLY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV,
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte(value))
	return err
}
