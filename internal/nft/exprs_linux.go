package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Registers: reg1 is the first of four 16-byte ones (linux/netfilter/nf_tables.h);
// reg32(n) is the n-th 4-byte one, which overlays them from the start.
const reg1 = unix.NFT_REG_1

func reg32(n int) uint32 { return uint32(unix.NFT_REG32_00 + n) }

const (
	ctStatusDNAT     = 1 << 5 // IPS_DST_NAT
	ctEstablished    = 1 << 1 // NF_CT_STATE_BIT(IP_CT_ESTABLISHED)
	ctRelated        = 1 << 2
	transportDport   = 2
	ipv4Src, ipv4Dst = 12, 16
	ipv6Src, ipv6Dst = 8, 24
)

// sets are the sets of a table by name, which statements look things up in.
type sets map[string]*nftables.Set

func (ss sets) exprs(r Rule) ([]expr.Any, error) {
	var out []expr.Any
	for _, s := range r {
		es, err := ss.stmt(s)
		if err != nil {
			return nil, err
		}
		out = append(out, es...)
	}
	return out, nil
}

func (ss sets) stmt(s Stmt) ([]expr.Any, error) {
	switch s := s.(type) {
	case InIf:
		return ss.ifMatch(expr.MetaKeyIIFNAME, s.Name, s.Set, s.Not)
	case OutIf:
		return ss.ifMatch(expr.MetaKeyOIFNAME, s.Name, s.Set, s.Not)
	case IfPair:
		look, err := ss.lookup(s.Set, reg1, 0, false, false)
		return append([]expr.Any{
			&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1},
			&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: unix.NFT_REG_2},
		}, look...), err
	case IsFamily:
		return isFamily(s.Family), nil
	case Dst:
		return prefixMatch(s.Prefix, ipv4Dst, ipv6Dst, s.Not), nil
	case Src:
		return prefixMatch(s.Prefix, ipv4Src, ipv6Src, s.Not), nil
	case SrcIn:
		off, l := uint32(ipv4Src), uint32(4)
		if s.Family == V6 {
			off, l = ipv6Src, 16
		}
		look, err := ss.lookup(s.Set, reg1, 0, false, false)
		return append(append(isFamily(s.Family),
			&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: l}), look...), err
	case DstLocal:
		return []expr.Any{
			&expr.Fib{Register: reg1, FlagDADDR: true, ResultADDRTYPE: true},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: native32(unix.RTN_LOCAL)},
		}, nil
	case Established:
		return bitMatch(&expr.Ct{Key: expr.CtKeySTATE, Register: reg1}, ctEstablished|ctRelated), nil
	case Translated:
		return bitMatch(&expr.Ct{Key: expr.CtKeySTATUS, Register: reg1}, ctStatusDNAT), nil
	case Mark:
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: reg1},
			&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: native32(s.Mask), Xor: native32(0)},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: native32(s.Value)},
		}, nil
	case L4:
		n, ok := protoNumber(s.Proto)
		if !ok {
			return nil, fmt.Errorf("unknown protocol %q", s.Proto)
		}
		return []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{n}},
		}, nil
	case PortSet:
		look, err := ss.lookup(s.Set, reg1, 0, false, false)
		return append(addrProtoPort(s.Family), look...), err
	case PairPort:
		look, err := ss.lookup(s.Set, reg1, 0, false, false)
		return append(pairPort(s.Family), look...), err
	default:
		return ss.action(s)
	}
}

func (ss sets) action(s Stmt) ([]expr.Any, error) {
	switch s := s.(type) {
	case DNATByPort:
		load := append(isFamily(s.Family),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg1},
			&expr.Payload{DestRegister: reg32(1), Base: expr.PayloadBaseTransportHeader, Offset: transportDport, Len: 2})
		return ss.dnat(load, s.Family, s.Map, true)
	case DNATByAddr:
		return ss.dnat(addrProtoPort(s.Family), s.Family, s.Map, true)
	case DNATByRange:
		return ss.dnat(addrProtoPort(s.Family), s.Family, s.Map, false)
	case DNATPort:
		look, err := ss.lookup(s.Map, reg1, reg1, false, true)
		return append(append(addrProtoPort(s.Family), look...), &expr.NAT{
			// Without an address it is of no family, and nft(8) prints it as it reads it.
			Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_INET, Specified: true,
			RegProtoMin: reg1, RegProtoMax: reg1,
		}), err
	case SNATByIf:
		look, err := ss.lookup(s.Map, reg1, reg1, false, true)
		if err != nil {
			return nil, err
		}
		out := append(isFamily(s.Family), &expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg1})
		return append(append(out, look...), &expr.NAT{
			Type: expr.NATTypeSourceNAT, Family: familyNumber(s.Family),
			RegAddrMin: reg1, RegAddrMax: reg1,
		}), nil
	case Masquerade:
		return []expr.Any{&expr.Masq{}}, nil
	case Accept:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}, nil
	case Drop:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}, nil
	case Return:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}, nil
	case Jump:
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: s.Chain}}, nil
	}
	return nil, fmt.Errorf("unknown statement %T", s)
}

// dnat looks the loaded key up; the data (address, port if there is one) lands in
// registers from reg1 on: the port right behind the address.
func (ss sets) dnat(load []expr.Any, f Family, name string, withPort bool) ([]expr.Any, error) {
	look, err := ss.lookup(name, reg1, reg1, false, true)
	if err != nil {
		return nil, err
	}
	port := reg32(1)
	if f == V6 {
		port = reg32(4)
	}
	if !withPort {
		return append(append(load, look...), &expr.NAT{
			Type: expr.NATTypeDestNAT, Family: familyNumber(f),
			RegAddrMin: reg1, RegAddrMax: reg1,
		}), nil
	}
	return append(append(load, look...), &expr.NAT{
		Type: expr.NATTypeDestNAT, Family: familyNumber(f), Specified: true,
		RegAddrMin: reg1, RegAddrMax: reg1, RegProtoMin: port, RegProtoMax: port,
	}), nil
}

func (ss sets) ifMatch(key expr.MetaKey, name, set string, not bool) ([]expr.Any, error) {
	load := &expr.Meta{Key: key, Register: reg1}
	if set == "" {
		op := expr.CmpOpEq
		if not {
			op = expr.CmpOpNeq
		}
		return []expr.Any{load, &expr.Cmp{Op: op, Register: reg1, Data: ifname(name)}}, nil
	}
	look, err := ss.lookup(set, reg1, 0, not, false)
	return append([]expr.Any{load}, look...), err
}

func (ss sets) lookup(set string, src, dst uint32, not, isMap bool) ([]expr.Any, error) {
	s, ok := ss[set]
	if !ok {
		return nil, fmt.Errorf("no set %s", set)
	}
	return []expr.Any{&expr.Lookup{
		SourceRegister: src, DestRegister: dst, IsDestRegSet: isMap,
		Invert: not, SetName: s.Name, SetID: s.ID,
	}}, nil
}

func addrProtoPort(f Family) []expr.Any {
	off, l, next := uint32(ipv4Dst), uint32(4), 1
	if f == V6 {
		off, l, next = ipv6Dst, 16, 4
	}
	return append(isFamily(f),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: l},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg32(next)},
		&expr.Payload{DestRegister: reg32(next + 1), Base: expr.PayloadBaseTransportHeader, Offset: transportDport, Len: 2})
}

// pairPort loads source, destination, protocol and port.
func pairPort(f Family) []expr.Any {
	off, l, next := uint32(ipv4Src), uint32(4), 1
	if f == V6 {
		off, l, next = ipv6Src, 16, 4
	}
	return append(isFamily(f),
		&expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: l},
		&expr.Payload{DestRegister: reg32(next), Base: expr.PayloadBaseNetworkHeader, Offset: off + l, Len: l},
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg32(2 * next)},
		&expr.Payload{DestRegister: reg32(2*next + 1), Base: expr.PayloadBaseTransportHeader, Offset: transportDport, Len: 2})
}

func isFamily(f Family) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg1, Data: []byte{byte(familyNumber(f))}},
	}
}

func familyNumber(f Family) uint32 {
	if f == V4 {
		return unix.NFPROTO_IPV4
	}
	return unix.NFPROTO_IPV6
}

func bitMatch(load expr.Any, bits uint32) []expr.Any {
	return []expr.Any{
		load,
		&expr.Bitwise{SourceRegister: reg1, DestRegister: reg1, Len: 4, Mask: native32(bits), Xor: native32(0)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg1, Data: native32(0)},
	}
}

func prefixMatch(p netip.Prefix, off4, off6 uint32, not bool) []expr.Any {
	f, off := V6, off6
	if p.Addr().Is4() {
		f, off = V4, off4
	}
	addr := p.Masked().Addr().AsSlice()
	op := expr.CmpOpEq
	if not {
		op = expr.CmpOpNeq
	}
	out := append(isFamily(f), &expr.Payload{DestRegister: reg1, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: uint32(len(addr))})
	if !p.IsSingleIP() {
		mask := make([]byte, len(addr))
		for i := range p.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		out = append(out, &expr.Bitwise{
			SourceRegister: reg1, DestRegister: reg1, Len: uint32(len(addr)),
			Mask: mask, Xor: make([]byte, len(addr)),
		})
	}
	return append(out, &expr.Cmp{Op: op, Register: reg1, Data: addr})
}

func native32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
