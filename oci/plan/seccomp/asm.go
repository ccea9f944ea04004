package seccomp

import (
	"slices"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// insn is one classic BPF instruction (linux/filter.h).
type insn struct {
	op     uint16
	jt, jf uint8
	k      uint32
}

const (
	opLoad = 0x20 // A = seccomp_data[k]
	opAnd  = 0x54 // A &= k
	opJA   = 0x05
	opJEQ  = 0x15
	opJGT  = 0x25
	opJGE  = 0x35
	opRet  = 0x06

	offNr   = 0
	offArch = 4
	offArgs = 16

	maxJump = 255
)

// label is the position of an instruction, counted from the program's end.
type label int

// asm builds a program from its end to its start: where a jump goes is then
// known when the jump is made. Conditional jumps reach 255 instructions; further
// targets get a copy (of a return) or a long jump close by.
type asm struct {
	rev  []insn
	near map[label]label // the latest stand-in of a far target
	rets map[uint32]label
	// narrow: arguments are 32 bits wide, the upper half is not looked at.
	narrow bool
}

func (a *asm) emit(i insn) label {
	a.rev = append(a.rev, i)
	return label(len(a.rev) - 1)
}

// dist is the offset of a jump to t if it were the next instruction emitted.
func (a *asm) dist(t label) int { return len(a.rev) - 1 - int(t) }

func (a *asm) ret(v uint32) label {
	if l, ok := a.rets[v]; ok {
		return l
	}
	l := a.emit(insn{op: opRet, k: v})
	a.rets[v] = l
	return l
}

// reach returns a label for t that a conditional jump still reaches after up to
// slack more instructions.
func (a *asm) reach(t label, slack int) label {
	if a.dist(t)+slack <= maxJump {
		return t
	}
	if n, ok := a.near[t]; ok && a.dist(n)+slack <= maxJump {
		return n
	}
	var n label
	if i := a.rev[t]; i.op == opRet {
		n = a.emit(i)
	} else {
		n = a.emit(insn{op: opJA, k: uint32(a.dist(t))})
	}
	a.near[t] = n
	return n
}

// jump emits a conditional jump.
func (a *asm) jump(op uint16, k uint32, yes, no label) label {
	if yes == no {
		return a.follow(yes)
	}
	yes = a.reach(yes, 2) // room for no's stand-in
	no = a.reach(no, 1)
	return a.emit(insn{op: op, k: k, jt: uint8(a.dist(yes)), jf: uint8(a.dist(no))})
}

// follow makes the next instruction in program order be t's.
func (a *asm) follow(t label) label {
	if a.dist(t) == 0 {
		return t
	}
	if i := a.rev[t]; i.op == opRet {
		return a.emit(i)
	}
	return a.emit(insn{op: opJA, k: uint32(a.dist(t))})
}

// load emits a load that goes on at t.
func (a *asm) load(off uint32, t label) label {
	a.follow(t)
	return a.emit(insn{op: opLoad, k: off})
}

// cond emits the test of one argument: 64 bits in two halves (both architectures
// are little-endian).
func (a *asm) cond(c *specs.LinuxSeccompArg, yes, no label) label {
	lo, hi := uint32(offArgs+8*c.Index), uint32(offArgs+8*c.Index+4)
	vlo, vhi := uint32(c.Value), uint32(c.Value>>32)
	if a.narrow {
		return a.narrowCond(c, lo, yes, no)
	}
	switch c.Op {
	case specs.OpNotEqual:
		return a.equal(lo, hi, vlo, vhi, no, yes)
	case specs.OpEqualTo:
		return a.equal(lo, hi, vlo, vhi, yes, no)
	case specs.OpLessThan:
		return a.above(opJGE, lo, hi, vlo, vhi, no, yes)
	case specs.OpLessEqual:
		return a.above(opJGT, lo, hi, vlo, vhi, no, yes)
	case specs.OpGreaterEqual:
		return a.above(opJGE, lo, hi, vlo, vhi, yes, no)
	case specs.OpGreaterThan:
		return a.above(opJGT, lo, hi, vlo, vhi, yes, no)
	default: // OpMaskedEqual: (arg & value) == valueTwo
		t := a.jump(opJEQ, uint32(c.ValueTwo), yes, no)
		a.follow(t)
		t = a.emit(insn{op: opAnd, k: vlo})
		t = a.load(lo, t)
		t = a.jump(opJEQ, uint32(c.ValueTwo>>32), t, no)
		a.follow(t)
		t = a.emit(insn{op: opAnd, k: vhi})
		return a.load(hi, t)
	}
}

// narrowCond is cond for architectures whose registers, or whose ABI on wider ones
// (x32), have 32 bits.
func (a *asm) narrowCond(c *specs.LinuxSeccompArg, lo uint32, yes, no label) label {
	v := uint32(c.Value)
	var t label
	switch c.Op {
	case specs.OpNotEqual:
		t = a.jump(opJEQ, v, no, yes)
	case specs.OpEqualTo:
		t = a.jump(opJEQ, v, yes, no)
	case specs.OpLessThan:
		t = a.jump(opJGE, v, no, yes)
	case specs.OpLessEqual:
		t = a.jump(opJGT, v, no, yes)
	case specs.OpGreaterEqual:
		t = a.jump(opJGE, v, yes, no)
	case specs.OpGreaterThan:
		t = a.jump(opJGT, v, yes, no)
	default:
		t = a.jump(opJEQ, uint32(c.ValueTwo), yes, no)
		a.follow(t)
		t = a.emit(insn{op: opAnd, k: v})
	}
	return a.load(lo, t)
}

func (a *asm) equal(lo, hi, vlo, vhi uint32, yes, no label) label {
	t := a.jump(opJEQ, vlo, yes, no)
	t = a.load(lo, t)
	t = a.jump(opJEQ, vhi, t, no)
	return a.load(hi, t)
}

// above: hi > vhi, or hi == vhi and lo op vlo.
func (a *asm) above(op uint16, lo, hi, vlo, vhi uint32, yes, no label) label {
	t := a.jump(op, vlo, yes, no)
	t = a.load(lo, t)
	t = a.jump(opJEQ, vhi, t, no)
	t = a.jump(opJGT, vhi, yes, t)
	return a.load(hi, t)
}

// chain emits the rules of one system call, tried in order.
func (a *asm) chain(rules []rule, def uint32) label {
	next := a.ret(def)
	for i := len(rules) - 1; i >= 0; i-- {
		r := &rules[i]
		t := a.ret(r.ret)
		for j := len(r.conds) - 1; j >= 0; j-- {
			t = a.cond(&r.conds[j], t, next)
		}
		next = t
	}
	return next
}

// search emits the binary search of the number in A among spans.
func (a *asm) search(spans []span, at []label) label {
	if len(spans) == 1 {
		return at[0]
	}
	mid := len(spans) / 2
	right := a.search(spans[mid:], at[mid:])
	left := a.search(spans[:mid], at[:mid])
	return a.jump(opJGE, spans[mid].lo, right, left)
}

// section emits one architecture's decision, with the number in A.
func (a *asm) section(s *section, p *policy) label {
	spans := s.spans(p)
	a.narrow = s.arch.narrow()
	at := make([]label, len(spans))
	for i := range spans {
		at[i] = -1
		for j := range i {
			if sameRules(spans[j].rules, spans[i].rules) {
				at[i] = at[j]
				break
			}
		}
		if at[i] < 0 {
			at[i] = a.chain(spans[i].rules, p.def)
		}
	}
	return a.search(spans, at)
}

// program puts the sections behind the test of the architecture. A call in an
// architecture that the profile does not have kills, as with libseccomp.
func (p *policy) program() []insn {
	a := &asm{near: make(map[label]label), rets: make(map[uint32]label)}
	bad := a.ret(retKillThread)
	next := bad
	done := make(map[uint32]bool)
	for i := len(p.sections) - 1; i >= 0; i-- {
		s := &p.sections[i]
		if done[s.arch.audit] {
			continue
		}
		done[s.arch.audit] = true
		entry := p.entry(a, s.arch.audit, bad)
		t := a.load(offNr, entry)
		next = a.jump(opJEQ, s.arch.audit, t, next)
	}
	a.load(offArch, next)
	slices.Reverse(a.rev)
	return a.rev
}

// entry emits the sections of one audit architecture: x86-64 has two tables, told
// apart by a bit of the number.
func (p *policy) entry(a *asm, audit uint32, bad label) label {
	var plain, x32 *section
	for i := range p.sections {
		switch s := &p.sections[i]; {
		case s.arch.audit != audit:
		case s.arch.base == x32Bit:
			x32 = s
		default:
			plain = s
		}
	}
	if audit != auditX86_64 {
		return a.section(plain, p)
	}
	low := a.section(plain, p)
	var high label
	if x32 != nil {
		high = a.section(x32, p)
	} else {
		// -1 is what a tracer sets to skip a call; it is no x32 number.
		high = a.jump(opJEQ, 1<<32-1, a.ret(p.def), bad)
	}
	return a.jump(opJGE, x32Bit, high, low)
}
