package network

import (
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/network/host"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/gantry/gantry/test/poll"
)

var netZero time.Time

func dialNL() (*rtnl.Conn, error) { return rtnl.Dial() }

func hostFile(s *Service) *os.File { return s.host.Netns() }

// routeLoopbackAway makes 127.0.0.0/8 leave by eth0, as a hostile container can.
func routeLoopbackAway(nl *rtnl.Conn) error {
	if err := netns.Sysctl("net/ipv4/conf/eth0/route_localnet", "1"); err != nil {
		return err
	}
	if _, err := nl.Do(rtnl.DelAddr(1, netip.MustParsePrefix("127.0.0.1/8"))); err != nil {
		return err
	}
	l, err := nl.LinkByName("eth0")
	if err != nil {
		return err
	}
	_, err = nl.Do(rtnl.AddRoute(l.Index, netip.MustParsePrefix("127.0.0.0/8"), netip.MustParseAddr("172.17.0.1")))
	return err
}

func linkNames(t *testing.T, s *Service) string {
	links, err := s.host.Conn().Links(0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, l := range links {
		names = append(names, l.Name)
	}
	slices.Sort(names)
	return strings.Join(names, " ")
}

func waitFor(t testing.TB, ok func() bool) {
	t.Helper()
	poll.Until(t, "what the test waits for", ok)
}

// elements returns the port elements the kernel has.
func elements(t *testing.T) string {
	out, err := exec.Command("nft", "list", "table", "inet", "gantry").CombinedOutput()
	if err != nil {
		t.Logf("nft: %v", err)
		return ""
	}
	var found []string
	for _, l := range strings.Split(string(out), "\n") {
		if strings.Contains(l, "tcp . ") || strings.Contains(l, "udp . ") {
			found = append(found, strings.TrimSpace(l))
		}
	}
	return strings.Join(found, "; ")
}

// defaultRoute6 leads IPv6 through the host's end of the neighbour's wire.
func defaultRoute6(index int) *rtnl.Request {
	return rtnl.AddRoute(index, netip.Prefix{}, netip.MustParseAddr("2001:db8::1"))
}

// onHost is the host, without a service, until the test ends.
func onHost(t testing.TB) *host.Host {
	t.Helper()
	h, err := host.Open(host.Settings{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	return h
}
