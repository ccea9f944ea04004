package store

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/moby/moby/api/types/network"
)

// lan is a driver with interfaces, whose networks share a resource by their option "on".
type lan struct{ driver.Bare }

func (lan) Resource(n driver.Network) string { return n.Options["on"] }

func (lan) Check(_ driver.Network, others []driver.Network) error {
	if len(others) > 0 {
		return errdefs.ErrPermissionDenied
	}
	return nil
}

func drivers() driver.Set {
	d := lan{driver.Bare{Description: driver.Description{Scope: driver.ScopeLocal, HasInterfaces: true, NeedsGateway: true}}}
	return driver.Table{Plugin: func(driver.Host) driver.Driver { return d }}.Open(nil)
}

func open(t *testing.T, root string) *Store {
	t.Helper()
	s, err := Open(Config{DataRoot: root, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func named(name, id, subnet string) *Network {
	return NewNetwork(network.Network{
		Name: name, ID: strings.Repeat(id, 64), Driver: "lan", EnableIPv4: true, Options: map[string]string{},
		IPAM: network.IPAM{Driver: ipam.DriverDefault, Config: []network.IPAMConfig{{Subnet: netip.MustParsePrefix(subnet)}}},
	}, drivers())
}

func TestReserveAndRetire(t *testing.T) {
	s := open(t, t.TempDir())
	a := named("a", "a", "10.1.0.0/24")
	a.Options["on"] = "x"
	if err := s.Reserve(a); err != nil {
		t.Fatal(err)
	}
	e := &sandbox.Endpoint{ID: "e", Name: "web"}
	if err := a.Join("c", e, network.EndpointIPAMConfig{}); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("joining before it is up: %v", err)
	}
	s.Admit(a)
	for what, n := range map[string]*Network{"the name": named("a", "b", "10.2.0.0/24"), "the subnet": named("b", "b", "10.1.0.0/25")} {
		t.Run(what, func(t *testing.T) {
			if err := s.Reserve(n); err == nil {
				t.Errorf("%s was given twice", what)
			}
		})
	}
	b := named("b", "b", "10.2.0.0/24")
	b.Options["on"] = "x"
	if err := s.Reserve(b); !errors.Is(err, errdefs.ErrPermissionDenied) {
		t.Errorf("the driver was not asked about others: %v", err)
	}
	from := named("d", "d", "10.3.0.0/24")
	from.ConfigFrom.Network = "gone"
	if err := s.Reserve(from); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("a configuration network that has gone: %v", err)
	}
	if err := a.Join("c", e, network.EndpointIPAMConfig{}); err != nil || e.IPv4.String() != "10.1.0.2/24" || a.Gateway(e, false).String() != "10.1.0.1" {
		t.Errorf("%v %v %v", e.IPv4, a.Gateway(e, false), err)
	}
	if _, err := s.Retire("a"); !errors.Is(err, errdefs.ErrPermissionDenied) || !strings.Contains(err.Error(), `name:"web" id:"e"`) {
		t.Errorf("in use: %v", err)
	}
	a.Leave("c", e)
	n, err := s.Retire("aaaa")
	if err != nil || n != a {
		t.Fatal(err)
	}
	if _, err := s.Retire("a"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("retired twice: %v", err)
	}
	s.Drop(a)
	if err := s.Reserve(b); err != nil {
		t.Errorf("what the other one had is not free: %v", err)
	}
}

// Addresses are given once, also those that a running container had before.
func TestJoin(t *testing.T) {
	s := open(t, t.TempDir())
	n := named("a", "a", "10.1.0.0/29")
	if err := s.Reserve(n); err != nil {
		t.Fatal(err)
	}
	s.Admit(n)
	old := &sandbox.Endpoint{IPv4: netip.MustParsePrefix("10.1.0.3/29")}
	if errs := n.Adopt("old", old); len(errs) != 0 {
		t.Error(errs)
	}
	if errs := n.Adopt("double", &sandbox.Endpoint{IPv4: old.IPv4}); len(errs) != 1 {
		t.Errorf("one address twice: %v", errs)
	}
	for _, c := range []struct {
		name, wants, got string
		class            error
	}{
		{name: "next", got: "10.1.0.2/29"},
		{name: "past the old one", got: "10.1.0.4/29"},
		{name: "named", wants: "10.1.0.6", got: "10.1.0.6/29"},
		{name: "taken", wants: "10.1.0.3", class: errdefs.ErrPermissionDenied},
		{name: "outside", wants: "10.9.0.3", class: errdefs.ErrInvalidArgument},
		{name: "the last", got: "10.1.0.5/29"},
		{name: "none left", class: errdefs.ErrPermissionDenied},
	} {
		t.Run(c.name, func(t *testing.T) {
			var want network.EndpointIPAMConfig
			if c.wants != "" {
				want.IPv4Address = netip.MustParseAddr(c.wants)
			}
			e := &sandbox.Endpoint{}
			err := n.Join(c.name, e, want)
			if c.class != nil {
				if !errors.Is(err, c.class) || e.IPv4.IsValid() || n.User(c.name) != nil {
					t.Errorf("%v %v", e.IPv4, err)
				}
				return
			}
			if err != nil || e.IPv4.String() != c.got || n.User(c.name) != e {
				t.Errorf("%v %v, want %s", e.IPv4, err, c.got)
			}
		})
	}
	if st := n.Status(); st.IPAM.Subnets[netip.MustParsePrefix("10.1.0.0/29")].DynamicIPsAvailable != 0 {
		t.Errorf("%+v", st)
	}
}

func TestFind(t *testing.T) {
	s := open(t, t.TempDir())
	for _, n := range []*Network{named("web", "a", "10.1.0.0/24"), named("db", "b", "10.2.0.0/24")} {
		if err := s.Enter(n); err != nil {
			t.Fatal(err)
		}
	}
	twin := named("abba", "c", "10.3.0.0/24")
	twin.ID = strings.Repeat("a", 63) + "b"
	if err := s.Enter(twin); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		ref, name string
		class     error
	}{
		{"web", "web", nil},
		{strings.Repeat("b", 64), "db", nil},
		{"bb", "db", nil},
		{"abba", "abba", nil},
		{"aaaa", "", errdefs.ErrInvalidArgument},
		{"", "", errdefs.ErrNotFound},
		{"nobody", "", errdefs.ErrNotFound},
	} {
		t.Run(c.ref, func(t *testing.T) {
			n, err := s.Find(c.ref)
			if c.class != nil && !errors.Is(err, c.class) || c.class == nil && (err != nil || n.Name != c.name) {
				t.Errorf("%+v %v", n, err)
			}
		})
	}
}

// What was saved is read again; what cannot be read is an error, not a missing network.
func TestRecords(t *testing.T) {
	root := t.TempDir()
	s := open(t, root)
	n := named("a", "a", "10.1.0.0/24")
	n.Pooled = []netip.Prefix{netip.MustParsePrefix("10.1.0.0/24")}
	if err := s.Save(n); err != nil {
		t.Fatal(err)
	}
	got, err := open(t, root).Load(drivers())
	if err != nil || len(got) != 1 || got[0].Name != "a" || len(got[0].Pooled) != 1 {
		t.Fatalf("%v %v", got, err)
	}
	file := filepath.Join(Dir(root), n.ID+".json")
	for what, text := range map[string]string{
		"junk": "{", "a newer one": `{"version":2,"network":{"Id":"` + n.ID + `"}}`, "another network's": `{"version":1,"network":{"Id":"x"}}`,
	} {
		t.Run(what, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := s.Load(drivers()); err == nil {
				t.Error("it was read")
			}
		})
	}
	for range 2 {
		if err := s.Forget(n); err != nil {
			t.Error(err)
		}
	}
}
