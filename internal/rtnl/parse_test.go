package rtnl

import (
	"testing"

	"golang.org/x/sys/unix"
)

// What the kernel sends is trusted to be well-formed, but a short or odd message must
// not take the daemon down.
func FuzzParse(f *testing.F) {
	r := AddVeth(Veth{Name: "veth0", Master: 3, MTU: 1500, Peer: Peer{Name: "eth0"}})
	f.Add(uint16(unix.RTM_NEWLINK), r.b[unix.NLMSG_HDRLEN:])
	f.Add(uint16(unix.RTM_NEWROUTE), []byte{2, 16, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0, 8, 0, 1, 0, 10, 0, 0, 0})
	f.Fuzz(func(t *testing.T, typ uint16, data []byte) {
		ParseLink(Reply{Type: typ, Data: data})
		parseRoute(Reply{Type: typ, Data: data})
		parseGroup(Reply{Type: typ, Data: data})
	})
}

func TestVethMessageReadsBack(t *testing.T) {
	r := AddVeth(Veth{Name: "veth0", Master: 3, MTU: 1500})
	l, ok := ParseLink(Reply{Type: r.typ, Data: r.b[unix.NLMSG_HDRLEN:]})
	if !ok || l.Name != "veth0" || l.Master != 3 || l.MTU != 1500 || l.Kind != "veth" || l.Group != Group || !l.Up() {
		t.Errorf("%+v %v", l, ok)
	}
}
