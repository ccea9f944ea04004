package dns

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
)

// localTTL is how long an answer about a container may be kept, in seconds; as Docker's.
const localTTL = 600

// View is what one container's resolver answers from. It is not changed once given.
type View struct {
	// Networks of the container, in the order they are asked.
	Networks []NetworkView
	// Forward says whether other names are asked outside: only with a way out.
	Forward bool
	// Servers to ask; none: those of the host.
	Servers []netip.Addr
	// Ndots is set when the user chose ndots themselves: names of one label are then
	// not asked outside.
	Ndots bool
}

// NetworkView is one network as one container sees it.
type NetworkView struct {
	Zone *Zone
	// Links are names of the container's own (lower case), and whom they mean.
	Links map[string]string
}

// verdict is what becomes of a query.
type verdict int

const (
	drop verdict = iota
	done
	forward
)

// local answers what needs no one else. The answer is appended to out[:0]; udp bounds it.
func (v *View) local(p, out []byte, udp bool, q *question, name *[maxName]byte) ([]byte, verdict) {
	*q = question{}
	rcode, ok := q.parse(p, name)
	if !ok {
		return nil, drop
	}
	if rcode != rcodeOK {
		return q.failure(out[:0], rcode), done
	}
	limit := maxMsg
	if udp {
		limit = q.size
	}
	if q.plain && (q.qclass == classIN || q.qclass == classANY) {
		if found := v.lookup(q.name); found != nil {
			return q.addresses(out[:0], found, limit), done
		}
		if q.qtype == typePTR {
			if a, ok := reverseAddr(q.name); ok {
				if out := v.pointer(out[:0], q, a); out != nil {
					return out, done
				}
			}
		}
	}
	switch {
	case !v.Forward:
		return q.failure(out[:0], rcodeServFail), done
	case v.Ndots && (q.qtype == typeA || q.qtype == typeAAAA) && bytes.IndexByte(q.name, '.') < 0:
		return q.failure(out[:0], rcodeOK), done
	}
	return nil, forward
}

// lookup finds a container by name, or by name.network.
func (v *View) lookup(name []byte) []*member {
	network := []byte(nil)
	for {
		for i := range v.Networks {
			n := &v.Networks[i]
			if network != nil && n.Zone.network != string(network) {
				continue
			}
			who := name
			if len(n.Links) > 0 {
				if target, ok := n.Links[string(name)]; ok {
					who = []byte(target)
				}
			}
			if found := n.Zone.lookup(who); found != nil {
				return found
			}
		}
		// The next longer network name; the shortest container name comes last.
		full := name[:len(name)+len(network)+btoi(network != nil)]
		dot := bytes.LastIndexByte(name, '.')
		if dot <= 0 {
			return nil
		}
		name, network = full[:dot], full[dot+1:]
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// addresses answers with the addresses of the requested family, in random order; with none
// when the name has only the other one.
func (q *question) addresses(out []byte, found []*member, limit int) []byte {
	out = q.reply(out, rcodeOK)
	count, room := 0, limit-optLen
	full := false
	add := func(typ uint16, a netip.Addr) {
		if !a.IsValid() || full || q.qtype != typ && q.qtype != typeANY {
			return
		}
		size := 12 + a.BitLen()/8
		if full = len(out)+size > room; full {
			return
		}
		if a.Is4() {
			b := a.As4()
			out = appendAnswer(out, typ, localTTL, b[:])
		} else {
			b := a.As16()
			out = appendAnswer(out, typ, localTTL, b[:])
		}
		count++
	}
	// A random walk over all of them without keeping an order: start anywhere, go on by
	// a step that has no divisor in common with their number.
	n := len(found)
	at, step := 0, 1
	if n > 1 {
		at = rand.IntN(n)
		for step = 1 + rand.IntN(n-1); gcd(step, n) != 1; {
			step = 1 + rand.IntN(n-1)
		}
	}
	for range n {
		add(typeA, found[at].v4)
		add(typeAAAA, found[at].v6)
		at = (at + step) % n
	}
	if full {
		out[2] |= flagTC >> 8
	}
	return q.finish(out, count)
}

func gcd(a, b int) int {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// pointer answers whose address it is; nil when it is nobody's here.
func (v *View) pointer(out []byte, q *question, a netip.Addr) []byte {
	for _, n := range v.Networks {
		if m := n.Zone.reverse(a); m != nil && m.ptr != nil {
			return q.finish(appendAnswer(q.reply(out, rcodeOK), typePTR, localTTL, m.ptr), 1)
		}
	}
	return nil
}
