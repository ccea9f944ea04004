package network

import (
	"net/netip"
	"reflect"
	"testing"

	"github.com/moby/moby/api/types/network"
)

func TestPortWishes(t *testing.T) {
	r := SandboxRequest{
		Ports:      portMapOf(">82/tcp", "8000-8010>81/tcp", "9000>80/udp", "127.0.0.1|9000>80/tcp"),
		Exposed:    network.PortSet{network.MustParsePort("7000/tcp"): {}, network.MustParsePort("80/tcp"): {}},
		PublishAll: true,
	}
	ws, err := portWishes(r, netip.Addr{}, true)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range ws {
		s := w.port.String()
		for _, a := range w.addrs {
			s += " " + a.String()
		}
		got = append(got, s)
	}
	want := []string{"80/tcp 127.0.0.1", "80/udp 0.0.0.0 ::", "81/tcp 0.0.0.0 ::", "82/tcp 0.0.0.0 ::", "7000/tcp 0.0.0.0 ::"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []string{"x", "1-", "70000", "10-5", "-1", "0-5"} {
		if _, err := portWishes(SandboxRequest{Ports: portMapOf(bad + ">80/tcp")}, netip.Addr{}, false); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if ws, _ := portWishes(SandboxRequest{Ports: portMapOf("1>80/tcp")}, netip.MustParseAddr("192.0.2.1"), true); ws[0].addrs[0].String() != "192.0.2.1" || len(ws[0].addrs) != 1 {
		t.Errorf("default bind address: %v", ws[0].addrs)
	}
}
