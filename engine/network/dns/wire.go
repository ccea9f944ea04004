package dns

import (
	"encoding/binary"
	"net/netip"
	"strings"
)

// What of RFC 1035, 3596 and 6891 is needed here.
const (
	headerLen = 12
	maxName   = 255 // octets on the wire
	maxLabel  = 63
	minUDP    = 512   // what every client takes
	maxUDP    = 4096  // what we send at most in one datagram
	maxMsg    = 65535 // over TCP

	typeA    = 1
	typePTR  = 12
	typeAAAA = 28
	typeOPT  = 41
	typeANY  = 255
	classIN  = 1
	classANY = 255

	rcodeOK       = 0
	rcodeFormErr  = 1
	rcodeServFail = 2
	rcodeNXDomain = 3
	rcodeNotImp   = 4
	rcodeRefused  = 5

	flagQR = 1 << 15
	flagTC = 1 << 9
	flagRD = 1 << 8
	flagRA = 1 << 7
	flagCD = 1 << 4
)

// question is a parsed query. It points into the packet it was parsed from.
type question struct {
	id, flags     uint16
	raw           []byte // the question as sent: name, type, class
	name          []byte // lower case, dots between labels, none at the end
	plain         bool   // name can be one of ours: no odd characters within labels
	qtype, qclass uint16
	opt           bool // the query has an OPT record
	size          int  // what a UDP answer may be long
}

// parse reads a query with exactly one question. name is where the question's name
// goes. The first result is the rcode to answer with when the query is bad; ok is
// false when it deserves no answer at all (too short, or an answer itself).
func (q *question) parse(p []byte, name *[maxName]byte) (rcode int, ok bool) {
	if len(p) < headerLen {
		return 0, false
	}
	q.id, q.flags = binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:])
	if q.flags&flagQR != 0 {
		return 0, false
	}
	if q.flags>>11&0xf != 0 {
		return rcodeNotImp, true
	}
	count := func(i int) int { return int(binary.BigEndian.Uint16(p[4+2*i:])) }
	if count(0) != 1 || count(1) != 0 {
		return rcodeFormErr, true
	}
	off, ok := q.parseName(p, name)
	if !ok || off+4 > len(p) {
		return rcodeFormErr, true
	}
	q.qtype, q.qclass = binary.BigEndian.Uint16(p[off:]), binary.BigEndian.Uint16(p[off+2:])
	off += 4
	q.raw = p[headerLen:off]
	q.size = minUDP
	for range count(2) + count(3) {
		rr, next, ok := parseRR(p, off)
		if !ok {
			return rcodeFormErr, true
		}
		if rr.typ == typeOPT {
			q.opt = true
			q.size = min(max(int(rr.class), minUDP), maxUDP)
		}
		off = next
	}
	return rcodeOK, true
}

// parseName reads the question's name, which is never compressed.
func (q *question) parseName(p []byte, name *[maxName]byte) (off int, ok bool) {
	off, n := headerLen, 0
	q.plain = true
	for {
		if off >= len(p) {
			return 0, false
		}
		l := int(p[off])
		off++
		if l == 0 {
			break
		}
		if l > maxLabel || off+l > len(p) || n+1+l >= maxName {
			return 0, false
		}
		if n > 0 {
			name[n] = '.'
			n++
		}
		for _, c := range p[off : off+l] {
			if c >= 'A' && c <= 'Z' {
				c += 'a' - 'A'
			}
			if c == '.' {
				q.plain = false
			}
			name[n] = c
			n++
		}
		off += l
	}
	q.name = name[:n]
	return off, true
}

// rr is one resource record's fixed part. ttlAt is where its TTL is in the packet.
type rr struct {
	typ, class uint16
	ttl        uint32
	ttlAt      int
	data       []byte
}

// parseRR reads the record at off and returns where the next one is.
func parseRR(p []byte, off int) (r rr, next int, ok bool) {
	if off, ok = skipName(p, off); !ok || off+10 > len(p) {
		return r, 0, false
	}
	r.typ, r.class = binary.BigEndian.Uint16(p[off:]), binary.BigEndian.Uint16(p[off+2:])
	r.ttl, r.ttlAt = binary.BigEndian.Uint32(p[off+4:]), off+4
	n := int(binary.BigEndian.Uint16(p[off+8:]))
	off += 10
	if off+n > len(p) {
		return r, 0, false
	}
	r.data = p[off : off+n]
	return r, off + n, true
}

// skipName returns where the name at off ends; a pointer ends it.
func skipName(p []byte, off int) (int, bool) {
	for start := off; off < len(p) && off-start <= maxName; {
		switch l := int(p[off]); {
		case l == 0:
			return off + 1, true
		case l&0xc0 == 0xc0:
			return off + 2, off+2 <= len(p)
		case l > maxLabel:
			return 0, false
		default:
			off += 1 + l
		}
	}
	return 0, false
}

// reply starts an answer to q in out, which is empty: header and question.
func (q *question) reply(out []byte, rcode int) []byte {
	out = binary.BigEndian.AppendUint16(out, q.id)
	out = binary.BigEndian.AppendUint16(out, flagQR|flagRA|q.flags&(flagRD|flagCD)|uint16(rcode))
	qd := uint16(0)
	if q.raw != nil {
		qd = 1
	}
	out = binary.BigEndian.AppendUint16(out, qd)
	out = append(out, 0, 0, 0, 0, 0, 0)
	return append(out, q.raw...)
}

// finish sets the number of answers and adds the OPT record an EDNS client expects.
func (q *question) finish(out []byte, answers int) []byte {
	binary.BigEndian.PutUint16(out[6:], uint16(answers))
	if q.opt {
		out[11] = 1
		out = append(out, 0, 0, typeOPT, maxUDP>>8, maxUDP&0xff, 0, 0, 0, 0, 0, 0)
	}
	return out
}

// optLen is what finish adds at most.
const optLen = 11

// answer appends one record for the question's own name.
func appendAnswer(out []byte, typ uint16, ttl uint32, data []byte) []byte {
	out = append(out, 0xc0, headerLen)
	out = binary.BigEndian.AppendUint16(out, typ)
	out = binary.BigEndian.AppendUint16(out, classIN)
	out = binary.BigEndian.AppendUint32(out, ttl)
	out = binary.BigEndian.AppendUint16(out, uint16(len(data)))
	return append(out, data...)
}

// failure answers a packet that could be parsed only in part, or cannot be served.
func (q *question) failure(out []byte, rcode int) []byte {
	return q.finish(q.reply(out, rcode), 0)
}

// encodeName is a dotted name as on the wire; false when it cannot be.
func encodeName(name string) ([]byte, bool) {
	var out []byte
	for label := range strings.SplitSeq(strings.TrimSuffix(name, "."), ".") {
		if len(label) == 0 || len(label) > maxLabel {
			return nil, false
		}
		out = append(append(out, byte(len(label))), label...)
	}
	return append(out, 0), len(out)+1 <= maxName
}

// reverseAddr reads the name of a PTR query ("4.3.2.1.in-addr.arpa").
func reverseAddr(name []byte) (netip.Addr, bool) {
	if s, ok := strings.CutSuffix(string(name), ".in-addr.arpa"); ok {
		a, err := netip.ParseAddr(s)
		if err != nil || !a.Is4() {
			return netip.Addr{}, false
		}
		b := a.As4()
		return netip.AddrFrom4([4]byte{b[3], b[2], b[1], b[0]}), true
	}
	s, ok := strings.CutSuffix(string(name), ".ip6.arpa")
	if !ok || len(s) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		if i > 0 && s[2*i-1] != '.' {
			return netip.Addr{}, false
		}
		n := strings.IndexByte("0123456789abcdef", s[2*i])
		if n < 0 {
			return netip.Addr{}, false
		}
		at := 31 - i
		b[at/2] |= byte(n) << (4 * (1 - at%2))
	}
	return netip.AddrFrom16(b), true
}

// answers reports whether p is an answer to the query with this id and question.
func answers(p []byte, id uint16, raw []byte) bool {
	if len(p) < headerLen+len(raw) || binary.BigEndian.Uint16(p) != id || p[2]&0x80 == 0 || binary.BigEndian.Uint16(p[4:]) != 1 {
		return false
	}
	for i, c := range raw {
		if lower(p[headerLen+i]) != lower(c) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// walkRRs calls do for every record behind the question; false when p is malformed.
func walkRRs(p []byte, do func(section int, r rr)) bool {
	if len(p) < headerLen {
		return false
	}
	off := headerLen
	for range binary.BigEndian.Uint16(p[4:]) {
		var ok bool
		if off, ok = skipName(p, off); !ok || off+4 > len(p) {
			return false
		}
		off += 4
	}
	for section := range 3 {
		for range binary.BigEndian.Uint16(p[6+2*section:]) {
			r, next, ok := parseRR(p, off)
			if !ok {
				return false
			}
			do(section, r)
			off = next
		}
	}
	return true
}
