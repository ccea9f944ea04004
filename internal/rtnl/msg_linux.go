package rtnl

import (
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// Request is one message being built.
type Request struct {
	op    string
	typ   uint16
	flags uint16
	b     []byte
}

func newRequest(op string, typ, flags uint16, body []byte) *Request {
	r := &Request{op: op, typ: typ, flags: flags, b: make([]byte, unix.NLMSG_HDRLEN, 256)}
	r.b = append(r.b, body...)
	return r
}

// Echo asks the kernel to send back what it made of the request (kernel 6.2).
func (r *Request) Echo() *Request {
	r.flags |= unix.NLM_F_ECHO
	return r
}

func (r *Request) finish(seq uint32, flags uint16) {
	binary.NativeEndian.PutUint32(r.b, uint32(len(r.b)))
	binary.NativeEndian.PutUint16(r.b[4:], r.typ)
	binary.NativeEndian.PutUint16(r.b[6:], flags)
	binary.NativeEndian.PutUint32(r.b[8:], seq)
	binary.NativeEndian.PutUint32(r.b[12:], 0)
}

// Bytes is the message as it stands, its header not yet filled in: for golden files.
func (r *Request) Bytes() []byte { return slices.Clone(r.b) }

// Header is the message's type (RTM_NEWLINK) and flags, for who plays the kernel in a test.
func (r *Request) Header() (typ, flags uint16) { return r.typ, r.flags }

func (r *Request) attr(typ uint16, data []byte) *Request {
	r.b = binary.NativeEndian.AppendUint16(r.b, uint16(4+len(data)))
	r.b = binary.NativeEndian.AppendUint16(r.b, typ)
	r.b = append(r.b, data...)
	for len(r.b)%4 != 0 {
		r.b = append(r.b, 0)
	}
	return r
}

func (r *Request) u32(typ uint16, v uint32) *Request {
	return r.attr(typ, binary.NativeEndian.AppendUint32(nil, v))
}

func (r *Request) u8(typ uint16, v uint8) *Request { return r.attr(typ, []byte{v}) }

func (r *Request) str(typ uint16, s string) *Request { return r.attr(typ, append([]byte(s), 0)) }

// nest writes an attribute whose content fill appends.
func (r *Request) nest(typ uint16, fill func()) *Request {
	start := len(r.b)
	r.attr(typ, nil)
	fill()
	binary.NativeEndian.PutUint16(r.b[start:], uint16(len(r.b)-start))
	return r
}

// ifinfomsg is struct ifinfomsg of rtnetlink(7).
func ifinfomsg(family uint8, index int, flags, change uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	b[0] = family
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	binary.NativeEndian.PutUint32(b[12:], change)
	return b
}

// attrs calls yield for every attribute in b; malformed ends are ignored.
func attrs(b []byte, yield func(typ uint16, data []byte)) {
	for len(b) >= 4 {
		l := int(binary.NativeEndian.Uint16(b))
		if l < 4 || l > len(b) {
			return
		}
		yield(binary.NativeEndian.Uint16(b[2:])&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER), b[4:l])
		b = b[min(align(l), len(b)):]
	}
}

func cstr(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}

func u32(b []byte) uint32 {
	if len(b) < 4 {
		return 0
	}
	return binary.NativeEndian.Uint32(b)
}
