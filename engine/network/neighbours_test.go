package network

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// linkLocals lists the link-local addresses of an interface of the test's namespace, with
// the word "tentative" where the kernel does not use one yet.
func linkLocals(t *testing.T, ifName string) (out []string) {
	t.Helper()
	b, err := os.ReadFile("/proc/thread-self/net/if_inet6")
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		f := strings.Fields(l) // address, index, prefix length, scope, flags, name
		if len(f) != 6 || f[5] != ifName || f[3] != "20" {
			continue
		}
		flags, err := strconv.ParseUint(f[4], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		if flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
			f[0] += " tentative"
		}
		out = append(out, f[0])
	}
	return out
}

// A container's link-local address is usable at once, also while somebody holds the
// namespace of its last run, whose interface has the same address: it failed the check for
// duplicates and stayed useless.
func TestContainerLinkLocal(t *testing.T) {
	s, _ := newService(t, nil)
	yes := true
	create(t, s, network.CreateRequest{Name: "six", EnableIPv6: &yes})
	r := on(request("web"), "six")
	r.Endpoints["six"].MacAddress = network.HardwareAddr{2, 0x42, 0, 0, 0, 7}
	old := run(t, s, r)
	r2 := on(request("web2"), "six")
	r2.Endpoints["six"].MacAddress = r.Endpoints["six"].MacAddress
	for _, b := range []*box{old, run(t, s, r2)} {
		if err := s.host.NS().Inside(b.NetNS, func() error {
			if got := linkLocals(t, "eth0"); !slices.Equal(got, []string{"fe80000000000000004200fffe000007"}) {
				t.Errorf("%s: %q", b.Record.Endpoints[0].Name, got)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

// The first connection from outside by IPv6 waited two seconds, on a busy machine until
// "no route to host": the bridge's link-local address, from which the kernel asks where a
// container is on behalf of what it forwards, was still being checked for duplicates.
func TestBridgeAsksAtOnce(t *testing.T) {
	s, _ := newService(t, nil)
	yes := true
	create(t, s, network.CreateRequest{Name: "six", EnableIPv6: &yes, Options: map[string]string{bridge.OptName: "br-six"}})
	run(t, s, on(request("web"), "six"))
	l, err := s.host.Conn().LinkByName("br-six")
	if err != nil {
		t.Fatal(err)
	}
	m := l.MAC
	want := fmt.Sprintf("fe80000000000000%02x%02x%02xfffe%02x%02x%02x", m[0]^2, m[1], m[2], m[3], m[4], m[5])
	if got := linkLocals(t, l.Name); !slices.Equal(got, []string{want}) {
		t.Errorf("link-local %q, want %q", got, want)
	}
}

// A question for a container's address was lost where the container's kernel had not yet
// joined the group it comes in, and asked again only after a second.
func TestAsksAreHeardAtOnce(t *testing.T) {
	s, _ := newService(t, nil)
	yes, no := true, false
	create(t, s, network.CreateRequest{Name: "six", EnableIPv4: &no, EnableIPv6: &yes})
	var stop atomic.Bool
	defer stop.Store(true)
	for range runtime.NumCPU() { // the kernel's workers wait their turn
		go func() {
			for !stop.Load() {
			}
		}()
	}
	for i := range 40 {
		b := run(t, s, on(request(fmt.Sprintf("c%d", i)), "six"))
		a := b.Record.Endpoints[0].IPv6.Addr().As16()
		want := netip.AddrFrom16([16]byte{0xff, 2, 11: 1, 12: 0xff, 13: a[13], 14: a[14], 15: a[15]})
		err := s.host.NS().Inside(b.NetNS, func() error {
			in, err := rtnl.Dial()
			if err != nil {
				return err
			}
			defer in.Close()
			l, err := in.LinkByName("eth0")
			if err != nil {
				return err
			}
			groups, err := in.Groups(l.Index)
			if err != nil {
				return err
			}
			if !slices.Contains(groups, want) {
				return fmt.Errorf("%v is not heard of: %v", want, groups)
			}
			return nil
		})
		if err != nil {
			t.Errorf("container %d: %v", i, err)
		}
	}
}

// The same for the bridge's own addresses. One that is added to a bridge that is up is
// announced as done before the kernel's workers have begun.
func TestBridgeHearsAtOnce(t *testing.T) {
	needNetns(t)
	nl, err := dialNL()
	if err != nil {
		t.Fatal(err)
	}
	defer nl.Close()
	defer cleanHost(t)
	h := onHost(t)
	var addrs []netip.Prefix
	for i := range 20 {
		addrs = append(addrs, netip.MustParsePrefix(fmt.Sprintf("fd99::%x/64", i+0x10)))
		index, err := bridge.Ensure(h, "br-six", 1500, true, addrs, true)
		if err != nil {
			t.Fatal(err)
		}
		want := netip.MustParseAddr(fmt.Sprintf("ff02::1:ff00:%x", i+0x10))
		if groups, err := nl.Groups(index); err != nil || !slices.Contains(groups, want) {
			t.Errorf("%v is not heard of: %v %v", want, groups, err)
		}
	}
}
