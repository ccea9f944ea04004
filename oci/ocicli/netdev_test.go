package ocicli_test

import (
	"os/exec"
	"runtime"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// TestNetDevices: devices of the runtime's network namespace are the container's, with their
// addresses; one whose start fails leaves them where they were.
func TestNetDevices(t *testing.T) {
	ip, err := exec.LookPath("ip")
	if err != nil {
		t.Skip(err)
	}
	runtime.LockOSThread() // never unlocked: the thread ends with the test, and is the runtime's parent
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skip(err)
	}
	host := func(args ...string) string {
		t.Helper()
		out, err := exec.Command(ip, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("ip %q: %v %s", args, err, out)
		}
		return string(out)
	}
	host("link", "add", "gva", "type", "veth", "peer", "name", "gvb")
	host("addr", "add", "192.0.2.7/24", "dev", "gva")
	ask := func(program string, ns bool) *bundle {
		b := newBundle(t, "sh", "-c", program)
		b.spec.Linux.NetDevices = map[string]specs.LinuxNetDevice{"gva": {Name: "lan0"}}
		own := []specs.LinuxNamespace{}
		for _, n := range b.spec.Linux.Namespaces {
			if n.Type != specs.NetworkNamespace {
				own = append(own, n)
			}
		}
		if b.spec.Linux.Namespaces = own; ns {
			b.spec.Linux.Namespaces = append(own, specs.LinuxNamespace{Type: specs.NetworkNamespace})
		}
		b.write()
		return b
	}
	run := func(b *bundle) result { return b.cmd(nil, "run", "--bundle", b.dir, b.id) }

	b := ask("exit", false)
	if r := run(b); r.code == 0 || !strings.Contains(r.err, "unable to move network devices without a private NET namespace") {
		t.Errorf("without a namespace: %+v", r)
	}
	b = ask("exit", true)
	b.spec.Process.Args = []string{"/nosuch"}
	b.write()
	if r := run(b); r.code == 0 {
		t.Errorf("a missing program: %+v", r)
	}
	if out := host("-o", "addr", "show", "dev", "gva"); !strings.Contains(out, "192.0.2.7/24") {
		t.Errorf("after a failed start: %s", out)
	}
	b = ask("ip -o addr show dev lan0; ip -o link show dev lan0", true)
	if r := run(b); r.code != 0 || !strings.Contains(r.out, "192.0.2.7/24") || !strings.Contains(r.out, "UP") {
		t.Errorf("%+v", r)
	}
}
