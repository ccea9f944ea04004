package bridge

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/driver/drivertest"
	"github.com/gantry/gantry/internal/rtnl"
)

func TestConformance(t *testing.T) {
	drivertest.Run(t, drivertest.Target{
		New: New(Config{ICC: true}), Name: "bridge", Options: map[string]string{OptName: "br-x"},
		Bad: []map[string]string{{OptName: "a/b"}, {OptMTU: "x"}, {OptICC: "perhaps"}, {OptMode4: "odd"}, {OptMode4: "isolated"}, {OptBindIP: "here"}, {OptIfPrefix: "a b"}},
	})
}

func lan(id string, options map[string]string) driver.Network {
	return driver.Network{ID: strings.Repeat(id, 64), Name: "lan", Driver: "bridge", Options: options, IPv4: true, Subnets: []driver.Subnet{
		{Prefix: netip.MustParsePrefix("10.9.0.0/24"), Gateway: netip.MustParseAddr("10.9.0.1"), Host: netip.MustParseAddr("10.9.0.1")},
	}}
}

// A bridge that somebody deleted is made again by the next container, with the interfaces of
// those that run in it; one that was given to us is not.
func TestRemade(t *testing.T) {
	for _, c := range []struct {
		name, given string
		again       bool
	}{{"ours", "", true}, {"given", "br-x", false}} {
		t.Run(c.name, func(t *testing.T) {
			h := drivertest.NewHost(t)
			d := New(Config{Given: c.given})(h)
			n := lan("a", map[string]string{OptName: "br-x", OptICC: "false"})
			if err := d.Start(t.Context(), n, false); err != nil {
				t.Fatal(err)
			}
			if b, ok := h.Bridge("br-x"); !ok || b.ICC || len(b.Subnets) != 1 || b.Index == 0 {
				t.Errorf("under the firewall: %v %+v", ok, b)
			}
			one, err := d.Join(t.Context(), n, driver.Endpoint{ID: "1"})
			if err != nil {
				t.Fatal(err)
			}
			h.Add(rtnl.Link{Name: one.Port.HostIf})
			d.Adopt(n, driver.Endpoint{ID: "2", HostIf: "veth-gone"}) // dies with its container
			h.Remove("br-x")
			two, err := d.Join(t.Context(), n, driver.Endpoint{ID: "3"})
			if err != nil {
				t.Fatal(err)
			}
			l, err := h.LinkByName("br-x")
			if made := err == nil; made != c.again {
				t.Fatalf("made again: %v", made)
			}
			if c.again {
				if port, _ := h.LinkByName(one.Port.HostIf); port.Master != l.Index || two.Port.Bridge != l.Index || !two.Port.Isolated {
					t.Errorf("port %+v, new interface %+v, bridge %+v", port, two.Port, l)
				}
			}
		})
	}
}

// A network that could not come up with the daemon comes up with its first container.
func TestStartsLate(t *testing.T) {
	h := drivertest.NewHost(t)
	d := New(Config{})(h)
	n := lan("a", nil)
	h.Fail = func(string) error { return errors.New("not now") }
	if err := d.Start(t.Context(), n, true); err == nil {
		t.Error("started")
	}
	h.Fail = nil
	if i, err := d.Join(t.Context(), n, driver.Endpoint{ID: "1"}); err != nil || i.Port.Bridge == 0 {
		t.Errorf("%+v %v", i.Port, err)
	}
}

func TestSameBridge(t *testing.T) {
	d := New(Config{})(drivertest.NewHost(t))
	a, b := lan("a", map[string]string{OptName: "br-x"}), lan("b", map[string]string{OptName: "br-x"})
	if d.Resource(a) != d.Resource(b) || d.Resource(a) == d.Resource(lan("b", nil)) {
		t.Errorf("%q %q", d.Resource(a), d.Resource(b))
	}
	err := d.Check(b, []driver.Network{a})
	if !errors.Is(err, errdefs.ErrPermissionDenied) || !strings.HasSuffix(err.Error(), "networks have same bridge name") {
		t.Error(err)
	}
}

// What the options say of publishing and of the default network.
func TestFacts(t *testing.T) {
	d, ok := New(Config{Given: "mine", MTU: 1400, ICC: true, BindIP: netip.MustParseAddr("192.0.2.1")})(drivertest.NewHost(t)).(*Driver)
	if !ok {
		t.Fatal("another type")
	}
	p := d.Publishing(lan("a", map[string]string{OptMode6: "routed", OptBindIP: "127.0.0.1"}))
	if p.Interface != "br-aaaaaaaaaaaa" || p.Mode(false) != "" || p.Mode(true) != driver.ModeRouted || p.BindIP.String() != "127.0.0.1" || p.Internal {
		t.Errorf("%+v", p)
	}
	if p := d.Publishing(lan("a", map[string]string{OptMTU: "x"})); p.Mode4.Translates() || p.Mode6.Translates() {
		t.Errorf("options that are refused publish: %+v", p)
	}
	iface, o := d.Default()
	if iface != "mine" || o[OptName] != "mine" || o[OptMTU] != "1400" || o[OptICC] != "true" || o[OptMasq] != "false" || o[OptBindIP] != "192.0.2.1" {
		t.Errorf("%s %v", iface, o)
	}
	if got := d.Describe().Defaults[OptMTU]; got != "1400" {
		t.Errorf("default MTU %q", got)
	}
}
