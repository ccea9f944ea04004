package network_test

import (
	"context"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	engine "github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/networktest"
	"github.com/gantry/gantry/engine/plugin"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// lan makes another machine on a wire to the host's interface lan0: 10.66.0.254, port 99
// answers.
func lan(t *testing.T) netip.AddrPort {
	t.Helper()
	if os.Getenv("GANTRY_NETWORK_TEST") == "" {
		t.Skip("needs root, for a network namespace of its own")
	}
	// No router yet, whichever test came before: the service then drops what is not ours.
	if err := netns.Sysctl("net/ipv4/ip_forward", "0"); err != nil {
		t.Fatal(err)
	}
	host, err := netns.OpenHost()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	nl, err := rtnl.Dial()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		links, _ := nl.Links(0)
		for _, l := range links {
			if l.Name != "lo" {
				nl.Do(rtnl.DelLink(l.Name))
			}
		}
		nl.Close()
	})
	ns, err := netns.New(host, nl, []netns.Interface{{
		IfName: "eth0", HostIf: "lan0", MAC: net.HardwareAddr{2, 0, 0, 0, 0, 9},
		Addrs: []netip.Prefix{netip.MustParsePrefix("10.66.0.254/24")},
	}})
	if err != nil {
		t.Fatal(err)
	}
	// It is the machine's, not ours.
	wire, err := nl.LinkByName("lan0")
	if err == nil {
		_, err = nl.Do(rtnl.SetGroup(wire.Index, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	var l net.Listener
	if err := host.Inside(ns, func() (err error) { l, err = net.Listen("tcp4", ":99"); return err }); err != nil {
		t.Fatal(err)
	}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); ns.Close() })
	return netip.MustParseAddrPort("10.66.0.254:99")
}

// starter starts services over one data-root.
func starter(t *testing.T, plugins plugin.Source) func([]engine.Record) *engine.Service {
	t.Helper()
	cfg := engine.DefaultConfig(t.TempDir())
	cfg.ResolvConf = filepath.Join(cfg.DataRoot, "resolv.conf")
	if err := os.WriteFile(cfg.ResolvConf, []byte("nameserver 192.0.2.53\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg = engine.WithDrivers(cfg, plugins)
	return func(recs []engine.Record) *engine.Service {
		s, err := engine.New(cfg, event.New())
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Restore(context.Background(), recs); err != nil {
			t.Fatal(err)
		}
		return s
	}
}

func wired(driver string, opts map[string]string) network.CreateRequest {
	return network.CreateRequest{Name: "lan", Driver: driver, Options: opts, IPAM: &network.IPAM{Config: []network.IPAMConfig{{
		Subnet: netip.MustParsePrefix("10.66.0.0/24"), IPRange: netip.MustParsePrefix("10.66.0.64/26"), Gateway: netip.MustParseAddr("10.66.0.254"),
	}}}}
}

func TestConformance(t *testing.T) {
	o := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	bad := []map[string]string{
		o("parent", "lo"), o("parent", "nosuch0"), o("parent", "nosuch0.50"), o("parent", "lan0.5000"), o("parent", "lan0.x"), o("parent", "a/b"),
		o("parent", "lan0", "macvlan_mode", "odd"), o("parent", "lan0", "com.docker.network.driver.mtu", "big"),
	}
	for name, c := range map[string]struct {
		tg    networktest.Target
		world bool
	}{
		"bridge": {tg: networktest.Target{
			Request: network.CreateRequest{Name: "net", Driver: "bridge"},
			Bad:     []map[string]string{o("com.docker.network.bridge.name", "a/b"), o("com.docker.network.driver.mtu", "x")},
		}},
		"bridge without icc": {tg: networktest.Target{Request: network.CreateRequest{Name: "net", Driver: "bridge", Options: o("com.docker.network.bridge.enable_icc", "false")}, Apart: true}},
		"macvlan":            {tg: networktest.Target{Request: wired("macvlan", o("parent", "lan0")), Bad: bad}, world: true},
		"macvlan private":    {tg: networktest.Target{Request: wired("macvlan", o("parent", "lan0", "macvlan_mode", "private")), Apart: true}, world: true},
		// The wire's far end reflects nothing: without a VEPA switch they do not meet.
		"macvlan vepa":                     {tg: networktest.Target{Request: wired("macvlan", o("parent", "lan0", "macvlan_mode", "vepa")), Apart: true}, world: true},
		"macvlan passthru":                 {tg: networktest.Target{Request: wired("macvlan", o("parent", "lan0", "macvlan_mode", "passthru")), Single: true}, world: true},
		"macvlan alone":                    {tg: networktest.Target{Request: network.CreateRequest{Name: "net", Driver: "macvlan"}}},
		"plugin":                           {tg: networktest.Target{Request: network.CreateRequest{Name: "net", Driver: "wire"}, Bad: []map[string]string{}}},
		"bridge with a plugin's addresses": {tg: networktest.Target{Request: network.CreateRequest{Name: "net", Driver: "bridge", IPAM: &network.IPAM{Driver: "wire"}}}},
		"plugin with its own addresses": {tg: networktest.Target{Request: network.CreateRequest{Name: "net", Driver: "wire", IPAM: &network.IPAM{
			Driver: "wire",
			Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.67.0.0/24"), IPRange: netip.MustParsePrefix("10.67.0.64/26")}},
		}}}},
		"macvlan tagged": {tg: networktest.Target{Request: wired("macvlan", o("parent", "lan0.50")), Lacks: lacks("vlan", `the module "8021q" is missing`)}},
		"ipvlan":         {tg: networktest.Target{Request: wired("ipvlan", o("parent", "lan0")), Lacks: lacks("ipvlan", `the module "ipvlan" is missing`)}, world: true},
		"ipvlan l3":      {tg: networktest.Target{Request: wired("ipvlan", o("parent", "lan0", "ipvlan_mode", "l3")), Lacks: lacks("ipvlan", `the module "ipvlan" is missing`)}},
		"ipvlan alone":   {tg: networktest.Target{Request: network.CreateRequest{Name: "net", Driver: "ipvlan"}, Lacks: lacks("ipvlan", `the module "ipvlan" is missing`)}},
	} {
		t.Run(name, func(t *testing.T) {
			world := lan(t)
			plugins := &plugin.Registry{Sockets: []string{t.TempDir()}}
			calls := networktest.ServePlugin(t, plugins.Sockets[0], "wire")
			c.tg.Start = starter(t, plugins)
			if c.world {
				c.tg.World = world
			}
			networktest.Run(t, c.tg)
			if open := calls.Open(); open != "" {
				t.Errorf("the plugin was never told of the end of %s", open)
			}
		})
	}
}

// lacks returns the refusal that a kernel without a kind of link must give, "" where it
// has it.
func lacks(kind, refusal string) string {
	host, err := netns.OpenHost()
	if err != nil {
		return refusal
	}
	defer host.Close()
	has := false
	host.Inside(nil, func() error {
		nl, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer nl.Close()
		// The kernel looks for the kind first: without it the answer is EOPNOTSUPP.
		has = rtnl.HasKind(nl, kind)
		return nil
	})
	if has {
		return ""
	}
	return refusal
}
