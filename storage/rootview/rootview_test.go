package rootview

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func needRoot(tb testing.TB) {
	tb.Helper()
	if os.Geteuid() != 0 {
		tb.Skip("needs root: mounts")
	}
}

func do(tb testing.TB, errs ...error) {
	tb.Helper()
	if err := errors.Join(errs...); err != nil {
		tb.Fatal(err)
	}
}

func path(f *os.File) string { return fmt.Sprintf("/proc/self/fd/%d", f.Fd()) }

// container runs cat in a mount namespace whose root is top, with a volume mounted on top/vol,
// and returns that namespace and what ends it.
func container(tb testing.TB, top string) (ns *os.File, end func()) {
	tb.Helper()
	do(tb, os.MkdirAll(top+"/vol", 0o755), os.MkdirAll(top+"/old", 0o755))
	// The mount table is not known inside: the new root has no programs, so what runs was opened before.
	script := `mount --make-rprivate / && mount --rbind "$1" "$1" && mount -t tmpfs volume "$1/vol" && touch "$1/vol/in-volume" &&
		cd "$1" && pivot_root . old && echo ready && read x`
	cmd := exec.Command("sh", "-c", script, "sh", top)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	do(tb, err)
	out, err := cmd.StdoutPipe()
	do(tb, err, cmd.Start())
	end = func() {
		in.Close()
		_ = cmd.Wait()
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		end()
		tb.Fatal("no container: ", line, err)
	}
	ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid))
	do(tb, err)
	tb.Cleanup(func() { ns.Close() })
	return ns, end
}

func TestRunning(t *testing.T) {
	needRoot(t)
	top := t.TempDir()
	do(t, os.WriteFile(top+"/file", []byte("text"), 0o600))
	ns, end := container(t, top)
	before, err := os.Readlink("/proc/self/ns/mnt")
	do(t, err)
	ro, err := Running(ns, ReadOnly)
	do(t, err)
	defer ro.Close()
	rw, err := Running(ns, ReadWrite)
	do(t, err)
	defer rw.Close()
	if b, err := os.ReadFile(path(ro) + "/file"); string(b) != "text" {
		t.Errorf("%q %v", b, err)
	}
	if list, err := os.ReadDir(path(ro) + "/vol"); err != nil || len(list) != 0 {
		t.Errorf("a volume is in the view: %v %v", list, err)
	}
	if err := os.WriteFile(path(ro)+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
		t.Errorf("written through a view that is for reading: %v", err)
	}
	do(t, os.WriteFile(path(rw)+"/written", []byte("w"), 0o600))
	if b, err := os.ReadFile(top + "/written"); string(b) != "w" {
		t.Errorf("%q %v", b, err)
	}
	do(t, os.Symlink("../../../../file", top+"/link"), os.Symlink("/proc/self/root", top+"/magic"))
	f, err := OpenIn(ro, "link")
	do(t, err)
	f.Close()
	if _, err := OpenIn(ro, "../../etc/hostname"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("above the root: %v", err)
	}
	if _, err := OpenIn(ro, "magic/etc"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a link of procfs: %v", err)
	}
	for range 500 { // any thread may be asked, also the first
		f, err := Running(ns, ReadOnly)
		do(t, err)
		f.Close()
	}
	end()
	if list, err := os.ReadDir("/proc/self/task"); err != nil || len(list) > 100 {
		t.Errorf("%d threads, %v", len(list), err)
	}
	if b, err := os.ReadFile(path(ro) + "/file"); string(b) != "text" {
		t.Errorf("after the container's end: %q %v", b, err)
	}
	if after, err := os.Readlink("/proc/self/ns/mnt"); err != nil || after != before {
		t.Errorf("this process moved: %s, %s before; %v", after, before, err)
	}
}

func TestRunningOwn(t *testing.T) {
	needRoot(t)
	ns, err := os.Open("/proc/self/ns/mnt")
	do(t, err)
	defer ns.Close()
	if f, err := Running(ns, ReadOnly); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("the host's root: %v %v", f, err)
	}
}

// TestOpenInRenamer has somebody exchange a directory for a link out of the tree all the while.
func TestOpenInRenamer(t *testing.T) {
	needRoot(t)
	outside, top := t.TempDir(), t.TempDir()
	do(t, os.WriteFile(outside+"/f", []byte("secret"), 0o600), os.MkdirAll(top+"/d/e", 0o755), os.WriteFile(top+"/d/f", []byte("public"), 0o600),
		os.Symlink(outside, top+"/l"))
	root, err := Merge([]string{top})
	do(t, err)
	defer root.Close()
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
				_ = unix.Renameat2(unix.AT_FDCWD, top+"/d", unix.AT_FDCWD, top+"/l", unix.RENAME_EXCHANGE)
			}
		}
	}()
	found := 0
	for range 10_000 {
		f, err := OpenIn(root, "d/e/../f")
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ENOTDIR) {
				t.Fatal(err)
			}
			continue
		}
		b, err := os.ReadFile(path(f))
		f.Close()
		if string(b) != "public" {
			t.Fatalf("%q %v", b, err)
		}
		found++
	}
	close(stop)
	<-done
	if found == 0 {
		t.Error("the file was never found")
	}
}

func BenchmarkRunning(b *testing.B) {
	needRoot(b)
	ns, end := container(b, b.TempDir())
	defer end()
	for b.Loop() {
		f, err := Running(ns, ReadOnly)
		do(b, err)
		f.Close()
	}
}

func BenchmarkMerge(b *testing.B) {
	needRoot(b)
	top := b.TempDir()
	var layers []string
	for _, n := range strings.Fields("a b c d e f") {
		layers = append(layers, filepath.Join(top, n))
		do(b, os.Mkdir(filepath.Join(top, n), 0o755))
	}
	for b.Loop() {
		f, err := Merge(layers)
		do(b, err)
		f.Close()
	}
}
