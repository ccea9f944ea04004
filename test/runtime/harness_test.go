// Package runtime holds the tests of gantry-runtime as others call it: beside runc
// and crun on the same bundles, under podman, under containerd's shim, and with the
// validation programs of the OCI's runtime-tools. All run as root in mount and
// network namespaces of their own; one is skipped where the package it needs is
// not installed.
package runtime

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry/gantry/test/poll"
	"golang.org/x/sys/unix"
)

// inside marks the process that runs in namespaces of its own; it holds the
// directory with the built runtime.
const inside = "GANTRY_TEST_INSIDE"

// budget bounds each command that a test runs.
const budget = 2 * time.Minute

func TestMain(m *testing.M) {
	if os.Getuid() != 0 {
		fmt.Println("needs root")
		os.Exit(0)
	}
	if os.Getenv(inside) != "" {
		if err := isolate(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	}
	code, err := again()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// again builds the runtime and runs this program anew in namespaces.
func again() (int, error) {
	dir, err := os.MkdirTemp("", "gruntime-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	if err := os.Chmod(dir, 0o755); err != nil { // containers of mapped users look into it
		return 1, err
	}
	flags := "-s -w"
	if runtime.GOARCH == "amd64" || runtime.GOARCH == "arm64" {
		flags += " -E github.com/gantry/gantry/oci/launch/entry.Start" // as the Makefile does
	}
	b := exec.Command("go", "build", "-buildvcs=false", "-trimpath", "-ldflags="+flags, "-o", dir+"/", "github.com/gantry/gantry/cmd/gantry-runtime")
	b.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := b.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("%w: %s", err, out)
	}
	exe, err := os.Executable()
	if err != nil {
		return 1, err
	}
	c := exec.Command(exe, os.Args[1:]...)
	c.Env = append(os.Environ(), inside+"="+dir, "TMPDIR="+dir)
	c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
	c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	err = c.Run()
	var ee *exec.ExitError
	if errors.As(err, &ee) {
		return ee.ExitCode(), nil
	}
	return 0, err
}

func isolate() error {
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if _, err := os.Stat("/run/netns"); err == nil {
		if err := unix.Mount("tmpfs", "/run/netns", "tmpfs", 0, ""); err != nil {
			return err
		}
	}
	// podman reads settings that the unpacked packages have brought, where this machine
	// has none.
	etc, err := filepath.Abs("../../.cache/tools/debian/etc")
	if err != nil {
		return err
	}
	if _, err := os.Stat("/etc/containers"); err != nil && isDir(etc) {
		if err := settings(etc); err != nil {
			return fmt.Errorf("settings of podman: %w", err)
		}
	}
	return exec.Command("ip", "link", "set", "lo", "up").Run()
}

// settings shows what etc has besides this machine's own in /etc. What is written there, as
// dockerd does, goes with the mount namespace.
func settings(etc string) error {
	dir, err := os.MkdirTemp("", "etc")
	if err != nil {
		return err
	}
	defer os.Remove(dir)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, ""); err != nil {
		return err
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }() // the overlay keeps what it needs of it
	for _, d := range []string{"/upper", "/work"} {
		if err := os.Mkdir(dir+d, 0o755); err != nil {
			return err
		}
	}
	return unix.Mount("overlay", "/etc", "overlay", 0, fmt.Sprintf("lowerdir=/etc:%s,upperdir=%s/upper,workdir=%s/work", etc, dir, dir))
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ours() string { return filepath.Join(os.Getenv(inside), "gantry-runtime") }

// need returns the path of a program, or skips the test.
func need(t testing.TB, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		for _, dir := range []string{"/usr/sbin/", "/sbin/"} {
			if _, err := os.Stat(dir + name); err == nil {
				return dir + name
			}
		}
		t.Skip("needs " + name)
	}
	return p
}

// result is how a command ended.
type result struct {
	out, err string
	code     int
}

// run runs a command to its end. Streams are files: what is left in the background
// holds them, and must not hold us.
func run(t testing.TB, c *exec.Cmd) result {
	t.Helper()
	file := func() *os.File {
		f, err := os.CreateTemp(t.TempDir(), "stream")
		must(t, err)
		return f
	}
	out, errs := file(), file()
	defer out.Close()
	defer errs.Close()
	c.Stdout, c.Stderr = out, errs
	must(t, c.Start())
	end := time.AfterFunc(budget, func() { _ = c.Process.Kill() })
	defer end.Stop()
	err := c.Wait()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		t.Fatal(err)
	}
	read := func(f *os.File) string {
		b, err := os.ReadFile(f.Name())
		must(t, err)
		return string(b)
	}
	return result{read(out), read(errs), c.ProcessState.ExitCode()}
}

// busybox fills dir/bin with busybox and links for its commands.
func busybox(t testing.TB, dir string) {
	t.Helper()
	prog, err := os.ReadFile(need(t, "busybox"))
	must(t, err)
	bin := filepath.Join(dir, "bin")
	must(t, os.MkdirAll(bin, 0o755))
	must(t, os.WriteFile(filepath.Join(bin, "busybox"), prog, 0o755))
	list, err := exec.Command(filepath.Join(bin, "busybox"), "--list").Output()
	must(t, err)
	for name := range strings.FieldsSeq(string(list)) {
		if name != "busybox" {
			must(t, os.Symlink("busybox", filepath.Join(bin, name)))
		}
	}
}

// image writes a root file system as a tar archive.
func image(t testing.TB) string {
	t.Helper()
	root := t.TempDir()
	busybox(t, root)
	must(t, os.Mkdir(filepath.Join(root, "tmp"), 0o777))
	tar := filepath.Join(t.TempDir(), "image.tar")
	if out, err := exec.Command("tar", "-C", root, "-cf", tar, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return tar
}

// await polls until the condition holds.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), budget)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !f() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s did not happen", what)
		}
	}
}

// step is one command of an engine's client and what must come of it.
type step struct {
	args string // split at blanks; a last argument in '' stays whole
	in   string
	code int
	want string // part of standard output, or of standard error if code is not 0
	// poll: what the container does by itself takes its time; asked until it is so.
	poll bool
}

func (s *step) met(r result) bool {
	text := r.out
	if s.code != 0 {
		text += r.err
	}
	return r.code == s.code && strings.Contains(text, s.want)
}

func (s *step) split() []string {
	head, last, quoted := strings.Cut(s.args, " '")
	args := strings.Fields(head)
	if quoted {
		args = append(args, strings.TrimSuffix(last, "'"))
	}
	return args
}

func play(t *testing.T, client func(args ...string) *exec.Cmd, steps []step) {
	t.Helper()
	for _, s := range steps {
		do := func() result {
			c := client(s.split()...)
			c.Stdin = bytes.NewReader([]byte(s.in))
			return run(t, c)
		}
		var r result
		poll.Within(budget, func() bool {
			r = do()
			return !s.poll || s.met(r)
		})
		if !s.met(r) {
			t.Errorf("%s: status %d, want %d and %q\n%s%s", s.args, r.code, s.code, s.want, r.out, r.err)
		}
	}
}
