package forkstart

import (
	"os"
	"slices"
	"strings"

	"github.com/gantry/gantry/oci/become"
	"github.com/gantry/gantry/oci/fork"
	"github.com/gantry/gantry/oci/initmsg"
	"golang.org/x/sys/unix"
)

// plan makes a program of what init would do: each part is a function of that name
// in package ociinit, in its order.
type plan struct {
	*become.Plan
	s   *Start
	m   *initmsg.Message
	bad bool // a string has a zero byte
	// root is the register of the container's root, dev that of its /dev, tree and target
	// are for whatever is mounted at the moment.
	root, dev, tree, target, file fork.Reg
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
		err = f.Block.Load(&f.Program)
	}
	if err == nil && f.bad {
		err = errNoFit
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

// str puts a string for the kernel into the block.
func (f *plan) str(s string) uintptr {
	f.bad = f.bad || strings.IndexByte(s, 0) >= 0
	return f.Block.Str(s)
}

// on adds a system call on a register, its first argument.
func (f *plan) on(what string, r fork.Reg, nr uintptr, args ...uintptr) {
	f.from(what, r, 0, nr, args...)
}

// from is on with a result.
func (f *plan) from(what string, r, to fork.Reg, nr uintptr, args ...uintptr) {
	s := fork.Step{Nr: nr, To: to}
	s.Regs[0] = r
	copy(s.Args[1:], args)
	f.Add(what, s)
}

func (f *plan) close(r fork.Reg) { f.on("close", r, unix.SYS_CLOSE) }

// open opens p below the container's root.
func (f *plan) open(p string, flags, resolve uint64) fork.Step {
	return fork.Step{Kind: fork.Open, Regs: [5]fork.Reg{f.root}, Args: [5]uintptr{0, f.str(p), f.how(flags, resolve)}}
}

func (f *plan) how(flags, resolve uint64) uintptr {
	return fork.Put(f.Block, inRoot(flags, resolve))
}

func inRoot(flags, resolve uint64) unix.OpenHow {
	return unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve}
}

// makePath opens what p names below the root as f.target, made where it is missing: a
// directory, or what suits the source in a register.
func (f *plan) makePath(what, p string, resolve uint64, source fork.Reg) {
	t := fork.Target{Dir: inRoot(unix.O_PATH|unix.O_DIRECTORY, resolve), Any: inRoot(unix.O_PATH, resolve)}
	var ways []fork.Way
	for at := p; ; {
		i := strings.LastIndexByte(at, '/')
		if at == "/" || i < 0 {
			ways = append(ways, fork.Way{Full: f.str("/"), Base: f.str("/")})
			break
		}
		ways = append(ways, fork.Way{Full: f.str(at), Base: f.str(at[i+1:])})
		at = at[:max(i, 1)]
	}
	t.Ways = fork.Place(f.Block, ways)
	s := fork.Step{Kind: fork.Mkpath, To: f.target, Regs: [5]fork.Reg{f.root}, Args: [5]uintptr{0, fork.Put(f.Block, t), fork.None}}
	s.Regs[2] = source
	f.Add(what, s)
}

// attr changes attributes of the mount that a register holds.
func (f *plan) attr(what string, r fork.Reg, flags uintptr, a unix.MountAttr) {
	if a == (unix.MountAttr{}) {
		return
	}
	f.on(what, r, unix.SYS_MOUNT_SETATTR, f.str(""), empty|flags, fork.Put(f.Block, a), attrSize)
}

// attrSize is the size of unix.MountAttr, the first version.
const attrSize = 32

// cloneTree makes a detached copy of the mount that a register holds.
func (f *plan) cloneTree(what string, r, to fork.Reg, flags uintptr) {
	f.from(what, r, to, unix.SYS_OPEN_TREE, f.str(""), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|empty|flags)
}

// attach mounts the detached tree of one register on the target of another; both are
// closed.
func (f *plan) attach(what string, tree, target fork.Reg) {
	s := fork.Step{Nr: unix.SYS_MOVE_MOUNT, Args: [5]uintptr{0, f.str(""), 0, f.str(""), unix.MOVE_MOUNT_F_EMPTY_PATH | unix.MOVE_MOUNT_T_EMPTY_PATH}}
	s.Regs[0], s.Regs[2] = tree, target
	f.Add(what, s)
	f.close(tree)
	f.close(target)
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
		f.Add("bring lo up", fork.Step{Nr: unix.SYS_SOCKET, To: f.file, Args: [5]uintptr{unix.AF_INET, unix.SOCK_DGRAM | unix.SOCK_CLOEXEC}})
		f.on("bring lo up", f.file, unix.SYS_IOCTL, unix.SIOCSIFFLAGS, fork.Put(f.Block, lo))
		f.close(f.file)
	}
}

func (f *plan) settings() {
	if h := f.m.Hostname; h != "" {
		f.Call("sethostname", none(), unix.SYS_SETHOSTNAME, f.str(h), uintptr(len(h)))
	}
	if d := f.m.Domainname; d != "" {
		f.Call("setdomainname", none(), unix.SYS_SETDOMAINNAME, f.str(d), uintptr(len(d)))
	}
	if len(f.m.Sysctl) == 0 {
		return
	}
	proc := fork.FS{Type: f.str("proc"), Attrs: unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID}
	f.Add("mount private procfs", fork.Step{Kind: fork.NewFS, To: f.tree, Args: [5]uintptr{fork.Put(f.Block, proc)}})
	how := fork.Put(f.Block, unix.OpenHow{Flags: unix.O_WRONLY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_XDEV})
	for _, kv := range f.m.Sysctl {
		what := "write sysctl key " + kv.Key
		f.Add(what, fork.Step{Kind: fork.Open, To: f.file, Regs: [5]fork.Reg{f.tree}, Args: [5]uintptr{0, f.str("sys/" + kv.Key), how}})
		f.on(what, f.file, unix.SYS_WRITE, f.str(kv.Value), uintptr(len(kv.Value)))
		f.close(f.file)
	}
	f.close(f.tree)
}

// become is the rest; see package become.
func (f *plan) become() error {
	m, p := f.m, &f.m.Process
	f.Session()
	if p.Terminal {
		f.terminal()
	} else if err := f.OwnStreams(); err != nil {
		return err
	}
	if !m.Extra.NoNewKeyring {
		f.Keyring(m.ID)
	}
	home := f.home()
	f.Cwd()
	f.Identity()
	f.LookUp(home)
	f.Limits()
	if m.WaitGo {
		s := fork.Step{Kind: fork.Held, Args: [5]uintptr{f.Program.Out, fork.None}}
		if f.s.StartFD >= 0 {
			s.Args[1] = uintptr(f.s.StartFD)
		}
		f.Add("wait for the start", s)
	}
	f.Last()
	if !m.Reaper {
		f.Add("exec", fork.Step{Kind: fork.Exec})
		return nil
	}
	// Our own sealed copy once more, with the program's credentials.
	const programArg = 2
	args := slices.Concat([]string{initmsg.ReaperArg0, "--", ""}, p.Args)
	f.Program.Argv = f.Block.Strs(args)
	f.Add("exec", fork.Step{Kind: fork.Reaper, Args: [5]uintptr{uintptr(f.s.Exe), programArg, f.str("")}})
	return nil
}

// home looks up what HOME is when nobody says; 0: somebody does.
func (f *plan) home() uintptr {
	p := &f.m.Process
	missing := false
	initmsg.Environment(p.Env, func() string { missing = true; return "" })
	if !missing {
		return 0
	}
	var t fork.HomeText
	copy(t[:], "HOME=/")
	if p.UID == 0 {
		copy(t[:], "HOME=/root")
	}
	at := fork.Put(f.Block, t)
	f.Add("HOME", fork.Step{
		Kind: fork.Home, Regs: [5]fork.Reg{f.root},
		Args: [5]uintptr{0, f.str("/etc/passwd"), f.how(unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0), uintptr(p.UID), at},
	})
	return at
}
