package startprog

import (
	"fmt"
	"sync"

	"github.com/gantry/gantry/oci/launch/become"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/rootfs"
	"golang.org/x/sys/unix"
)

// setUpRoot assembles the container's tree and makes it the root.
func (f *plan) setUpRoot() {
	f.prog.Call("umask", none(), unix.SYS_UMASK, 0)
	steps := rootfs.Steps(f.m, unix.Access(rootfs.Kcore, unix.F_OK) == nil)
	for i := range steps {
		f.rootStep(&steps[i])
	}
}

// rootStep is one step; package rootfs says what it is.
func (f *plan) rootStep(s *rootfs.Step) {
	r := &f.m.Root
	switch s.Kind {
	case rootfs.SetPropagation:
		f.propagate("set propagation of /", r.Propagation, r.PropagationRec)
	case rootfs.OpenSources:
		f.sources = f.openSources()
	case rootfs.MakeTree:
		f.rootTree()
	case rootfs.MakePrivate:
		f.propagate("make / private", unix.MS_PRIVATE, false)
	case rootfs.AttachTree:
		f.attachTree()
	case rootfs.Mount:
		f.mountOne(s.Mount, f.sources[s.Index])
	case rootfs.MakeCwd:
		f.makePath("make the working directory", s.Path, 0, 0)
		f.prog.CloseFD(f.target)
	case rootfs.RunHooks: // a message with hooks is not for this program (expressible)
	case rootfs.ChangeRoot:
		f.pivot()
	case rootfs.SetRootPropagation:
		f.attr("set propagation of the root", f.root, 0, unix.MountAttr{Propagation: r.Own})
	case rootfs.ProtectRoot:
		f.attr("make the root read-only", f.root, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	default:
		f.fillStep(s)
	}
}

// fillStep is one of the steps that make devices and protect paths.
func (f *plan) fillStep(s *rootfs.Step) {
	switch s.Kind {
	case rootfs.OpenDev:
		f.prog.Add("open "+rootfs.Dev, f.open(f.dev, rootfs.Dev, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS))
	case rootfs.MakeDevice:
		f.makeDevice(s.Device)
	case rootfs.MakeLink:
		f.makeLink(s.Link)
	case rootfs.ProtectDev:
		f.attr("make "+rootfs.Dev+" read-only", f.dev, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	case rootfs.CloseDev:
		f.prog.CloseFD(f.dev)
	case rootfs.ProtectPath:
		f.protectPath(s.Path)
	case rootfs.OpenMasks:
		f.openMasks()
	case rootfs.MaskPath:
		f.openExisting(s.Path, 2)
		f.prog.Add("mask "+s.Path, sysprog.Step{Kind: sysprog.Cover, Regs: [5]sysprog.Reg{f.target, f.file}, Args: [5]uintptr{2: f.covers}})
		f.prog.CloseFD(f.target)
	case rootfs.CloseMasks:
		f.prog.CloseFD(f.file)
	default:
		f.prog.Inexpressible()
	}
}

func (f *plan) attachTree() {
	move := sysprog.Step{Nr: unix.SYS_MOVE_MOUNT, Args: [5]uintptr{0, f.prog.Str(""), cwd, f.prog.Str("/"), unix.MOVE_MOUNT_F_EMPTY_PATH}}
	move.Regs[0] = f.root
	f.prog.Add("mount the root", move)
}

// propagate sets the propagation of the host's root.
func (f *plan) propagate(what string, prop uint64, rec bool) {
	if prop == 0 {
		return
	}
	f.prog.Call(what, none(), unix.SYS_MOUNT_SETATTR, cwd, f.prog.Str("/"), recursive(rec), sysprog.Put(f.prog.Block, unix.MountAttr{Propagation: prop}), attrSize)
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
			out[i] = f.prog.Reg()
			f.openSource(mt, out[i])
		}
	}
	return out
}

func (f *plan) openSource(mt *initmsg.Mount, to sysprog.Reg) {
	f.prog.Add("open "+mt.Source, sysprog.Step{Nr: unix.SYS_OPEN_TREE, To: to, Args: [5]uintptr{
		cwd, f.prog.Str(mt.Source), unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | recursive(mt.Recursive),
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
		f.prog.Add("open "+r.Path, sysprog.Step{Nr: unix.SYS_OPEN_TREE, To: f.root, Args: [5]uintptr{
			cwd, f.prog.Str(r.Path), unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | unix.AT_RECURSIVE,
		}})
		f.attr("make the root private", f.root, unix.AT_RECURSIVE, unix.MountAttr{Propagation: unix.MS_PRIVATE})
		return
	}
	fs := f.fs(rootfs.OverlayFS(r))
	optional := rootfs.OverlayOptional(r)
	for _, kv := range optional.Data {
		p := f.param(unix.FSCONFIG_SET_STRING, kv.Key, kv.Value)
		p.Soft = true
		fs.Params = append(fs.Params, p)
	}
	for _, flag := range optional.Flags {
		p := f.param(unix.FSCONFIG_SET_FLAG, flag, "")
		p.Soft = true
		fs.Params = append(fs.Params, p)
	}
	f.newFS("mount overlay", fs, f.root)
}

func (f *plan) param(cmd uintptr, key, value string) sysprog.Param {
	p := sysprog.Param{Cmd: cmd, Key: f.prog.Str(key)}
	if cmd == unix.FSCONFIG_SET_STRING {
		p.Value = f.prog.Str(value)
	}
	return p
}

// fs describes a new file system; its parameters are not in the block yet.
func (f *plan) fs(what rootfs.FS) sysprog.FS {
	fs := sysprog.FS{Type: f.prog.Str(what.Type), Attrs: uintptr(what.Attrs)}
	for _, kv := range what.Data {
		fs.Params = append(fs.Params, f.param(unix.FSCONFIG_SET_STRING, kv.Key, kv.Value))
	}
	for _, name := range what.Flags {
		fs.Params = append(fs.Params, f.param(unix.FSCONFIG_SET_FLAG, name, ""))
	}
	return fs
}

func (f *plan) place(fs sysprog.FS) uintptr {
	fs.Params = sysprog.Place(f.prog.Block, fs.Params)
	return sysprog.Put(f.prog.Block, fs)
}

func (f *plan) newFS(what string, fs sysprog.FS, to sysprog.Reg) {
	f.prog.Add(what, sysprog.Step{Kind: sysprog.NewFS, To: to, Args: [5]uintptr{f.place(fs)}})
}

// pivot makes the root, mounted over the old one, the root, and lets go of that.
func (f *plan) pivot() {
	f.prog.Add("open the old root", sysprog.Step{Nr: unix.SYS_OPENAT, To: f.file, Args: [5]uintptr{cwd, f.prog.Str("/"), unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC}})
	f.prog.On("enter the root", f.root, unix.SYS_FCHDIR)
	dot := f.prog.Str(".")
	f.prog.Call("pivot_root", none(), unix.SYS_PIVOT_ROOT, dot, dot)
	// See init's pivot: the host's mounts must not go as well.
	f.attr("keep the host's mounts", f.file, unix.AT_RECURSIVE, unix.MountAttr{Propagation: unix.MS_SLAVE})
	f.prog.Call("detach the host's root", none(), unix.SYS_UMOUNT2, dot, unix.MNT_DETACH)
	f.prog.Call("chdir /", none(), unix.SYS_CHDIR, f.prog.Str("/"))
	f.prog.CloseFD(f.file)
}

// openExisting opens p as f.target; where it is missing it goes on after skip further steps.
func (f *plan) openExisting(p string, skip uint8) {
	s := f.open(f.target, p, unix.O_PATH, 0)
	s.Ignore, s.Skip = become.Errnos{unix.ENOENT, unix.ENOTDIR}, skip
	f.prog.Add("open "+p, s)
}

func (f *plan) protectPath(p string) {
	what := "make " + p + " read-only"
	f.openExisting(p, 5)
	f.cloneTree(what, f.target, f.tree, unix.AT_RECURSIVE)
	f.attr(what, f.tree, 0, unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY})
	f.attach(what, f.tree, f.target)
}

// openMasks opens the null device, and describes what covers directories.
func (f *plan) openMasks() {
	f.prog.Add(rootfs.Null, f.open(f.file, rootfs.Null, unix.O_PATH, unix.RESOLVE_NO_SYMLINKS))
	f.prog.Node(rootfs.Null, f.file, unix.S_IFCHR, rootfs.NullMajor, rootfs.NullMinor)
	f.covers = f.place(f.fs(rootfs.MaskFS()))
}

func (f *plan) makeLink(l rootfs.Link) {
	s := sysprog.Step{Nr: unix.SYS_SYMLINKAT, Ignore: become.Errnos{unix.EEXIST}, Args: [5]uintptr{f.prog.Str(l.Target), 0, f.prog.Str(l.Name)}}
	s.Regs[1] = f.dev
	f.prog.Add("link "+rootfs.Dev+"/"+l.Name, s)
}

// makeDevice makes a node. Where one is there already, or making one is not allowed,
// init does it.
func (f *plan) makeDevice(d *initmsg.Device) {
	what := "make " + d.Path
	parent, base, typ := rootfs.Node(d)
	if typ == 0 {
		f.prog.Inexpressible()
		return
	}
	dir := f.dev
	if parent != rootfs.Dev {
		f.makePath(what, parent, unix.RESOLVE_NO_SYMLINKS, 0)
		dir = f.target
	}
	name := f.prog.Str(base)
	f.prog.On(what, dir, unix.SYS_MKNODAT, name, uintptr(typ|d.Mode), uintptr(unix.Mkdev(d.Major, d.Minor)))
	if d.UID != 0 || d.GID != 0 {
		f.prog.From(what, dir, f.file, unix.SYS_OPENAT, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
		f.prog.Node(what, f.file, typ, d.Major, d.Minor)
		f.prog.On(what, f.file, unix.SYS_FCHOWNAT, f.prog.Str(""), uintptr(d.UID), uintptr(d.GID), empty)
		f.prog.CloseFD(f.file)
	}
	if dir != f.dev {
		f.prog.CloseFD(dir)
	}
}

// bindConsole puts the terminal on /dev/console.
func (f *plan) bindConsole(slave sysprog.Reg) {
	if !f.m.SetupDev {
		return
	}
	const what = "bind " + rootfs.Dev + "/" + rootfs.Console
	f.prog.Add(what, f.open(f.dev, rootfs.Dev, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS))
	s := sysprog.Step{
		Nr: unix.SYS_OPENAT, To: f.target, Regs: [5]sysprog.Reg{f.dev},
		Args:   [5]uintptr{0, f.prog.Str(rootfs.Console), unix.O_CREAT | unix.O_EXCL | unix.O_NOFOLLOW | unix.O_CLOEXEC, rootfs.ConsoleMode},
		Ignore: become.Errnos{unix.EEXIST, unix.EROFS}, Skip: 4, // a device of that name
	}
	f.prog.Add(what, s)
	f.cloneTree(what, slave, f.tree, 0)
	f.attach(what, f.tree, f.target)
	f.prog.CloseFD(f.dev)
}
