package network_test

import (
	"context"
	"net/netip"
	"os"
	"strings"
	"testing"

	engine "github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/networktest"
	"github.com/gantry/gantry/engine/plugin"
	"github.com/moby/moby/api/types/network"
)

func box(name string, es *network.EndpointSettings) engine.SandboxRequest {
	return engine.SandboxRequest{
		ContainerID: strings.Repeat("0", 64-len(name)) + name, Name: name, Hostname: name,
		Endpoints: map[string]*network.EndpointSettings{"net": es},
	}
}

// A plugin manages the addresses: it may refuse a requested address, what it has lost is told
// to it again, and all comes back to it.
func TestPluginAddresses(t *testing.T) {
	lan(t)
	plugins := &plugin.Registry{Sockets: []string{t.TempDir()}}
	calls := networktest.ServePlugin(t, plugins.Sockets[0], "wire")
	start := starter(t, plugins)
	s := start(nil)
	ctx := context.Background()
	yes, a := true, netip.MustParseAddr
	create := network.CreateRequest{Name: "net", EnableIPv6: &yes, IPAM: &network.IPAM{
		Driver: "wire", Options: map[string]string{"pace": "calm"},
		Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix("10.67.0.0/24"), Gateway: a("10.67.0.254"), AuxAddress: map[string]netip.Addr{"router": a("10.67.0.1")}}},
	}}
	for what, edit := range map[string]func(*network.IPAM){
		"no pool for spite":     func(i *network.IPAM) { i.Options = map[string]string{"fail": "spite"} },
		"is not in subnet":      func(i *network.IPAM) { i.Config[0].AuxAddress = map[string]netip.Addr{"far": a("10.68.0.1")} },
		"plugin \"nobody\" not": func(i *network.IPAM) { i.Driver = "nobody" },
	} {
		t.Run(what, func(t *testing.T) {
			r, i := create, *create.IPAM
			i.Config = append([]network.IPAMConfig(nil), i.Config...)
			r.IPAM = &i
			edit(&i)
			if _, err := s.Create(ctx, r); err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("want %q: %v", what, err)
			}
			if open := calls.Open(); open != "" {
				t.Errorf("a refused network left %s", open)
			}
		})
	}
	if _, err := s.Create(ctx, create); err != nil {
		t.Fatal(err)
	}
	in, err := s.Inspect(ctx, "net")
	if c := in.IPAM.Config; err != nil || in.IPAM.Driver != "wire" || in.IPAM.Options["pace"] != "calm" || len(c) != 2 || c[0].Gateway != a("10.67.0.254") ||
		c[1].Subnet.String() != "fd88:1::/64" || c[1].Gateway != a("fd88:1::1") {
		t.Errorf("%+v %v", in.IPAM, err)
	}
	web, err := s.Acquire(ctx, box("web", &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: a("10.67.0.9")}}))
	if err != nil {
		t.Fatal(err)
	}
	defer web.NetNS.Close()
	if e := web.Record.Endpoints[0]; e.IPv4.String() != "10.67.0.9/24" || e.IPv6.String() != "fd88:1::2/64" || e.MAC != "02:42:0a:43:00:09" {
		t.Errorf("%+v", e)
	}
	for what, addr := range map[string]string{"Address already in use": "10.67.0.9", "no configured subnet": "10.99.0.1"} {
		t.Run(what, func(t *testing.T) {
			_, err := s.Acquire(ctx, box("other", &network.EndpointSettings{IPAMConfig: &network.EndpointIPAMConfig{IPv4Address: a(addr)}}))
			if err == nil || !strings.Contains(err.Error(), what) {
				t.Errorf("%s: %v", addr, err)
			}
		})
	}
	before, taken := calls.Open(), calls.Addresses()
	s.Close()
	calls.Forget()
	s = start([]engine.Record{web.Record})
	defer s.Close()
	if now := calls.Addresses(); calls.Open() != before || now != taken {
		t.Errorf("after both forgot there is %s (%d addresses), before %s (%d)", calls.Open(), now, before, taken)
	}
	if err := s.Release(ctx, web.Record.ContainerID); err != nil {
		t.Error(err)
	}
	if err := s.Remove(ctx, "net"); err != nil {
		t.Error(err)
	}
	if open := calls.Open(); open != "" {
		t.Errorf("the plugin was never told of the end of %s", open)
	}
	// A plugin that was uninstalled holds nothing.
	create.Name = "orphan"
	if _, err := s.Create(ctx, create); err != nil {
		t.Fatal(err)
	}
	os.Remove(plugins.Sockets[0] + "/wire.sock")
	if err := s.Remove(ctx, "orphan"); err != nil {
		t.Error(err)
	}
}
