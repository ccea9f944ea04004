// Package vlan is the drivers macvlan and ipvlan. Their interfaces are children of an interface
// of the host and send on its link directly.
package vlan

import (
	"strconv"
	"strings"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/rtnl"
)

// The options of macvlan and ipvlan networks, in Docker's words.
const (
	optParent      = "parent"
	optMacvlanMode = "macvlan_mode"
	optIpvlanMode  = "ipvlan_mode"
	optIpvlanFlag  = "ipvlan_flag"
)

// kind is macvlan or ipvlan: what differs between the two drivers.
type kind struct {
	name  string
	mode  words
	flags *words // nil: it has none
	// passthru is the mode in which one network, and one container, has the parent to
	// itself; -1: there is none.
	passthru int64
	// oneMode tells that the mode and the flags are the parent's: all its networks have the
	// same.
	oneMode bool
	// sharedMAC tells that children have the parent's hardware address in every mode.
	sharedMAC bool
	// routed are the modes in which everything leaves by the interface, without a gateway.
	routed []uint32
	// child makes one container's interface.
	child func(o options, parent int, p rtnl.Peer) *rtnl.Request
}

func macvlan() kind {
	return kind{
		name: "macvlan", passthru: rtnl.MacvlanPassthru,
		mode: words{optMacvlanMode, macvlanModes, "requested macvlan mode '%s' is not valid, 'bridge' mode is the macvlan driver default"},
		child: func(o options, parent int, p rtnl.Peer) *rtnl.Request {
			return rtnl.AddMacvlan(parent, o.mode, o.mtu, p)
		},
	}
}

func ipvlan() kind {
	return kind{
		name: "ipvlan", passthru: -1, oneMode: true, sharedMAC: true, routed: []uint32{rtnl.IpvlanL3, rtnl.IpvlanL3S},
		mode:  words{optIpvlanMode, ipvlanModes, "requested ipvlan mode '%s' is not valid, 'l2' mode is the ipvlan driver default"},
		flags: &words{optIpvlanFlag, ipvlanFlags, "requested ipvlan flag '%s' is not valid, 'bridge' is the ipvlan driver default"},
		child: func(o options, parent int, p rtnl.Peer) *rtnl.Request {
			return rtnl.AddIpvlan(parent, uint16(o.mode), o.flags, o.mtu, p)
		},
	}
}

// kindOf is the kind that a network is of; nil: neither.
func kindOf(n driver.Network) *kind {
	for _, k := range []kind{macvlan(), ipvlan()} {
		if k.name == n.Driver {
			return &k
		}
	}
	return nil
}

// options are the decoded options of a network.
type options struct {
	parent   string // never empty: ownParent's when own is set
	own      bool   // nobody named a parent: one of ours, which leads nowhere
	mode     uint32
	flags    uint16 // of ipvlan
	mtu      int
	ifPrefix string
}

// words is one option whose values are words, the first of them the default.
type words struct {
	key     string
	values  []word
	refusal string // of another value, which is its %s
}

type word struct {
	name  string
	value uint32
}

// The modes of macvlan and ipvlan, and the flags of ipvlan (linux/if_link.h).
var (
	macvlanModes = []word{{"bridge", rtnl.MacvlanBridge}, {"private", rtnl.MacvlanPrivate}, {"vepa", rtnl.MacvlanVEPA}, {"passthru", rtnl.MacvlanPassthru}}
	ipvlanModes  = []word{{"l2", rtnl.IpvlanL2}, {"l3", rtnl.IpvlanL3}, {"l3s", rtnl.IpvlanL3S}}
	ipvlanFlags  = []word{{"bridge", 0}, {"private", rtnl.IpvlanPrivate}, {"vepa", rtnl.IpvlanVEPA}}
)

// parse decodes a network's options. Errors are of class Invalid.
func (k *kind) parse(n driver.Network) (options, error) {
	o := options{parent: n.Options[optParent], ifPrefix: n.Options[driver.OptIfPrefix]}
	var err error
	if v := n.Options[driver.OptMTU]; v != "" {
		if o.mtu, err = driver.ParseMTU(v); err != nil {
			return o, err
		}
	}
	if o.ifPrefix != "" {
		if err := driver.CheckIfName(o.ifPrefix + "0"); err != nil {
			return o, err
		}
	}
	if o.mode, err = k.mode.choose(n.Options); err == nil && k.flags != nil {
		var flags uint32
		flags, err = k.flags.choose(n.Options)
		o.flags = uint16(flags)
	}
	switch {
	case err != nil:
		return o, err
	case o.parent == "lo":
		return o, errclass.Invalid("loopback interface is not a valid %s parent link", n.Driver)
	case o.parent == "":
		o.parent, o.own = ownParent(n.ID), true
		return o, nil
	}
	return o, driver.CheckIfName(o.parent)
}

func (w *words) choose(opts map[string]string) (uint32, error) {
	v := opts[w.key]
	if v == "" {
		return w.values[0].value, nil
	}
	for _, x := range w.values {
		if x.name == v {
			return x.value, nil
		}
	}
	return 0, errclass.Invalid(w.refusal, v)
}

// ownPrefix begins the names of parents of ours, as Docker's.
const ownPrefix = "dm-"

// ownParent is the name of the parent of a network that was given none; ownFar is the
// other end of its wire, on kernels without dummies.
func ownParent(networkID string) string { return ownPrefix + id.Short(networkID) }

func ownFar(parent string) string { return "dp-" + strings.TrimPrefix(parent, ownPrefix) }

// tagged splits the name of an 802.1q interface, "eth0.10", as Docker does.
func tagged(name string) (base string, tag uint16, err error) {
	base, t, ok := strings.Cut(name, ".")
	if !ok {
		return "", 0, errclass.Invalid("invalid subinterface vlan name %s, example formatting is eth0.10", name)
	}
	if base == "" || strings.Contains(t, ".") {
		return "", 0, errclass.Invalid("required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead received %s", name)
	}
	v, err := strconv.Atoi(t)
	if err != nil {
		return "", 0, errclass.Invalid("unable to parse a valid vlan id from: %s (ex. eth0.10 for vlan 10)", t)
	}
	if v < 1 || v > 4094 {
		return "", 0, errclass.Invalid("vlan id must be between 1-4094, received: %d", v)
	}
	return base, uint16(v), nil
}

// check holds what both drivers refuse.
func (k *kind) check(n driver.Network, others []driver.Network) error {
	o, err := k.parse(n)
	if err != nil || o.own {
		return err
	}
	for _, other := range others {
		ok := kindOf(other)
		if ok == nil || other.Options[optParent] != o.parent {
			continue
		}
		p, err := ok.parse(other)
		if err != nil {
			continue // from another age
		}
		short := id.Short(other.ID)
		switch {
		case ok.name != k.name:
			// One receive handler a link: the kernel would refuse the first container.
			return errclass.Forbidden("%s network %s is already using parent interface %s", ok.name, short, o.parent)
		case int64(o.mode) == k.passthru:
			return errclass.Forbidden("cannot use mode passthru, %s network %s is already using parent interface %s", k.name, short, o.parent)
		case int64(p.mode) == k.passthru:
			return errclass.Forbidden("%s network %s is already using parent interface %s in mode passthru", k.name, short, o.parent)
		case k.oneMode && (o.mode != p.mode || o.flags != p.flags):
			return errclass.Forbidden("%s network %s is already using parent interface %s in another mode", k.name, short, o.parent)
		}
	}
	return nil
}
