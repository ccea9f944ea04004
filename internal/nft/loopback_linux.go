package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// RewriteLoopback makes what is sent to addr:port reach addr:udp and addr:tcp in the
// calling thread's network namespace, and their answers come from addr:port. It rewrites
// packets as they come in by the loopback device and tracks no connections: addr must be
// a loopback IPv4 address whose udp and tcp ports are the caller's own. An existing table
// of that name is replaced, unless the namespace is fresh: removing waits for the kernel.
func RewriteLoopback(table string, addr netip.Addr, port, udp, tcp uint16, fresh bool) error {
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("opening an nftables socket: %w", err)
	}
	t := &nftables.Table{Name: table, Family: nftables.TableFamilyNetdev}
	if !fresh {
		c.AddTable(t)
		c.DelTable(t)
	}
	c.AddTable(t)
	ch := c.AddChain(&nftables.Chain{
		Name: "loopback", Table: t, Type: nftables.ChainTypeFilter, Device: "lo",
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter,
	})
	for _, r := range []struct {
		proto    byte
		at       uint32 // of the address in the IP header
		from, to uint16
	}{
		{unix.IPPROTO_UDP, ipv4Dst, port, udp},
		{unix.IPPROTO_UDP, ipv4Src, udp, port},
		{unix.IPPROTO_TCP, ipv4Dst, port, tcp},
		{unix.IPPROTO_TCP, ipv4Src, tcp, port},
	} {
		at := uint32(transportDport)
		if r.at == ipv4Src {
			at = 0
		}
		sum := uint32(6)
		if r.proto == unix.IPPROTO_TCP {
			sum = 16
		}
		be := func(v uint16) []byte { return binary.BigEndian.AppendUint16(nil, v) }
		c.AddRule(&nftables.Rule{Table: t, Chain: ch, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: reg1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: be(unix.ETH_P_IP)},
			&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseNetworkHeader, Offset: r.at, Len: 4, DestRegister: reg1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: addr.AsSlice()},
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{r.proto}},
			&expr.Payload{OperationType: expr.PayloadLoad, Base: expr.PayloadBaseTransportHeader, Offset: at, Len: 2, DestRegister: reg1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: be(r.from)},
			&expr.Immediate{Register: reg1, Data: be(r.to)},
			&expr.Payload{
				OperationType: expr.PayloadWrite, Base: expr.PayloadBaseTransportHeader, Offset: at, Len: 2, SourceRegister: reg1,
				CsumType: expr.CsumTypeInet, CsumOffset: sum,
			},
		}})
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("making nftables table %s: %w", table, err)
	}
	return nil
}
