package startprog

import (
	"os"
	"slices"
	"strings"

	"github.com/gantry/gantry/oci/launch/become"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// plan makes a program of what init would do: the steps of package rootfs, and what
// follows them in package ociinit.
type plan struct {
	prog *become.Plan
	s    *Start
	m    *initmsg.Message
	// root is the register of the container's root, dev that of its /dev, tree and target
	// are for whatever is mounted at the moment.
	root, dev, tree, target, file sysprog.Reg
	// sources are the registers of opened sources by mount; 0: in its turn.
	sources []sysprog.Reg
	covers  uintptr // what covers masked directories, in the block
}

const (
	cwd   = ^uintptr(99) // AT_FDCWD
	empty = unix.AT_EMPTY_PATH
)

// none are no errors to ignore.
func none() become.Errnos { return become.Errnos{} }

// plan prepares the start; out is where reports go.
func (s *Start) plan(out int) (*become.Plan, error) {
	m := s.Message
	b, err := become.New(m.ID, &m.Process, s.OOMScore, out, room(m))
	if err != nil {
		return nil, err
	}
	f := &plan{prog: b, s: s, m: m}
	f.root, f.dev, f.tree, f.target, f.file = f.prog.Reg(), f.prog.Reg(), f.prog.Reg(), f.prog.Reg(), f.prog.Reg()
	if err = f.steps(); err == nil {
		err = f.prog.Load()
	}
	if err != nil {
		b.Close()
		return nil, err
	}
	return b, nil
}

// room is what the plan puts into the block beyond package become's.
func room(m *initmsg.Message) uintptr {
	n := 64 << 10
	kv := func(l []initmsg.KV) {
		for i := range l {
			n += len(l[i].Key) + len(l[i].Value) + 300
		}
	}
	paths := func(l ...string) {
		for _, p := range l {
			n += 512 + (len(p)+64)*(strings.Count(p, "/")+2)
		}
	}
	paths(m.MaskedPaths...)
	paths(m.ReadonlyPaths...)
	paths(m.Root.Lower...)
	paths(m.Root.Path, m.Root.Upper, m.Root.Work, m.Process.Cwd, m.Hostname, m.Domainname)
	for i := range m.Mounts {
		mt := &m.Mounts[i]
		n += 1 << 10
		paths(mt.Dest, mt.Source)
		paths(mt.Flags...)
		kv(mt.Data)
		kv(mt.Binds)
	}
	for i := range m.Devices {
		paths(m.Devices[i].Path)
	}
	kv(m.Sysctl)
	// The steps themselves, of which a mount has a dozen.
	n += 128 * (16*(len(m.Mounts)+len(m.Devices)+len(m.MaskedPaths)+len(m.ReadonlyPaths)+len(m.Sysctl)) + 256)
	return uintptr(n)
}

func (f *plan) steps() error {
	streams := f.s.Streams
	if f.m.Process.Terminal {
		streams = [3]*os.File{}
	}
	if err := f.prog.Streams(streams); err != nil {
		return err
	}
	f.prog.Hide(f.needed()...)
	f.prog.Cgroups(f.s.Procs)
	f.prog.OOMScore()
	f.enter()
	f.setUpRoot()
	f.settings()
	return f.become()
}

// needed are the descriptors beyond the streams.
func (f *plan) needed() (fds []int) {
	for i := range f.s.Procs {
		fds = append(fds, f.s.Procs[i].FD)
	}
	for _, j := range f.s.Joins {
		fds = append(fds, j.FD)
	}
	if f.s.StartFD >= 0 {
		fds = append(fds, f.s.StartFD)
	}
	if f.m.Reaper {
		fds = append(fds, f.s.Exe)
	}
	return fds
}

// open opens p below the container's root.
func (f *plan) open(to sysprog.Reg, p string, flags, resolve uint64) sysprog.Step {
	return f.prog.Open(f.root, to, p, flags, resolve)
}

// makePath opens what p names below the root as f.target, made where it is missing: a
// directory, or what suits the source in a register.
func (f *plan) makePath(what, p string, resolve uint64, source sysprog.Reg) {
	t := sysprog.Target{Dir: become.InRoot(unix.O_PATH|unix.O_DIRECTORY, resolve), Any: become.InRoot(unix.O_PATH, resolve)}
	var ways []sysprog.Way
	for at := p; ; {
		i := strings.LastIndexByte(at, '/')
		if at == "/" || i < 0 {
			ways = append(ways, sysprog.Way{Full: f.prog.Str("/"), Base: f.prog.Str("/")})
			break
		}
		ways = append(ways, sysprog.Way{Full: f.prog.Str(at), Base: f.prog.Str(at[i+1:])})
		at = at[:max(i, 1)]
	}
	t.Ways = sysprog.Place(f.prog.Block, ways)
	s := sysprog.Step{Kind: sysprog.Mkpath, To: f.target, Regs: [5]sysprog.Reg{f.root}, Args: [5]uintptr{0, sysprog.Put(f.prog.Block, t), sysprog.None}}
	s.Regs[2] = source
	f.prog.Add(what, s)
}

// attr changes attributes of the mount that a register holds.
func (f *plan) attr(what string, r sysprog.Reg, flags uintptr, a unix.MountAttr) {
	if a == (unix.MountAttr{}) {
		return
	}
	f.prog.On(what, r, unix.SYS_MOUNT_SETATTR, f.prog.Str(""), empty|flags, sysprog.Put(f.prog.Block, a), attrSize)
}

// attrSize is the size of unix.MountAttr, the first version.
const attrSize = 32

// cloneTree makes a detached copy of the mount that a register holds.
func (f *plan) cloneTree(what string, r, to sysprog.Reg, flags uintptr) {
	f.prog.From(what, r, to, unix.SYS_OPEN_TREE, f.prog.Str(""), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|empty|flags)
}

// attach mounts the detached tree of one register on the target of another; both are
// closed.
func (f *plan) attach(what string, tree, target sysprog.Reg) {
	s := sysprog.Step{Nr: unix.SYS_MOVE_MOUNT, Args: [5]uintptr{0, f.prog.Str(""), 0, f.prog.Str(""), unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH}}
	s.Regs[0], s.Regs[2] = tree, target
	f.prog.Add(what, s)
	f.prog.CloseFD(tree)
	f.prog.CloseFD(target)
}

func (f *plan) enter() {
	for _, j := range f.s.Joins {
		f.prog.Call("join namespaces", none(), unix.SYS_SETNS, uintptr(j.FD), j.Flags)
	}
	if f.m.NewCgroupNS {
		f.prog.Call("unshare cgroup namespace", none(), unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	if f.m.LoopbackUp {
		type ifreq struct {
			name  [unix.IFNAMSIZ]byte
			flags uint16
			_     [22]byte
		}
		lo := ifreq{name: [unix.IFNAMSIZ]byte{'l', 'o'}, flags: unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING}
		f.prog.Add("bring lo up", sysprog.Step{Nr: unix.SYS_SOCKET, To: f.file, Args: [5]uintptr{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}})
		f.prog.On("bring lo up", f.file, unix.SYS_IOCTL, unix.SIOCSIFFLAGS, sysprog.Put(f.prog.Block, lo))
		f.prog.CloseFD(f.file)
	}
}

func (f *plan) settings() {
	if h := f.m.Hostname; h != "" {
		f.prog.Call("sethostname", none(), unix.SYS_SETHOSTNAME, f.prog.Str(h), uintptr(len(h)))
	}
	if d := f.m.Domainname; d != "" {
		f.prog.Call("setdomainname", none(), unix.SYS_SETDOMAINNAME, f.prog.Str(d), uintptr(len(d)))
	}
	if len(f.m.Sysctl) == 0 {
		return
	}
	proc := sysprog.FS{Type: f.prog.Str("proc"), Attrs: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID}
	f.prog.Add("mount private procfs", sysprog.Step{Kind: sysprog.NewFS, To: f.tree, Args: [5]uintptr{sysprog.Put(f.prog.Block, proc)}})
	how := sysprog.Put(f.prog.Block, unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV})
	for _, kv := range f.m.Sysctl {
		what := "write sysctl key " + kv.Key
		f.prog.Add(what, sysprog.Step{Kind: sysprog.Open, To: f.file, Regs: [5]sysprog.Reg{f.tree}, Args: [5]uintptr{0, f.prog.Str("sys/" + kv.Key), how}})
		f.prog.On(what, f.file, unix.SYS_WRITE, f.prog.Str(kv.Value), uintptr(len(kv.Value)))
		f.prog.CloseFD(f.file)
	}
	f.prog.CloseFD(f.tree)
}

// become is the rest; see package become.
func (f *plan) become() error {
	m, p := f.m, &f.m.Process
	f.prog.Session()
	if p.Terminal {
		f.prog.Terminal(f.root, f.bindConsole)
	} else if err := f.prog.OwnStreams(); err != nil {
		return err
	}
	if !m.Extra.NoNewKeyring {
		f.prog.Keyring(m.ID)
	}
	home := f.prog.Home(f.root)
	f.prog.Cwd()
	f.prog.Identity()
	f.prog.LookUp(home)
	f.prog.Limits()
	if m.WaitGo {
		s := sysprog.Step{Kind: sysprog.Held, Args: [5]uintptr{f.prog.Program.Out, sysprog.None}}
		if f.s.StartFD >= 0 {
			s.Args[1] = uintptr(f.s.StartFD)
		}
		f.prog.Add("wait for the start", s)
	}
	if m.Reaper {
		// It closes it when it listens to signals and the program runs. A low number: see init's reaper.
		f.prog.Call("keep the report socket", none(), unix.SYS_FCNTL, f.prog.Program.Out, unix.F_DUPFD, 3)
	}
	f.prog.Last()
	if !m.Reaper {
		f.prog.Add("exec", sysprog.Step{Kind: sysprog.Exec})
		return nil
	}
	// Our own protected executable once more, with the program's credentials.
	const programArg = 2
	args := slices.Concat([]string{initmsg.ReaperArg0, "--", ""}, p.Args)
	f.prog.Program.Argv = f.prog.Block.Strs(args)
	f.prog.Add("exec", sysprog.Step{Kind: sysprog.Reaper, Args: [5]uintptr{uintptr(f.s.Exe), programArg, f.prog.Str("")}})
	return nil
}
