// Package conntrack flushes entries of the kernel's connection tracking. A UDP flow does not
// end: as long as its entry exists, its packets follow the rules that held when it began, even
// after the rules have changed.
package conntrack

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Numbers of linux/netfilter/nfnetlink_conntrack.h that x/sys does not have.
const (
	msgGet, msgDelete = unix.NFNL_SUBSYS_CTNETLINK<<8 | 1, unix.NFNL_SUBSYS_CTNETLINK<<8 | 2

	ctaTupleOrig, ctaTupleReply, ctaStatus = 1, 2, 3
	ctaID, ctaZone, ctaFilter              = 12, 18, 25

	ctaTupleIP, ctaTupleProto                  = 1, 2
	ctaIPv4Src, ctaIPv4Dst                     = 1, 2
	ctaIPv6Src, ctaIPv6Dst                     = 3, 4
	ctaProtoNum, ctaSrcPort, ctaDstPort        = 1, 2, 3
	ctaFilterOrig, ctaFilterReply              = 1, 2
	filterProto, filterDstPort          uint32 = 1 << 3, 1 << 5

	typeMask   = 0x3fff // NLA_TYPE_MASK: without the marks of nests and byte order
	statusDNAT = 1 << 5 // IPS_DST_NAT
)

// Flow is one tracked connection.
type Flow struct {
	// Src and Dst are of the first packet as it was sent.
	Src, Dst netip.AddrPort
	// From is where answers come from: Dst, unless that was translated.
	From netip.AddrPort
	// Translated tells whether the destination was translated.
	Translated bool

	proto uint8
	raw   []netlink.Attribute // what names the entry to the kernel
}

// FlushUDP removes the UDP flows of one family that match, and returns how many they
// were. port, when not 0, is the destination port of all that can match: the kernel then
// sends no others. It works in the calling thread's network namespace. Errors are the
// system's; a flow that ends meanwhile is none.
func FlushUDP(v6 bool, port uint16, match func(Flow) bool) (int, error) {
	c, err := dial()
	if err != nil {
		return 0, fmt.Errorf("opening a conntrack socket: %w", err)
	}
	defer c.Close()
	flows, err := list(c, v6, port)
	if err != nil && port != 0 && !errors.Is(err, unix.EPERM) {
		flows, err = list(c, v6, 0) // a kernel without filters (before 5.8)
	}
	if err != nil {
		return 0, fmt.Errorf("listing tracked connections: %w", err)
	}
	n := 0
	var errs []error
	for _, f := range flows {
		if f.proto != unix.IPPROTO_UDP || !match(f) {
			continue
		}
		body, err := netlink.MarshalAttributes(f.raw)
		if err == nil {
			_, err = c.Execute(message(msgDelete, netlink.Request|netlink.Acknowledge, v6, body))
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			errs = append(errs, fmt.Errorf("removing a tracked connection: %w", err))
			continue
		}
		n++
	}
	return n, errors.Join(errs...)
}

// patience bounds what the kernel may take to answer: callers hold locks meanwhile.
const patience = 10 * time.Second

// dial opens a socket that gives up after patience. The caller closes it.
func dial() (*netlink.Conn, error) {
	c, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, err
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// Original tells where the first packet of a translated connection was sent, by who
// answers it (from, an address of the host) and whom (to). proto is IPPROTO_UDP or
// IPPROTO_TCP. It works in the calling thread's network namespace. Errors are the
// system's: ENOENT where nothing is tracked.
func Original(proto uint8, from, to netip.AddrPort) (netip.AddrPort, error) {
	body, err := replyTuple(proto, from, to)
	if err != nil {
		return netip.AddrPort{}, err
	}
	c, err := dial()
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("opening a conntrack socket: %w", err)
	}
	defer c.Close()
	msgs, err := c.Execute(message(msgGet, netlink.Request|netlink.Acknowledge, from.Addr().Is6(), body))
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("asking for a tracked connection: %w", err)
	}
	for _, m := range msgs {
		if len(m.Data) >= 4 {
			if f, ok := parse(m.Data[4:]); ok {
				return f.Dst, nil
			}
		}
	}
	return netip.AddrPort{}, unix.ENOENT
}

// replyTuple names a connection by its answers.
func replyTuple(proto uint8, from, to netip.AddrPort) ([]byte, error) {
	src, dst := uint16(ctaIPv4Src), uint16(ctaIPv4Dst)
	if from.Addr().Is6() {
		src, dst = ctaIPv6Src, ctaIPv6Dst
	}
	e := netlink.NewAttributeEncoder()
	e.Nested(ctaTupleReply, func(e *netlink.AttributeEncoder) error {
		e.Nested(ctaTupleIP, func(e *netlink.AttributeEncoder) error {
			e.Bytes(src, from.Addr().WithZone("").AsSlice())
			e.Bytes(dst, to.Addr().WithZone("").AsSlice())
			return nil
		})
		e.Nested(ctaTupleProto, func(e *netlink.AttributeEncoder) error {
			e.ByteOrder = binary.BigEndian
			e.Uint8(ctaProtoNum, proto)
			e.Uint16(ctaSrcPort, from.Port())
			e.Uint16(ctaDstPort, to.Port())
			return nil
		})
		return nil
	})
	return e.Encode()
}

func message(typ netlink.HeaderType, flags netlink.HeaderFlags, v6 bool, body []byte) netlink.Message {
	head := []byte{unix.AF_INET, unix.NFNETLINK_V0, 0, 0}
	if v6 {
		head[0] = unix.AF_INET6
	}
	return netlink.Message{Header: netlink.Header{Type: typ, Flags: flags}, Data: append(head, body...)}
}

func list(c *netlink.Conn, v6 bool, port uint16) ([]Flow, error) {
	var body []byte
	if port != 0 {
		var err error
		if body, err = filter(port); err != nil {
			return nil, err
		}
	}
	msgs, err := c.Execute(message(msgGet, netlink.Request|netlink.Dump, v6, body))
	if err != nil {
		return nil, err
	}
	var out []Flow
	for _, m := range msgs {
		if len(m.Data) < 4 {
			continue
		}
		if f, ok := parse(m.Data[4:]); ok {
			out = append(out, f)
		}
	}
	return out, nil
}

// filter asks for the UDP flows to one port.
func filter(port uint16) ([]byte, error) {
	e := netlink.NewAttributeEncoder()
	e.ByteOrder = binary.BigEndian
	e.Nested(ctaTupleOrig, func(e *netlink.AttributeEncoder) error {
		e.ByteOrder = binary.BigEndian
		e.Nested(ctaTupleProto, func(e *netlink.AttributeEncoder) error {
			e.ByteOrder = binary.BigEndian
			e.Uint8(ctaProtoNum, unix.IPPROTO_UDP)
			e.Uint16(ctaDstPort, port)
			return nil
		})
		return nil
	})
	e.Nested(ctaFilter, func(e *netlink.AttributeEncoder) error {
		e.ByteOrder = binary.NativeEndian
		e.Uint32(ctaFilterOrig, filterProto|filterDstPort)
		e.Uint32(ctaFilterReply, 0)
		return nil
	})
	return e.Encode()
}

// parse decodes one entry.
func parse(b []byte) (Flow, bool) {
	var f Flow
	attrs, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return f, false
	}
	for _, a := range attrs {
		a.Type &= typeMask // the kernel marks nests
		switch a.Type {
		case ctaTupleOrig:
			f.Src, f.Dst, f.proto = tuple(a.Data)
		case ctaTupleReply:
			f.From, _, _ = tuple(a.Data)
		case ctaStatus:
			f.Translated = len(a.Data) == 4 && binary.BigEndian.Uint32(a.Data)&statusDNAT != 0
		}
		switch a.Type {
		case ctaTupleOrig:
			f.raw = append(f.raw, netlink.Attribute{Type: a.Type | netlink.Nested, Data: a.Data})
		case ctaID, ctaZone:
			f.raw = append(f.raw, netlink.Attribute{Type: a.Type, Data: a.Data})
		}
	}
	return f, f.Src.IsValid() && f.Dst.IsValid() && f.From.IsValid()
}

// tuple decodes addresses, ports and protocol; what is missing is zero or invalid.
func tuple(b []byte) (src, dst netip.AddrPort, proto uint8) {
	parts, err := netlink.UnmarshalAttributes(b)
	if err != nil {
		return
	}
	var from, to netip.Addr
	var ports [2]uint16
	for _, p := range parts {
		p.Type &= typeMask
		inner, err := netlink.UnmarshalAttributes(p.Data)
		if err != nil {
			return
		}
		for _, a := range inner {
			switch {
			case p.Type == ctaTupleIP && (a.Type == ctaIPv4Src || a.Type == ctaIPv6Src):
				from, _ = netip.AddrFromSlice(a.Data)
			case p.Type == ctaTupleIP && (a.Type == ctaIPv4Dst || a.Type == ctaIPv6Dst):
				to, _ = netip.AddrFromSlice(a.Data)
			case p.Type == ctaTupleProto && a.Type == ctaProtoNum && len(a.Data) == 1:
				proto = a.Data[0]
			case p.Type == ctaTupleProto && (a.Type == ctaSrcPort || a.Type == ctaDstPort) && len(a.Data) == 2:
				ports[a.Type-ctaSrcPort] = binary.BigEndian.Uint16(a.Data)
			}
		}
	}
	return netip.AddrPortFrom(from, ports[0]), netip.AddrPortFrom(to, ports[1]), proto
}
