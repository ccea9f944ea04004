package vlan

import (
	"encoding/hex"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/driver/drivertest"
	"github.com/gantry/gantry/internal/rtnl"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMessages(t *testing.T) {
	peer := rtnl.Peer{Name: "eth0", Index: 2, NS: 9, MAC: net.HardwareAddr{2, 0x42, 10, 66, 0, 64}}
	var b strings.Builder
	for _, c := range []struct{ driver, mode, flag, mtu string }{
		{"macvlan", "", "", ""},
		{"macvlan", "private", "", ""},
		{"macvlan", "vepa", "", ""},
		{"macvlan", "passthru", "", "1400"},
		{"ipvlan", "", "", ""},
		{"ipvlan", "l2", "private", ""},
		{"ipvlan", "l3", "vepa", ""},
		{"ipvlan", "l3s", "bridge", "9000"},
	} {
		n := driver.Network{ID: strings.Repeat("c0ffee", 11)[:64], Driver: c.driver, Options: map[string]string{
			"parent": "eth7", c.driver + "_mode": c.mode, "ipvlan_flag": c.flag, driver.OptMTU: c.mtu,
		}}
		k := kindOf(n)
		o, err := k.parse(n)
		if err != nil {
			t.Fatal(err)
		}
		p := peer
		if c.driver == "ipvlan" {
			p.MAC = nil
		}
		fmt.Fprintf(&b, "%s mode=%q flag=%q mtu=%q\n%s\n", c.driver, c.mode, c.flag, c.mtu, hex.Dump(k.child(o, 7, p).Bytes()))
	}
	base, tag, err := tagged("eth0.50")
	if base != "eth0" || tag != 50 || err != nil {
		t.Error(base, tag, err)
	}
	fmt.Fprintf(&b, "802.1q eth0.50\n%s", hex.Dump(rtnl.AddVlan("eth0.50", 3, tag).Bytes()))
	path := filepath.Join("testdata", "messages.golden")
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil || string(want) != b.String() {
		t.Errorf("%v: messages are\n%s", err, b.String())
	}
}

func TestCheck(t *testing.T) {
	mv := func(id, parent, mode string) driver.Network {
		return driver.Network{ID: strings.Repeat(id, 64), Driver: "macvlan", Options: map[string]string{"parent": parent, "macvlan_mode": mode}}
	}
	iv := func(id, parent, mode, flag string) driver.Network {
		return driver.Network{ID: strings.Repeat(id, 64), Driver: "ipvlan", Options: map[string]string{"parent": parent, "ipvlan_mode": mode, "ipvlan_flag": flag}}
	}
	others := []driver.Network{mv("a", "eth1", ""), mv("b", "eth2", "passthru"), iv("c", "eth3", "l3", ""), {ID: "d", Driver: "bridge", Options: map[string]string{"parent": "eth4"}}}
	for _, c := range []struct {
		n    driver.Network
		text string
	}{
		{mv("1", "", ""), ""},
		{mv("1", "eth1", "private"), ""},
		{mv("1", "eth1", "passthru"), "cannot use mode passthru, macvlan network aaaaaaaaaaaa is already using parent interface eth1"},
		{mv("1", "eth2", "bridge"), "macvlan network bbbbbbbbbbbb is already using parent interface eth2 in mode passthru"},
		{mv("1", "eth3", ""), "ipvlan network cccccccccccc is already using parent interface eth3"},
		{mv("1", "eth4", ""), ""},
		{iv("1", "eth3", "l3", ""), ""},
		{iv("1", "eth3", "l2", ""), "ipvlan network cccccccccccc is already using parent interface eth3 in another mode"},
		{iv("1", "eth3", "l3", "vepa"), "ipvlan network cccccccccccc is already using parent interface eth3 in another mode"},
		{iv("1", "eth1", "", ""), "macvlan network aaaaaaaaaaaa is already using parent interface eth1"},
		{mv("1", "eth9", "odd"), "requested macvlan mode 'odd' is not valid, 'bridge' mode is the macvlan driver default"},
		{iv("1", "eth9", "odd", ""), "requested ipvlan mode 'odd' is not valid, 'l2' mode is the ipvlan driver default"},
		{iv("1", "eth9", "", "odd"), "requested ipvlan flag 'odd' is not valid, 'bridge' is the ipvlan driver default"},
		{iv("1", "lo", "", ""), "loopback interface is not a valid ipvlan parent link"},
	} {
		t.Run(c.text, func(t *testing.T) {
			if err := kindOf(c.n).check(c.n, others); (err == nil) != (c.text == "") || err != nil && err.Error() != c.text {
				t.Errorf("%+v: %v, want %q", c.n.Options, err, c.text)
			}
		})
	}
}

func TestTagged(t *testing.T) {
	for name, text := range map[string]string{
		"eth0":      "invalid subinterface vlan name eth0, example formatting is eth0.10",
		"eth0.1.2":  "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received eth0.1.2",
		"eth0.x":    "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)",
		"eth0.0":    "vlan id must be between 1-4094, received: 0",
		"eth0.4095": "vlan id must be between 1-4094, received: 4095",
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := tagged(name); !errors.Is(err, errdefs.ErrInvalidArgument) || err.Error() != text {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

func TestConformance(t *testing.T) {
	for name, open := range map[string]driver.New{"macvlan": Macvlan, "ipvlan": Ipvlan} {
		for what, options := range map[string]map[string]string{
			"on a parent": {"parent": "lan0"}, "alone": {}, "on a tag": {"parent": "lan0.50"},
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				drivertest.Run(t, drivertest.Target{
					New: open, Name: name, Options: options,
					Bad: []map[string]string{{"parent": "lo"}, {"parent": "a/b"}, {name + "_mode": "odd"}, {driver.OptMTU: "big"}},
				})
			})
		}
	}
}
