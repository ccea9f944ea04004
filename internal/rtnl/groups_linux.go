package rtnl

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Groups lists the IPv6 multicast groups that the kernel has joined on an interface.
func (c *Conn) Groups(index int) ([]netip.Addr, error) {
	h := make([]byte, unix.SizeofIfAddrmsg)
	h[0] = unix.AF_INET6
	binary.NativeEndian.PutUint32(h[4:], uint32(index))
	replies, err := c.Do(newRequest("listing multicast groups", unix.RTM_GETMULTICAST, unix.NLM_F_DUMP, h))
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, m := range replies {
		if on, a := parseGroup(m); on == index && a.IsValid() {
			out = append(out, a)
		}
	}
	return out, nil
}

// parseGroup decodes one message of a dump of groups, which is of the type of the question.
func parseGroup(m Reply) (index int, group netip.Addr) {
	if m.Type != unix.RTM_GETMULTICAST || len(m.Data) < unix.SizeofIfAddrmsg {
		return 0, netip.Addr{}
	}
	attrs(m.Data[unix.SizeofIfAddrmsg:], func(typ uint16, d []byte) {
		if typ == unix.IFA_MULTICAST {
			group, _ = netip.AddrFromSlice(d)
		}
	})
	return int(u32(m.Data[4:])), group
}
