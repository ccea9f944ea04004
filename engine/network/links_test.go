package network

import (
	"context"
	"encoding/json"
	"strings"
	"testing"

	"github.com/gantry/gantry/internal/event"
	"github.com/moby/moby/api/types/network"
)

// Where containers may not talk, a link lets one reach what another exposes, and nothing
// else: not its other ports, not the other way round, nobody else.
func TestLinksOpenPorts(t *testing.T) { bothWays(t, testLinksOpenPorts) }

func testLinksOpenPorts(t *testing.T) {
	var cfg Config
	s, _ := newService(t, func(c *Config) { c.ICC = false; cfg = *c })
	db := request("db")
	db.Exposed = network.PortSet{network.MustParsePort("5432/tcp"): {}}
	db.Ports = portMapOf(">6000/tcp")
	web, other := request("web"), run(t, s, request("other"))
	web.LinkedTo = []string{db.ContainerID}
	d := run(t, s, db)
	w := run(t, s, web)
	listen := func(b *box) {
		for _, port := range []string{":5432", ":5433", ":6000"} {
			serve(t, s.host.NS(), b.NetNS, "tcp", port, "db"+port)
		}
	}
	listen(d)
	serve(t, s.host.NS(), w.NetNS, "tcp", ":5432", "web")
	check := func(s *Service, d *box) {
		t.Helper()
		at := d.ip().String()
		try(t, s,
			probe{"exposed", w.NetNS, at + ":5432", "db:5432 " + w.ip().String()}, probe{"exposed by the user", w.NetNS, at + ":6000", "db:6000 " + w.ip().String()},
			probe{"another port", w.NetNS, at + ":5433", ""}, probe{"not linked", other.NetNS, at + ":5432", ""}, probe{"back", d.NetNS, w.ip().String() + ":5432", ""})
	}
	check(s, d)
	// A daemon that comes back knows the links.
	data, err := json.Marshal([]Record{d.Record, w.Record, other.Record})
	if err != nil {
		t.Fatal(err)
	}
	var recs []Record
	if err := json.Unmarshal(data, &recs); err != nil {
		t.Fatal(err)
	}
	s.Close()
	s2, err := New(WithDrivers(cfg, nil), event.New())
	if err != nil {
		t.Fatal(err)
	}
	defer s2.Close()
	if err := s2.Restore(context.Background(), recs); err != nil {
		t.Fatal(err)
	}
	check(s2, d)
	// Linked and started again it has another address.
	old := d.ip().String()
	s2.Release(context.Background(), db.ContainerID)
	run(t, s2, request("thief"))
	d2 := run(t, s2, db)
	if d2.ip().String() == old {
		t.Fatal("the address is the old one")
	}
	listen(d2)
	check(s2, d2)
	if err := s2.SetLinks(web.ContainerID, nil); err != nil {
		t.Fatal(err)
	}
	try(t, s2, probe{"no link any more", w.NetNS, d2.ip().String() + ":5432", ""})
	if err := s2.SetLinks(web.ContainerID, []string{db.ContainerID}); err != nil {
		t.Fatal(err)
	}
	check(s2, d2)
	for _, id := range []string{web.ContainerID, other.id} {
		s2.Release(context.Background(), id)
	}
	if got := elements(t); strings.Contains(got, "5432") {
		t.Errorf("left: %s", got)
	}
}
