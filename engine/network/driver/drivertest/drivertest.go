package drivertest

import (
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/internal/rtnl"
)

// Target is one driver under test.
type Target struct {
	New driver.New
	// Name is what the table calls it.
	Name string
	// Options are of a network that it makes on a host with the links "lan0" and "lo".
	Options map[string]string
	// Bad are options that Check refuses with the Invalid class.
	Bad []map[string]string
	// Elsewhere tells that what it makes is not on the host (a plugin's): the suite does not
	// look there.
	Elsewhere bool
}

// Run holds a driver to what driver.Driver says, without a kernel.
func Run(t *testing.T, tg Target) {
	k := &kit{tg, NewHost(t, rtnl.Link{Name: "lo"}, rtnl.Link{Name: "lan0"}), nil}
	k.d = tg.New(k.h)
	t.Run("a description that does not change", k.describe)
	t.Run("check and resource look at their arguments", k.check)
	t.Run("start and stop, again and again", k.startStop)
	t.Run("a failed start leaves nothing", k.failedStart)
	t.Run("endpoints come and go", k.endpoints)
	t.Run("the next daemon", k.restart)
}

type kit struct {
	Target
	h *Host
	d driver.Driver
}

func (k *kit) network(id string) driver.Network {
	p := netip.MustParsePrefix("10.9.0.0/24")
	return driver.Network{
		ID: strings.Repeat(id, 64), Name: "net", Driver: k.Name, Options: k.Options, IPv4: true,
		Subnets: []driver.Subnet{{Prefix: p, Gateway: p.Addr().Next(), Host: p.Addr().Next()}},
	}
}

func endpoint(id string) driver.Endpoint {
	return driver.Endpoint{ID: strings.Repeat(id, 64), ContainerID: strings.Repeat("c", 64), IPv4: netip.MustParsePrefix("10.9.0.2/24"), MAC: []byte{2, 0x42, 10, 9, 0, 2}}
}

func (k *kit) describe(t *testing.T) {
	a, b := k.d.Describe(), k.d.Describe()
	if !reflect.DeepEqual(a, b) {
		t.Errorf("%+v, then %+v", a, b)
	}
	if a.Scope != driver.ScopeLocal && a.Scope != driver.ScopeSwarm {
		t.Errorf("scope %q", a.Scope)
	}
	if a.HasInterfaces && a.HostNamespace {
		t.Error("containers in the host's namespace get no interface")
	}
	if a.HostAddress && !a.NeedsGateway {
		t.Error("the host's address is the gateway")
	}
}

func (k *kit) check(t *testing.T) {
	before := k.h.String()
	n := k.network("a")
	if err := k.d.Check(n, nil); err != nil {
		t.Errorf("%v: %v", n.Options, err)
	}
	if a, b := k.d.Resource(n), k.d.Resource(n); a != b {
		t.Errorf("resource %q, then %q", a, b)
	}
	for _, bad := range k.Bad {
		n.Options = bad
		if err := k.d.Check(n, nil); !errors.Is(err, errdefs.ErrInvalidArgument) {
			t.Errorf("options %v: %v", bad, err)
		}
		_ = k.d.Resource(n)
	}
	if now := k.h.String(); now != before {
		t.Errorf("the host has %s, before %s", now, before)
	}
}

func (k *kit) startStop(t *testing.T) {
	before := k.h.String()
	n := k.network("a")
	for _, again := range []bool{false, true, true} {
		if err := k.d.Start(t.Context(), n, again); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := k.d.Stop(t.Context(), n, nil); err != nil {
			t.Error(err)
		}
	}
	k.same(t, before)
	if err := k.d.Stop(t.Context(), k.network("b"), nil); err != nil && !k.Elsewhere {
		t.Errorf("stopping what was never started: %v", err)
	}
}

func (k *kit) same(t *testing.T, before string) {
	t.Helper()
	if now := k.h.String(); now != before && !k.Elsewhere {
		t.Errorf("the host has %s, before %s", now, before)
	}
}

// failedStart refuses each call to the host, one after the other, but for removals: what the
// kernel keeps is there.
func (k *kit) failedStart(t *testing.T) {
	before := k.h.String()
	for nth := 0; ; nth++ {
		n, calls, failed := k.network("a"), 0, ""
		k.h.Fail = func(call string) error {
			if call == Removal {
				return nil
			}
			if calls++; calls == nth+1 {
				failed = call
				return errors.New("refused")
			}
			return nil
		}
		err := k.d.Start(t.Context(), n, false)
		k.h.Fail = nil
		if failed != "" && err == nil {
			t.Errorf("%s was refused without an error", failed)
		}
		// The service ends what a failed start began.
		if serr := k.d.Stop(t.Context(), n, nil); serr != nil {
			t.Errorf("stop after %s was refused: %v", failed, serr)
		}
		k.same(t, before)
		if failed == "" || nth > 100 {
			return
		}
	}
}

func (k *kit) endpoints(t *testing.T) {
	if k.d.Describe().Scope != driver.ScopeLocal {
		t.Skip("its networks are made in a swarm")
	}
	before := k.h.String()
	n, e := k.network("a"), endpoint("e")
	if err := k.d.Start(t.Context(), n, false); err != nil {
		t.Fatal(err)
	}
	i, err := k.d.Join(t.Context(), n, e)
	if err != nil {
		t.Fatal(err)
	}
	if makes := i.Port.HostIf != "" || i.Child != nil || i.Move != ""; makes != k.d.Describe().HasInterfaces {
		t.Errorf("an interface: %v, described: %v", makes, !makes)
	}
	e.HostIf = i.Port.HostIf
	for range 2 {
		if err := k.d.Leave(t.Context(), n, e); err != nil {
			t.Error(err)
		}
	}
	if err := k.d.Leave(t.Context(), n, endpoint("f")); err != nil && !k.Elsewhere {
		t.Errorf("an endpoint that nobody knows: %v", err)
	}
	if err := k.d.Stop(t.Context(), n, nil); err != nil {
		t.Error(err)
	}
	k.same(t, before)
	if n.Internal = true; k.d.ProvidesGateway(n, false) || k.d.ProvidesGateway(n, true) {
		t.Error("an internal network has a gateway")
	}
}

// restart: another driver on the same host takes the network and its endpoints over.
func (k *kit) restart(t *testing.T) {
	before := k.h.String()
	n, e := k.network("a"), endpoint("e")
	if err := k.d.Start(t.Context(), n, false); err != nil {
		t.Fatal(err)
	}
	had := k.h.String()
	next := k.New(k.h)
	if err := next.Start(t.Context(), n, true); err != nil {
		t.Error(err)
	}
	next.Adopt(n, e)
	k.same(t, had)
	if err := next.Leave(t.Context(), n, e); err != nil && !k.Elsewhere {
		t.Error(err)
	}
	if err := next.Stop(t.Context(), n, nil); err != nil {
		t.Error(err)
	}
	k.same(t, before)
}
