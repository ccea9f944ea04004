package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantry/gantry/test/poll"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// sandbox is one script's world.
type sandbox struct {
	root    string // data-root, exec-root, socket and logs are below it; short, for socket paths
	netns   uint64 // inode of the network namespace
	cgroup  string // parent of all its containers, below each hierarchy
	client  string
	daemon  *process
	helpers map[string]*process // registries, proxies, peers by name
	base    *baseline

	mu    sync.Mutex
	stop  chan struct{}
	timed bool
}

type sandboxKey struct{}

func of(ts *testscript.TestScript) *sandbox { return ts.Value(sandboxKey{}).(*sandbox) }

// setup runs in the script's goroutine. It moves that goroutine's thread into a new
// network namespace for good: every process the script starts is born in it, and
// the thread ends with the script.
func setup(env *testscript.Env, client string, theirs bool) error {
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare network namespace: %w", err)
	}
	if err := loopbackUp(); err != nil {
		return fmt.Errorf("loopback up: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &st); err != nil {
		return err
	}
	root, err := os.MkdirTemp("/var/tmp", "gte-")
	if err != nil {
		return err
	}
	s := &sandbox{
		root: root, netns: st.Ino, client: client, helpers: map[string]*process{}, stop: make(chan struct{}),
		cgroup: runCgroup() + "/" + filepath.Base(root),
	}
	for _, dir := range []string{"bin", "home", "data"} {
		if err := os.Mkdir(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.Symlink(client, filepath.Join(root, "bin", "docker")); err != nil {
		return err
	}
	env.Values[sandboxKey{}] = s
	env.Setenv("PATH", filepath.Join(root, "bin")+":"+os.Getenv("PATH")+":"+os.Getenv("GANTRY_BIN")+":/usr/sbin:/sbin")
	env.Setenv("ROOT", root)
	env.Setenv("BIN", os.Getenv("GANTRY_BIN"))
	env.Setenv("DATA", filepath.Join(root, "data"))
	env.Setenv("SOCK", s.socket())
	env.Setenv("DOCKER_HOST", "unix://"+s.socket())
	env.Setenv("DOCKER_CONFIG", filepath.Join(root, "home", ".docker"))
	env.Setenv("HOME", filepath.Join(root, "home"))
	env.Setenv("DOCKER_CLI_HINTS", "false")
	env.Setenv("REG", "127.0.0.1:5000")
	env.Setenv("TLSREG", "10.88.0.1:5443")
	env.Setenv("CACHE", os.Getenv("GANTRY_TEST_CACHE"))
	env.Setenv("GANTRY_TEST_CACHE", os.Getenv("GANTRY_TEST_CACHE"))
	tb, _ := env.T().(testing.TB)
	env.Defer(func() { s.finish(tb) })
	return s.watch(env, tb)
}

func (s *sandbox) socket() string { return filepath.Join(s.root, "s") }

func (s *sandbox) path(p string) string { return filepath.Join(s.root, p) }

// watch ends a script that hangs: past its time the commands it waits for are killed.
func (s *sandbox) watch(env *testscript.Env, tb testing.TB) error {
	limit := 2 * time.Minute
	if tb != nil {
		name := tb.Name()[strings.LastIndex(tb.Name(), "/")+1:]
		if t, ok := tb.(*testing.T); ok {
			if d, err := time.ParseDuration(header(t, name+".txtar")["timeout"]); err == nil {
				limit = d
			}
		}
	}
	timer := time.NewTimer(limit)
	go func() {
		defer timer.Stop()
		for {
			select {
			case <-s.stop:
				return
			case <-timer.C:
				timer.Reset(time.Second)
				s.endCommands()
			}
		}
	}()
	return nil
}

// endCommands kills what the script runs: every process in its network namespace but
// daemon, shim and the harness's helpers, and what those have started.
func (s *sandbox) endCommands() {
	all := processes()
	keep := map[int]bool{s.shimPid(): true}
	s.mu.Lock()
	s.timed = true
	if s.daemon != nil {
		keep[s.daemon.pid()] = true
	}
	for _, h := range s.helpers {
		keep[h.pid()] = true
	}
	s.mu.Unlock()
	parent := map[int]int{}
	for _, p := range all {
		parent[p.pid] = p.ppid
	}
	for _, p := range all {
		kept := p.pid == os.Getpid()
		for pid := p.pid; pid > 1 && !kept; pid = parent[pid] {
			kept = keep[pid]
		}
		if !kept && p.netns() == s.netns {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}

// finish is the end of every script: containers removed, daemon stopped, and
// nothing of it may be left. After a failure it only clears away.
func (s *sandbox) finish(tb testing.TB) {
	failed := tb == nil || tb.Failed()
	if s.timed && tb != nil {
		tb.Logf("the script ran past its time and was ended")
	}
	if failed {
		s.dump(tb)
	} else {
		for _, leak := range s.leaks() {
			failed = true
			tb.Errorf("leak: %s", leak)
		}
		if failed {
			s.dump(tb)
		}
	}
	close(s.stop)
	s.clear()
	if os.Getenv("GANTRY_E2E_KEEP") != "" && failed {
		tb.Logf("kept %s", s.root)
		return
	}
	if err := os.RemoveAll(s.root); err != nil && tb != nil {
		tb.Errorf("leak: %v", err)
	}
}

func (s *sandbox) dump(tb testing.TB) {
	if tb == nil {
		return
	}
	for _, name := range []string{"daemon.log", "x/shim.log"} {
		b, err := os.ReadFile(s.path(name))
		if err != nil {
			continue
		}
		if len(b) > 6000 {
			b = b[len(b)-6000:]
		}
		tb.Logf("%s:\n%s", name, b)
	}
}

// clear ends every process of the script by its pid, and takes mounts, cgroups and
// files away.
func (s *sandbox) clear() {
	if s.daemon != nil {
		s.daemon.kill()
	}
	for _, h := range s.helpers {
		h.kill()
	}
	poll.Within(2*time.Second, func() bool {
		left := s.processesLeft()
		for _, p := range left {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
		// On cgroup v1 what is frozen does not die.
		for d := range cgroupDirs(s.cgroup) {
			_ = os.WriteFile(filepath.Join(d, "freezer.state"), []byte("THAWED"), 0)
		}
		return len(left) == 0
	})
	for _, m := range mountsBelow(s.root) {
		_ = unix.Unmount(m, unix.MNT_DETACH)
	}
	poll.Within(time.Second, func() bool {
		dirs := cgroupDirs(s.cgroup)
		for d := range dirs {
			_ = os.Remove(d)
		}
		return len(dirs) == 0
	})
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	ifr, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifr)
}

// proc is one process as /proc shows it.
type proc struct {
	pid, ppid int
	state     string
	cmdline   string
}

func (p proc) netns() uint64 {
	var st unix.Stat_t
	if unix.Stat(fmt.Sprintf("/proc/%d/ns/net", p.pid), &st) != nil {
		return 0
	}
	return st.Ino
}

func (p proc) String() string { return fmt.Sprintf("process %d (%s) %s", p.pid, p.state, p.cmdline) }

func processes() (all []proc) {
	dirs, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, d := range dirs {
		pid, err := strconv.Atoi(d.Name())
		if err != nil {
			continue
		}
		b, err := os.ReadFile("/proc/" + d.Name() + "/stat")
		if err != nil {
			continue
		}
		stat := string(b)
		f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:])
		if len(f) < 2 {
			continue
		}
		cmd, err := os.ReadFile("/proc/" + d.Name() + "/cmdline")
		if err != nil {
			continue
		}
		p := proc{pid: pid, state: f[0], cmdline: strings.TrimSpace(strings.ReplaceAll(string(cmd), "\x00", " "))}
		p.ppid, _ = strconv.Atoi(f[1])
		all = append(all, p)
	}
	return all
}

// processesLeft are the processes that belong to the script: born in its network
// namespace, named after its directory, in its cgroups, or with its mounts.
func (s *sandbox) processesLeft() (left []proc) {
	inCgroup := map[int]bool{}
	for d := range cgroupDirs(s.cgroup) {
		b, _ := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		for _, f := range strings.Fields(string(b)) {
			pid, _ := strconv.Atoi(f)
			inCgroup[pid] = true
		}
	}
	for _, p := range processes() {
		if p.pid == os.Getpid() || p.state == "Z" && p.ppid == os.Getpid() {
			continue
		}
		if strings.Contains(p.cmdline, s.root) || inCgroup[p.pid] || p.netns() == s.netns || p.mounts(s.root) {
			left = append(left, p)
		}
	}
	return left
}

func (p proc) mounts(root string) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", p.pid))
	if err != nil || !strings.Contains(string(b), root) {
		return false
	}
	// What is mounted in our own mount namespace everyone sees.
	own, _ := os.Readlink("/proc/self/ns/mnt")
	its, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", p.pid))
	return own != its
}

func mountsBelow(root string) (points []string) {
	b, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) > 4 && (strings.HasPrefix(f[4], root+"/") || strings.Contains(line, "="+root+"/")) {
			points = append([]string{f[4]}, points...)
		}
	}
	return points
}

// cgroupDirs are the directories at and below a cgroup in every hierarchy, deepest first
// when ranged over repeatedly.
func cgroupDirs(cgroup string) map[string]bool {
	dirs := map[string]bool{}
	roots, _ := filepath.Glob("/sys/fs/cgroup/*")
	for _, r := range append(roots, "/sys/fs/cgroup") {
		_ = filepath.WalkDir(r+cgroup, func(p string, d os.DirEntry, err error) error {
			if err != nil {
				if errors.Is(err, os.ErrNotExist) {
					return filepath.SkipDir
				}
				return nil
			}
			if d.IsDir() {
				dirs[p] = true
			}
			return nil
		})
	}
	return dirs
}
