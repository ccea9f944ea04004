package startprog

import (
	"strings"

	"github.com/gantry/gantry/oci/launch/become"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
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

func resolveFlags(mt *initmsg.Mount) uint64 {
	if mt.NoSymlinks {
		return unix.RESOLVE_NO_SYMLINKS
	}
	return 0
}

// bind mounts a source, which is opened already unless the register is 0.
func (f *plan) bind(mt *initmsg.Mount, source sysprog.Reg) {
	what := "mount " + mt.Dest
	if source == 0 {
		source = f.tree
		f.openSource(mt, source)
	} else {
		// In its turn; kernels before 6.15 cannot.
		f.Add(what, sysprog.Step{
			Nr: unix.SYS_OPEN_TREE, To: f.tree, Regs: [5]sysprog.Reg{source}, Ignore: become.Errnos{sysprog.ErrAny}, Skip: 2,
			Args: [5]uintptr{0, f.Str(""), unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC | empty | unix.AT_RECURSIVE},
		})
		f.CloseFD(source)
		f.Add(what, sysprog.Step{Kind: sysprog.Copy, To: source, Regs: [5]sysprog.Reg{f.tree}})
	}
	if mt.NoSymlinks && mt.Dest == "/proc" {
		f.FSType(what, source, unix.PROC_SUPER_MAGIC, false)
	}
	f.makePath(what, mt.Dest, resolveFlags(mt), source)
	f.outsideProc(mt)
	f.setAttrs(source, mt)
	f.attach(what, source, f.target)
}

// outsideProc refuses a target that a link of the image has led into procfs.
func (f *plan) outsideProc(mt *initmsg.Mount) {
	if mt.Dest != "/proc" && !strings.HasPrefix(mt.Dest, "/proc/") {
		f.FSType("mount "+mt.Dest, f.target, unix.PROC_SUPER_MAGIC, true)
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
	f.makePath(what, mt.Dest, resolveFlags(mt), 0)
	f.outsideProc(mt)
	var data []initmsg.KV
	if mt.Source != "" {
		data = append(data, initmsg.KV{Key: "source", Value: mt.Source})
	}
	attrs := mt.Set
	if mt.Dest == "/dev" {
		attrs &^= unix.MOUNT_ATTR_RDONLY // filled first
	}
	fs := f.fs(mt.Type, attrs, append(data, mt.Data...), nil)
	if mt.Type == "tmpfs" && !hasKey(mt.Data, "mode") {
		mode := sysprog.Put(f.Block, [8]byte{})
		f.Add(what, sysprog.Step{Kind: sysprog.Mode, Regs: [5]sysprog.Reg{f.target}, Args: [5]uintptr{1: mode}})
		p := f.param(unix.FSCONFIG_SET_STRING, "mode", "")
		p.Value = mode
		fs.Params = append(fs.Params, p)
	}
	for _, name := range mt.Flags {
		fs.Params = append(fs.Params, f.param(unix.FSCONFIG_SET_FLAG, name, ""))
	}
	f.newFS(what, fs, f.tree)
	f.attr(what, f.tree, recursive(mt.PropagationRec), unix.MountAttr{Propagation: mt.Propagation})
	f.attach(what, f.tree, f.target)
}

func hasKey(kvs []initmsg.KV, key string) bool {
	for i := range kvs {
		if kvs[i].Key == key {
			return true
		}
	}
	return false
}

// cgroup1 makes the tmpfs with one bind of the container's own cgroup for each v1
// hierarchy.
func (f *plan) cgroup1(mt *initmsg.Mount) {
	what := "mount " + mt.Dest
	f.makePath(what, mt.Dest, unix.RESOLVE_NO_SYMLINKS, 0)
	ro := mt.Set & unix.MOUNT_ATTR_RDONLY
	tmpfs := f.file
	f.newFS(what, f.fs("tmpfs", mt.Set&^ro, []initmsg.KV{{Key: "source", Value: "tmpfs"}, {Key: "mode", Value: "755"}}, nil), tmpfs)
	for _, b := range mt.Binds {
		if link, ok := strings.CutPrefix(b.Value, "@"); ok {
			s := sysprog.Step{Nr: unix.SYS_SYMLINKAT, Args: [5]uintptr{f.Str(link), 0, f.Str(b.Key)}}
			s.Regs[1] = tmpfs
			f.Add(what, s)
			continue
		}
		f.On(what, tmpfs, unix.SYS_MKDIRAT, f.Str(b.Key), 0o755)
	}
	move := sysprog.Step{Nr: unix.SYS_MOVE_MOUNT, Args: [5]uintptr{0, f.Str(""), 0, f.Str(""), unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH}}
	move.Regs[0], move.Regs[2] = tmpfs, f.target
	f.Add(what, move)
	f.CloseFD(f.target)
	for _, b := range mt.Binds {
		if strings.HasPrefix(b.Value, "@") {
			continue
		}
		f.Add(what, sysprog.Step{Nr: unix.SYS_OPEN_TREE, To: f.tree, Args: [5]uintptr{cwd, f.Str(b.Value), unix.OPEN_TREE_CLONE | unix.OPEN_TREE_CLOEXEC}})
		f.attr(what, f.tree, 0, unix.MountAttr{Attr_set: mt.Set, Propagation: unix.MS_PRIVATE})
		in := sysprog.Step{Nr: unix.SYS_MOVE_MOUNT, Args: [5]uintptr{0, f.Str(""), 0, f.Str(b.Key), unix.MOVE_MOUNT_F_EMPTY_PATH}}
		in.Regs[0], in.Regs[2] = f.tree, tmpfs
		f.Add(what, in)
		f.CloseFD(f.tree)
	}
	f.attr(what, tmpfs, 0, unix.MountAttr{Attr_set: ro})
	f.CloseFD(tmpfs)
}
