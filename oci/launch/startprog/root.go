package startprog

import (
	"fmt"
	"path"
	"sync"

	"github.com/gantry/gantry/oci/launch/become"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// setUpRoot assembles the container's tree and makes it the root.
func (f *plan) setUpRoot() {
	m := f.m
	f.Call("umask", none(), unix.SYS_UMASK, 0)
	f.propagate("set propagation of /", m.Root.Propagation, m.Root.PropagationRec)
	sources := f.openSources()
	f.rootTree()
	// Whatever is mounted from now on must not travel to the host.
	f.propagate("make / private", unix.MS_PRIVATE, false)
	move := sysprog.Step{Nr: unix.SYS_MOVE_MOUNT, Args: [5]uintptr{0, f.Str(""), cwd, f.Str("/"), unix.MOVE_MOUNT_F_EMPTY_PATH}}
	move.Regs[0] = f.root
	f.Add("mount the root", move)
	for i := range m.Mounts {
		f.mountOne(&m.Mounts[i], sources[i])
	}
	if m.SetupDev {
		f.setUpDev()
	}
	if p := m.Process.Cwd; p != "/" {
		f.makePath("make the working directory", p, 0, 0)
		f.CloseFD(f.target)
	}
	f.maskPaths()
	f.pivot()
	f.attr("set propagation of the root", f.root, 0, unix.MountAttr{Propagation: m.Root.Own})
	if m.Root.Readonly {
		f.attr("make the root read-only", f.root, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	}
}

// propagate sets the propagation of the host's root.
func (f *plan) propagate(what string, prop uint64, rec bool) {
	if prop == 0 {
		return
	}
	f.Call(what, none(), unix.SYS_MOUNT_SETATTR, cwd, f.Str("/"), recursive(rec), sysprog.Put(f.Block, unix.MountAttr{Propagation: prop}), attrSize)
}

func recursive(rec bool) uintptr {
	if rec {
		return unix.AT_RECURSIVE
	}
	return 0
}

// openSources opens those sources of binds that are to travel like the mounts they are
// copies of, while the host's tree still has the propagation asked for. Others, and 0, are
// opened when their turn comes: the mount table shows the order.
func (f *plan) openSources() []sysprog.Reg {
	out := make([]sysprog.Reg, len(f.m.Mounts))
	for i := range f.m.Mounts {
		mt := &f.m.Mounts[i]
		private := mt.Propagation == unix.MS_PRIVATE && (mt.PropagationRec || !mt.Recursive)
		if mt.Kind == initmsg.KindBind && !private {
			out[i] = f.Reg()
			f.openSource(mt, out[i])
		}
	}
	return out
}

func (f *plan) openSource(mt *initmsg.Mount, to sysprog.Reg) {
	f.Add("open "+mt.Source, sysprog.Step{Nr: unix.SYS_OPEN_TREE, To: to, Args: [5]uintptr{
		cwd, f.Str(mt.Source), unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | recursive(mt.Recursive),
	}})
}

// overlayByFD tells whether fsconfig(2) knows lowerdir+: Linux 6.7 and later.
func overlayByFD() bool { return since67() }

var since67 = sync.OnceValue(func() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor)
	return err == nil && (major > 6 || major == 6 && minor >= 7)
})

// rootTree makes the root as a mount that is not attached anywhere.
func (f *plan) rootTree() {
	r := &f.m.Root
	if len(r.Lower) == 0 {
		f.Add("open "+r.Path, sysprog.Step{Nr: unix.SYS_OPEN_TREE, To: f.root, Args: [5]uintptr{
			cwd, f.Str(r.Path), unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE,
		}})
		f.attr("make the root private", f.root, unix.AT_RECURSIVE, unix.MountAttr{Propagation: unix.MS_PRIVATE})
		return
	}
	data := []initmsg.KV{{Key: "source", Value: "overlay"}}
	for _, l := range r.Lower {
		data = append(data, initmsg.KV{Key: "lowerdir+", Value: l})
	}
	if r.Upper != "" {
		data = append(data, initmsg.KV{Key: "upperdir", Value: r.Upper}, initmsg.KV{Key: "workdir", Value: r.Work})
	}
	fs := f.fs("overlay", 0, data, nil)
	// Without an index the layers may be in use by other mounts; a kernel that has none
	// says so, which is as good.
	index := f.param(unix.FSCONFIG_SET_STRING, "index", "off")
	index.Soft = true
	fs.Params = append(fs.Params, index)
	f.newFS("mount overlay", fs, f.root)
}

func (f *plan) param(cmd uintptr, key, value string) sysprog.Param {
	p := sysprog.Param{Cmd: cmd, Key: f.Str(key)}
	if cmd == unix.FSCONFIG_SET_STRING {
		p.Value = f.Str(value)
	}
	return p
}

// fs describes a new file system; its parameters are not in the block yet.
func (f *plan) fs(typ string, attrs uint64, data []initmsg.KV, flags []string) sysprog.FS {
	fs := sysprog.FS{Type: f.Str(typ), Attrs: uintptr(attrs)}
	for _, kv := range data {
		fs.Params = append(fs.Params, f.param(unix.FSCONFIG_SET_STRING, kv.Key, kv.Value))
	}
	for _, name := range flags {
		fs.Params = append(fs.Params, f.param(unix.FSCONFIG_SET_FLAG, name, ""))
	}
	return fs
}

func (f *plan) place(fs sysprog.FS) uintptr {
	fs.Params = sysprog.Place(f.Block, fs.Params)
	return sysprog.Put(f.Block, fs)
}

func (f *plan) newFS(what string, fs sysprog.FS, to sysprog.Reg) {
	f.Add(what, sysprog.Step{Kind: sysprog.NewFS, To: to, Args: [5]uintptr{f.place(fs)}})
}

// pivot makes the root, mounted over the old one, the root, and lets go of that.
func (f *plan) pivot() {
	f.Add("open the old root", sysprog.Step{Nr: unix.SYS_OPENAT, To: f.file, Args: [5]uintptr{cwd, f.Str("/"), unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC}})
	f.On("enter the root", f.root, unix.SYS_FCHDIR)
	dot := f.Str(".")
	f.Call("pivot_root", none(), unix.SYS_PIVOT_ROOT, dot, dot)
	// See init's pivot: the host's mounts must not go as well.
	f.attr("keep the host's mounts", f.file, unix.AT_RECURSIVE, unix.MountAttr{Propagation: unix.MS_SLAVE})
	f.Call("detach the host's root", none(), unix.SYS_UMOUNT2, dot, unix.MNT_DETACH)
	f.Call("chdir /", none(), unix.SYS_CHDIR, f.Str("/"))
	f.CloseFD(f.file)
}

// maskPaths hides and write-protects what the spec lists; what is missing has nothing
// to hide.
func (f *plan) maskPaths() {
	m := f.m
	missing := func(p string, skip uint8) {
		s := f.open(f.target, p, unix.O_PATH, 0)
		s.Ignore, s.Skip = become.Errnos{unix.ENOENT, unix.ENOTDIR}, skip
		f.Add("open "+p, s)
	}
	for _, p := range m.ReadonlyPaths {
		missing(p, 5)
		f.cloneTree("make "+p+" read-only", f.target, f.tree, unix.AT_RECURSIVE)
		f.attr("make "+p+" read-only", f.tree, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		f.attach("make "+p+" read-only", f.tree, f.target)
	}
	if len(m.MaskedPaths) == 0 {
		return
	}
	null := f.open(f.file, "/dev/null", unix.O_PATH, unix.RESOLVE_NO_SYMLINKS)
	f.Add("/dev/null", null)
	f.Node("/dev/null", f.file, unix.S_IFCHR, 1, 3)
	const attrs = unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC
	covers := f.place(f.fs("tmpfs", attrs, []initmsg.KV{{Key: "source", Value: "tmpfs"}, {Key: "size", Value: "4k"}, {Key: "nr_inodes", Value: "2"}, {Key: "mode", Value: "755"}}, nil))
	for _, p := range m.MaskedPaths {
		missing(p, 2)
		f.Add("mask "+p, sysprog.Step{Kind: sysprog.Cover, Regs: [5]sysprog.Reg{f.target, f.file}, Args: [5]uintptr{2: covers}})
		f.CloseFD(f.target)
	}
	f.CloseFD(f.file)
}

func (f *plan) setUpDev() {
	dev := f.open(f.dev, "/dev", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	f.Add("open /dev", dev)
	for i := range f.m.Devices {
		f.makeDevice(&f.m.Devices[i])
	}
	exists := become.Errnos{unix.EEXIST}
	for _, l := range [...][2]string{
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"pts/ptmx", "ptmx"},
		{"/proc/kcore", "core"},
	} {
		if l[1] == "core" && unix.Access(l[0], unix.F_OK) != nil {
			continue
		}
		s := sysprog.Step{Nr: unix.SYS_SYMLINKAT, Ignore: exists, Args: [5]uintptr{f.Str(l[0]), 0, f.Str(l[1])}}
		s.Regs[1] = f.dev
		f.Add("link /dev/"+l[1], s)
	}
	for i := range f.m.Mounts {
		if mt := &f.m.Mounts[i]; mt.Dest == "/dev" && mt.Set&unix.MOUNT_ATTR_RDONLY != 0 {
			f.attr("make /dev read-only", f.dev, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
		}
	}
	f.CloseFD(f.dev)
}

// makeDevice makes a node. Where one is there already, or making one is not allowed,
// init does it.
func (f *plan) makeDevice(d *initmsg.Device) {
	what := "make " + d.Path
	var typ uint32
	switch d.Type {
	case 'c':
		typ = unix.S_IFCHR
	case 'b':
		typ = unix.S_IFBLK
	case 'p':
		typ = unix.S_IFIFO
	default:
		f.Unfit()
		return
	}
	parent, base := path.Split(d.Path)
	dir := f.dev
	if parent = path.Clean(parent); parent != "/dev" {
		f.makePath(what, parent, unix.RESOLVE_NO_SYMLINKS, 0)
		dir = f.target
	}
	name := f.Str(base)
	f.On(what, dir, unix.SYS_MKNODAT, name, uintptr(typ|d.Mode), uintptr(unix.Mkdev(d.Major, d.Minor)))
	if d.UID != 0 || d.GID != 0 {
		f.From(what, dir, f.file, unix.SYS_OPENAT, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		f.Node(what, f.file, typ, d.Major, d.Minor)
		f.On(what, f.file, unix.SYS_FCHOWNAT, f.Str(""), uintptr(d.UID), uintptr(d.GID), empty)
		f.CloseFD(f.file)
	}
	if dir != f.dev {
		f.CloseFD(dir)
	}
}

// bindConsole puts the terminal on /dev/console.
func (f *plan) bindConsole(slave sysprog.Reg) {
	if !f.m.SetupDev {
		return
	}
	const what = "bind /dev/console"
	dev := f.open(f.dev, "/dev", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	f.Add(what, dev)
	s := sysprog.Step{
		Nr: unix.SYS_OPENAT, To: f.target, Regs: [5]sysprog.Reg{f.dev},
		Args:   [5]uintptr{0, f.Str("console"), unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC, 0o620},
		Ignore: become.Errnos{unix.EEXIST, unix.EROFS}, Skip: 4, // a device of that name
	}
	f.Add(what, s)
	f.cloneTree(what, slave, f.tree, 0)
	f.attach(what, f.tree, f.target)
	f.CloseFD(f.dev)
}
