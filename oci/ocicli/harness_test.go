package ocicli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	ociinit "github.com/gantry/gantry/oci/init"
	"github.com/gantry/gantry/oci/launch/selfexe"
	"github.com/gantry/gantry/oci/ocicli"
	"github.com/gantry/gantry/test/poll"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// asRuntime makes the test binary the runtime. With byInit in the environment of the tests
// it starts everything by init; otherwise it is protected, as the program is by package
// entry, and forks.
const (
	asRuntime = "GANTRY_TEST_AS_RUNTIME"
	byInit    = "GANTRY_TEST_BY_INIT"
)

// protect executes this program again through a read-only mount that is nobody's.
func protect() error {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/proc/self/exe", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}); err != nil {
		return err
	}
	return syscall.Exec(fmt.Sprintf("/proc/self/fd/%d", fd), os.Args, os.Environ())
}

func TestMain(m *testing.M) {
	ociinit.Main()
	if os.Getenv(asRuntime) != "" {
		if os.Getenv(byInit) == "" && !selfexe.Runs() && os.Getuid() == 0 {
			fmt.Fprintln(os.Stderr, protect())
		}
		os.Exit(ocicli.Main(os.Args[1:]))
	}
	code := m.Run()
	left, _ := filepath.Glob("/sys/fs/cgroup/*/gantry-runc-test")
	for _, d := range append(left, "/sys/fs/cgroup/gantry-runc-test") {
		_ = os.Remove(d)
	}
	os.Exit(code)
}

var serial atomic.Int64

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bundle is a bundle with busybox and a state root of its own.
type bundle struct {
	t         testing.TB
	dir, root string
	id        string
	flags     []string // of the program itself
	spec      *specs.Spec
}

var caps = []string{"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_MKNOD", "CAP_NET_BIND_SERVICE"}

func newBundle(t testing.TB, args ...string) *bundle {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	bb, err := exec.LookPath("busybox")
	if err != nil {
		t.Skip("needs busybox-static")
	}
	b := &bundle{t: t, dir: t.TempDir(), root: t.TempDir()}
	b.id = fmt.Sprintf("t%d-%d", os.Getpid(), serial.Add(1))
	bin := filepath.Join(b.dir, "rootfs/bin")
	must(t, os.MkdirAll(bin, 0o755))
	prog, err := os.ReadFile(bb)
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bin, "busybox"), prog, 0o755))
	for _, a := range []string{"sh", "cat", "sleep", "id", "echo", "true", "tty", "pwd", "grep", "kill", "ls", "env", "head"} {
		must(t, os.Symlink("busybox", filepath.Join(bin, a)))
	}
	mnt := func(dest, typ string, opts ...string) specs.Mount {
		return specs.Mount{Destination: dest, Type: typ, Source: typ, Options: opts}
	}
	b.spec = &specs.Spec{
		Version: specs.Version, Hostname: "box",
		Root: &specs.Root{Path: "rootfs"},
		Process: &specs.Process{
			Args: args, Cwd: "/", Env: []string{"PATH=/bin"},
			Capabilities: &specs.LinuxCapabilities{Bounding: caps, Effective: caps, Permitted: caps},
		},
		Mounts: []specs.Mount{
			mnt("/proc", "proc", "nosuid", "noexec", "nodev"),
			mnt("/dev", "tmpfs", "nosuid", "mode=755"),
			mnt("/dev/pts", "devpts", "nosuid", "noexec", "newinstance", "ptmxmode=0666"),
		},
		Annotations: map[string]string{"org.example": "yes"},
		Linux: &specs.Linux{
			CgroupsPath: "/gantry-runc-test/" + b.id,
			Namespaces: []specs.LinuxNamespace{
				{Type: specs.MountNamespace},
				{Type: specs.PIDNamespace},
				{Type: specs.IPCNamespace},
				{Type: specs.UTSNamespace},
				{Type: specs.NetworkNamespace},
			},
		},
	}
	t.Cleanup(func() { b.cmd(nil, "delete", "--force", b.id) })
	return b
}

func (b *bundle) write() {
	b.t.Helper()
	j, err := json.Marshal(b.spec)
	must(b.t, err)
	must(b.t, os.WriteFile(filepath.Join(b.dir, "config.json"), j, 0o644))
}

// result is how a call of the runtime ended.
type result struct {
	out, err string
	code     int
}

// command is the runtime with arguments; {ID} and {DIR} are filled in.
func (b *bundle) command(args ...string) *exec.Cmd {
	b.t.Helper()
	exe, err := os.Executable()
	must(b.t, err)
	all := append([]string{"--root", b.root}, b.flags...)
	for _, a := range args {
		all = append(all, strings.NewReplacer("{ID}", b.id, "{DIR}", b.dir).Replace(a))
	}
	c := exec.Command(exe, all...)
	c.Env = append(os.Environ(), asRuntime+"=1")
	c.Dir = b.dir
	return c
}

// cmd runs the runtime to its end. Streams are files: a container left in the
// background holds them, and must not hold us.
func (b *bundle) cmd(change func(*exec.Cmd), args ...string) result {
	b.t.Helper()
	c := b.command(args...)
	out, err := os.CreateTemp(b.t.TempDir(), "out")
	must(b.t, err)
	defer out.Close()
	errs, err := os.CreateTemp(b.t.TempDir(), "err")
	must(b.t, err)
	defer errs.Close()
	c.Stdout, c.Stderr = out, errs
	if change != nil {
		change(c)
	}
	err = c.Run()
	var ee *exec.ExitError
	if err != nil && !errors.As(err, &ee) {
		b.t.Fatal(err)
	}
	return result{readBack(b.t, out.Name()), readBack(b.t, errs.Name()), c.ProcessState.ExitCode()}
}

func readBack(t testing.TB, name string) string {
	t.Helper()
	s, err := os.ReadFile(name)
	must(t, err)
	return string(s)
}

// ok runs the runtime and fails the test if it fails.
func (b *bundle) ok(args ...string) string {
	b.t.Helper()
	r := b.cmd(nil, args...)
	if r.code != 0 {
		b.t.Fatalf("%v: status %d: %s", args, r.code, r.err)
	}
	return r.out
}

// refused runs the runtime and wants an error with that text.
func (b *bundle) refused(want string, args ...string) {
	b.t.Helper()
	r := b.cmd(nil, args...)
	code := 1
	if args[0] == "exec" {
		code = 255 // as runc's, whatever has failed
	}
	if r.code != code || !strings.Contains(r.err, want) {
		b.t.Errorf("%.100v: status %d, error %q; want %d and %q", args, r.code, r.err, code, want)
	}
}

func (b *bundle) status() string {
	b.t.Helper()
	var s struct{ Status string }
	must(b.t, json.Unmarshal([]byte(b.ok("state", "{ID}")), &s))
	return s.Status
}

// field is one of the state's, as text.
func (b *bundle) field(name string) string {
	b.t.Helper()
	var s map[string]any
	must(b.t, json.Unmarshal([]byte(b.ok("state", "{ID}")), &s))
	return fmt.Sprint(s[name])
}

// await polls until the condition holds.
func await(t testing.TB, what string, f func() bool) {
	t.Helper()
	poll.Until(t, what, f)
}

// keys lists the paths of all values in a JSON document, numbers of arrays as 0.
func keys(t testing.TB, doc []byte) map[string]bool {
	t.Helper()
	var v any
	must(t, json.NewDecoder(bytes.NewReader(doc)).Decode(&v))
	out := make(map[string]bool)
	var walk func(p string, v any)
	walk = func(p string, v any) {
		out[p] = true
		switch x := v.(type) {
		case map[string]any:
			for k, e := range x {
				walk(p+"."+k, e)
			}
		case []any:
			for _, e := range x {
				walk(p+".0", e)
			}
		}
	}
	walk("", v)
	return out
}
