package ocicli_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestNoMountNamespace: a container without one is in the host's, and its mounts are
// its own all the same: the host's table shows none of them.
func TestNoMountNamespace(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.spec.Linux.Namespaces = slices.DeleteFunc(b.spec.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.MountNamespace })
	b.spec.Linux.MaskedPaths = []string{"/proc/kcore", "/proc/acpi"}
	b.spec.Linux.ReadonlyPaths = []string{"/proc/sys"}
	b.spec.Root.Readonly = true
	all := append([]string{"CAP_SYS_ADMIN", "CAP_SYS_CHROOT"}, caps...)
	b.spec.Process.Capabilities = &specs.LinuxCapabilities{Bounding: all, Effective: all, Permitted: all}
	b.write()
	before := readBack(t, "/proc/self/mountinfo")
	b.ok("run", "-d", "{ID}")
	host, err := os.Readlink("/proc/self/ns/mnt")
	must(t, err)
	if ns, err := os.Readlink("/proc/" + b.field("pid") + "/ns/mnt"); err != nil || ns != host {
		t.Errorf("mount namespace %s, ours %s, %v", ns, host, err)
	}
	if during := readBack(t, "/proc/self/mountinfo"); during != before {
		t.Errorf("the host's mounts became\n%s", during)
	}
	// Through the first process, and by an exec.
	for _, at := range []string{"/proc/1/root", ""} {
		t.Run(at, func(t *testing.T) {
			got := b.ok("exec", "{ID}", "sh", "-c", "cd "+at+"/ && ls; ls "+at+"/dev | grep -c null; head -c 1 "+at+"/proc/kcore; echo x 2>/dev/null >"+at+"/x || echo ro; ls -d "+at+"/../../../../etc 2>/dev/null; cat "+at+"/proc/1/mountinfo; echo end")
			if got != "bin\ndev\nproc\n1\nro\nend\n" {
				t.Errorf("at %q: %q", at, got)
			}
		})
	}
	// It can mount nothing, with CAP_SYS_ADMIN too.
	r := b.cmd(nil, "exec", "{ID}", "/bin/busybox", "mount", "-t", "tmpfs", "tmpfs", "/dev")
	if r.code == 0 || !strings.Contains(r.err, "mount") {
		t.Errorf("a mount inside: %+v", r)
	}
	b.refused("without a mount namespace", "checkpoint", "{ID}")
	b.ok("delete", "-f", "{ID}")
	if after := readBack(t, "/proc/self/mountinfo"); after != before {
		t.Errorf("left of the mounts\n%s", after)
	}
}
