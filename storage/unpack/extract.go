// Package unpack turns the tar archive of an image layer into an overlay directory.
//
// The archive comes from a stranger. Nothing in it makes the extractor leave the
// directory it was given: every path is opened from that directory's descriptor with
// openat2(RESOLVE_BENEATH|RESOLVE_NO_SYMLINKS), so the kernel never follows a link on
// the way; where an archive names a file by way of a link, as a mounted image would
// allow, the link is read and resolved here, inside the image. Counts, sizes and
// lengths are bounded.
package unpack

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/opencontainers/go-digest"
	"golang.org/x/sys/unix"
)

// Limits bound one layer. The zero value of a member is the default.
type Limits struct {
	Entries int   // 4 million
	Bytes   int64 // of all files' content together: 256 GiB
}

const (
	defaultEntries = 4 << 20
	defaultBytes   = 256 << 30
	maxPath        = 4096
	// maxNames bounds, in bytes, the paths of directories that are kept in memory.
	maxNames      = 128 << 20
	maxXattrs     = 256
	maxXattrValue = 64 << 10
	copyBuffer    = 256 << 10
)

// Options for Extract.
type Options struct {
	// Base are the directories of the layers below, topmost first. Without KnowBase
	// they are not known yet, and Result says whether they were needed.
	Base     []int
	KnowBase bool
	Limits   Limits
}

// Result is what Extract saw.
type Result struct {
	// DiffID is the digest of the whole stream, Size its length in bytes.
	DiffID  digest.Digest
	Size    int64
	Entries int
	// Implicit are the directories that the archive implies but does not hold; they
	// have to be given the attributes they have in the layers below (Complete).
	Implicit []string
	// NeedBase is set when the archive links to a file of a layer below: it must be
	// extracted again into an empty directory with Base.
	NeedBase bool
}

// Extract reads a tar stream to its end and makes what it holds below the directory
// dir, an open descriptor of an empty directory that nobody else writes to. Whiteouts
// become overlay's. On error the directory holds a part. Errors that the archive is to
// blame for are of class InvalidArgument.
func Extract(ctx context.Context, r io.Reader, dir int, o Options) (Result, error) {
	if o.Limits.Entries <= 0 {
		o.Limits.Entries = defaultEntries
	}
	if o.Limits.Bytes <= 0 {
		o.Limits.Bytes = defaultBytes
	}
	h := &hashReader{ctx: ctx, r: r, h: sha256.New()}
	x := &extractor{
		o: o, root: dir, left: o.Limits.Bytes, buf: make([]byte, copyBuffer),
		view: view{layers: append([]int{dir}, o.Base...)}, explicit: map[string]struct{}{},
		dirs: dirCache{root: dir},
	}
	defer x.dirs.flush()
	if err := x.run(tar.NewReader(bufio.NewReaderSize(h, 64<<10))); err != nil {
		return Result{}, err
	}
	// What follows the archive's end belongs to the digest.
	if _, err := io.CopyBuffer(onlyWriter{io.Discard}, h, x.buf); err != nil {
		return Result{}, err
	}
	if err := x.setTimes(); err != nil {
		return Result{}, err
	}
	x.result.DiffID = digest.NewDigest(digest.SHA256, h.h)
	x.result.Size = h.n
	for _, d := range x.implicit {
		if _, ok := x.explicit[d]; !ok {
			x.result.Implicit = append(x.result.Implicit, d)
		}
	}
	return x.result, nil
}

type onlyWriter struct{ io.Writer }

type hashReader struct {
	ctx context.Context
	r   io.Reader
	h   hash.Hash
	n   int64
}

func (h *hashReader) Read(p []byte) (int, error) {
	if err := h.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := h.r.Read(p)
	h.h.Write(p[:n])
	h.n += int64(n)
	return n, err
}

type extractor struct {
	o      Options
	root   int
	view   view
	dirs   dirCache
	left   int64 // bytes still allowed
	buf    []byte
	result Result

	explicit map[string]struct{} // directories the archive holds
	implicit []string            // directories made because something is in them
	times    []dirTime
	names    int // bytes of the paths in these
}

// remember counts a path that is kept until the end.
func (x *extractor) remember(name string) error {
	if x.names += len(name); x.names > maxNames {
		return errclass.Invalid("layer has too many directories")
	}
	return nil
}

type dirTime struct {
	path string
	ts   [2]unix.Timespec
}

func (x *extractor) run(t *tar.Reader) error {
	// The layer's root is there without the archive's doing.
	x.implicit = append(x.implicit, ".")
	for {
		hdr, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return badArchive(err)
		}
		if x.result.Entries++; x.result.Entries > x.o.Limits.Entries {
			return errclass.Invalid("layer has more than %d entries", x.o.Limits.Entries)
		}
		if hdr.Typeflag == tar.TypeXGlobalHeader {
			continue
		}
		name, err := cleanName(hdr.Name)
		if err != nil {
			return err
		}
		if err := x.entry(name, hdr, t); err != nil {
			if errors.Is(err, errNeedBase) {
				x.result.NeedBase = true
				continue
			}
			return fmt.Errorf("unpacking %q: %w", hdr.Name, err)
		}
	}
}

// badArchive gives the tar reader's own complaints a class, and lets errors of the
// stream below it through.
func badArchive(err error) error {
	if errors.Is(err, tar.ErrHeader) || errors.Is(err, tar.ErrFieldTooLong) || errors.Is(err, tar.ErrInsecurePath) {
		return errclass.Invalid("layer is no valid tar archive: %v", err)
	}
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return errclass.Invalid("layer is cut off: %v", err)
	}
	return err
}

// cleanName returns the path of an entry without "./", "/", and ".." at its front
// refused; "." is the root.
func cleanName(name string) (string, error) {
	if len(name) > maxPath || strings.IndexByte(name, 0) >= 0 {
		return "", errclass.Invalid("layer has an entry with an impossible name of %d bytes", len(name))
	}
	p := path.Clean(strings.TrimLeft(name, "/"))
	if p == ".." || strings.HasPrefix(p, "../") {
		return "", errclass.Invalid("layer has an entry outside its root: %q", name)
	}
	return p, nil
}

const whiteoutPrefix = ".wh."

func (x *extractor) entry(name string, hdr *tar.Header, r io.Reader) error {
	if name == "." {
		if hdr.Typeflag != tar.TypeDir {
			return errclass.Invalid("the root is no directory")
		}
		return x.directoryAttributes(x.root, ".", hdr)
	}
	parent, base := path.Split(name)
	at, parent, err := x.openParent(path.Clean(parent))
	if err != nil {
		return err
	}
	if hidden, ok := strings.CutPrefix(base, whiteoutPrefix); ok {
		return x.whiteout(at, hidden)
	}
	return x.create(at, path.Join(parent, base), base, hdr, r)
}

// whiteout hides what the layers below have.
func (x *extractor) whiteout(at int, hidden string) error {
	switch {
	case hidden == ".wh..opq":
		return setOpaque(at)
	case strings.HasPrefix(hidden, ".wh."):
		return nil // notes that aufs left for itself
	case hidden == "" || hidden == "." || hidden == "..":
		return errclass.Invalid("whiteout of %q", hidden)
	}
	var st unix.Stat_t
	err := unix.Fstatat(at, hidden, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch {
	case errors.Is(err, unix.ENOENT):
		return unix.Mknodat(at, hidden, unix.S_IFCHR, 0)
	case err != nil:
		return err
	case st.Mode&unix.S_IFMT == unix.S_IFDIR:
		// This layer has the directory, too: only what is below is hidden.
		fd, err := unix.Openat(at, hidden, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		return unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0)
	}
	return nil
}

const opaqueXattr = "trusted.overlay.opaque"

// setOpaque marks a directory, which may be open for its path only.
func setOpaque(at int) error {
	fd, err := unix.Openat(at, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0)
}

// setTimes sets the times of directories when nothing is made in them any more.
func (x *extractor) setTimes() error {
	for _, d := range x.times {
		parent, base := path.Split(d.path)
		at := x.root
		if d.path != "." {
			fd, err := x.dirs.open(path.Clean(parent))
			if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
				continue // replaced later in the archive
			}
			if err != nil {
				return err
			}
			at = fd
		} else {
			base = "."
		}
		err := unix.UtimesNanoAt(at, base, d.ts[:], unix.AT_SYMLINK_NOFOLLOW)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}
