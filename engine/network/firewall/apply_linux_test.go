package firewall_test

import (
	"errors"
	"net/netip"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/internal/nft"
	"golang.org/x/sys/unix"
)

// inNewNetns locks the test to a thread with a network namespace of its own. The
// thread is thrown away with the goroutine.
func inNewNetns(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("needs root: %v", err)
	}
}

func state() firewall.State {
	a := netip.MustParseAddr
	return firewall.State{Bridges: []driver.Bridge{
		{Name: "docker0", Subnets: []netip.Prefix{netip.MustParsePrefix("172.17.0.0/16"), netip.MustParsePrefix("fd00::/64")}, ICC: true, Masq4: true, Masq6: true},
		{Name: "br-s", ICC: true, Masq4: true, SNAT4: a("192.0.2.7"), Trusted: []string{"eth1"}, Mode6: driver.ModeRouted},
	}, Ports: []ports.Mapping{
		{Interface: "docker0", Proto: "tcp", HostIP: a("0.0.0.0"), HostPort: 8080, ContainerIP: a("172.17.0.2"), ContainerPort: 80},
		{Interface: "docker0", Proto: "tcp", HostIP: a("::"), HostPort: 8080, ContainerIP: a("fd00::2"), ContainerPort: 80},
		{Interface: "docker0", Proto: "sctp", HostIP: a("fd01::1"), HostPort: 8080, ContainerIP: a("fd00::2"), ContainerPort: 80},
		{Interface: "docker0", Proto: "udp", HostIP: a("0.0.0.0"), HostPort: 10000, ContainerIP: a("172.17.0.2"), ContainerPort: 10000, Count: 10000},
		{Interface: "docker0", Proto: "udp", HostIP: a("fd01::1"), HostPort: 10000, ContainerIP: a("fd00::2"), ContainerPort: 10000, Count: 10000},
		{Interface: "br-s", Proto: "udp", HostIP: a("127.0.0.1"), HostPort: 53, ContainerIP: a("172.18.0.2"), ContainerPort: 53},
	}}
}

func TestApply(t *testing.T) {
	inNewNetns(t)
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rs := firewall.Compute(state())
	for range 2 { // applying again changes nothing
		if err := c.Apply(rs); err != nil {
			t.Fatal(err)
		}
	}
	if nftBin, err := exec.LookPath("nft"); err == nil {
		// nft reads back what we wrote as the text we meant.
		want := list(t, nftBin)
		if out, err := exec.Command(nftBin, "delete", "table", "inet", "gantry").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cmd := exec.Command(nftBin, "-f", "-")
		cmd.Stdin = strings.NewReader(rs.String())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		if got := list(t, nftBin); got != want {
			t.Errorf("the kernel has\n%s\nbut the text means\n%s", want, got)
		}
	}
}

func list(t *testing.T, nftBin string) string {
	out, err := exec.Command(nftBin, "-n", "list", "table", "inet", "gantry").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return string(out)
}

func TestUpdate(t *testing.T) {
	inNewNetns(t)
	c, err := nft.Dial()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	s := state()
	if err := c.Apply(firewall.Compute(s)); err != nil {
		t.Fatal(err)
	}
	p := s.Ports[0]
	p.HostPort = 81
	add := nft.Changes{Add: firewall.PortElems(p, s.Bridges[0], false)}
	if err := c.Update(add); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(nft.Changes{Del: add.Add}); err != nil {
		t.Fatal(err)
	}
	if err := c.Update(nft.Changes{Del: add.Add}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("removing what is not there: %v", err)
	}
	rng := nft.Changes{Add: firewall.PortElems(ports.Mapping{
		Interface: "docker0", Proto: "tcp", HostIP: netip.MustParseAddr("127.0.0.1"),
		HostPort: 20000, ContainerIP: netip.MustParseAddr("172.17.0.2"), ContainerPort: 20000, Count: 5000,
	}, s.Bridges[0], false)}
	if len(rng.Add) != 1 {
		t.Errorf("a range is %d elements", len(rng.Add))
	}
	for range 2 {
		if err := c.Update(rng); err != nil {
			t.Fatal(err)
		}
		if err := c.Update(nft.Changes{Del: rng.Add}); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := c.Intact(firewall.Compute(s)); err != nil || !ok {
		t.Errorf("intact: %v %v", ok, err)
	}
}
