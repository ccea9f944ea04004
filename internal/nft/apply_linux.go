package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// maxElemsPerMessage keeps one netlink attribute below its 64 KiB limit.
const maxElemsPerMessage = 256

// Conn applies rulesets in the network namespace of the thread that dialled it.
// Safe for concurrent use: transactions are made one after the other.
type Conn struct {
	mu    sync.Mutex
	c     *nftables.Conn
	port  uint32 // the socket's own, which marks what we change
	table *nftables.Table
	sets  sets
	known map[string]Set
}

// Dial opens a netlink socket in the calling thread's network namespace. Close it.
func Dial() (*Conn, error) {
	out := &Conn{}
	port := func(c *netlink.Conn) error {
		raw, err := c.SyscallConn()
		if err != nil {
			return err
		}
		cerr := raw.Control(func(fd uintptr) {
			var sa unix.Sockaddr
			if sa, err = unix.Getsockname(int(fd)); err == nil {
				if nl, ok := sa.(*unix.SockaddrNetlink); ok {
					out.port = nl.Pid
				}
			}
		})
		return errors.Join(cerr, err)
	}
	c, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(port))
	if err != nil {
		return nil, fmt.Errorf("opening an nftables socket: %w", err)
	}
	out.c = c
	return out, nil
}

// Close closes the socket; rules stay.
func (c *Conn) Close() error { return c.c.CloseLasting() }

// Apply makes the table exactly what r says, in one transaction: packets see the old
// rules or the new ones. Chains and sets whose names begin with a Foreign chain's stay as
// they are; others of the table that r does not name are removed. When it fails the table is as it was.
func (c *Conn) Apply(r Ruleset) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	// All of it is worked out first: what the socket has queued it sends with the next
	// transaction, and there is no way to take it back.
	p, err := newPlan(r)
	if err != nil {
		return err
	}
	oldChains, oldSets, err := c.existing(r.Table)
	if err != nil {
		return fmt.Errorf("reading nftables table %s: %w", r.Table, err)
	}
	c.c.AddTable(p.table)
	// Our chains lose their rules first, so that sets they used can go.
	for _, ch := range oldChains {
		if !r.theirs(ch.Name) {
			c.c.FlushChain(ch)
		}
	}
	for _, s := range oldSets {
		if !r.theirs(s.Name) {
			c.c.DelSet(s) // made anew below: types may have changed
		}
	}
	if err := p.queue(c.c); err != nil {
		return err
	}
	for _, ch := range oldChains {
		if p.chains[ch.Name] == nil && !r.theirs(ch.Name) {
			c.c.DelChain(ch)
		}
	}
	if err := c.flush("replacing", r.Table); err != nil {
		return err
	}
	c.table, c.sets, c.known = p.table, p.sets, p.known
	return nil
}

// plan is a ruleset in the library's terms.
type plan struct {
	table  *nftables.Table
	sets   sets
	known  map[string]Set
	order  []string // of the sets
	elems  map[string][][]nftables.SetElement
	chains map[string]*nftables.Chain
	rules  []*nftables.Rule
	made   []*nftables.Chain // in order
}

func newPlan(r Ruleset) (*plan, error) {
	p := &plan{
		table: &nftables.Table{Name: r.Table, Family: nftables.TableFamilyINet},
		sets:  sets{}, known: map[string]Set{}, elems: map[string][][]nftables.SetElement{}, chains: map[string]*nftables.Chain{},
	}
	for i, s := range r.Sets {
		if err := p.addSet(s, uint32(i+1)); err != nil {
			return nil, fmt.Errorf("set %s: %w", s.Name, err)
		}
	}
	for _, ch := range r.Chains {
		made := chainOf(p.table, ch)
		p.chains[ch.Name], p.made = made, append(p.made, made)
		for _, rule := range ch.Rules {
			exprs, err := p.sets.exprs(rule)
			if err != nil {
				return nil, fmt.Errorf("rule %q: %w", rule, err)
			}
			p.rules = append(p.rules, &nftables.Rule{Table: p.table, Chain: made, Exprs: exprs})
		}
	}
	return p, nil
}

func (p *plan) queue(c *nftables.Conn) error {
	for _, name := range p.order {
		s := p.sets[name]
		if err := c.AddSet(s, nil); err != nil {
			return fmt.Errorf("set %s: %w", name, err)
		}
		for _, part := range p.elems[name] {
			if err := c.SetAddElements(s, part); err != nil {
				return fmt.Errorf("set %s: %w", name, err)
			}
		}
	}
	for _, ch := range p.made {
		c.AddChain(ch)
	}
	for _, rule := range p.rules {
		c.AddRule(rule)
	}
	return nil
}

// Clear removes a table of family inet but for chains and sets whose names begin with users,
// and wholly where those hold nothing. A table that is not there is no error.
func (c *Conn) Clear(table, users string) error {
	c.mu.Lock()
	chains, _, err := c.existing(table)
	keep := false
	for _, ch := range chains {
		if strings.HasPrefix(ch.Name, users) && err == nil {
			var rules []*nftables.Rule
			rules, err = c.c.GetRules(ch.Table, ch)
			keep = keep || len(rules) > 0
		}
	}
	if err == nil && len(chains) > 0 && !keep {
		c.c.DelTable(chains[0].Table)
		err = c.flush("removing", table)
	}
	c.mu.Unlock()
	if err != nil || !keep {
		return err
	}
	return c.Apply(Ruleset{Table: table, Chains: []Chain{{Name: users, Foreign: true}}})
}

// Update changes elements of sets of the table that Apply made, in one transaction.
// An error of ENOENT means that somebody else changed the table: Apply it again.
func (c *Conn) Update(ch Changes) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.table == nil {
		return errors.New("nftables: update before apply")
	}
	del, err := c.encodeAll(ch.Del)
	if err != nil {
		return err
	}
	add, err := c.encodeAll(ch.Add)
	if err != nil {
		return err
	}
	for _, d := range del {
		if err := c.c.SetDeleteElements(d.set, d.elems); err != nil {
			return err
		}
	}
	for _, a := range add {
		if err := c.c.SetAddElements(a.set, a.elems); err != nil {
			return err
		}
	}
	return c.flush("changing", c.table.Name)
}

// encoded are elements of one set that fit into a message.
type encoded struct {
	set   *nftables.Set
	elems []nftables.SetElement
}

func (c *Conn) encodeAll(list []SetElems) ([]encoded, error) {
	var out []encoded
	for _, se := range list {
		s, ok := c.sets[se.Set]
		if !ok {
			return nil, fmt.Errorf("nftables: no set %s", se.Set)
		}
		for part := range slices.Chunk(se.Elems, maxElemsPerMessage) {
			elems, err := encodeElems(c.known[se.Set], part)
			if err != nil {
				return nil, fmt.Errorf("set %s: %w", se.Set, err)
			}
			out = append(out, encoded{s, elems})
		}
	}
	return out, nil
}

// Intact reports whether the table has all chains of r with as many rules as r gives
// them, and all its sets. It does not look at what the rules or the elements are.
func (c *Conn) Intact(r Ruleset) (bool, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	chains, sets, err := c.existing(r.Table)
	if err != nil {
		return false, err
	}
	for _, want := range r.Sets {
		if !slices.ContainsFunc(sets, func(s *nftables.Set) bool { return s.Name == want.Name }) {
			return false, nil
		}
	}
	for _, want := range r.Chains {
		i := slices.IndexFunc(chains, func(have *nftables.Chain) bool { return have.Name == want.Name })
		if i < 0 {
			return false, nil
		}
		if want.Foreign {
			continue
		}
		rules, err := c.c.GetRules(chains[i].Table, chains[i])
		if err != nil || len(rules) != len(want.Rules) {
			return false, err
		}
	}
	return true, nil
}

func (c *Conn) flush(doing, table string) error {
	if err := c.c.Flush(); err != nil {
		return fmt.Errorf("%s nftables table %s: %w", doing, table, err)
	}
	return nil
}

func (c *Conn) existing(table string) ([]*nftables.Chain, []*nftables.Set, error) {
	t, err := c.c.ListTableOfFamily(table, nftables.TableFamilyINet)
	if err != nil || t == nil {
		if errors.Is(err, unix.ENOENT) || t == nil && err == nil {
			return nil, nil, nil
		}
		// The library words a missing table in text only: tell by listing.
		all, lerr := c.c.ListTablesOfFamily(nftables.TableFamilyINet)
		if lerr != nil {
			return nil, nil, lerr
		}
		if !slices.ContainsFunc(all, func(t *nftables.Table) bool { return t.Name == table }) {
			return nil, nil, nil
		}
		return nil, nil, err
	}
	all, err := c.c.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, nil, err
	}
	chains := slices.DeleteFunc(all, func(ch *nftables.Chain) bool { return ch.Table.Name != table })
	sets, err := c.c.GetSets(t)
	return chains, sets, err
}

func (p *plan) addSet(s Set, id uint32) error {
	key, err := concat(s.Key)
	if err != nil {
		return err
	}
	set := &nftables.Set{Table: p.table, ID: id, Name: s.Name, KeyType: key, Concatenation: len(s.Key) > 1, Interval: s.Interval}
	if len(s.Key) == 1 && s.Key[0] == IfName {
		set.KeyByteOrder = binaryutil.NativeEndian // only so that nft(8) prints the names
	}
	if len(s.Data) > 0 {
		set.IsMap = true
		if set.DataType, err = concat(s.Data); err != nil {
			return err
		}
	}
	p.sets[s.Name], p.known[s.Name], p.order = set, s, append(p.order, s.Name)
	for part := range slices.Chunk(s.Elems, maxElemsPerMessage) {
		elems, err := encodeElems(s, part)
		if err != nil {
			return err
		}
		p.elems[s.Name] = append(p.elems[s.Name], elems)
	}
	return nil
}

func concat(types []Type) (nftables.SetDatatype, error) {
	var out []nftables.SetDatatype
	for _, t := range types {
		switch t {
		case IfName:
			out = append(out, nftables.TypeIFName)
		case IPv4:
			out = append(out, nftables.TypeIPAddr)
		case IPv6:
			out = append(out, nftables.TypeIP6Addr)
		case Proto:
			out = append(out, nftables.TypeInetProto)
		case Service:
			out = append(out, nftables.TypeInetService)
		default:
			return nftables.SetDatatype{}, fmt.Errorf("unknown type %q", t)
		}
	}
	if len(out) == 1 {
		return out[0], nil
	}
	return nftables.ConcatSetType(out...)
}

func encodeElems(s Set, elems []Elem) ([]nftables.SetElement, error) {
	if s.Interval && len(s.Key) == 1 {
		return encodeIntervals(elems)
	}
	out := make([]nftables.SetElement, len(elems))
	for i, e := range elems {
		var err error
		first, last := bounds(e.Key)
		if out[i].Key, err = encode(s.Key, first); err != nil {
			return nil, fmt.Errorf("element %s: %w", e, err)
		}
		if s.Interval {
			if out[i].KeyEnd, err = encode(s.Key, last); err != nil {
				return nil, fmt.Errorf("element %s: %w", e, err)
			}
		}
		if len(s.Data) > 0 && len(e.Data) > 0 {
			if out[i].Val, err = encode(s.Data, e.Data); err != nil {
				return nil, fmt.Errorf("element %s: %w", e, err)
			}
		}
	}
	return out, nil
}

// bounds are the lowest and the highest key that a key with prefixes and ranges means.
func bounds(key []Value) (first, last []Value) {
	first, last = slices.Clone(key), slices.Clone(key)
	for i, v := range key {
		switch v := v.(type) {
		case netip.Prefix:
			first[i], last[i] = v.Masked().Addr(), lastOf(v)
		case PortRange:
			first[i], last[i] = v.First, v.Last
		}
	}
	return first, last
}

// lastOf is a prefix's highest address.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Masked().Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

// encodeIntervals turns prefixes into pairs of a first address and the first behind.
func encodeIntervals(elems []Elem) ([]nftables.SetElement, error) {
	var out []nftables.SetElement
	for _, e := range elems {
		p, ok := e.Key[0].(netip.Prefix)
		if !ok || len(e.Key) != 1 {
			return nil, fmt.Errorf("element %s is no prefix", e)
		}
		out = append(out, nftables.SetElement{Key: p.Masked().Addr().AsSlice()})
		if next := lastOf(p).Next(); next.IsValid() {
			out = append(out, nftables.SetElement{Key: next.AsSlice(), IntervalEnd: true})
		}
	}
	return out, nil
}

// encode lays values out as the kernel's registers have them: each component padded
// to four bytes when there is more than one.
func encode(types []Type, vals []Value) ([]byte, error) {
	if len(types) != len(vals) {
		return nil, fmt.Errorf("%d values for %d types", len(vals), len(types))
	}
	var out []byte
	for i, t := range types {
		b, err := encodeOne(t, vals[i])
		if err != nil {
			return nil, err
		}
		out = append(out, b...)
		for len(types) > 1 && len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	return out, nil
}

func encodeOne(t Type, v Value) ([]byte, error) {
	switch v := v.(type) {
	case string:
		if t == IfName && len(v) < unix.IFNAMSIZ {
			return ifname(v), nil
		}
		if n, ok := protoNumber(v); t == Proto && ok {
			return []byte{n}, nil
		}
	case netip.Addr:
		if t == IPv4 && v.Is4() || t == IPv6 && v.Is6() && v.Zone() == "" {
			return v.AsSlice(), nil
		}
	case uint16:
		if t == Service {
			return binary.BigEndian.AppendUint16(nil, v), nil
		}
	}
	return nil, fmt.Errorf("value %v does not fit type %s", v, t)
}

func ifname(s string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, s)
	return b
}

func protoNumber(s string) (byte, bool) {
	switch s {
	case "tcp":
		return unix.IPPROTO_TCP, true
	case "udp":
		return unix.IPPROTO_UDP, true
	case "sctp":
		return unix.IPPROTO_SCTP, true
	case "icmp":
		return unix.IPPROTO_ICMP, true
	case "ipv6-icmp":
		return unix.IPPROTO_ICMPV6, true
	}
	return 0, false
}

func chainOf(t *nftables.Table, c Chain) *nftables.Chain {
	ch := &nftables.Chain{Table: t, Name: c.Name}
	if h := c.Hook; h != nil {
		ch.Type = nftables.ChainType(h.Type)
		ch.Hooknum = nftables.ChainHookRef(hookNumber(h.Hook))
		ch.Priority = nftables.ChainPriorityRef(nftables.ChainPriority(h.Priority))
		p := nftables.ChainPolicyAccept
		if h.Drop {
			p = nftables.ChainPolicyDrop
		}
		ch.Policy = &p
	}
	return ch
}

func hookNumber(h string) nftables.ChainHook {
	switch h {
	case "prerouting":
		return unix.NF_INET_PRE_ROUTING
	case "input":
		return unix.NF_INET_LOCAL_IN
	case "forward":
		return unix.NF_INET_FORWARD
	case "output":
		return unix.NF_INET_LOCAL_OUT
	default:
		return unix.NF_INET_POST_ROUTING
	}
}
