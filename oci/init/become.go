package ociinit

import (
	"errors"
	"strings"
	"syscall"
	"unsafe"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// become turns this process into the program: streams, session, limits,
// credentials, filter, execve. It returns only when that failed.
func become(c *conn, m *initmsg.Message, r root) error {
	p := &m.Process
	if err := streams(c, m, r); err != nil {
		return err
	}
	if err := keyring(m); err != nil {
		return err
	}
	env := environment(r, p)
	chdirLater, err := enterCwd(p.Cwd)
	if err != nil {
		return err
	}
	held, err := rights(p)
	if err != nil {
		return err
	}
	if chdirLater {
		if later, err := enterCwd(p.Cwd); err != nil || later {
			return initmsg.CwdError(p.Cwd, unix.EACCES)
		}
	}
	exe, err := lookPath(p.Args[0], env)
	if err != nil {
		return err
	}
	if p.HasUmask {
		unix.Umask(int(p.Umask))
	} else {
		unix.Umask(0o022)
	}
	x, err := newExecve(m, exe, env)
	if err != nil {
		return err
	}
	if err := inherited(c, m, held); err != nil {
		return err
	}
	if m.WaitGo {
		if err := c.awaitGo(int(m.Extra.StartFD)); err != nil {
			return err
		}
	}
	// In its cgroup now, which may have another set of CPUs.
	if err := setCPUs(p.Tuning.CPUsFinal); err != nil {
		return err
	}
	return last(c, m, x)
}

// keyring makes a session keyring of its own: the container must not see the host's keys.
func keyring(m *initmsg.Message) error {
	if m.Extra.NoNewKeyring {
		return nil
	}
	_, err := unix.KeyctlJoinSessionKeyring("_ses." + m.ID)
	if err == nil || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) || errors.Is(err, unix.EDQUOT) {
		return nil
	}
	return fail("join session keyring", err)
}

// rights gives this process labels and identity of the program. It returns the capabilities
// that are left; the program's are among them.
func rights(p *initmsg.Process) (held uint64, err error) {
	if err := labels(p); err != nil {
		return 0, err
	}
	if p.NoNewPrivs {
		if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
			return 0, fail("set no_new_privs", err)
		}
	}
	if held, err = identity(p); err != nil {
		return 0, err
	}
	p.Caps.Permitted &= held
	p.Caps.Effective &= held
	p.Caps.Ambient &= held
	return held, nil
}

// inherited sets what the program inherits. It comes late: under a small address space this
// process could not even allocate. Raising a limit takes a capability of those held.
func inherited(c *conn, m *initmsg.Message, held uint64) error {
	p := &m.Process
	if err := newCapset(&initmsg.Caps{Effective: held, Permitted: held}).set(); err != nil {
		return err
	}
	if err := tune(&p.Tuning); err != nil {
		return err
	}
	limits(c, p)
	if err := preserve(c, &m.Extra); err != nil {
		return err
	}
	if !m.Reaper {
		return nil
	}
	// The reaper closes it when it listens to signals and the program runs.
	if _, err := unix.FcntlInt(uintptr(c.fd), unix.F_SETFD, 0); err != nil {
		return fail("keep the runtime's socket", err)
	}
	return nil
}

// last is what happens with the fewest rights: the filter, the final
// capabilities, execve. The filter goes first because without no_new_privs it
// needs CAP_SYS_ADMIN; after it only capset, prctl and execve are called.
func last(c *conn, m *initmsg.Message, x *execve) error {
	p := &m.Process
	// We may have begun with all signals blocked (package entry); the program must
	// not.
	var none unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil); err != nil {
		return fail("unblock signals", err)
	}
	caps := newCapset(&p.Caps)
	if err := c.frame(initmsg.FrameExec, nil, -1); err != nil {
		return err
	}
	if len(p.Seccomp) != 0 {
		if err := filter(c, p); err != nil {
			return err
		}
	}
	// Hooks of the container's own programs, under its filter.
	if err := runHooks("startContainer", m.Extra.StartContainer, m.Extra.StateCreated); err != nil {
		return err
	}
	if err := caps.apply(); err != nil {
		return err
	}
	return x.run()
}

// streams makes a session, and the terminal its controlling one.
func streams(c *conn, m *initmsg.Message, r root) error {
	p := &m.Process
	if _, err := unix.Setsid(); err != nil && !errors.Is(err, unix.EPERM) {
		return fail("setsid", err)
	}
	if p.Terminal {
		master, slave, err := openTerminal(r, p)
		if err != nil {
			return err
		}
		if !m.Exec && m.SetupDev {
			if err := bindConsole(r, slave); err != nil {
				return err
			}
		}
		if err := c.frame(initmsg.FrameConsole, nil, master); err != nil {
			return fail("send terminal", err)
		}
		unix.Close(master)
		if err := unix.IoctlSetInt(slave, unix.TIOCSCTTY, 0); err != nil {
			return fail("set controlling terminal", err)
		}
		for fd := range 3 {
			if err := unix.Dup3(slave, fd, 0); err != nil {
				return fail("dup3", err)
			}
		}
		unix.Close(slave)
	}
	return ownStreams(p)
}

// ownStreams gives the standard streams to the program's user, so that it can
// open /dev/stdout and the like again.
func ownStreams(p *initmsg.Process) error {
	for fd := range 3 {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			if errors.Is(err, unix.EBADF) {
				continue
			}
			return fail("fstat", err)
		}
		if st.Uid == p.UID || (st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == unix.Mkdev(1, 3)) {
			continue
		}
		if err := unix.Fchown(fd, int(p.UID), -1); err != nil {
			switch {
			case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EPERM), errors.Is(err, unix.EROFS):
			default:
				return fail("fchown", err)
			}
		}
	}
	return nil
}

// enterCwd makes cwd the working directory, found without procfs's magic links
// and below the root. later: only the program's user may be able to enter it.
func enterCwd(cwd string) (later bool, err error) {
	r := root{unix.AT_FDCWD}
	fd, err := r.open(cwd, unix.O_PATH|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
		return true, nil
	}
	if err != nil {
		return false, initmsg.CwdError(cwd, err)
	}
	defer unix.Close(fd)
	if err := unix.Fchdir(fd); err != nil {
		if errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) {
			return true, nil
		}
		return false, initmsg.CwdError(cwd, err)
	}
	// The kernel itself says whether this is below the root.
	var b [unix.PathMax]byte
	n, err := unix.Getcwd(b[:])
	if err != nil {
		return false, initmsg.CwdError(cwd, err)
	}
	if n < 1 || b[0] != '/' {
		return false, initmsg.ErrBreakout
	}
	return false, nil
}

// labels prepares the labels that execve takes on, through a private procfs.
func labels(p *initmsg.Process) error {
	if p.AppArmor == "" && p.SELinux == "" {
		return nil
	}
	fs, err := openProc()
	if err != nil {
		return err
	}
	defer fs.close()
	if p.AppArmor != "" {
		if err := fs.write("thread-self/attr/apparmor/exec", "exec "+p.AppArmor); err != nil {
			return errclass.Invalid("unable to apply apparmor profile: %w", err)
		}
	}
	if p.SELinux != "" {
		if err := fs.write("thread-self/attr/exec", p.SELinux); err != nil {
			return errclass.Invalid("unable to apply selinux label: %w", err)
		}
	}
	return nil
}

// limits sets rlimits. One that may not be raised is reported and stays.
func limits(c *conn, p *initmsg.Process) {
	// The Go runtime has raised the soft limit of open files for itself and lowers it
	// again before execve, but only in its own Exec: make it do so by one that
	// cannot succeed.
	_ = syscall.Exec("", []string{""}, nil)
	for _, l := range p.Rlimits {
		rl := syscall.Rlimit{Cur: l.Soft, Max: l.Max}
		var err error
		if l.Type == unix.RLIMIT_NOFILE {
			err = syscall.Setrlimit(unix.RLIMIT_NOFILE, &rl)
		} else {
			_, _, e := unix.RawSyscall6(unix.SYS_PRLIMIT64, 0, uintptr(l.Type), uintptr(unsafe.Pointer(&rl)), 0, 0, 0)
			if e != 0 {
				err = e
			}
		}
		if err != nil {
			c.warn("error setting rlimit type %s: %v", l.Name, err)
		}
	}
}

// identity takes on the ids. It keeps the permitted capabilities, which it
// returns and which last gives up; in effect are only the program's own and the
// one for the filter, so that its program is looked for with its own rights.
func identity(p *initmsg.Process) (held uint64, err error) {
	for capability := uint(0); capability < 64; capability++ {
		if p.Caps.Bounding&(1<<capability) != 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(capability), 0, 0, 0); err != nil {
			if errors.Is(err, unix.EINVAL) {
				break // beyond the last one of this kernel
			}
			return 0, fail("drop bounding capability", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_KEEPCAPS, 1, 0, 0, 0); err != nil {
		return 0, fail("keep capabilities", err)
	}
	// Always, also with none: the groups of the runtime are not the program's.
	groups := append(make([]uint32, 0, len(p.Groups)+1), p.Groups...)
	if err := rawSetgroups(groups); err != nil && !p.NoGroups {
		return 0, fail("setgroups", err)
	}
	// Raw calls: credentials of this thread only, which is the one that execs.
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESGID, uintptr(p.GID), uintptr(p.GID), uintptr(p.GID)); e != 0 {
		return 0, fail("setgid", e)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(p.UID), uintptr(p.UID), uintptr(p.UID)); e != 0 {
		return 0, fail("setuid", e)
	}
	if held, err = permitted(); err != nil {
		return 0, err
	}
	if p.UID == 0 {
		return held, nil
	}
	cs := newCapset(&initmsg.Caps{Effective: (p.Caps.Effective | 1<<unix.CAP_SYS_ADMIN) & held, Permitted: held})
	return held, cs.set()
}

// permitted reads this thread's permitted capabilities.
func permitted() (uint64, error) {
	h := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var d [2]unix.CapUserData
	if err := unix.Capget(&h, &d[0]); err != nil {
		return 0, fail("read capabilities", err)
	}
	return uint64(d[0].Permitted) | uint64(d[1].Permitted)<<32, nil
}

func rawSetgroups(g []uint32) error {
	var p unsafe.Pointer
	if len(g) > 0 {
		p = unsafe.Pointer(&g[0])
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SETGROUPS, uintptr(len(g)), uintptr(p), 0); e != 0 {
		return e
	}
	return nil
}

// capset holds what capset(2) wants, so that applying it allocates nothing.
type capset struct {
	hdr     unix.CapUserHeader
	data    [2]unix.CapUserData
	ambient uint64
}

func newCapset(c *initmsg.Caps) *capset {
	s := &capset{hdr: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}}
	// The inheritable set is empty always, but for capabilities asked for as
	// ambient: the kernel wants those in both.
	s.ambient = c.Ambient & c.Permitted
	for i := range 2 {
		shift := 32 * i
		s.data[i] = unix.CapUserData{
			Effective:   uint32(c.Effective >> shift),
			Permitted:   uint32(c.Permitted >> shift),
			Inheritable: uint32(s.ambient >> shift),
		}
	}
	return s
}

func (s *capset) set() error {
	if _, _, e := unix.RawSyscall(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&s.hdr)), uintptr(unsafe.Pointer(&s.data[0])), 0); e != 0 {
		return fail("set capabilities", e)
	}
	return nil
}

func (s *capset) apply() error {
	if err := s.set(); err != nil {
		return err
	}
	if s.ambient == 0 {
		return nil
	}
	for capability := range uintptr(64) {
		if s.ambient&(1<<capability) == 0 {
			continue
		}
		if _, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, capability, 0, 0, 0); e != 0 {
			return fail("raise ambient capability", e)
		}
	}
	return nil
}

// filter loads the program's filter, and hands its listener on when it has one.
func filter(c *conn, p *initmsg.Process) error {
	if p.SeccompFlags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
		return c.notifiedFilter(p)
	}
	_, err := loadFilter(p.Seccomp, p.SeccompFlags)
	return err
}

func loadFilter(prog []byte, flags uint64) (fd uintptr, err error) {
	fprog := unix.SockFprog{Len: uint16(len(prog) / 8), Filter: (*unix.SockFilter)(unsafe.Pointer(&prog[0]))}
	fd, _, e := unix.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, uintptr(flags), uintptr(unsafe.Pointer(&fprog)))
	if e != 0 {
		return 0, fail("load seccomp filter", e)
	}
	return fd, nil
}

// execve is one prepared call of execveat(2).
type execve struct {
	dir  int
	path *byte
	argv []*byte
	envv []*byte
	flag uintptr
	name string
}

func newExecve(m *initmsg.Message, exe string, env []string) (*execve, error) {
	x := &execve{dir: unix.AT_FDCWD, name: exe}
	args := m.Process.Args
	if m.Reaper {
		// Our own sealed copy once more, with the program's credentials.
		x.dir, x.flag, exe = initmsg.FDSelf, unix.AT_EMPTY_PATH, ""
		args = append([]string{initmsg.ReaperArg0, "--", x.name}, args...)
	}
	var err error
	if x.path, err = unix.BytePtrFromString(exe); err == nil {
		if x.argv, err = syscall.SlicePtrFromStrings(args); err == nil {
			x.envv, err = syscall.SlicePtrFromStrings(env)
		}
	}
	if err != nil {
		return nil, errclass.Invalid("exec %s: %w", exe, err)
	}
	return x, nil
}

func (x *execve) run() error {
	if x.flag == 0 {
		// Profiles that people write by hand allow execve, not always execveat.
		_, _, e := unix.RawSyscall(unix.SYS_EXECVE, uintptr(unsafe.Pointer(x.path)),
			uintptr(unsafe.Pointer(&x.argv[0])), uintptr(unsafe.Pointer(&x.envv[0])))
		return initmsg.ExecError(x.name, e)
	}
	_, _, e := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(x.dir), uintptr(unsafe.Pointer(x.path)),
		uintptr(unsafe.Pointer(&x.argv[0])), uintptr(unsafe.Pointer(&x.envv[0])), x.flag, 0)
	return initmsg.ExecError(x.name, e)
}

// lookPath finds the program as the container's PATH says, with the program's
// credentials.
func lookPath(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if err := executable(name); err != nil {
			return "", initmsg.LookError(name, err)
		}
		return name, nil
	}
	denied := false
	for _, full := range initmsg.Candidates(name, initmsg.Getenv(env, "PATH")) {
		err := executable(full)
		if err == nil {
			return full, nil
		}
		denied = denied || errors.Is(err, unix.EACCES)
	}
	if denied {
		return "", initmsg.DeniedError(name)
	}
	return "", initmsg.MissingError(name)
}

func executable(p string) error {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	if st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	err := unix.Faccessat2(unix.AT_FDCWD, p, unix.X_OK, unix.AT_EACCESS)
	if errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EPERM) {
		return nil
	}
	return err
}
