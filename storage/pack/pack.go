// Package pack writes directory trees as tar archives and lists the differences between two
// trees. Everything that leaves a container goes through it: copies, exports, commits and layers.
//
// A container may change its tree while it is read. Everything is therefore opened by name
// in the descriptor of its directory, without following a symbolic link, and what is written
// into the archive is read from the descriptor that was looked at: a file that is swapped for
// a link never leads out of the tree.
package pack

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

const (
	// maxPath bounds the length of a path in an archive, in bytes, as the kernel bounds paths:
	// what is deeper could not be unpacked.
	maxPath = 4096
	// maxLinks bounds the names kept to write further names of a file as hard links.
	maxLinks = 4 << 20
	// maxXattr bounds the list of attribute names and one value, in bytes, as the kernel does.
	maxXattr = 64 << 10
	// whiteoutPrefix marks what a layer deletes (OCI image layer specification).
	whiteoutPrefix = ".wh."
	// copySize is how much of a file is read at a time, in bytes.
	copySize = 256 << 10
)

// Xattrs says which extended attributes are written.
type Xattrs int

const (
	// Capability writes file capabilities only, which is all that an image layer holds.
	Capability Xattrs = iota
	// Portable writes user.*, POSIX ACLs and file capabilities.
	Portable
)

// Options say how a tree is written. The zero value writes it as an image layer would hold it.
type Options struct {
	// Prefix is put before every name; the tree's root itself gets this name. Without it the
	// root has no entry of its own and names are relative to it.
	Prefix string
	Xattrs Xattrs
	// Skip leaves out an entry and what is below it; name is relative to the root. It may be nil.
	Skip func(name string) bool
}

// Tree writes what is below the directory root, an open descriptor (O_PATH will do) that
// stays the caller's, to w, in sorted order and ends the archive. Sockets are left out, since
// an archive cannot hold them; what vanishes while it is looked at is left out, too; a file that shrinks is
// filled up with zeros, one that grows is cut at the size it had. Mount points are entered:
// a caller who does not want them gives a root without mounts.
//
// Errors: context errors; class InvalidArgument for a tree that no archive can hold (a path
// over 4,096 bytes); what the file system or w say.
func Tree(ctx context.Context, w io.Writer, root *os.File, o Options) error {
	p := newPacker(ctx, w, o.Xattrs)
	v := &visitor{ctx: ctx, skip: o.Skip, fn: func(e *entry) error {
		name := path.Join(o.Prefix, e.name)
		if name == "." || name == "" {
			return nil
		}
		return p.entry(e, name)
	}}
	if err := v.root(root); err != nil {
		return fmt.Errorf("packing: %w", err)
	}
	return p.tar.Close()
}

// packer writes entries.
type packer struct {
	ctx    context.Context
	tar    *tar.Writer
	xattrs Xattrs
	links  map[inode]string // the first name of files that have several
	buf    []byte
}

type inode struct{ dev, ino uint64 }

func newPacker(ctx context.Context, w io.Writer, x Xattrs) *packer {
	return &packer{ctx: ctx, tar: tar.NewWriter(w), xattrs: x, links: map[inode]string{}, buf: make([]byte, copySize)}
}

// entry writes one entry under name.
func (p *packer) entry(e *entry, name string) error {
	hdr, err := p.header(e, name)
	if err != nil || hdr == nil {
		return err
	}
	if hdr.Typeflag != tar.TypeReg || hdr.Size == 0 {
		return p.tar.WriteHeader(hdr)
	}
	f, err := e.open()
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	defer unix.Close(f)
	if err := p.tar.WriteHeader(hdr); err != nil {
		return err
	}
	if err := p.content(f, hdr.Size); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// header is an entry's; nil for what an archive does not hold.
func (p *packer) header(e *entry, name string) (*tar.Header, error) {
	if len(name) >= maxPath {
		return nil, errclass.Invalid("path of %d bytes is too long for an archive: %.64s…", len(name), name)
	}
	st := &e.st
	hdr := &tar.Header{
		Name: name, Mode: int64(st.Mode & 0o7777), Uid: int(st.Uid), Gid: int(st.Gid), Format: tar.FormatPAX,
		// Whole seconds, as every engine writes them: a layer's digest must not depend on who made it.
		ModTime: time.Unix(st.Mtim.Sec, 0),
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		hdr.Typeflag, hdr.Name = tar.TypeDir, name+"/"
	case unix.S_IFREG:
		hdr.Typeflag, hdr.Size = tar.TypeReg, st.Size
	case unix.S_IFLNK:
		target, err := e.readlink()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		hdr.Typeflag, hdr.Linkname = tar.TypeSymlink, target
	case unix.S_IFCHR, unix.S_IFBLK:
		hdr.Typeflag = tar.TypeChar
		if st.Mode&unix.S_IFMT == unix.S_IFBLK {
			hdr.Typeflag = tar.TypeBlock
		}
		hdr.Devmajor, hdr.Devminor = int64(unix.Major(st.Rdev)), int64(unix.Minor(st.Rdev))
	case unix.S_IFIFO:
		hdr.Typeflag = tar.TypeFifo
	default: // a socket
		return nil, nil
	}
	if first := p.linked(st, name); first != "" {
		hdr.Typeflag, hdr.Linkname, hdr.Size = tar.TypeLink, first, 0
		return hdr, nil
	}
	return hdr, p.addXattrs(e, hdr)
}

// whiteout writes that name of the layers below is gone.
func (p *packer) whiteout(name string) error {
	dir, base := path.Split(name)
	return p.tar.WriteHeader(&tar.Header{
		Name: dir + whiteoutPrefix + base, Typeflag: tar.TypeReg, Format: tar.FormatPAX, ModTime: time.Unix(0, 0),
	})
}

// linked returns the name under which a file was written before, and remembers this one otherwise.
func (p *packer) linked(st *unix.Stat_t, name string) string {
	if st.Nlink < 2 || st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return ""
	}
	k := inode{st.Dev, st.Ino}
	if first, ok := p.links[k]; ok {
		return first
	}
	if len(p.links) < maxLinks { // beyond that it is written again: larger, not wrong
		p.links[k] = name
	}
	return ""
}

func (p *packer) addXattrs(e *entry, hdr *tar.Header) error {
	add := func(key string, value []byte) {
		if hdr.PAXRecords == nil {
			hdr.PAXRecords = map[string]string{}
		}
		hdr.PAXRecords["SCHILY.xattr."+key] = string(value)
	}
	if p.xattrs == Capability {
		if hdr.Typeflag != tar.TypeReg {
			return nil
		}
		value, err := e.xattr("security.capability", p.buf[:maxXattr])
		if value != nil {
			add("security.capability", value)
		}
		return err
	}
	if hdr.Typeflag == tar.TypeSymlink {
		return nil
	}
	list, err := e.xattrs()
	if err != nil {
		return err
	}
	for _, key := range list {
		if !strings.HasPrefix(key, "user.") && key != "security.capability" && !strings.HasPrefix(key, "system.posix_acl_") {
			continue
		}
		value, err := e.xattr(key, p.buf[:maxXattr])
		if err != nil {
			return err
		}
		if value != nil {
			add(key, value)
		}
	}
	return nil
}

// content copies size bytes of f, filled up with zeros where the file has become shorter.
func (p *packer) content(f int, size int64) error {
	for left := size; left > 0; {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Read(f, p.buf[:min(left, copySize)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n == 0 {
			n = int(min(left, copySize))
			clear(p.buf[:n])
		}
		if _, err := p.tar.Write(p.buf[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	return nil
}
