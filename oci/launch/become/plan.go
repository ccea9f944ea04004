// Package become generates the last part of a program of system calls (package sysprog), by
// which the process becomes a container's program: streams, identity, limits, filter, execve.
// The order and the messages are those of init (oci/init/become.go). Starts and execs share it.
package become

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/caps"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// Plan is a program with what the parent needs to prepare and to judge it. It is for
// one goroutine.
type Plan struct {
	Program sysprog.Program
	Block   *sysprog.Block
	proc    *initmsg.Process
	oom     *int
	what    []string // per step, for errors
	own     []int    // descriptors to close
	names   []string // of Program.Files
	fds     [3]int   // the streams'
	files   *syscall.Rlimit
	regs    sysprog.Reg
	bad     bool // see Load
}

// Errnos are those of a step that are none of its errors.
type Errnos = [3]syscall.Errno

// New begins the plan for a process in the container id, whose reports go to the
// descriptor out. more is room in the block, in bytes, beyond what this package puts
// there. The caller closes it.
func New(id string, p *initmsg.Process, oom *int, out int, more uintptr) (*Plan, error) {
	files := sysprog.OpenFiles()
	if files == nil {
		return nil, errclass.Internal("the limit of open files is not known")
	}
	f := &Plan{proc: p, oom: oom, files: files}
	f.Program.Steps, f.what = make([]sysprog.Step, 0, 384), make([]string, 0, 384)
	f.Program.Out = uintptr(out)
	var err error
	f.Block, err = sysprog.New(blockSize(id, p) + more)
	return f, err
}

// Close lets go of what the plan holds in this process; a process that was started goes on.
func (f *Plan) Close() {
	for _, fd := range f.own {
		unix.Close(fd)
	}
	f.own = nil
	f.Block.Free()
}

// Add adds a step; what says what it does.
func (f *Plan) Add(what string, s sysprog.Step) {
	f.what = append(f.what, what)
	f.Program.Steps = append(f.Program.Steps, s)
}

// Call adds a system call.
func (f *Plan) Call(what string, ignore Errnos, nr uintptr, args ...uintptr) {
	s := sysprog.Step{Kind: sysprog.Call, Nr: nr, Ignore: ignore}
	copy(s.Args[:], args)
	f.Add(what, s)
}

// Inexpressible records that the program cannot be expressed. Load fails then, and the
// caller falls back to init.
func (f *Plan) Inexpressible() { f.bad = true }

// Load puts the finished program into the block. Class NotImplemented when the program
// cannot be expressed: a string has a zero byte, it needs more registers than there are,
// or a step has no system call.
func (f *Plan) Load() error {
	if f.bad {
		return errclass.NotImplemented("a program of system calls cannot express this")
	}
	return f.Block.Load(&f.Program)
}

// Reg is a register that nobody else uses.
func (f *Plan) Reg() sysprog.Reg {
	if f.regs == sysprog.LastReg {
		f.bad = true
		return f.regs
	}
	f.regs++
	return f.regs
}

// blockSize is room for all that is put into the block here, generously.
func blockSize(id string, p *initmsg.Process) uintptr {
	n := 96<<10 + len(p.Cwd) + len(id) + len(p.Seccomp) + 4*len(p.Groups) + 128*len(p.Rlimits)
	for _, s := range p.Args {
		n += len(s) + 24
	}
	for _, s := range p.Env {
		n += len(s) + 24
		if strings.HasPrefix(s, "PATH=") {
			n += (strings.Count(s, ":") + 1) * (len(p.Args[0]) + 32)
			n += len(s)
		}
	}
	return uintptr(n)
}

// Streams opens the standard streams, nil for /dev/null; the files stay the caller's.
func (f *Plan) Streams(files [3]*os.File) (err error) {
	for i, file := range files {
		if f.fds[i], err = f.stream(file); err != nil {
			return fmt.Errorf("standard streams: %w", err)
		}
	}
	return nil
}

// stream is the descriptor behind a standard stream. It is not one of the three
// themselves, which the child writes over.
func (f *Plan) stream(file *os.File) (int, error) {
	if file == nil {
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, err
		}
		f.own = append(f.own, fd)
		return f.above(fd)
	}
	rc, err := file.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if err := rc.Control(func(u uintptr) { fd = int(u) }); err != nil {
		return -1, err
	}
	return f.above(fd) // file is kept alive by the caller
}

func (f *Plan) above(fd int) (int, error) {
	if fd > 2 {
		return fd, nil
	}
	to, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		f.own = append(f.own, to)
	}
	return to, err
}

// Hide is the first step of every program: nobody may look into the process, it closes all
// descriptors but those needed, sets the standard streams and leaves nothing else
// open over execve.
func (f *Plan) Hide(needed ...int) {
	f.Call("prctl", Errnos{}, syscall.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	needed = append(slices.Concat(needed, f.own), f.fds[0], f.fds[1], f.fds[2], int(f.Program.Out))
	for r := range sysprog.Others(needed) {
		f.Call("close_range", Errnos{}, unix.SYS_CLOSE_RANGE, r[0], r[1], 0)
	}
	for i, fd := range f.fds {
		f.Call("dup3", Errnos{}, syscall.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
	f.Call("close_range", Errnos{}, unix.SYS_CLOSE_RANGE, 3, maxFD, unix.CLOSE_RANGE_CLOEXEC)
}

const maxFD = 1<<32 - 1

// OOMScore sets the score, 0 when none was asked for.
func (f *Plan) OOMScore() {
	score := 0
	if f.oom != nil {
		score = *f.oom
	}
	text := strconv.Itoa(score)
	f.Program.OOMPath, f.Program.OOMText, f.Program.OOMLen = f.Str("/proc/self/oom_score_adj"), f.Str(text), uintptr(len(text))
	f.Add("", sysprog.Step{Kind: sysprog.OOM, Soft: true})
}

// Session makes a session of its own.
func (f *Plan) Session() {
	f.Call("setsid", Errnos{unix.EPERM}, syscall.SYS_SETSID)
}

// OwnStreams gives the streams to the program's user; see init's.
func (f *Plan) OwnStreams() error {
	for i, fd := range f.fds {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("fstat: %w", err)
		}
		if st.Uid == f.proc.UID || (st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)) {
			continue
		}
		f.ownStream(i)
	}
	return nil
}

func (f *Plan) ownStream(i int) {
	f.Call("fchown", Errnos{unix.EINVAL, unix.EPERM, unix.EROFS}, syscall.SYS_FCHOWN, uintptr(i), uintptr(f.proc.UID), ^uintptr(0))
}

// Keyring joins a session keyring of its own: the container must not see the host's keys.
func (f *Plan) Keyring(id string) {
	f.Call("join session keyring", Errnos{unix.ENOSYS, unix.EPERM, unix.EDQUOT},
		unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, f.Str("_ses."+id))
}

// Cwd enters the working directory.
func (f *Plan) Cwd() {
	f.Program.Cwd = f.Str(f.proc.Cwd)
	f.Program.How = unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	f.Add("cwd", sysprog.Step{Kind: sysprog.Cwd})
}

// Cgroups has the process put itself into cgroups, but for one that it is born in.
func (f *Plan) Cgroups(procs []cgroup.Procs) {
	zero := f.Str("0") // the process that writes
	for i := range procs {
		if !procs[i].Into {
			f.Call("join cgroup: write to "+procs[i].Path, Errnos{}, syscall.SYS_WRITE, uintptr(procs[i].FD), zero, 1)
		}
	}
}

// Identity takes on the ids; permitted capabilities stay until Last.
func (f *Plan) Identity() {
	p := f.proc
	if p.NoNewPrivs {
		f.Call("set no_new_privs", Errnos{}, syscall.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	}
	for c := range caps.Count() {
		if p.Caps.Bounding&(1<<c) == 0 {
			f.Call("drop bounding capability", Errnos{}, syscall.SYS_PRCTL, unix.PR_CAPBSET_DROP, c)
		}
	}
	f.Call("keep capabilities", Errnos{}, syscall.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	// Always, also with none: the groups of the runtime are not the program's.
	var groups uintptr
	if len(p.Groups) > 0 {
		groups = sysprog.Put(f.Block, p.Groups...)
	}
	f.Call("setgroups", Errnos{}, syscall.SYS_SETGROUPS, uintptr(len(p.Groups)), groups)
	uid, gid := uintptr(p.UID), uintptr(p.GID)
	f.Call("setgid", Errnos{}, syscall.SYS_SETRESGID, gid, gid, gid)
	f.Call("setuid", Errnos{}, syscall.SYS_SETRESUID, uid, uid, uid)
	// A change of ids sets it to fs.suid_dumpable, which may be 2.
	f.Call("prctl", Errnos{}, syscall.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	held := caps.Held()
	if p.UID != 0 {
		f.capset(initmsg.Caps{Effective: (p.Caps.Effective | 1<<unix.CAP_SYS_ADMIN) & held, Permitted: held})
	}
	f.Add("cwd", sysprog.Step{Kind: sysprog.CwdUser})
}

// capset mirrors init's: the inheritable set is empty but for ambient capabilities.
func (f *Plan) capset(c initmsg.Caps) (ambient uint64) {
	const what = "set capabilities"
	ambient = c.Ambient & c.Permitted
	var data [2]unix.CapUserData
	for i := range 2 {
		s := 32 * i
		data[i] = unix.CapUserData{Effective: uint32(c.Effective >> s), Permitted: uint32(c.Permitted >> s), Inheritable: uint32(ambient >> s)}
	}
	f.Add(what, sysprog.Step{
		Nr: syscall.SYS_CAPSET, What: f.Str(what),
		Args: [5]uintptr{sysprog.Put(f.Block, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}), sysprog.Put(f.Block, data)},
	})
	return ambient
}

// LookUp finds the program. home is the variable HOME where the environment has none: a
// string of the block; 0: it has one.
func (f *Plan) LookUp(home uintptr) {
	p := f.proc
	env := initmsg.Environment(p.Env, func() string { return "" })
	f.names = []string{p.Args[0]}
	if f.Program.Look = !strings.Contains(p.Args[0], "/"); f.Program.Look {
		f.names = initmsg.Candidates(p.Args[0], initmsg.Getenv(env, "PATH"))
	}
	for _, n := range f.names {
		f.Program.Files = append(f.Program.Files, f.Str(n))
	}
	f.Program.Argv, f.Program.Envv = f.Block.Strs(p.Args), f.Block.Strs(env)
	if i := slices.Index(env, "HOME="); i >= 0 && home != 0 {
		f.Block.Strings(f.Program.Envv, len(env))[i] = home
	}
	f.Add("look", sysprog.Step{Kind: sysprog.Look})
	umask := uintptr(0o022)
	if p.HasUmask {
		umask = uintptr(p.Umask)
	}
	f.Call("umask", Errnos{}, syscall.SYS_UMASK, umask)
}

// Limits sets the rlimits. One that may not be set is reported and left as it is.
func (f *Plan) Limits() {
	held := caps.Held() // raising one takes a capability
	f.capset(initmsg.Caps{Effective: held, Permitted: held})
	set := func(what string, typ uint32, soft, hard uint64) {
		f.Add(what, sysprog.Step{Kind: sysprog.Call, Soft: true, Nr: unix.SYS_PRLIMIT64, Args: [5]uintptr{0, uintptr(typ), sysprog.Put(f.Block, syscall.Rlimit{Cur: soft, Max: hard}), 0}})
	}
	set("RLIMIT_NOFILE", unix.RLIMIT_NOFILE, f.files.Cur, f.files.Max)
	for _, l := range f.proc.Rlimits {
		set(l.Name, l.Type, l.Soft, l.Max)
	}
}

// Last is what happens with the fewest rights; see init's. The last step, which
// executes what LookUp has found, is the caller's.
func (f *Plan) Last() {
	p := f.proc
	// Those of the thread that forked may be blocked.
	f.Call("unblock signals", Errnos{}, unix.SYS_RT_SIGPROCMASK, sigSetmask, sysprog.Put(f.Block, uint64(0)), 0, 8)
	f.Add("ready", sysprog.Step{Kind: sysprog.Ready})
	if len(p.Seccomp) != 0 {
		const what = "load seccomp filter"
		filter := sysprog.Place(f.Block, p.Seccomp)
		prog := unix.SockFprog{Len: uint16(len(p.Seccomp) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
		f.Add(what, sysprog.Step{
			Nr: unix.SYS_SECCOMP, What: f.Str(what),
			Args: [5]uintptr{unix.SECCOMP_SET_MODE_FILTER, uintptr(p.SeccompFlags), sysprog.Put(f.Block, prog)},
		})
	}
	ambient := f.capset(p.Caps)
	for c := range uintptr(64) {
		if ambient&(1<<c) != 0 {
			f.Call("raise ambient capability", Errnos{}, syscall.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0)
		}
	}
}

const sigSetmask = 2 // SIG_SETMASK
