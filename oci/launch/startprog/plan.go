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
	*become.Plan
	s *Start
	m *initmsg.Message
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
	f := &plan{Plan: b, s: s, m: m}
	f.root, f.dev, f.tree, f.target, f.file = f.Reg(), f.Reg(), f.Reg(), f.Reg(), f.Reg()
	if err = f.steps(); err == nil {
		err = f.Load()
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
	if err := f.Streams(streams); err != nil {
		return err
	}
	f.Hide(f.needed()...)
	f.Cgroups(f.s.Procs)
	f.OOMScore()
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
	return f.Open(f.root, to, p, flags, resolve)
}

// makePath opens what p names below the root as f.target, made where it is missing: a
// directory, or what suits the source in a register.
func (f *plan) makePath(what, p string, resolve uint64, source sysprog.Reg) {
	t := sysprog.Target{Dir: become.InRoot(unix.O_PATH|unix.O_DIRECTORY, resolve), Any: become.InRoot(unix.O_PATH, resolve)}
	var ways []sysprog.Way
	for at := p; ; {
		i := strings.LastIndexByte(at, '/')
		if at == "/" || i < 0 {
			ways = append(ways, sysprog.Way{Full: f.Str("/"), Base: f.Str("/")})
			break
		}
		ways = append(ways, sysprog.Way{Full: f.Str(at), Base: f.Str(at[i+1:])})
		at = at[:max(i, 1)]
	}
	t.Ways = sysprog.Place(f.Block, ways)
	s := sysprog.Step{Kind: sysprog.Mkpath, To: f.target, Regs: [5]sysprog.Reg{f.root}, Args: [5]uintptr{0, sysprog.Put(f.Block, t), sysprog.None}}
	s.Regs[2] = source
	f.Add(what, s)
}

// attr changes attributes of the mount that a register holds.
func (f *plan) attr(what string, r sysprog.Reg, flags uintptr, a unix.MountAttr) {
	if a == (unix.MountAttr{}) {
		return
	}
	f.On(what, r, unix.SYS_MOUNT_SETATTR, f.Str(""), empty|flags, sysprog.Put(f.Block, a), attrSize)
}

// attrSize is the size of unix.MountAttr, the first version.
const attrSize = 32

// cloneTree makes a detached copy of the mount that a register holds.
func (f *plan) cloneTree(what string, r, to sysprog.Reg, flags uintptr) {
	f.From(what, r, to, unix.SYS_OPEN_TREE, f.Str(""), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|empty|flags)
}

// attach mounts the detached tree of one register on the target of another; both are
// closed.
func (f *plan) attach(what string, tree, target sysprog.Reg) {
	s := sysprog.Step{Nr: unix.SYS_MOVE_MOUNT, Args: [5]uintptr{0, f.Str(""), 0, f.Str(""), unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH}}
	s.Regs[0], s.Regs[2] = tree, target
	f.Add(what, s)
	f.CloseFD(tree)
	f.CloseFD(target)
}

func (f *plan) enter() {
	for _, j := range f.s.Joins {
		f.Call("join namespaces", none(), unix.SYS_SETNS, uintptr(j.FD), j.Flags)
	}
	if f.m.NewCgroupNS {
		f.Call("unshare cgroup namespace", none(), unix.SYS_UNSHARE, unix.CLONE_NEWCGROUP)
	}
	if f.m.LoopbackUp {
		type ifreq struct {
			name  [unix.IFNAMSIZ]byte
			flags uint16
			_     [22]byte
		}
		lo := ifreq{name: [unix.IFNAMSIZ]byte{'l', 'o'}, flags: unix.IFF_UP | unix.IFF_LOOPBACK | unix.IFF_RUNNING}
		f.Add("bring lo up", sysprog.Step{Nr: unix.SYS_SOCKET, To: f.file, Args: [5]uintptr{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}})
		f.On("bring lo up", f.file, unix.SYS_IOCTL, unix.SIOCSIFFLAGS, sysprog.Put(f.Block, lo))
		f.CloseFD(f.file)
	}
}

func (f *plan) settings() {
	if h := f.m.Hostname; h != "" {
		f.Call("sethostname", none(), unix.SYS_SETHOSTNAME, f.Str(h), uintptr(len(h)))
	}
	if d := f.m.Domainname; d != "" {
		f.Call("setdomainname", none(), unix.SYS_SETDOMAINNAME, f.Str(d), uintptr(len(d)))
	}
	if len(f.m.Sysctl) == 0 {
		return
	}
	proc := sysprog.FS{Type: f.Str("proc"), Attrs: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID}
	f.Add("mount private procfs", sysprog.Step{Kind: sysprog.NewFS, To: f.tree, Args: [5]uintptr{sysprog.Put(f.Block, proc)}})
	how := sysprog.Put(f.Block, unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV})
	for _, kv := range f.m.Sysctl {
		what := "write sysctl key " + kv.Key
		f.Add(what, sysprog.Step{Kind: sysprog.Open, To: f.file, Regs: [5]sysprog.Reg{f.tree}, Args: [5]uintptr{0, f.Str("sys/" + kv.Key), how}})
		f.On(what, f.file, unix.SYS_WRITE, f.Str(kv.Value), uintptr(len(kv.Value)))
		f.CloseFD(f.file)
	}
	f.CloseFD(f.tree)
}

// become is the rest; see package become.
func (f *plan) become() error {
	m, p := f.m, &f.m.Process
	f.Session()
	if p.Terminal {
		f.Terminal(f.root, f.bindConsole)
	} else if err := f.OwnStreams(); err != nil {
		return err
	}
	if !m.Extra.NoNewKeyring {
		f.Keyring(m.ID)
	}
	home := f.Home(f.root)
	f.Cwd()
	f.Identity()
	f.LookUp(home)
	f.Limits()
	if m.WaitGo {
		s := sysprog.Step{Kind: sysprog.Held, Args: [5]uintptr{f.Program.Out, sysprog.None}}
		if f.s.StartFD >= 0 {
			s.Args[1] = uintptr(f.s.StartFD)
		}
		f.Add("wait for the start", s)
	}
	if m.Reaper {
		// It closes it when it listens to signals and the program runs. A low number: see init's reaper.
		f.Call("keep the report socket", none(), unix.SYS_FCNTL, f.Program.Out, unix.F_DUPFD, 3)
	}
	f.Last()
	if !m.Reaper {
		f.Add("exec", sysprog.Step{Kind: sysprog.Exec})
		return nil
	}
	// Our own protected executable once more, with the program's credentials.
	const programArg = 2
	args := slices.Concat([]string{initmsg.ReaperArg0, "--", ""}, p.Args)
	f.Program.Argv = f.Block.Strs(args)
	f.Add("exec", sysprog.Step{Kind: sysprog.Reaper, Args: [5]uintptr{uintptr(f.s.Exe), programArg, f.Str("")}})
	return nil
}
