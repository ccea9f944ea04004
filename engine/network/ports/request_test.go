package ports

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/network"
)

func TestPortRequests(t *testing.T) {
	r := struct {
		Ports      network.PortMap
		Exposed    network.PortSet
		PublishAll bool
	}{
		Ports:      portMapOf(">82/tcp", "8000-8010>81/tcp", "9000>80/udp", "127.0.0.1|9000>80/tcp"),
		Exposed:    network.PortSet{network.MustParsePort("7000/tcp"): {}, network.MustParsePort("80/tcp"): {}},
		PublishAll: true,
	}
	ws, err := Requests(r.Ports, r.Exposed, r.PublishAll, netip.Addr{}, true, true)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, w := range ws {
		s := strconv.Itoa(int(w.ContainerPort)) + "/" + w.Proto
		for _, a := range w.HostIPs {
			s += " " + a.String()
		}
		got = append(got, s)
	}
	want := []string{"80/tcp 127.0.0.1", "80/udp 0.0.0.0 ::", "81/tcp 0.0.0.0 ::", "82/tcp 0.0.0.0 ::", "7000/tcp 0.0.0.0 ::"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for _, bad := range []string{"x", "1-", "70000", "10-5", "-1", "0-5"} {
		if _, err := Requests(portMapOf(bad+">80/tcp"), nil, false, netip.Addr{}, false, true); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if ws, _ := Requests(portMapOf("1>80/tcp"), nil, false, netip.MustParseAddr("192.0.2.1"), true, true); ws[0].HostIPs[0].String() != "192.0.2.1" || len(ws[0].HostIPs) != 1 {
		t.Errorf("default bind address: %v", ws[0].HostIPs)
	}
}

// Ports in a row are one request from RowMin on, whatever order they came in.
func TestRows(t *testing.T) {
	wanted := network.PortMap{}
	for i := range 100 {
		p, _ := network.PortFrom(uint16(8000+i), "udp")
		wanted[p] = []network.PortBinding{{HostPort: strconv.Itoa(9000 + i)}}
	}
	for i := range RowMin - 1 {
		p, _ := network.PortFrom(uint16(100+i), "tcp")
		wanted[p] = []network.PortBinding{{HostPort: strconv.Itoa(100 + i)}}
	}
	p, _ := network.PortFrom(8200, "udp")
	wanted[p] = []network.PortBinding{{HostPort: "9200"}}
	ws, err := Requests(wanted, nil, false, netip.Addr{}, true, true)
	if err != nil || len(ws) != RowMin-1+2 {
		t.Fatalf("%d requests, %v", len(ws), err)
	}
	for _, w := range ws {
		if w.Proto != "udp" {
			continue
		}
		if w.ContainerPort == 8000 && (w.Count != 100 || w.First != 9000) || w.ContainerPort == 8200 && w.Count != 0 {
			t.Errorf("%+v", w)
		}
	}
}

func portMapOf(specs ...string) network.PortMap {
	out := network.PortMap{}
	for _, s := range specs { // [ip|]host>container/proto
		host, cont, _ := strings.Cut(s, ">")
		var b network.PortBinding
		if ip, port, ok := strings.Cut(host, "|"); ok {
			b.HostIP, host = netip.MustParseAddr(ip), port
		}
		b.HostPort = host
		p := network.MustParsePort(cont)
		out[p] = append(out[p], b)
	}
	return out
}
