package network

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/moby/moby/api/types/network"
)

// The daemon's options for new networks count where the user says nothing, also on a
// network that takes its configuration from another.
func TestDefaultNetworkOptions(t *testing.T) {
	s, _ := newService(t, func(c *Config) {
		c.NetworkOptions = map[string]map[string]string{"bridge": {bridge.OptMTU: "1337", "com.docker.network.enable_ipv6": "true"}, "macvlan": {"parent": "nowhere"}}
	})
	create(t, s, network.CreateRequest{Name: "conf", ConfigOnly: true, Options: map[string]string{bridge.OptICC: "true"}})
	create(t, s, network.CreateRequest{Name: "a"})
	create(t, s, network.CreateRequest{Name: "b", ConfigFrom: &network.ConfigReference{Network: "conf"}})
	create(t, s, network.CreateRequest{Name: "c", Options: map[string]string{bridge.OptMTU: "1400"}})
	for name, want := range map[string]int{"a": 1337, "b": 1337, "c": 1400} {
		t.Run(name, func(t *testing.T) {
			b := run(t, s, on(request("box"), name))
			err := s.host.NS().Inside(b.NetNS, func() error {
				nl, err := dialNL()
				if err != nil {
					return err
				}
				defer nl.Close()
				l, err := nl.LinkByName("eth0")
				if err == nil && l.MTU != want {
					t.Errorf("%s: MTU %d, want %d", name, l.MTU, want)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			b.stop()
			in, err := s.Inspect(context.Background(), name)
			if err != nil || in.EnableIPv6 != (name != "b") || name != "c" && in.Options[bridge.OptMTU] != "1337" {
				t.Errorf("%s: %+v %v", name, in, err)
			}
		})
	}
	if in, _ := s.Inspect(context.Background(), "conf"); len(in.Options) != 1 {
		t.Errorf("a configuration network has %v", in.Options)
	}
}

// Packets that the host's administrator marked enter containers' networks
// (bridge-accept-fwmark), all others are kept out as ever.
func TestAcceptMark(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("nft is not here")
	}
	s, _ := newService(t, func(c *Config) { c.AcceptMark, c.AcceptMask = 0x1, 0x3 })
	out := neighbour(t, s)
	routeBack(t, s, out)
	b := run(t, s, request("web"))
	serve(t, s.host.NS(), b.NetNS, "tcp", ":80", "web")
	try(t, s, probe{"not marked", out, b.ip().String() + ":80", ""})
	for mark, want := range map[string]string{"5": "web 192.0.2.2", "2": ""} {
		t.Run(mark, func(t *testing.T) {
			cmd := "add table inet m; add chain inet m pre { type filter hook prerouting priority -150; }; flush chain inet m pre; add rule inet m pre ip saddr 192.0.2.2 meta mark set " + mark
			if out, err := exec.Command(nft, cmd).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			try(t, s, probe{"mark " + mark, out, b.ip().String() + ":80", want})
		})
	}
}

// Without a default network its interface is not there, and who wants it has none.
func TestNoDefaultBridge(t *testing.T) {
	s, _ := newService(t, nil)
	cfg := s.cfg
	s.Close()
	cfg.Bridge = "none"
	s, _ = startService(t, cfg)
	if got := linkNames(t, s); got != "lo" {
		t.Errorf("interfaces: %s", got)
	}
	b := run(t, s, request("web"))
	if b.NetNS != nil || len(b.Record.Endpoints) != 0 {
		t.Errorf("%+v", b.Record)
	}
}

// A daemon without firewall leaves nothing of an earlier one's, but what the user put into
// its table, and nothing that its table had kept safe.
func TestFirewallSwitchedOff(t *testing.T) {
	bin, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("nft is not here")
	}
	list := func() string {
		out, _ := exec.Command(bin, "list", "ruleset").CombinedOutput()
		return string(out)
	}
	for _, rule := range []string{"", "ip saddr 203.0.113.7 drop"} {
		s, _ := newService(t, nil)
		cfg := s.cfg
		if rule != "" {
			if out, err := exec.Command(bin, "add rule inet gantry user "+rule).CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
		}
		s.Close()
		cfg.Firewall, cfg.Firewall6 = false, false
		s, _ = startService(t, cfg)
		got := list()
		if rule == "" && strings.TrimSpace(got) != "" || rule != "" && (!strings.Contains(got, rule) || strings.Contains(got, "masquerade") || strings.Contains(got, "set ")) {
			t.Errorf("with %q: %s", rule, got)
		}
		if v, _ := os.ReadFile("/proc/sys/net/ipv4/conf/docker0/route_localnet"); strings.TrimSpace(string(v)) != "0" {
			t.Errorf("127.0.0.0/8 is routed: %s", v)
		}
		s.Close()
		cleanHost(t)
	}
}
