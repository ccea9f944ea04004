package network

import (
	"context"
	"strings"
	"testing"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// What others delete under our hands is an error with a reason, or none at all; nothing
// stays behind, and everything can still be taken down.
func TestVanished(t *testing.T) {
	s, _ := newService(t, nil)
	ctx := context.Background()
	create(t, s, network.CreateRequest{Name: "one", Options: map[string]string{bridge.OptName: "br-one"}})
	create(t, s, network.CreateRequest{Name: "two"})
	r := on(request("a"), "one")
	r.Ports = portMapOf("8080>80/tcp")
	a := run(t, s, r)
	if _, err := s.Connect(ctx, a.NetNS, on(r, "two")); err != nil {
		t.Fatal(err)
	}
	del := func(name string) {
		t.Helper()
		if _, err := s.host.Conn().Do(rtnl.DelLink(name)); err != nil {
			t.Fatal(err)
		}
	}
	// A container's interface: disconnecting is what somebody does about it.
	hostIf := user(t, s, "two", a.id).HostIf
	del(hostIf)
	if _, err := s.Disconnect(ctx, a.NetNS, a.id, "two", nil); err != nil {
		t.Errorf("disconnect without the interface: %v", err)
	}
	if _, err := s.Connect(ctx, a.NetNS, on(r, "two")); err != nil {
		t.Errorf("connect again: %v", err)
	}
	// The bridge of a network with containers on it: the next start makes it again, and
	// who was on it is on it again.
	serve(t, s.host.NS(), a.NetNS, "tcp4", ":80", "a")
	del("br-one")
	x := on(request("x"), "one")
	x.Ports = portMapOf("8081>80/tcp")
	b := run(t, s, x)
	serve(t, s.host.NS(), b.NetNS, "tcp4", ":80", "b")
	try(t, s, probe{"to the old one", b.NetNS, a.ip().String() + ":80", "a " + b.ip().String()},
		probe{"published", nil, "127.0.0.1:8080", "a 172.18.0.1"}, probe{"published, new", nil, "127.0.0.1:8081", "b 172.18.0.1"},
		probe{"hairpin", a.NetNS, "172.18.0.1:8080", "a 172.18.0.1"})
	b.stop()
	a.stop()
	for _, n := range []string{"one", "two"} {
		if err := s.Remove(ctx, n); err != nil {
			t.Errorf("removing %s: %v", n, err)
		}
	}
	if s.endpoints.PublishedPorts() != 0 {
		t.Error("ports left")
	}
	waitFor(t, func() bool { return linkNames(t, s) == "docker0 lo" })
	if ok, err := s.host.Intact(); err != nil || !ok {
		t.Errorf("firewall: %v %v", ok, err)
	}
	if got := elements(t); got != "" {
		t.Errorf("elements left: %s", got)
	}
}

// A thousand published ports make no rule more; every one of them answers by a lookup.
func TestThousandPorts(t *testing.T) {
	s, _ := newService(t, nil)
	rules := func() int {
		n := 0
		for _, l := range strings.Split(ruleset(t), "\n") {
			for _, verb := range []string{" accept", " drop", "dnat ", "snat ", "masquerade", "jump "} {
				if strings.Contains(l, verb) && !strings.Contains(l, "policy") {
					n++
					break
				}
			}
		}
		return n
	}
	before := rules()
	r := request("many")
	r.Ports = network.PortMap{}
	for i := range 1000 {
		p, _ := network.PortFrom(80, "tcp")
		if i%2 == 1 {
			p, _ = network.PortFrom(80, "udp")
		}
		r.Ports[p] = append(r.Ports[p], network.PortBinding{})
	}
	b := run(t, s, r)
	if now := rules(); now != before || before == 0 {
		t.Errorf("%d rules, were %d", now, before)
	}
	serve(t, s.host.NS(), b.NetNS, "tcp4", ":80", "one of many")
	bs := b.Ports[network.MustParsePort("80/tcp")]
	if len(bs) != 1000 { // both families
		t.Fatalf("%d bindings", len(bs))
	}
	try(t, s, probe{"first", nil, "127.0.0.1:" + bs[0].HostPort, "one of many 172.17.0.1"},
		probe{"last", nil, "127.0.0.1:" + bs[len(bs)-2].HostPort, "one of many 172.17.0.1"})
}

// The protocol the kernel may lack is published by its rules alone.
func TestSCTP(t *testing.T) {
	s, _ := newService(t, nil)
	r := request("s")
	r.Ports = portMapOf("9999>99/sctp", "7000-7003>98/sctp")
	b := run(t, s, r)
	if got := elementsOf(t, "sctp"); !strings.Contains(got, "sctp . 9999 : 172.17.0.2 . 99") {
		t.Errorf("elements %q", got)
	}
	if bs := b.Ports[network.MustParsePort("98/sctp")]; len(bs) == 0 || bs[0].HostPort != "7000" {
		t.Errorf("%v", b.Ports)
	}
	other := request("o")
	other.Ports = portMapOf("9999>99/sctp")
	if _, err := s.Acquire(context.Background(), other); err == nil || !strings.Contains(err.Error(), "0.0.0.0:9999 by container s") {
		t.Error(err)
	}
	b.stop()
	run(t, s, other)
}

func elementsOf(t *testing.T, proto string) string {
	var out []string
	for _, l := range strings.Split(ruleset(t), "\n") {
		if strings.Contains(l, proto+" . ") {
			out = append(out, strings.TrimSpace(l))
		}
	}
	return strings.Join(out, "; ")
}
