package startprog

import (
	"github.com/gantry/gantry/oci/launch/become"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/rootfs"
	"golang.org/x/sys/unix"
)

func (f *plan) mountOne(mt *initmsg.Mount, source sysprog.Reg) {
	switch mt.Kind {
	case initmsg.KindBind:
		f.bind(mt, source)
	case initmsg.KindCgroup1:
		f.cgroup1(mt)
	default:
		f.fsMount(mt)
	}
}

// bind mounts a source, which is opened already unless the register is 0.
func (f *plan) bind(mt *initmsg.Mount, source sysprog.Reg) {
	what := "mount " + mt.Dest
	if source == 0 {
		source = f.tree
		f.openSource(mt, source)
	} else {
		// In its turn; kernels before 6.15 cannot.
		f.prog.Add(what, sysprog.Step{
			Nr: unix.SYS_OPEN_TREE, To: f.tree, Regs: [5]sysprog.Reg{source}, Ignore: become.Errnos{sysprog.ErrAny}, Skip: 2,
			Args: [5]uintptr{0, f.prog.Str(""), unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | empty | unix.AT_RECURSIVE},
		})
		f.prog.CloseFD(source)
		f.prog.Add(what, sysprog.Step{Kind: sysprog.Copy, To: source, Regs: [5]sysprog.Reg{f.tree}})
	}
	if rootfs.MustBeProc(mt) {
		f.prog.FSType(what, source, unix.PROC_SUPER_MAGIC, false)
	}
	f.makePath(what, mt.Dest, rootfs.ResolveFlags(mt), source)
	f.outsideProc(mt)
	f.setAttrs(source, mt)
	f.attach(what, source, f.target)
}

// outsideProc refuses a target that a link of the image has led into procfs.
func (f *plan) outsideProc(mt *initmsg.Mount) {
	if rootfs.OutsideProc(mt) {
		f.prog.FSType("mount "+mt.Dest, f.target, unix.PROC_SUPER_MAGIC, true)
	}
}

// setAttrs gives a detached tree the flags and the propagation that mt asks for: of one
// mount in one call.
func (f *plan) setAttrs(tree sysprog.Reg, mt *initmsg.Mount) {
	what := "mount " + mt.Dest
	own := unix.MountAttr{Attr_set: mt.Set, Attr_clr: mt.Clear}
	all := unix.MountAttr{Attr_set: mt.RecSet, Attr_clr: mt.RecClear}
	prop := unix.MountAttr{Propagation: mt.Propagation}
	switch {
	case all != (unix.MountAttr{}):
	case !mt.Recursive || !mt.PropagationRec:
		own.Propagation, prop.Propagation = prop.Propagation, 0
	}
	f.attr(what, tree, 0, own)
	f.attr(what, tree, unix.AT_RECURSIVE, all)
	f.attr(what, tree, recursive(mt.PropagationRec), prop)
}

func (f *plan) fsMount(mt *initmsg.Mount) {
	what := "mount " + mt.Dest
	f.makePath(what, mt.Dest, rootfs.ResolveFlags(mt), 0)
	f.outsideProc(mt)
	want, inherit, _ := rootfs.MountFS(mt) // what is late is ProtectDev's
	flags := want.Flags
	want.Flags = nil
	fs := f.fs(want)
	if inherit {
		mode := sysprog.Put(f.prog.Block, [8]byte{})
		f.prog.Add(what, sysprog.Step{Kind: sysprog.Mode, Regs: [5]sysprog.Reg{f.target}, Args: [5]uintptr{1: mode}})
		p := f.param(unix.FSCONFIG_SET_STRING, "mode", "")
		p.Value = mode
		fs.Params = append(fs.Params, p)
	}
	for _, name := range flags {
		fs.Params = append(fs.Params, f.param(unix.FSCONFIG_SET_FLAG, name, ""))
	}
	f.newFS(what, fs, f.tree)
	f.attr(what, f.tree, recursive(mt.PropagationRec), unix.MountAttr{Propagation: mt.Propagation})
	f.attach(what, f.tree, f.target)
}

// cgroup1 makes the tmpfs with one bind of the container's own cgroup for each v1
// hierarchy.
func (f *plan) cgroup1(mt *initmsg.Mount) {
	what := "mount " + mt.Dest
	f.makePath(what, mt.Dest, unix.RESOLVE_NO_SYMLINKS, 0)
	want := rootfs.CgroupFS(mt)
	tmpfs := f.file
	f.newFS(what, f.fs(want.FS), tmpfs)
	for _, l := range want.Links {
		s := sysprog.Step{Nr: unix.SYS_SYMLINKAT, Args: [5]uintptr{f.prog.Str(l.Target), 0, f.prog.Str(l.Name)}}
		s.Regs[1] = tmpfs
		f.prog.Add(what, s)
	}
	for _, b := range want.Binds {
		f.prog.On(what, tmpfs, unix.SYS_MKDIRAT, f.prog.Str(b.Key), 0o755)
	}
	move := sysprog.Step{Nr: unix.SYS_MOVE_MOUNT, Args: [5]uintptr{0, f.prog.Str(""), 0, f.prog.Str(""), unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH}}
	move.Regs[0], move.Regs[2] = tmpfs, f.target
	f.prog.Add(what, move)
	f.prog.CloseFD(f.target)
	for _, b := range want.Binds {
		f.prog.Add(what, sysprog.Step{Nr: unix.SYS_OPEN_TREE, To: f.tree, Args: [5]uintptr{cwd, f.prog.Str(b.Value), unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC}})
		f.attr(what, f.tree, 0, unix.MountAttr{Attr_set: want.Set, Propagation: unix.MS_PRIVATE})
		in := sysprog.Step{Nr: unix.SYS_MOVE_MOUNT, Args: [5]uintptr{0, f.prog.Str(""), 0, f.prog.Str(b.Key), unix.MOVE_MOUNT_F_EMPTY_PATH}}
		in.Regs[0], in.Regs[2] = f.tree, tmpfs
		f.prog.Add(what, in)
		f.prog.CloseFD(f.tree)
	}
	f.attr(what, tmpfs, 0, unix.MountAttr{Attr_set: want.Late})
	f.prog.CloseFD(tmpfs)
}
