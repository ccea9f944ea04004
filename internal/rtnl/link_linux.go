package rtnl

import (
	"errors"
	"fmt"
	"net"

	"golang.org/x/sys/unix"
)

// Group is the device group (IFLA_GROUP) our interfaces carry, so that leftovers can
// be told from other people's. The number has no meaning of its own.
const Group = 0x67616e74

// Attribute numbers of linux/if_link.h and linux/veth.h that x/sys does not name.
const (
	vethInfoPeer    = 1
	iflaMacvlanMode = 1
	iflaVlanID      = 1
	brportMode      = 4 // IFLA_BRPORT_MODE: hairpin
	brportIsolated  = 33
	ipvlanMode      = 1
	ipvlanFlags     = 2

	iflaInet6AddrGenMode = 8
	inet6AddrGenNone     = 1
)

// The modes of macvlan and ipvlan, and ipvlan's flags (linux/if_link.h).
const (
	MacvlanPrivate  = 1
	MacvlanVEPA     = 2
	MacvlanBridge   = 4
	MacvlanPassthru = 8

	IpvlanL2  = 0
	IpvlanL3  = 1
	IpvlanL3S = 2

	IpvlanPrivate = 1
	IpvlanVEPA    = 2
)

// Veth describes a pair of virtual Ethernet devices: one end on a bridge in the
// socket's namespace, up at once, the other in the namespace NS, still down.
type Veth struct {
	Name   string
	Master int // index of the bridge; 0: none
	MTU    int
	Peer   Peer
}

// Peer is the far end of a Veth, or the inside device of macvlan and ipvlan.
type Peer struct {
	Name  string
	Index int // requested interface index; 0: the kernel chooses
	MAC   net.HardwareAddr
	NS    int // descriptor of the network namespace
}

// AddVeth makes the pair. Fails with EEXIST when Name is taken, and with EBUSY or
// EEXIST when Peer.Index is.
func AddVeth(v Veth) *Request {
	r := newRequest("creating veth "+v.Name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		ifinfomsg(0, 0, unix.IFF_UP, unix.IFF_UP))
	r.str(unix.IFLA_IFNAME, v.Name).u32(unix.IFLA_GROUP, Group)
	if v.MTU > 0 {
		r.u32(unix.IFLA_MTU, uint32(v.MTU))
	}
	if v.Master != 0 {
		r.u32(unix.IFLA_MASTER, uint32(v.Master))
	}
	return r.nest(unix.IFLA_LINKINFO, func() {
		r.str(unix.IFLA_INFO_KIND, KindVeth)
		r.nest(unix.IFLA_INFO_DATA, func() {
			r.nest(vethInfoPeer, func() {
				r.b = append(r.b, ifinfomsg(0, v.Peer.Index, 0, 0)...)
				r.str(unix.IFLA_IFNAME, v.Peer.Name)
				if v.MTU > 0 {
					r.u32(unix.IFLA_MTU, uint32(v.MTU))
				}
				if v.Peer.MAC != nil {
					r.attr(unix.IFLA_ADDRESS, v.Peer.MAC)
				}
				r.u32(unix.IFLA_NET_NS_FD, uint32(v.Peer.NS))
			})
		})
	})
}

// AddMacvlan makes a macvlan device of the given mode (MACVLAN_MODE_*) on parent,
// directly in the peer's namespace.
func AddMacvlan(parent int, mode uint32, mtu int, p Peer) *Request {
	return addChild("macvlan", parent, mtu, p, func(r *Request) { r.u32(iflaMacvlanMode, mode) })
}

// AddIpvlan makes an ipvlan device of the given mode (0 l2, 1 l3, 2 l3s) and flags
// (0 bridge, 1 private, 2 vepa).
func AddIpvlan(parent int, mode, flags uint16, mtu int, p Peer) *Request {
	return addChild("ipvlan", parent, mtu, p, func(r *Request) {
		r.attr(ipvlanMode, []byte{byte(mode), byte(mode >> 8)})
		r.attr(ipvlanFlags, []byte{byte(flags), byte(flags >> 8)})
	})
}

func addChild(kind string, parent, mtu int, p Peer, data func(*Request)) *Request {
	r := newRequest("creating "+kind+" "+p.Name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		ifinfomsg(0, p.Index, 0, 0))
	r.str(unix.IFLA_IFNAME, p.Name).u32(unix.IFLA_LINK, uint32(parent)).u32(unix.IFLA_GROUP, Group)
	if mtu > 0 {
		r.u32(unix.IFLA_MTU, uint32(mtu))
	}
	if p.MAC != nil {
		r.attr(unix.IFLA_ADDRESS, p.MAC)
	}
	r.u32(unix.IFLA_NET_NS_FD, uint32(p.NS))
	return r.nest(unix.IFLA_LINKINFO, func() {
		r.str(unix.IFLA_INFO_KIND, kind)
		r.nest(unix.IFLA_INFO_DATA, func() { data(r) })
	})
}

// AddVlan makes an 802.1q device over parent, up.
func AddVlan(name string, parent int, id uint16) *Request {
	r := newRequest("creating vlan "+name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		ifinfomsg(0, 0, unix.IFF_UP, unix.IFF_UP))
	r.str(unix.IFLA_IFNAME, name).u32(unix.IFLA_LINK, uint32(parent)).u32(unix.IFLA_GROUP, Group)
	return r.nest(unix.IFLA_LINKINFO, func() {
		r.str(unix.IFLA_INFO_KIND, KindVlan)
		r.nest(unix.IFLA_INFO_DATA, func() { r.attr(iflaVlanID, []byte{byte(id), byte(id >> 8)}) })
	})
}

// AddDummy makes a dummy device, up (the parent of a macvlan without one).
func AddDummy(name string) *Request {
	r := newRequest("creating dummy "+name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		ifinfomsg(0, 0, unix.IFF_UP, unix.IFF_UP))
	r.str(unix.IFLA_IFNAME, name).u32(unix.IFLA_GROUP, Group)
	return r.nest(unix.IFLA_LINKINFO, func() { r.str(unix.IFLA_INFO_KIND, "dummy") })
}

// AddBridge makes a bridge, down.
func AddBridge(name string, mac net.HardwareAddr, mtu int) *Request {
	r := newRequest("creating bridge "+name, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL,
		ifinfomsg(0, 0, 0, 0))
	r.str(unix.IFLA_IFNAME, name).u32(unix.IFLA_GROUP, Group)
	if mac != nil {
		// A set address stays: otherwise the bridge takes the lowest of its ports'.
		r.attr(unix.IFLA_ADDRESS, mac)
	}
	if mtu > 0 {
		r.u32(unix.IFLA_MTU, uint32(mtu))
	}
	return r.nest(unix.IFLA_LINKINFO, func() { r.str(unix.IFLA_INFO_KIND, KindBridge) })
}

// SetUp brings an interface up by index.
func SetUp(index int) *Request {
	return newRequest(fmt.Sprintf("bringing up interface %d", index), unix.RTM_NEWLINK, 0,
		ifinfomsg(0, index, unix.IFF_UP, unix.IFF_UP))
}

// SetSilent stops ARP on an interface and the making of an IPv6 address when it comes up.
func SetSilent(index int) *Request {
	r := newRequest(fmt.Sprintf("silencing interface %d", index), unix.RTM_NEWLINK, 0,
		ifinfomsg(0, index, unix.IFF_NOARP, unix.IFF_NOARP))
	return r.nest(unix.IFLA_AF_SPEC, func() {
		r.nest(unix.AF_INET6, func() { r.u8(iflaInet6AddrGenMode, inet6AddrGenNone) })
	})
}

// SetDown takes an interface down by index.
func SetDown(index int) *Request {
	return newRequest(fmt.Sprintf("taking down interface %d", index), unix.RTM_NEWLINK, 0,
		ifinfomsg(0, index, 0, unix.IFF_UP))
}

// MoveLink moves an interface that is down into another network namespace (a
// descriptor) under a new name; with mac, it gets that address.
func MoveLink(index int, name string, mac net.HardwareAddr, ns int) *Request {
	r := newRequest(fmt.Sprintf("moving interface %d (%s)", index, name), unix.RTM_NEWLINK, 0, ifinfomsg(0, index, 0, 0))
	r.u32(unix.IFLA_NET_NS_FD, uint32(ns)).str(unix.IFLA_IFNAME, name)
	if mac != nil {
		r.attr(unix.IFLA_ADDRESS, mac)
	}
	return r
}

// SetGroup puts an interface into a device group.
func SetGroup(index int, group uint32) *Request {
	r := newRequest(fmt.Sprintf("putting interface %d into group %d", index, group), unix.RTM_NEWLINK, 0, ifinfomsg(0, index, 0, 0))
	return r.u32(unix.IFLA_GROUP, group)
}

// SetMaster makes an interface a port of a bridge, both by index.
func SetMaster(index, bridge int) *Request {
	r := newRequest(fmt.Sprintf("plugging interface %d into bridge %d", index, bridge), unix.RTM_NEWLINK, 0, ifinfomsg(0, index, 0, 0))
	return r.u32(unix.IFLA_MASTER, uint32(bridge))
}

// SetMTU changes an interface's MTU by index.
func SetMTU(index, mtu int) *Request {
	r := newRequest(fmt.Sprintf("setting the MTU of interface %d", index), unix.RTM_NEWLINK, 0, ifinfomsg(0, index, 0, 0))
	return r.u32(unix.IFLA_MTU, uint32(mtu))
}

// SetPort sets flags of a bridge's port: isolated ports cannot reach each other (icc
// off); a hairpin port gets frames back that it sent.
func SetPort(index int, isolated, hairpin bool) *Request {
	r := newRequest(fmt.Sprintf("setting up bridge port %d", index), unix.RTM_SETLINK, 0,
		ifinfomsg(unix.AF_BRIDGE, index, 0, 0))
	return r.nest(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, func() {
		if isolated {
			r.u8(brportIsolated, 1)
		}
		if hairpin {
			r.u8(brportMode, 1)
		}
	})
}

// DelLink removes an interface by name; the socket's namespace only.
func DelLink(name string) *Request {
	r := newRequest("removing interface "+name, unix.RTM_DELLINK, 0, ifinfomsg(0, 0, 0, 0))
	return r.str(unix.IFLA_IFNAME, name)
}

// Link is what is known of an interface.
type Link struct {
	Index, Master, MTU int
	Parent             int // IFLA_LINK
	Flags, Group       uint32
	Name, Kind         string
	MAC                net.HardwareAddr
}

// Up reports whether the interface is administratively up.
func (l Link) Up() bool { return l.Flags&unix.IFF_UP != 0 }

// ParseLink decodes an RTM_NEWLINK message.
func ParseLink(m Reply) (Link, bool) {
	if m.Type != unix.RTM_NEWLINK || len(m.Data) < unix.SizeofIfInfomsg {
		return Link{}, false
	}
	l := Link{Index: int(int32(u32(m.Data[4:]))), Flags: u32(m.Data[8:])}
	attrs(m.Data[unix.SizeofIfInfomsg:], func(typ uint16, d []byte) {
		switch typ {
		case unix.IFLA_IFNAME:
			l.Name = cstr(d)
		case unix.IFLA_MTU:
			l.MTU = int(u32(d))
		case unix.IFLA_MASTER:
			l.Master = int(u32(d))
		case unix.IFLA_LINK:
			l.Parent = int(u32(d))
		case unix.IFLA_GROUP:
			l.Group = u32(d)
		case unix.IFLA_ADDRESS:
			l.MAC = net.HardwareAddr(d)
		case unix.IFLA_LINKINFO:
			attrs(d, func(typ uint16, d []byte) {
				if typ == unix.IFLA_INFO_KIND {
					l.Kind = cstr(d)
				}
			})
		}
	})
	return l, true
}

// GetLink asks for an interface by name; decode the reply with ParseLink.
func GetLink(name string) *Request {
	return newRequest("looking up interface "+name, unix.RTM_GETLINK, 0, ifinfomsg(0, 0, 0, 0)).str(unix.IFLA_IFNAME, name)
}

// GetLinkIndex asks for an interface by index.
func GetLinkIndex(index int) *Request {
	return newRequest(fmt.Sprintf("looking up interface %d", index), unix.RTM_GETLINK, 0, ifinfomsg(0, index, 0, 0))
}

// LinkByName finds an interface; ENODEV (in an *Error) when there is none.
func (c *Conn) LinkByName(name string) (Link, error) {
	r := GetLink(name)
	replies, err := c.Do(r)
	if err != nil {
		return Link{}, err
	}
	for _, m := range replies {
		if l, ok := ParseLink(m); ok {
			return l, nil
		}
	}
	return Link{}, &Error{Op: r.op, Errno: unix.ENODEV}
}

// Links lists all interfaces; with master, only that bridge's ports.
func (c *Conn) Links(master int) ([]Link, error) {
	r := newRequest("listing interfaces", unix.RTM_GETLINK, unix.NLM_F_DUMP, ifinfomsg(0, 0, 0, 0))
	if master != 0 {
		r.u32(unix.IFLA_MASTER, uint32(master))
	}
	replies, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	var out []Link
	for _, m := range replies {
		if l, ok := ParseLink(m); ok && (master == 0 || l.Master == master) {
			out = append(out, l)
		}
	}
	return out, nil
}

// The kinds of links that are asked for by name, in the kernel's words (IFLA_INFO_KIND).
const (
	KindBridge = "bridge"
	KindVeth   = "veth"
	KindVlan   = "vlan"
)

// HasKind tells whether the kernel knows a kind of virtual link ("ipvlan", "vlan"),
// loading its module where it may. It tries in the socket's namespace, on a link without
// parent, which all that need one refuse.
func HasKind(c *Conn, kind string) bool {
	r := newRequest("asking for links of kind "+kind, unix.RTM_NEWLINK, unix.NLM_F_CREATE|unix.NLM_F_EXCL, ifinfomsg(0, 0, 0, 0))
	r.str(unix.IFLA_IFNAME, "gtprobe0")
	_, err := c.Do(r.nest(unix.IFLA_LINKINFO, func() { r.str(unix.IFLA_INFO_KIND, kind) }))
	if err == nil {
		_, _ = c.Do(DelLink("gtprobe0"))
	}
	return !errors.Is(err, unix.EOPNOTSUPP)
}
