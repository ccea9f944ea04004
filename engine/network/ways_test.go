package network

import (
	"context"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// IPv4 and IPv6 may leave by different networks: each publishes its family, and taking
// one away leaves the other's ports as they are.
func TestWaysByFamily(t *testing.T) {
	s, _ := newService(t, nil)
	ctx := context.Background()
	yes, no := true, false
	create(t, s, network.CreateRequest{Name: "four"})
	create(t, s, network.CreateRequest{Name: "six", EnableIPv4: &no, EnableIPv6: &yes})
	r := on(request("web"), "four", "six")
	r.Ports = portMapOf("8080>80/tcp")
	web := run(t, s, r)
	out := neighbour(t, s)
	serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
	six := probe{"IPv6", out, "[2001:db8::1]:8080", "web 2001:db8::2"}
	try(t, s, six, probe{"IPv4", out, "192.0.2.1:8080", "web 192.0.2.2"})
	rec, err := s.Disconnect(ctx, web.NetNS, web.id, "four", nil)
	if err != nil || len(rec.Endpoints) != 1 || len(rec.Endpoints[0].Ports) != 1 {
		t.Fatalf("%+v %v", rec, err)
	}
	try(t, s, six, probe{"IPv4 is gone", out, "192.0.2.1:8080", ""})
	if n := s.endpoints.PublishedPorts(); n != 1 {
		t.Errorf("%d ports taken", n)
	}
	if _, err := s.Disconnect(ctx, web.NetNS, web.id, "six", nil); err != nil {
		t.Fatal(err)
	}
	if n := s.endpoints.PublishedPorts(); n != 0 {
		t.Errorf("%d ports taken", n)
	}
}

// A network that brings a running container its first way out by IPv6 publishes the ports
// there, with the daemon's forwarding or without; the number is IPv4's.
func TestConnectBringsIPv6(t *testing.T) {
	for name, proxy := range map[string]bool{"forwarded before": true, "not there before": false} {
		t.Run(name, func(t *testing.T) {
			s, _ := newService(t, func(c *Config) { c.UserlandProxy = proxy })
			ctx := context.Background()
			yes := true
			create(t, s, network.CreateRequest{Name: "four"})
			create(t, s, network.CreateRequest{Name: "six", EnableIPv6: &yes})
			r := on(request("web"), "four")
			r.Ports = portMapOf("8080>80/tcp", ">81/tcp")
			web := run(t, s, r)
			out := neighbour(t, s)
			routeBack(t, s, out)
			serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
			serve(t, s.host.NS(), web.NetNS, "tcp", ":81", "any")
			r.Endpoints = map[string]*network.EndpointSettings{"six": {}}
			got, err := s.Connect(ctx, web.NetNS, r)
			if err != nil {
				t.Fatal(err)
			}
			free := got.Ports[network.MustParsePort("81/tcp")]
			if len(free) != 2 || free[0].HostPort != free[1].HostPort {
				t.Fatalf("%+v", got.Ports)
			}
			try(t, s, probe{"IPv4", out, "192.0.2.1:8080", "web 192.0.2.2"}, probe{"IPv6", out, "[2001:db8::1]:8080", "web 2001:db8::2"},
				probe{"any, IPv6", out, "[2001:db8::1]:" + free[0].HostPort, "any 2001:db8::2"})
			if _, err := s.Disconnect(ctx, web.NetNS, web.id, "six", nil); err != nil {
				t.Fatal(err)
			}
			try(t, s, probe{"IPv4 again", out, "192.0.2.1:8080", "web 192.0.2.2"})
			web.stop()
			if n := s.endpoints.PublishedPorts(); n != 0 {
				t.Errorf("%d ports taken", n)
			}
			if got := elements(t); got != "" {
				t.Errorf("elements left: %s", got)
			}
		})
	}
}

// Gateway priority decides also when networks are connected later; without one the name.
func TestConnectPriority(t *testing.T) {
	s, _ := newService(t, nil)
	ctx := context.Background()
	for _, n := range []string{"a", "m", "z"} {
		create(t, s, network.CreateRequest{Name: n})
	}
	r := on(request("web"), "m")
	r.Ports = portMapOf("8080>80/tcp")
	web := run(t, s, r)
	out := neighbour(t, s)
	serve(t, s.host.NS(), web.NetNS, "tcp", ":80", "web")
	serve(t, s.host.NS(), out, "tcp", ":99", "world")
	on := func(want string) {
		t.Helper()
		var route string
		s.host.NS().Inside(web.NetNS, func() error {
			b, err := exec.Command("ip", "-4", "route", "show", "default").Output()
			route = strings.TrimSpace(string(b))
			return err
		})
		var with string
		for _, n := range s.nets.All() {
			if e := n.User(web.id); e != nil && len(e.Ports) > 0 {
				with += n.Name
			}
		}
		if gw := web.s.gatewayOf(want); route != "default via "+gw+" dev "+ifOf(t, s, web.id, want) || with != want {
			t.Errorf("default route %q, ports on %q, want %s (%s)", route, with, want, gw)
		}
		try(t, s, probe{"published", out, "192.0.2.1:8080", "web 192.0.2.2"}, probe{"out", web.NetNS, "192.0.2.2:99", "world 192.0.2.1"})
	}
	connect := func(name string, prio int) {
		t.Helper()
		r.Endpoints = map[string]*network.EndpointSettings{name: {GwPriority: prio}}
		if _, err := s.Connect(ctx, web.NetNS, r); err != nil {
			t.Fatal(err)
		}
	}
	disconnect := func(name string) {
		t.Helper()
		if _, err := s.Disconnect(ctx, web.NetNS, web.id, name, nil); err != nil {
			t.Fatal(err)
		}
	}
	on("m")
	connect("z", 0)
	on("m")
	connect("a", 0)
	on("a")
	disconnect("z")
	connect("z", 5)
	on("z")
	disconnect("z")
	on("a")
	disconnect("a")
	on("m")
}

func (s *Service) gatewayOf(name string) string {
	n, err := s.nets.Find(name)
	if err != nil {
		return err.Error()
	}
	return n.IPAM.Config[0].Gateway.String()
}

func ifOf(t *testing.T, s *Service, containerID, name string) string {
	return user(t, s, name, containerID).IfName
}

// user is a container's endpoint on a network.
func user(t *testing.T, s *Service, name, containerID string) *sandbox.Endpoint {
	t.Helper()
	n, err := s.nets.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	e := n.User(containerID)
	if e == nil {
		t.Fatalf("container %s is not on %s", containerID, name)
	}
	return e
}

// On a network that routes to it a container's published ports are reached by its own
// address there, also when another network is its way out; from the start, and when it is
// connected later.
func TestRoutedBesideTheWayOut(t *testing.T) {
	s, _ := newService(t, nil)
	out := neighbour(t, s)
	routeBack(t, s, out)
	create(t, s, network.CreateRequest{Name: "aa"})
	create(t, s, dual("zz", map[string]string{bridge.OptMode4: "routed", bridge.OptMode6: "routed"}))
	check := func(b *box, open bool) {
		t.Helper()
		is := func(s string) string { return map[bool]string{true: s}[open] }
		try(t, s, probe{"routed", out, "10.99.0.2:80", is("web 192.0.2.2")}, probe{"routed, IPv6", out, "[fd99::2]:80", is("web 2001:db8::2")},
			probe{"another port", out, "10.99.0.2:81", ""})
	}
	r := on(request("web"), "aa", "zz")
	r.Ports = portMapOf("8080>80/tcp")
	b := run(t, s, r)
	serve(t, s.host.NS(), b.NetNS, "tcp", ":80", "web")
	serve(t, s.host.NS(), b.NetNS, "tcp", ":81", "hidden")
	try(t, s, probe{"by the host", out, "192.0.2.1:8080", "web 192.0.2.2"})
	returns(t, s, b)
	check(b, true)
	if got := shown(b); strings.Count(got, ">") != strings.Count(got, ":8080>") {
		t.Errorf("shown: %s", got)
	}
	if _, err := s.Disconnect(context.Background(), b.NetNS, b.id, "zz", nil); err != nil {
		t.Fatal(err)
	}
	check(b, false)
	more := r
	more.Endpoints = map[string]*network.EndpointSettings{"zz": {}}
	if _, err := s.Connect(context.Background(), b.NetNS, more); err != nil {
		t.Fatal(err)
	}
	returns(t, s, b)
	check(b, true)
	if _, err := s.Disconnect(context.Background(), b.NetNS, b.id, "aa", nil); err != nil {
		t.Fatal(err)
	}
	try(t, s, probe{"routed alone", out, "10.99.0.2:80", "web 192.0.2.2"}, probe{"by the host no more", out, "192.0.2.1:8080", ""})
}

// returns gives a container routes for its answers by the network that routes to it.
func returns(t *testing.T, s *Service, b *box) {
	t.Helper()
	err := s.host.NS().Inside(b.NetNS, func() error {
		nl, err := dialNL()
		if err != nil {
			return err
		}
		defer nl.Close()
		l, err := nl.LinkByName("eth1")
		if err != nil {
			return err
		}
		for to, via := range map[string]string{"192.0.2.0/24": "10.99.0.1", "2001:db8::/64": "fd99::1"} {
			_, err := nl.Do(rtnl.AddRoute(l.Index, netip.MustParsePrefix(to), netip.MustParseAddr(via)))
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
