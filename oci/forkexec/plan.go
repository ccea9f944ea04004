package forkexec

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/caps"
	"github.com/gantry/gantry/oci/fork"
	"github.com/gantry/gantry/oci/initmsg"
	"golang.org/x/sys/unix"
)

// joined are the namespaces that a forked process enters.
const joined = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP | unix.CLONE_NEWPID

// plan is a program with what the parent needs to prepare and to judge it.
type plan struct {
	program fork.Program
	block   *fork.Block
	what    []string // per step, for errors
	own     []int    // descriptors to close
	proc    *initmsg.Process
	names   []string // of program.files
	oom     *int
}

func (f *plan) close() {
	for _, fd := range f.own {
		unix.Close(fd)
	}
	f.own = nil
	f.block.Free()
}

func (f *plan) add(what string, s fork.Step) {
	f.what = append(f.what, what)
	f.program.Steps = append(f.program.Steps, s)
}

func (f *plan) call(what string, ignore errnos, nr uintptr, args ...uintptr) {
	s := fork.Step{Kind: fork.Call, Nr: nr, Ignore: ignore}
	copy(s.Args[:], args)
	f.add(what, s)
}

// errnos are those of a step that are none of its errors.
type errnos = [3]syscall.Errno

// plan prepares an exec. The steps and their order are init's (oci/init, become),
// so that a process shows no difference. reports is the pipe's end for the child.
func (e *Exec) plan(reports int) (f *plan, err error) {
	p := e.Process
	files := fork.OpenFiles()
	if files == nil {
		return nil, errclass.Internal("the limit of open files is not known")
	}
	f = &plan{proc: p, oom: e.OOMScore}
	f.program.Steps, f.what = make([]fork.Step, 0, 128), make([]string, 0, 128)
	if f.block, err = fork.New(blockSize(e.ID, p)); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	var fds [3]int
	for i, file := range e.Streams {
		if fds[i], err = f.stream(file); err != nil {
			return nil, fmt.Errorf("standard streams: %w", err)
		}
	}
	needed := append(slices.Clone(f.own), fds[0], fds[1], fds[2], reports, e.Init)
	for i := range e.Procs {
		needed = append(needed, e.Procs[i].FD)
	}
	f.program.Out = uintptr(reports)

	// In the host's pid namespace still, seen by nobody in the container.
	f.call("prctl", errnos{}, syscall.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	f.descriptors(fds, needed)
	f.oomScore()
	f.call("join namespaces", errnos{}, unix.SYS_SETNS, uintptr(e.Init), joined)
	again := fork.Step{Kind: fork.Again}
	for i := range e.Procs {
		if e.Procs[i].Into {
			again.Args[0] = fork.Birth(f.block, e.Procs[i].FD)
		}
	}
	f.add("fork", again)
	// In the container.
	f.call("setsid", errnos{unix.EPERM}, syscall.SYS_SETSID)
	if err := f.ownStreams(fds); err != nil {
		return nil, err
	}
	f.call("join session keyring", errnos{unix.ENOSYS, unix.EPERM, unix.EDQUOT},
		unix.SYS_KEYCTL, unix.KEYCTL_JOIN_SESSION_KEYRING, f.block.Str("_ses."+e.ID))
	f.program.Cwd = f.block.Str(p.Cwd)
	f.program.How = unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS}
	f.add("cwd", fork.Step{Kind: fork.Cwd})
	zero := f.block.Str("0") // the process that writes
	for i := range e.Procs {
		if e.Procs[i].Into {
			continue
		}
		f.call("join cgroup: write to "+e.Procs[i].Path, errnos{}, syscall.SYS_WRITE, uintptr(e.Procs[i].FD), zero, 1)
	}
	f.identity()
	f.add("cwd", fork.Step{Kind: fork.CwdUser})
	f.lookUp()
	f.limits(files)
	f.last()
	return f, f.block.Load(&f.program)
}

// blockSize is room for all that plan puts into the block, generously.
func blockSize(id string, p *initmsg.Process) uintptr {
	n := 64<<10 + len(p.Cwd) + len(id) + len(p.Seccomp) + 4*len(p.Groups) + 128*len(p.Rlimits)
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

// stream is the descriptor behind a standard stream. It is not one of the three
// themselves, which the child writes over.
func (f *plan) stream(file *os.File) (int, error) {
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

func (f *plan) above(fd int) (int, error) {
	if fd > 2 {
		return fd, nil
	}
	to, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err == nil {
		f.own = append(f.own, to)
	}
	return to, err
}

// descriptors closes everything but what the child needs, first of all, sets the
// standard streams and leaves nothing else open over execve.
func (f *plan) descriptors(streams [3]int, needed []int) {
	for r := range fork.Others(needed) {
		f.call("close_range", errnos{}, unix.SYS_CLOSE_RANGE, r[0], r[1], 0)
	}
	for i, fd := range streams {
		f.call("dup3", errnos{}, syscall.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
	f.call("close_range", errnos{}, unix.SYS_CLOSE_RANGE, 3, maxFD, unix.CLOSE_RANGE_CLOEXEC)
}

const maxFD = 1<<32 - 1

func (f *plan) oomScore() {
	score := 0
	if f.oom != nil {
		score = *f.oom
	}
	text := strconv.Itoa(score)
	f.program.OOMPath, f.program.OOMText, f.program.OOMLen = f.block.Str("/proc/self/oom_score_adj"), f.block.Str(text), uintptr(len(text))
	f.add("", fork.Step{Kind: fork.OOM, Soft: true})
}

// ownStreams gives the streams to the program's user; see init's.
func (f *plan) ownStreams(fds [3]int) error {
	for i, fd := range fds {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return fmt.Errorf("fstat: %w", err)
		}
		if st.Uid == f.proc.UID || (st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)) {
			continue
		}
		f.call("fchown", errnos{unix.EINVAL, unix.EPERM, unix.EROFS},
			syscall.SYS_FCHOWN, uintptr(i), uintptr(f.proc.UID), ^uintptr(0))
	}
	return nil
}

// identity takes on the ids; permitted capabilities stay until last.
func (f *plan) identity() {
	p := f.proc
	if p.NoNewPrivs {
		f.call("set no_new_privs", errnos{}, syscall.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1)
	}
	for c := range caps.Count() {
		if p.Caps.Bounding&(1<<c) == 0 {
			f.call("drop bounding capability", errnos{}, syscall.SYS_PRCTL, unix.PR_CAPBSET_DROP, c)
		}
	}
	f.call("keep capabilities", errnos{}, syscall.SYS_PRCTL, unix.PR_SET_KEEPCAPS, 1)
	// Always, also with none: the groups of the runtime are not the program's.
	var groups uintptr
	if len(p.Groups) > 0 {
		groups = fork.Put(f.block, p.Groups...)
	}
	f.call("setgroups", errnos{}, syscall.SYS_SETGROUPS, uintptr(len(p.Groups)), groups)
	uid, gid := uintptr(p.UID), uintptr(p.GID)
	f.call("setgid", errnos{}, syscall.SYS_SETRESGID, gid, gid, gid)
	f.call("setuid", errnos{}, syscall.SYS_SETRESUID, uid, uid, uid)
	// A change of ids sets it to fs.suid_dumpable, which may be 2.
	f.call("prctl", errnos{}, syscall.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	held := caps.Held()
	if p.UID != 0 {
		f.capset(initmsg.Caps{Effective: (p.Caps.Effective | 1<<unix.CAP_SYS_ADMIN) & held, Permitted: held})
	}
}

// capset mirrors init's: the inheritable set is empty but for ambient capabilities.
func (f *plan) capset(c initmsg.Caps) (ambient uint64) {
	ambient = c.Ambient & c.Permitted
	var data [2]unix.CapUserData
	for i := range 2 {
		s := 32 * i
		data[i] = unix.CapUserData{Effective: uint32(c.Effective >> s), Permitted: uint32(c.Permitted >> s), Inheritable: uint32(ambient >> s)}
	}
	f.call("set capabilities", errnos{}, syscall.SYS_CAPSET, fork.Put(f.block, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}), fork.Put(f.block, data))
	return ambient
}

func (f *plan) lookUp() {
	p := f.proc
	// HOME is there, or this path is not taken.
	env := initmsg.Environment(p.Env, func() string { return "" })
	f.names = []string{p.Args[0]}
	if f.program.Look = !strings.Contains(p.Args[0], "/"); f.program.Look {
		f.names = initmsg.Candidates(p.Args[0], initmsg.Getenv(env, "PATH"))
	}
	for _, n := range f.names {
		f.program.Files = append(f.program.Files, f.block.Str(n))
	}
	f.program.Argv, f.program.Envv = f.block.Strs(p.Args), f.block.Strs(env)
	f.add("look", fork.Step{Kind: fork.Look})
	umask := uintptr(0o022)
	if p.HasUmask {
		umask = uintptr(p.Umask)
	}
	f.call("umask", errnos{}, syscall.SYS_UMASK, umask)
}

func (f *plan) limits(files *syscall.Rlimit) {
	held := caps.Held() // raising one takes a capability
	f.capset(initmsg.Caps{Effective: held, Permitted: held})
	set := func(what string, typ uint32, soft, hard uint64) {
		f.add(what, fork.Step{Kind: fork.Call, Soft: true, Nr: unix.SYS_PRLIMIT64, Args: [5]uintptr{0, uintptr(typ), fork.Put(f.block, syscall.Rlimit{Cur: soft, Max: hard}), 0}})
	}
	set("RLIMIT_NOFILE", unix.RLIMIT_NOFILE, files.Cur, files.Max)
	for _, l := range f.proc.Rlimits {
		set(l.Name, l.Type, l.Soft, l.Max)
	}
}

// last is what happens with the fewest rights; see init's.
func (f *plan) last() {
	p := f.proc
	f.add("ready", fork.Step{Kind: fork.Ready})
	if len(p.Seccomp) != 0 {
		filter := fork.Place(f.block, p.Seccomp)
		prog := unix.SockFprog{Len: uint16(len(p.Seccomp) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&filter[0]))}
		f.call("load seccomp filter", errnos{}, unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(p.SeccompFlags), fork.Put(f.block, prog))
	}
	ambient := f.capset(p.Caps)
	for c := range uintptr(64) {
		if ambient&(1<<c) != 0 {
			f.call("raise ambient capability", errnos{}, syscall.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c, 0, 0)
		}
	}
	f.add("exec", fork.Step{Kind: fork.Exec})
}

// err words what a step reported, as init would.
func (f *plan) err(r *fork.Report) error {
	i := int(r.Step)
	if i >= len(f.program.Steps) || int(r.Extra) >= max(len(f.names), 1) {
		return initmsg.ErrEndedEarly
	}
	e := unix.Errno(r.Errno)
	switch f.program.Steps[i].Kind {
	case fork.Cwd, fork.CwdUser:
		if e == fork.ErrBreakout {
			return initmsg.ErrBreakout
		}
		return initmsg.CwdError(f.proc.Cwd, e)
	case fork.Look:
		name := f.proc.Args[0]
		switch {
		case !f.program.Look:
			return initmsg.LookError(name, e)
		case e == unix.EACCES:
			return initmsg.DeniedError(name)
		}
		return initmsg.MissingError(name)
	case fork.Exec:
		return initmsg.ExecError(f.names[r.Extra], e)
	}
	return fmt.Errorf("%s: %w", f.what[i], e)
}

// warning words what a step that may fail reported; "" for what nobody asked for.
func (f *plan) warning(r *fork.Report) string {
	i := int(r.Step)
	switch {
	case f.program.Steps[i].Kind != fork.OOM:
		return fmt.Sprintf("error setting rlimit type %s: %v", f.what[i], unix.Errno(r.Errno))
	case f.oom != nil:
		return fmt.Sprintf("oom_score_adj %d: %v", *f.oom, unix.Errno(r.Errno))
	}
	return ""
}

// soft tells whether the step that reported may fail.
func (f *plan) soft(r *fork.Report) bool {
	return int(r.Step) < len(f.program.Steps) && f.program.Steps[r.Step].Soft
}
