package oci_test

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestRootless starts containers as an ordinary user: in a child of this test, the
// one with the variable set.
func TestRootless(t *testing.T) {
	if root := os.Getenv("GANTRY_TEST_ROOTLESS"); root != "" {
		asUser(t, root)
		return
	}
	needsStatic(t)
	root := newRootfs(t)
	const uid = 54321
	reachable(t, root, uid)
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestRootless$", "-test.v")
	cmd.Env = []string{"GANTRY_TEST_ROOTLESS=" + root, "PATH=/usr/bin:/bin", "HOME=/", "TMPDIR=/tmp"}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	exe, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	cmd.Path = filepath.Join(filepath.Dir(root), "test")
	must(t, os.WriteFile(cmd.Path, exe, 0o755))
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v: %s", err, out)
	}
}

// TestRootlessRanges is the same with ranges of /etc/subuid, which newuidmap and
// newgidmap give; the files are put there for the child alone.
func TestRootlessRanges(t *testing.T) {
	if root := os.Getenv("GANTRY_TEST_RANGES"); root != "" {
		b := newBox(root, "sh", "-c", "id -u; id -G; cat /proc/self/setgroups; xargs </proc/self/uid_map; su user -c 'id -u' 2>&1; touch /f && chown 1000 /f && stat -c %u /f")
		b.opts.Spec.Process.User.AdditionalGids = []uint32{7}
		l := b.opts.Spec.Linux
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Getuid()), Size: 1}, {ContainerID: 1, HostID: 200000, Size: 65536}}
		l.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Getgid()), Size: 1}, {ContainerID: 1, HostID: 200000, Size: 65536}}
		out, code := b.run(t)
		if want := "0\n0 7\nallow\n0 65534 1 1 200000 65536\n1000\n1000\n"; out != want || code != 0 {
			t.Errorf("%q %d\nwant %q", out, code, want)
		}
		l.UIDMappings[1].HostID = 400000 // not ours
		if _, _, err := b.tryRun(t); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "newuidmap") {
			t.Errorf("foreign range: %v", err)
		}
		return
	}
	tools := map[string]string{}
	for _, tool := range []string{"newuidmap", "newgidmap", "unshare", "setpriv"} {
		p, err := exec.LookPath(tool)
		if err != nil {
			t.Skipf("needs %s", tool)
		}
		tools[tool] = p
	}
	root := newRootfs(t)
	const nobody = 65534
	reachable(t, root, nobody)
	exe, err := os.ReadFile("/proc/self/exe")
	must(t, err)
	dir := filepath.Dir(root)
	must(t, os.WriteFile(dir+"/test", exe, 0o755))
	must(t, os.WriteFile(dir+"/sub", []byte("nobody:200000:65536\n"), 0o644))
	for _, d := range []string{"/up", "/work", "/bin"} {
		must(t, os.Mkdir(dir+d, 0o755))
	}
	for _, tool := range []string{"newuidmap", "newgidmap"} { // where nobody can reach them
		b, err := os.ReadFile(tools[tool])
		must(t, err)
		must(t, os.WriteFile(dir+"/bin/"+tool, b, 0o755))
		must(t, os.Chmod(dir+"/bin/"+tool, 0o755|os.ModeSetuid))
	}
	cmd := exec.Command("unshare", "-m", "--propagation", "private", "sh", "-ec",
		"mount -t overlay -o lowerdir=/etc,upperdir="+dir+"/up,workdir="+dir+"/work overlay /etc; cp "+dir+"/sub /etc/subuid; cp "+dir+"/sub /etc/subgid; cd /; "+
			"exec setpriv --reuid 65534 --regid 65534 --clear-groups "+dir+"/test -test.run='^TestRootlessRanges$'")
	cmd.Env = []string{"GANTRY_TEST_RANGES=" + root, "PATH=" + dir + "/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TMPDIR=/tmp"}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v: %s", err, out)
	}
}

func asUser(t *testing.T, root string) {
	b := newBox(root, "sh", "-c", "id -u; id -g; xargs </proc/self/uid_map; cat /proc/self/setgroups; touch /f && stat -c %u /f; echo x >/dev/null && echo null; grep CapEff /proc/self/status; hostname")
	l := b.opts.Spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Getuid()), Size: 1}}
	l.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: uint32(os.Getgid()), Size: 1}}
	for i := range b.opts.Spec.Mounts {
		m := &b.opts.Spec.Mounts[i]
		for j, o := range m.Options {
			if o == "gid=5" { // no such group here
				m.Options = append(m.Options[:j:j], m.Options[j+1:]...)
				break
			}
		}
	}
	out, code := b.run(t)
	want := "0\n0\n0 " + "54321 1\ndeny\n0\nnull\nCapEff:\t00000000a80425fb\nbox\n"
	if out != want || code != 0 {
		t.Errorf("%q %d\nwant %q", out, code, want)
	}
	// Limits without a cgroup are refused, not forgotten.
	limit := int64(64 << 20)
	b.opts.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: &limit}
	if _, _, err := b.tryRun(t); err == nil || !strings.Contains(err.Error(), "delegation") {
		t.Errorf("limit: %v", err)
	}
	b.opts.Spec.Linux.Resources.Memory = nil
	// Further processes.
	b.opts.Spec.Process.Args, b.opts.Stdio = []string{"sleep", "1000"}, oci.Stdio{}
	p := sleepingRootless(t, b)
	o, code, err := execBy(t, p, b, &specs.Process{Args: []string{"sh", "-c", "id -u; hostname; ps | grep -c '[s]leep 1000$'"}}, true, unforced)
	if err != nil || o != "0\nbox\n1\n" || code != 0 {
		t.Errorf("exec: %q %d %v", o, code, err)
	}
}
