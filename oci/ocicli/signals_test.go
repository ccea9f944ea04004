package ocicli_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// startBlocked starts c with all signals blocked, as package entry has it.
func startBlocked(t testing.TB, c *exec.Cmd) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, old unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	must(t, unix.PthreadSigmask(unix.SIG_SETMASK, &all, &old))
	err := c.Start()
	must(t, unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil))
	must(t, err)
}

// starts are the two ways in which the program may begin.
var starts = map[string]func(testing.TB, *exec.Cmd){
	"plain":   func(t testing.TB, c *exec.Cmd) { t.Helper(); must(t, c.Start()) },
	"blocked": startBlocked,
}

// TestForegroundSignals: a signal to run reaches the program, also an unusual one.
func TestForegroundSignals(t *testing.T) {
	for name, start := range starts {
		for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1, unix.SIGALRM, 37} {
			t.Run(fmt.Sprintf("%s/%d", name, sig), func(t *testing.T) {
				b := newBundle(t, "sh", "-c", fmt.Sprintf("trap 'exit 42' %d; echo >/up; while :; do sleep 0.1; done", sig))
				b.write()
				c := b.command("run", b.id)
				start(t, c)
				await(t, "the program", func() bool { _, err := os.Stat(b.dir + "/rootfs/up"); return err == nil })
				must(t, c.Process.Signal(sig))
				_ = c.Wait()
				if code := c.ProcessState.ExitCode(); code != 42 {
					t.Errorf("status %d", code)
				}
			})
		}
	}
}

// TestNothingBlocked: neither the program nor an exec nor a hook has signals
// blocked because we have.
func TestNothingBlocked(t *testing.T) {
	for name, start := range starts {
		t.Run(name, func(t *testing.T) {
			const look = "grep SigBlk /proc/self/status"
			b := newBundle(t, "sh", "-c", look+" >/blk1; echo >/up; exec sleep 1000")
			hook := func(n int) []specs.Hook {
				return []specs.Hook{{Path: "/bin/sh", Args: []string{"sh", "-c", fmt.Sprintf("%s >%s/rootfs/blk%d", look, b.dir, n)}}}
			}
			b.spec.Hooks = &specs.Hooks{CreateRuntime: hook(2), Poststart: hook(3), Poststop: hook(4)}
			b.write()
			c := b.command("run", b.id)
			start(t, c)
			await(t, "the program", func() bool { _, err := os.Stat(b.dir + "/rootfs/up"); return err == nil })
			e := b.command("exec", b.id, "sh", "-c", look+" >/blk5")
			start(t, e)
			must(t, e.Wait())
			b.ok("kill", "{ID}", "KILL")
			_ = c.Wait()
			for i := 1; i <= 5; i++ {
				got, err := os.ReadFile(fmt.Sprintf("%s/rootfs/blk%d", b.dir, i))
				if err != nil || strings.TrimLeft(strings.TrimPrefix(string(got), "SigBlk:"), "\t 0") != "\n" {
					t.Errorf("%d: %q %v", i, got, err)
				}
			}
		})
	}
}

// TestOwnExecutable: what can be reached of us through /proc/PID/exe cannot be
// written to or changed, even from outside (CVE-2019-5736).
func TestOwnExecutable(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	b.ok("create", "{ID}")
	var pid int
	_, err := fmt.Sscan(b.field("pid"), &pid)
	must(t, err)
	exe := fmt.Sprintf("/proc/%d/exe", pid)
	f, err := os.OpenFile(exe, os.O_WRONLY, 0)
	if err == nil {
		f.Close()
	}
	if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.ETXTBSY) {
		t.Fatalf("open for writing: %v", err)
	}
	if errors.Is(err, unix.ETXTBSY) {
		t.Skip("the kernel cannot clone mounts: a sealed copy")
	}
	r, err := os.Open(exe)
	must(t, err)
	defer r.Close()
	again := fmt.Sprintf("/proc/self/fd/%d", r.Fd())
	for what, err := range map[string]error{
		"open again": func() error {
			fd, err := unix.Open(again, unix.O_RDWR, 0)
			if err == nil {
				unix.Close(fd)
			}
			return err
		}(),
		"truncate": unix.Truncate(again, 0),
		"chmod":    unix.Fchmod(int(r.Fd()), 0o777),
		"chown":    unix.Fchown(int(r.Fd()), 0, 0),
		"xattr":    unix.Fsetxattr(int(r.Fd()), "trusted.x", []byte("y"), 0),
		"link":     unix.Linkat(unix.AT_FDCWD, again, unix.AT_FDCWD, filepath.Join(b.dir, "link"), unix.AT_SYMLINK_FOLLOW),
	} {
		t.Run(what, func(t *testing.T) {
			if !errors.Is(err, unix.EROFS) && !errors.Is(err, unix.EXDEV) {
				t.Errorf("%s: %v", what, err)
			}
		})
	}
	// Neither can the mount be made writable again, or cloned.
	err = unix.MountSetattr(-1, exe, 0, &unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY})
	if err == nil {
		t.Error("the mount was made writable")
	}
	if fd, err := unix.OpenTree(-1, exe, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC); err == nil {
		unix.Close(fd)
		t.Error("the mount was cloned")
	}
}
