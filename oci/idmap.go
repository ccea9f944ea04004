package oci

import (
	"errors"
	"os"
	"slices"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// idMapping says how the owners of a mount's files are to appear.
type idMapping struct {
	recursive  bool
	uids, gids []specs.LinuxIDMapping // of the mount; none: the container's
}

// planIDMapping reads what a mount says about ids; nil: nothing. The options idmap
// and ridmap take the container's mappings when the mount has none (runtime-spec,
// config.md, "Linux mount options"); mappings without an option count as idmap.
func planIDMapping(m *specs.Mount, userNS bool) (*idMapping, error) {
	rec := slices.Contains(m.Options, "ridmap")
	if !rec && !slices.Contains(m.Options, "idmap") && len(m.UIDMappings)+len(m.GIDMappings) == 0 {
		return nil, nil
	}
	if (len(m.UIDMappings) == 0) != (len(m.GIDMappings) == 0) {
		return nil, errclass.Invalid("id-mapped mount at %s: both uidMappings and gidMappings are needed", m.Destination)
	}
	if len(m.UIDMappings) == 0 && !userNS {
		return nil, errclass.Invalid("id-mapped mount at %s: it has no mappings, and neither has the container (no user namespace)", m.Destination)
	}
	if err := checkMappings("uidMappings of mount "+m.Destination, m.UIDMappings); err != nil {
		return nil, err
	}
	if err := checkMappings("gidMappings of mount "+m.Destination, m.GIDMappings); err != nil {
		return nil, err
	}
	return &idMapping{recursive: rec, uids: m.UIDMappings, gids: m.GIDMappings}, nil
}

// idMaps opens the sources of id-mapped mounts for init: only somebody with
// rights over the file system may map its owners, which init may not have.
func (s *starting) idMaps(o *CreateOpts, m *initmsg.Message, so *spawnOpts) error {
	type made struct {
		uids, gids []specs.LinuxIDMapping
		ns         *os.File
	}
	var known []made
	inner := so.flags&unix.CLONE_NEWUSER != 0 || so.userNS != nil
	for i := range o.Spec.Mounts {
		sm := &o.Spec.Mounts[i]
		im, err := planIDMapping(sm, inner)
		if err != nil {
			return err
		}
		if im == nil {
			continue
		}
		at := slices.IndexFunc(m.Mounts, func(x initmsg.Mount) bool { return x.Index == uint32(i)+1 })
		if at < 0 || m.Mounts[at].Kind != initmsg.KindBind {
			return errclass.NotImplemented("id-mapped mount at %s: only bind mounts can be", sm.Destination)
		}
		uids, gids := im.uids, im.gids
		if uids == nil {
			uids, gids = o.Spec.Linux.UIDMappings, o.Spec.Linux.GIDMappings
		}
		var ns *os.File
		k := slices.IndexFunc(known, func(x made) bool { return slices.Equal(x.uids, uids) && slices.Equal(x.gids, gids) })
		switch {
		case im.uids == nil && so.userNS != nil:
			ns = so.userNS
		case k >= 0:
			ns = known[k].ns
		default:
			if ns, err = userNamespace(uids, gids); err != nil {
				return err
			}
			s.files = append(s.files, ns)
			known = append(known, made{uids, gids, ns})
		}
		tree, err := mappedTree(&m.Mounts[at], &m.Root, im, ns)
		if err != nil {
			return err
		}
		s.files = append(s.files, tree)
		m.Mounts[at].SourceFD = uint32(initmsg.FDFirst + len(so.extra))
		fd, err := rawFD(tree)
		if err != nil {
			return err
		}
		so.extra = append(so.extra, fd)
	}
	return nil
}

// mappedTree is a detached copy of a bind's source whose owners are mapped.
func mappedTree(m *initmsg.Mount, r *initmsg.Root, im *idMapping, ns *os.File) (*os.File, error) {
	flags := uint(unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC)
	if m.Recursive {
		flags |= unix.AT_RECURSIVE
	}
	fd, err := unix.OpenTree(unix.AT_FDCWD, m.Source, flags)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			return nil, errclass.Invalid("error mounting %q to rootfs at %q: %w", m.Source, m.Dest, err)
		}
		return nil, err
	}
	tree := os.NewFile(uintptr(fd), m.Source)
	nsfd, err := rawFD(ns)
	if err == nil {
		// As if init had opened it: mounts travel as the root's propagation says.
		err = unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Propagation: r.Propagation})
	}
	if err == nil {
		at := uint(unix.AT_EMPTY_PATH)
		if im.recursive {
			at |= unix.AT_RECURSIVE
		}
		err = unix.MountSetattr(fd, "", at, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_IDMAP, Userns_fd: uint64(nsfd)})
	}
	if err != nil {
		tree.Close()
		if errors.Is(err, unix.EINVAL) {
			return nil, errclass.Invalid("id-mapped mount of %s at %s: its file system does not support that, or it is mapped already: %w", m.Source, m.Dest, err)
		}
		return nil, errclass.Invalid("id-mapped mount of %s at %s: %w", m.Source, m.Dest, err)
	}
	return tree, nil
}
