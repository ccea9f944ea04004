package network

import (
	"net/netip"
	"reflect"
	"strconv"
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

// Ports in a row are one wish from rowMin on, whatever order they came in.
func TestRows(t *testing.T) {
	ports := network.PortMap{}
	for i := range 100 {
		p, _ := network.PortFrom(uint16(8000+i), "udp")
		ports[p] = []network.PortBinding{{HostPort: strconv.Itoa(9000 + i)}}
	}
	for i := range rowMin - 1 {
		p, _ := network.PortFrom(uint16(100+i), "tcp")
		ports[p] = []network.PortBinding{{HostPort: strconv.Itoa(100 + i)}}
	}
	p, _ := network.PortFrom(8200, "udp")
	ports[p] = []network.PortBinding{{HostPort: "9200"}}
	ws, err := portWishes(SandboxRequest{Ports: ports}, netip.Addr{}, true)
	if err != nil || len(ws) != rowMin-1+2 {
		t.Fatalf("%d wishes, %v", len(ws), err)
	}
	for _, w := range ws {
		if w.port.Proto() != "udp" {
			continue
		}
		if w.port.Num() == 8000 && (w.count != 100 || w.first != 9000) || w.port.Num() == 8200 && w.count != 0 {
			t.Errorf("%+v", w)
		}
	}
}
