package network

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/nft"
	"github.com/gantry/gantry/internal/rtnl"
)

// On a host that the daemon made a router, what is not ours is dropped; but what other
// people's bridges carry between their own ports is bridged and not forwarded, though it
// passes the same hooks with br_netfilter.
func TestForeignBridges(t *testing.T) { bothWays(t, testForeignBridges) }

func testForeignBridges(t *testing.T) {
	if err := netns.Sysctl("net/ipv4/ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	s, _ := newService(t, nil)
	chains := s.host.Ruleset().Chains
	if i := slices.IndexFunc(chains, func(c nft.Chain) bool { return c.Name == "forward" }); !chains[i].Hook.Drop {
		t.Fatalf("forwarding is not closed: %v", chains[i])
	}
	bridge := func(name, gw string) int {
		t.Helper()
		if _, err := s.host.Conn().Do(rtnl.AddBridge(name, nil, 0)); err != nil {
			t.Fatal(err)
		}
		l, err := s.host.Conn().LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		reqs := []*rtnl.Request{rtnl.SetGroup(l.Index, 0), rtnl.SetUp(l.Index)}
		if gw != "" {
			reqs = append(reqs, rtnl.AddAddr(l.Index, netip.MustParsePrefix(gw+"/24")))
		}
		if _, err := s.host.Conn().Do(reqs...); err != nil {
			t.Fatal(err)
		}
		return l.Index
	}
	n := 0
	machine := func(bridge int, ip, gw string) *os.File {
		t.Helper()
		n++
		p := netns.Interface{
			IfName: "eth0", HostIf: "vm" + strconv.Itoa(n), Bridge: bridge, MAC: net.HardwareAddr{2, 0, 0, 0, 1, byte(n)},
			Addrs: []netip.Prefix{netip.MustParsePrefix(ip + "/24")},
		}
		if gw != "" {
			p.GW4 = netip.MustParseAddr(gw)
		}
		ns, err := netns.New(s.host.NS(), s.host.Conn(), []netns.Interface{p})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
		serve(t, s.host.NS(), ns, "tcp", ":80", "vm"+strconv.Itoa(n))
		return ns
	}
	// One without an address of the host's, two that the host is on.
	bare := bridge("virbr0", "")
	left, right := bridge("virbr1", "10.71.0.1"), bridge("virbr2", "10.72.0.1")
	a := machine(bare, "10.70.0.2", "")
	machine(bare, "10.70.0.3", "")
	b := machine(left, "10.71.0.2", "10.71.0.1")
	machine(left, "10.71.0.3", "10.71.0.1")
	machine(right, "10.72.0.2", "10.72.0.1")
	try(t, s,
		probe{"bridged", a, "10.70.0.3:80", "vm2 10.70.0.2"},
		probe{"bridged beside the host", b, "10.71.0.3:80", "vm4 10.71.0.2"},
		probe{"routed from bridge to bridge", b, "10.72.0.2:80", ""})
	// Names follow: a bridge that is gone does not leave its pass to others.
	if _, err := s.host.Conn().Do(rtnl.DelLink("virbr0")); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool {
		for _, set := range s.host.Ruleset().Sets {
			if set.Name == "foreign" {
				return len(set.Elems) == 2
			}
		}
		return false
	})
}
