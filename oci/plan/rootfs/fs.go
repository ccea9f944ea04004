package rootfs

import (
	"strings"

	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// FS is a file system to make: its type, the attributes of its mount (MOUNT_ATTR_*), its
// parameters in their order and its flags.
type FS struct {
	Type  string
	Attrs uint64
	Data  []initmsg.KV
	Flags []string
}

// MaskFS is what covers masked directories: empty, and without room to be anything else.
func MaskFS() FS {
	return FS{
		Type:  "tmpfs",
		Attrs: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC,
		Data:  []initmsg.KV{{Key: "source", Value: "tmpfs"}, {Key: "size", Value: "4k"}, {Key: "nr_inodes", Value: "2"}, {Key: "mode", Value: "755"}},
	}
}

// OverlayFS is the overlay of r, for kernels that know lowerdir+ (Linux 6.7). OverlayOptional
// goes on top of it where the kernel takes that.
func OverlayFS(r *initmsg.Root) FS {
	fs := FS{Type: "overlay", Data: []initmsg.KV{{Key: "source", Value: "overlay"}}}
	for _, l := range r.Lower {
		fs.Data = append(fs.Data, initmsg.KV{Key: "lowerdir+", Value: l})
	}
	if r.Upper != "" {
		fs.Data = append(fs.Data, initmsg.KV{Key: "upperdir", Value: r.Upper}, initmsg.KV{Key: "workdir", Value: r.Work})
	}
	return fs
}

// OverlayOptional are parameters and flags of an overlay that a kernel may refuse, which is as good: without an
// index the layers may be in use by other mounts, and a kernel that has none lets them; one that knows no volatile
// mount forces more to the disk than need be.
func OverlayOptional(r *initmsg.Root) FS {
	fs := FS{Data: []initmsg.KV{{Key: "index", Value: "off"}}}
	if r.Volatile {
		fs.Flags = []string{"volatile"}
	}
	return fs
}

// MountFS is the file system of a mount that is no bind. With mode, it takes the mode of the
// directory that it is mounted on, as runc does, by the parameter "mode" after the others.
// late are attributes that the mount gets when it has been filled.
func MountFS(m *initmsg.Mount) (fs FS, mode bool, late uint64) {
	fs = FS{Type: m.Type, Flags: m.Flags}
	if m.Source != "" { // also where it is only what the mount table shows
		fs.Data = append(fs.Data, initmsg.KV{Key: "source", Value: m.Source})
	}
	fs.Data = append(fs.Data, m.Data...)
	if m.CopyUp || m.Dest == Dev {
		late = m.Set & unix.MOUNT_ATTR_RDONLY
	}
	fs.Attrs = m.Set &^ late
	return fs, m.Type == "tmpfs" && !hasKey(m.Data, "mode"), late
}

func hasKey(kvs []initmsg.KV, key string) bool {
	for i := range kvs {
		if kvs[i].Key == key {
			return true
		}
	}
	return false
}

// Cgroup1 is how people know /sys/fs/cgroup: a tmpfs with a bind of the container's own
// cgroup for each v1 hierarchy.
type Cgroup1 struct {
	FS FS
	// Links are made first; Binds are of the host's directories Value on directories Key.
	Links []Link
	Binds []initmsg.KV
	// Set are the attributes of each bind; Late those of the tmpfs when it is filled.
	Set, Late uint64
}

// CgroupFS lays out a mount of initmsg.KindCgroup1.
func CgroupFS(m *initmsg.Mount) Cgroup1 {
	c := Cgroup1{Set: m.Set, Late: m.Set & unix.MOUNT_ATTR_RDONLY}
	c.FS = FS{Type: "tmpfs", Attrs: m.Set &^ c.Late, Data: []initmsg.KV{{Key: "source", Value: "tmpfs"}, {Key: "mode", Value: "755"}}}
	for _, b := range m.Binds {
		if target, ok := strings.CutPrefix(b.Value, "@"); ok {
			c.Links = append(c.Links, Link{b.Key, target})
		} else {
			c.Binds = append(c.Binds, b)
		}
	}
	return c
}

// ResolveFlags are those with which a mount's target is looked up.
func ResolveFlags(m *initmsg.Mount) uint64 {
	if m.NoSymlinks {
		return unix.RESOLVE_NO_SYMLINKS
	}
	return 0
}

// OutsideProc tells that the target of m must not be in procfs, where a link of the image
// may have led it; what the spec names there has been looked at already.
func OutsideProc(m *initmsg.Mount) bool {
	return m.Dest != "/proc" && !strings.HasPrefix(m.Dest, "/proc/")
}

// MustBeProc tells that the source of the bind m must be procfs.
func MustBeProc(m *initmsg.Mount) bool { return m.NoSymlinks && m.Dest == "/proc" }
