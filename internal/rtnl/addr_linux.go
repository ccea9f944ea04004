package rtnl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

const ntfSticky = 0x40 // NTF_STICKY of linux/neighbour.h: learning does not move the entry

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// AddAddr gives an interface an address; existing ones are replaced. IPv6 addresses
// skip duplicate address detection: they come from our own allocator.
func AddAddr(index int, p netip.Prefix) *Request {
	return addrRequest("adding address "+p.String(), unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, index, p)
}

// DelAddr takes an address from an interface.
func DelAddr(index int, p netip.Prefix) *Request {
	return addrRequest("removing address "+p.String(), unix.RTM_DELADDR, 0, index, p)
}

func addrRequest(op string, typ, flags uint16, index int, p netip.Prefix) *Request {
	a := p.Addr()
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0], h[1] = family(a), uint8(p.Bits())
	if a.Is6() {
		h[2] = unix.IFA_F_NODAD
	}
	if a.IsLinkLocalUnicast() {
		h[3] = unix.RT_SCOPE_LINK
	}
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	r := newRequest(op, typ, flags, h)
	r.attr(unix.IFA_LOCAL, a.AsSlice()).attr(unix.IFA_ADDRESS, a.AsSlice())
	if a.Is4() && p.Bits() < 31 {
		r.attr(unix.IFA_BROADCAST, broadcast(p))
	}
	return r
}

func broadcast(p netip.Prefix) []byte {
	a := p.Addr().As4()
	v := binary.BigEndian.Uint32(a[:]) | (1<<(32-p.Bits()) - 1)
	return binary.BigEndian.AppendUint32(nil, v)
}

// AddRoute adds a route to dst (an invalid or zero-length prefix of gw's family is the
// default route) through gw, or directly onto the interface when gw is invalid.
func AddRoute(index int, dst netip.Prefix, gw netip.Addr) *Request {
	h := make([]byte, unix.SizeofRtMsg)
	fam := gw
	if !fam.IsValid() {
		fam = dst.Addr()
	}
	h[0] = family(fam)
	h[4], h[5] = unix.RT_TABLE_MAIN, unix.RTPROT_BOOT
	h[6], h[7] = unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	if !gw.IsValid() && fam.Is4() {
		h[6] = unix.RT_SCOPE_LINK
	}
	if dst.IsValid() {
		h[1] = uint8(dst.Bits())
	}
	r := newRequest(fmt.Sprintf("adding route to %v via %v", dst, gw), unix.RTM_NEWROUTE,
		unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h)
	if dst.IsValid() && dst.Bits() > 0 {
		r.attr(unix.RTA_DST, dst.Masked().Addr().AsSlice())
	}
	if gw.IsValid() {
		r.attr(unix.RTA_GATEWAY, gw.AsSlice())
	}
	return r.u32(unix.RTA_OIF, uint32(index))
}

// PinMAC tells the bridge of port index that mac lives there and nowhere else, also
// when an older port still remembers it: the entry goes with the port.
func PinMAC(index int, mac net.HardwareAddr) *Request {
	h := make([]byte, unix.SizeofNdMsg)
	h[0] = unix.AF_BRIDGE
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	binary.NativeEndian.PutUint16(h[8:], unix.NUD_NOARP)
	h[10] = unix.NTF_MASTER | ntfSticky
	r := newRequest("pinning "+mac.String(), unix.RTM_NEWNEIGH, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, h)
	return r.attr(unix.NDA_LLADDR, mac)
}

// Addr is one address of an interface.
type Addr struct {
	Index  int
	Prefix netip.Prefix
	// Lasting: it has no lifetime (IFA_F_PERMANENT); Global: it is of use beyond the link
	// (RT_SCOPE_UNIVERSE).
	Lasting, Global bool
}

// Addrs lists the addresses of all interfaces, or of one when index is not 0.
func (c *Conn) Addrs(index int) ([]Addr, error) {
	h := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	replies, err := c.Do(newRequest("listing addresses", unix.RTM_GETADDR, unix.NLM_F_DUMP, h))
	if err != nil {
		return nil, err
	}
	var out []Addr
	for _, m := range replies {
		if m.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg {
			continue
		}
		a := Addr{Index: int(u32(m.Data[4:]))}
		bits := int(m.Data[1])
		a.Lasting, a.Global = m.Data[2]&unix.IFA_F_PERMANENT != 0, m.Data[3] == unix.RT_SCOPE_UNIVERSE
		var local, addr netip.Addr
		attrs(m.Data[unix.SizeofIfAddrmsg:], func(typ uint16, d []byte) {
			switch typ {
			case unix.IFA_LOCAL:
				local, _ = netip.AddrFromSlice(d)
			case unix.IFA_ADDRESS:
				addr, _ = netip.AddrFromSlice(d)
			}
		})
		if local.IsValid() {
			addr = local
		}
		if a.Prefix = netip.PrefixFrom(addr, bits); a.Prefix.IsValid() && (index == 0 || a.Index == index) {
			out = append(out, a)
		}
	}
	return out, nil
}

// Route is one route of the main table.
type Route struct {
	Dst  netip.Prefix // invalid: the default route
	OIF  int
	Gw   netip.Addr
	Type uint8
}

// Routes lists the routes of the main table, both families.
func (c *Conn) Routes() ([]Route, error) {
	var out []Route
	for _, fam := range []uint8{unix.AF_INET, unix.AF_INET6} {
		h := make([]byte, unix.SizeofRtMsg)
		h[0] = fam
		replies, err := c.Do(newRequest("listing routes", unix.RTM_GETROUTE, unix.NLM_F_DUMP, h))
		if err != nil {
			return nil, err
		}
		for _, m := range replies {
			if r, ok := parseRoute(m); ok {
				out = append(out, r)
			}
		}
	}
	return out, nil
}

func parseRoute(m Reply) (Route, bool) {
	if m.Type != unix.RTM_NEWROUTE || len(m.Data) < unix.SizeofRtMsg {
		return Route{}, false
	}
	r := Route{Type: m.Data[7]}
	table := uint32(m.Data[4])
	attrs(m.Data[unix.SizeofRtMsg:], func(typ uint16, d []byte) {
		switch typ {
		case unix.RTA_DST:
			if a, ok := netip.AddrFromSlice(d); ok {
				r.Dst = netip.PrefixFrom(a, int(m.Data[1]))
			}
		case unix.RTA_OIF:
			r.OIF = int(u32(d))
		case unix.RTA_GATEWAY:
			r.Gw, _ = netip.AddrFromSlice(d)
		case unix.RTA_TABLE:
			table = u32(d)
		}
	})
	return r, table == unix.RT_TABLE_MAIN && r.Type == unix.RTN_UNICAST
}
