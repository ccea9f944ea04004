package netns

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// LinkLocal is the link-local address that the kernel makes of a hardware address (RFC
// 4291, appendix A). A bridge gets it from us because the kernel makes its own only with the
// first port's carrier, and then looks for duplicates for up to two seconds. As long as the
// bridge has no other link-local address, the kernel cannot ask where a container is on
// behalf of a packet that it forwards (ndisc_send_ns returns without a word): connections
// from outside wait for seconds, or end with "no route to host" after three questions that
// were never sent. Nor can a container claim the address and leave the bridge without.
func LinkLocal(mac net.HardwareAddr) netip.Prefix {
	a := [16]byte{0xfe, 0x80, 11: 0xff, 12: 0xfe}
	if len(mac) == 6 {
		copy(a[8:11], mac[:3])
		copy(a[13:], mac[3:])
		a[8] ^= 2
	}
	return netip.PrefixFrom(netip.AddrFrom16(a), 64)
}

// solicited is the multicast group in which an IPv6 address is asked for (RFC 4291, 2.7.1).
func solicited(a netip.Addr) netip.Addr {
	own := a.As16()
	g := [16]byte{0xff, 0x02, 11: 0x01, 12: 0xff}
	copy(g[13:], own[13:])
	return netip.AddrFrom16(g)
}

// groupsPatience is the longest pause before the kernel is asked for the last time whether
// it listens.
const groupsPatience = 500 * time.Millisecond

// AwaitAddrs waits until the kernel of c's namespace answers questions for the IPv6
// addresses of an interface: it joins their groups beside us, in a work queue that a busy
// machine serves late, and a question lost until then is asked again only after a second.
// One that takes too long is no error: the questions are repeated.
func AwaitAddrs(c *rtnl.Conn, index int, addrs []netip.Prefix) error {
	var want []netip.Addr
	for _, p := range addrs {
		if p.Addr().Is6() {
			want = append(want, solicited(p.Addr()))
		}
	}
	if len(want) == 0 {
		return nil
	}
	for wait := 50 * time.Microsecond; ; wait *= 2 {
		have, err := c.Groups(index)
		if err != nil {
			return err
		}
		if wait > groupsPatience || !slices.ContainsFunc(want, func(g netip.Addr) bool { return !slices.Contains(have, g) }) {
			return nil
		}
		if wait > time.Millisecond { // not on the usual way
			replies, err := c.Do(rtnl.GetLinkIndex(index))
			if err != nil || len(replies) == 0 {
				return err
			}
			// ipvlan's l3, tunnels: nobody asks, no group is joined.
			if l, ok := rtnl.ParseLink(replies[0]); ok && l.Flags&unix.IFF_NOARP != 0 {
				return nil
			}
		}
		time.Sleep(wait)
	}
}
