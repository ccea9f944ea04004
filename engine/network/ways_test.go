package network

import (
	"context"
	"testing"

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
	serve(t, s.host, web.NetNS, "tcp", ":80", "web")
	six := probe{"IPv6", out, "[2001:db8::1]:8080", "web 2001:db8::2"}
	try(t, s, six, probe{"IPv4", out, "192.0.2.1:8080", "web 192.0.2.2"})
	rec, err := s.Disconnect(ctx, web.NetNS, web.id, "four")
	if err != nil || len(rec.Endpoints) != 1 || len(rec.Endpoints[0].Ports) != 1 {
		t.Fatalf("%+v %v", rec, err)
	}
	try(t, s, six, probe{"IPv4 is gone", out, "192.0.2.1:8080", ""})
	if n := s.pub.table.Len(); n != 1 {
		t.Errorf("%d ports taken", n)
	}
	if _, err := s.Disconnect(ctx, web.NetNS, web.id, "six"); err != nil {
		t.Fatal(err)
	}
	if n := s.pub.table.Len(); n != 0 {
		t.Errorf("%d ports taken", n)
	}
}
