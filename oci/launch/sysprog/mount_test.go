//go:build amd64 || arm64

package sysprog

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// target is a Target for the path p with what init resolves paths by.
func target(b *Block, p string, resolve uint64) uintptr {
	how := unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve}
	t := Target{Dir: how, Any: how}
	t.Any.Flags &^= unix.O_DIRECTORY
	var ways []Way
	for ; p != "/"; p = filepath.Dir(p) {
		ways = append(ways, Way{Full: b.Str(p), Base: b.Str(filepath.Base(p))})
	}
	t.Ways = Place(b, append(ways, Way{Full: b.Str("/"), Base: b.Str("/")}))
	return Put(b, t)
}

// run runs the steps in a child process and returns the reports of those that failed.
func run(t *testing.T, size uintptr, steps func(b *Block) []Step) (failed []Report) {
	t.Helper()
	if !Works() {
		t.Skip("no programs of system calls here")
	}
	in, out, err := Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	b, err := New(size)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Free()
	p := Program{Out: uintptr(out), Steps: steps(b)}
	if err := b.Load(&p); err != nil {
		t.Fatal(err)
	}
	pid, errno := b.Start()
	unix.Close(out)
	if errno != 0 {
		t.Fatal(errno)
	}
	var buf [ReportSize]byte
	for {
		if n, err := in.Read(buf[:]); n != ReportSize || err != nil {
			break
		}
		failed = append(failed, ParseReport(buf[:]))
	}
	Reap(pid)
	return failed
}

// TestMkpathRace: somebody exchanges a directory and a link out of the root while targets
// are made below it, ten thousand times. Nothing may appear outside (CVE-2021-30465,
// CVE-2024-45310).
func TestMkpathRace(t *testing.T) {
	root, outside := t.TempDir(), t.TempDir()
	dir, link := filepath.Join(root, "swap"), filepath.Join(root, "swap.link")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, link); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, dir, unix.AT_FDCWD, link, unix.RENAME_EXCHANGE)
			}
		}
	})
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	children := 50
	if testing.Short() {
		children = 5
	}
	const each = 200
	failed := 0
	for range children {
		failed += len(run(t, 256<<10, func(b *Block) (steps []Step) {
			deep := target(b, "/swap/deep/er", 0)
			for range each {
				steps = append(steps,
					Step{Kind: Mkpath, Soft: true, To: 1, Args: [5]uintptr{uintptr(fd), deep, None}},
					Step{Nr: unix.SYS_CLOSE, Regs: [5]Reg{1}, Ignore: [3]unix.Errno{ErrAny}})
			}
			return steps
		}))
		_ = os.RemoveAll(filepath.Join(dir, "deep")) // or nothing is left to be made
		_ = os.RemoveAll(filepath.Join(link, "deep"))
	}
	close(stop)
	wg.Wait()
	if left, err := os.ReadDir(outside); err != nil || len(left) != 0 {
		t.Errorf("made outside of the root: %v %v", left, err)
	}
	t.Logf("%d of %d failed", failed, children*each)
}

// TestMkpath: what is missing is made, what is there is opened, and what is neither is an
// error.
func TestMkpath(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"dir/sub"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"in": "/dir", "dangling": "/nowhere", "loop": "loop", "up": "../../../dir"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "file"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	null, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	for _, c := range []struct {
		path, made string
		file       bool
		resolve    uint64
		want       unix.Errno
	}{
		{path: "/dir/sub"},
		{path: "/a/b/c", made: "a/b/c"},
		{path: "/in/new", made: "dir/new"},
		{path: "/up/new2", made: "dir/new2"},
		{path: "/"},
		{path: "/file", want: unix.ENOTDIR},
		{path: "/file/x", want: unix.ENOTDIR},
		{path: "/dangling", want: unix.ENOTDIR},
		{path: "/loop/x", want: unix.ELOOP},
		{path: "/in/x", resolve: unix.RESOLVE_NO_SYMLINKS, want: unix.ELOOP},
		{path: "/file", file: true},
		{path: "/new/file", file: true, made: "new/file"},
		{path: "/dir", file: true, want: unix.EISDIR},
		{path: "/dangling", file: true, want: unix.EEXIST},
	} {
		t.Run(c.path+" "+c.made, func(t *testing.T) {
			failed := run(t, 64<<10, func(b *Block) []Step {
				source := None
				if c.file {
					source = uintptr(null)
				}
				return []Step{{Kind: Mkpath, To: 1, Args: [5]uintptr{uintptr(fd), target(b, c.path, c.resolve), source}}}
			})
			var got unix.Errno
			if len(failed) != 0 {
				got = unix.Errno(failed[0].Errno)
			}
			if got != c.want {
				t.Errorf("%s, file %v: %v, want %v", c.path, c.file, got, c.want)
			}
			if c.made == "" {
				return
			}
			st, err := os.Lstat(filepath.Join(root, c.made))
			if err != nil || st.IsDir() == c.file || st.Mode().Perm() != map[bool]os.FileMode{true: 0o644, false: 0o755}[c.file]&^umask() {
				t.Errorf("%s: %v %v", c.path, st, err)
			}
		})
	}
	if _, err := os.Lstat(filepath.Join(root, "nowhere")); err == nil {
		t.Error("a link to what is missing was followed")
	}
}

func umask() os.FileMode {
	m := unix.Umask(0o22)
	unix.Umask(m)
	return os.FileMode(m)
}

// TestMode: modes are written as tmpfs wants them.
func TestMode(t *testing.T) {
	for _, mode := range []uint32{0, 0o7, 0o755, 0o1777, 0o4070} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			d := filepath.Join(t.TempDir(), "d")
			if err := os.Mkdir(d, 0o700); err != nil {
				t.Fatal(err)
			}
			if err := unix.Chmod(d, mode); err != nil {
				t.Fatal(err)
			}
			fd, err := unix.Open(d, unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			var p Program
			var to [8]byte
			if e := p.octalMode(uintptr(fd), &to); e != 0 {
				t.Fatal(e)
			}
			text, _, _ := strings.Cut(string(to[:]), "\x00")
			want := map[uint32]string{0: "0", 0o7: "7", 0o755: "755", 0o1777: "1777", 0o4070: "4070"}[mode]
			if text != want {
				t.Errorf("%o: %q", mode, text)
			}
		})
	}
}

// TestChecks: file systems and nodes that are not what they should be are errors.
func TestChecks(t *testing.T) {
	null, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	proc, err := unix.Open("/proc", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(proc)
	n, f := uintptr(null), uintptr(proc)
	for i, c := range []struct {
		step Step
		ok   bool
	}{
		{Step{Kind: Node, Args: [5]uintptr{n, unix.S_IFCHR, 1, 3}}, true},
		{Step{Kind: Node, Args: [5]uintptr{n, unix.S_IFCHR, 1, 5}}, false},
		{Step{Kind: Node, Args: [5]uintptr{n, unix.S_IFBLK, 1, 3}}, false},
		{Step{Kind: Node, Args: [5]uintptr{f, unix.S_IFCHR, 1, 3}}, false},
		{Step{Kind: FSType, Args: [5]uintptr{f, unix.PROC_SUPER_MAGIC, 0}}, true},
		{Step{Kind: FSType, Args: [5]uintptr{f, unix.PROC_SUPER_MAGIC, 1}}, false},
		{Step{Kind: FSType, Args: [5]uintptr{n, unix.PROC_SUPER_MAGIC, 0}}, false},
		{Step{Kind: FSType, Args: [5]uintptr{n, unix.PROC_SUPER_MAGIC, 1}}, true},
		{Step{Kind: 200}, false},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			failed := run(t, 8<<10, func(*Block) []Step { return []Step{c.step} })
			if (len(failed) == 0) != c.ok {
				t.Errorf("%d: %+v", i, failed)
			}
		})
	}
}

// TestRegisters: results are arguments of later steps, errors to ignore leave out what
// depends on them, and a result that was not is none.
func TestRegisters(t *testing.T) {
	ok := Step{Nr: unix.SYS_GETPID}
	bad := Step{Nr: unix.SYS_CLOSE, Args: [5]uintptr{1 << 20}}
	for name, c := range map[string]struct {
		steps []Step
		fails int // the step that does; -1: none
	}{
		"result": {[]Step{{Nr: unix.SYS_DUP, Args: [5]uintptr{0}, To: 5}, {Nr: unix.SYS_CLOSE, Regs: [5]Reg{5}}, {Nr: unix.SYS_CLOSE, Regs: [5]Reg{5}}}, 2},
		"copy":   {[]Step{{Kind: Copy, Args: [5]uintptr{1 << 20}, To: 63}, {Nr: unix.SYS_CLOSE, Regs: [5]Reg{63}}}, 1},
		"unset":  {[]Step{{Nr: unix.SYS_CLOSE, Regs: [5]Reg{7}}}, 0},
		"ignore": {[]Step{{Nr: unix.SYS_CLOSE, Args: [5]uintptr{1 << 20}, Ignore: [3]unix.Errno{unix.EBADF}, Skip: 2}, bad, bad, ok}, -1},
		"other":  {[]Step{{Nr: unix.SYS_CLOSE, Args: [5]uintptr{1 << 20}, Ignore: [3]unix.Errno{unix.EPERM}, Skip: 2}, ok}, 0},
		"any":    {[]Step{{Nr: unix.SYS_CLOSE, Args: [5]uintptr{1 << 20}, Ignore: [3]unix.Errno{ErrAny}, Skip: 200}, bad}, -1},
	} {
		t.Run(name, func(t *testing.T) {
			failed := run(t, 16<<10, func(*Block) []Step { return c.steps })
			if c.fails < 0 && len(failed) != 0 || c.fails >= 0 && (len(failed) != 1 || int(failed[0].Step) != c.fails) {
				t.Errorf("%s: %+v", name, failed)
			}
		})
	}
}
