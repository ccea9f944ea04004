// Package seccomp compiles the seccomp section of an OCI spec to a classic BPF
// program, in pure Go.
//
// What a rule list means, where the spec leaves it open, is what runc with
// libseccomp makes of it: an unconditional rule for a system call beats
// conditional ones, of several unconditional ones the first counts; conditional
// rules are tried in order; a rule that names one argument twice counts as one
// rule for each condition; rules with the default action say nothing; names that
// an architecture does not have are skipped. System calls newer than all that a
// restrictive profile names answer ENOSYS, so that C libraries fall back to older
// ones. On 32-bit architectures and x32 only the lower halves of arguments and of
// the values to compare with count. On 32-bit x86 a rule for a call that socketcall(2) or
// ipc(2) offer too holds there as well. testdata/libseccomp holds programs of libseccomp
// that verdicts are compared with. Sources: seccomp(2), linux/seccomp.h, linux/audit.h.
package seccomp

import (
	"encoding/binary"
	"runtime"
	"slices"

	"github.com/gantry/gantry/internal/errclass"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// MaxInstructions is the kernel's limit for one program (BPF_MAXINSNS).
const MaxInstructions = 4096

// Return values of a filter (linux/seccomp.h). The low 16 bits are data.
const (
	retKillThread  = 0x00000000
	retKillProcess = 0x80000000
	retTrap        = 0x00030000
	retErrno       = 0x00050000
	retNotify      = 0x7fc00000
	retTrace       = 0x7ff00000
	retLog         = 0x7ffc0000
	retAllow       = 0x7fff0000
	retData        = 0x0000ffff
)

// Compile returns the filter for s on this machine's architecture, 8 bytes an
// instruction in host order, and the SECCOMP_FILTER_FLAG_* to load it with. It is
// pure. Class ErrInvalidArgument for what no filter can say. With an
// SCMP_ACT_NOTIFY rule flags has SECCOMP_FILTER_FLAG_NEW_LISTENER.
func Compile(s *specs.LinuxSeccomp) (prog []byte, flags uint32, err error) {
	return compileFor(s, runtime.GOARCH)
}

func compileFor(s *specs.LinuxSeccomp, goarch string) ([]byte, uint32, error) {
	p, err := newPolicy(s, goarch)
	if err != nil {
		return nil, 0, err
	}
	insns := p.program()
	if len(insns) > MaxInstructions {
		return nil, 0, errclass.Invalid("seccomp: the profile needs %d instructions, the kernel takes %d", len(insns), MaxInstructions)
	}
	out := make([]byte, 0, 8*len(insns))
	for _, i := range insns {
		out = binary.NativeEndian.AppendUint16(out, i.op)
		out = append(out, i.jt, i.jf)
		out = binary.NativeEndian.AppendUint32(out, i.k)
	}
	return out, p.flags, nil
}

// action translates an action of the spec.
func action(a specs.LinuxSeccompAction, errnoRet *uint) (uint32, error) {
	data := uint32(unix.EPERM)
	if errnoRet != nil {
		if *errnoRet > retData {
			return 0, errclass.Invalid("seccomp: errnoRet %d does not fit 16 bits", *errnoRet)
		}
		data = uint32(*errnoRet)
	}
	switch a {
	case specs.ActKill, specs.ActKillThread:
		return retKillThread, nil
	case specs.ActKillProcess:
		return retKillProcess, nil
	case specs.ActTrap:
		return retTrap, nil
	case specs.ActErrno:
		return retErrno | data, nil
	case specs.ActTrace:
		return retTrace | data, nil
	case specs.ActAllow:
		return retAllow, nil
	case specs.ActLog:
		return retLog, nil
	case specs.ActNotify:
		return retNotify, nil
	}
	return 0, errclass.Invalid("seccomp: unknown action %q", a)
}

// rule is one conjunction of argument conditions; empty: always.
type rule struct {
	conds []specs.LinuxSeccompArg
	ret   uint32
}

// section is what one architecture's system calls get: rules by number.
type section struct {
	arch  *arch
	calls map[uint32][]rule
}

// policy is a profile with names resolved.
type policy struct {
	def      uint32
	flags    uint32
	enosys   bool
	sections []section
}

func newPolicy(s *specs.LinuxSeccomp, goarch string) (*policy, error) {
	def, err := action(s.DefaultAction, s.DefaultErrnoRet)
	if err != nil {
		return nil, err
	}
	p := &policy{def: def}
	switch def &^ retData {
	case retAllow, retLog, retTrace:
	default:
		p.enosys = def != retErrno|uint32(unix.ENOSYS)
	}
	if p.flags, err = filterFlags(s.Flags); err != nil {
		return nil, err
	}
	if def == retNotify {
		p.flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	archs, err := archsOf(s.Architectures, goarch)
	if err != nil {
		return nil, err
	}
	for _, a := range archs {
		p.sections = append(p.sections, section{arch: a, calls: make(map[uint32][]rule)})
	}
	for i := range s.Syscalls {
		if err := p.add(&s.Syscalls[i]); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func filterFlags(in []specs.LinuxSeccompFlag) (uint32, error) {
	if len(in) == 0 {
		return unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW, nil // as runc
	}
	var out uint32
	for _, f := range in {
		switch f {
		case specs.LinuxSeccompFlagLog:
			out |= unix.SECCOMP_FILTER_FLAG_LOG
		case specs.LinuxSeccompFlagSpecAllow:
			out |= unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW
		case specs.LinuxSeccompFlagWaitKillableRecv:
			out |= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		case "SECCOMP_FILTER_FLAG_TSYNC": // the program starts with one thread
		default:
			return 0, errclass.Invalid("seccomp: unknown flag %q", f)
		}
	}
	return out, nil
}

// add puts one entry of the profile into all sections.
func (p *policy) add(s *specs.LinuxSyscall) error {
	ret, err := action(s.Action, s.ErrnoRet)
	if err != nil {
		return err
	}
	if ret == retNotify {
		p.flags |= unix.SECCOMP_FILTER_FLAG_NEW_LISTENER
	}
	if len(s.Names) == 0 {
		return errclass.Invalid("seccomp: a rule names no system call")
	}
	seen := make(map[uint]bool)
	split := false
	for _, c := range s.Args {
		if c.Index > 5 {
			return errclass.Invalid("seccomp: a system call has no argument %d", c.Index)
		}
		if !validOp(c.Op) {
			return errclass.Invalid("seccomp: unknown operator %q", c.Op)
		}
		split = split || seen[c.Index]
		seen[c.Index] = true
	}
	rules := []rule{{conds: s.Args, ret: ret}}
	if split {
		rules = rules[:0]
		for _, c := range s.Args {
			rules = append(rules, rule{conds: []specs.LinuxSeccompArg{c}, ret: ret})
		}
	}
	for i := range p.sections {
		for _, name := range s.Names {
			if nr, ok := p.sections[i].arch.number(name); ok {
				p.sections[i].add(nr, rules, p.def)
			}
			if nr, which, ok := p.sections[i].arch.multiplexed(name); ok {
				p.sections[i].add(nr, through(rules, which), p.def)
			}
		}
	}
	return nil
}

// through turns rules for a call into those for the one that offers it too: the
// condition which takes the place of those on the first argument. What libseccomp
// makes of conditions on others is kept, though those arguments are in memory.
func through(rules []rule, which specs.LinuxSeccompArg) []rule {
	out := make([]rule, 0, len(rules))
	for _, r := range rules {
		conds := []specs.LinuxSeccompArg{which}
		for _, c := range r.conds {
			if c.Index != which.Index {
				conds = append(conds, c)
			}
		}
		out = append(out, rule{conds: conds, ret: r.ret})
	}
	return out
}

func (s *section) add(nr uint32, rules []rule, def uint32) {
	cur, known := s.calls[nr]
	if !known {
		s.calls[nr] = nil // counts for the newest known, also with the default action
	}
	for _, r := range rules {
		if r.ret == def {
			continue
		}
		switch {
		case len(cur) == 1 && len(cur[0].conds) == 0: // decided
		case len(r.conds) == 0:
			cur = []rule{r}
		default:
			cur = append(cur, r)
		}
	}
	s.calls[nr] = cur
}

// span is the numbers from lo up to the next span that are treated alike.
type span struct {
	lo    uint32
	rules []rule
}

// spans covers all numbers of the section, ascending.
func (s *section) spans(p *policy) []span {
	out := []span{{lo: 0}}
	push := func(lo uint32, rules []rule) {
		last := &out[len(out)-1]
		switch {
		case last.lo == lo:
			last.rules = rules
			if len(out) > 1 && sameRules(out[len(out)-2].rules, rules) {
				out = out[:len(out)-1]
			}
		case !sameRules(last.rules, rules):
			out = append(out, span{lo, rules})
		}
	}
	nrs := make([]uint32, 0, len(s.calls))
	newest := uint32(0)
	for nr := range s.calls {
		nrs = append(nrs, nr)
		if nr-s.arch.base < privateCalls {
			newest = max(newest, nr)
		}
	}
	slices.Sort(nrs)
	none := []rule(nil)
	enosys := []rule{{ret: retErrno | uint32(unix.ENOSYS)}}
	gap := none
	push(s.arch.base, none)
	for _, nr := range nrs {
		push(nr, s.calls[nr])
		if p.enosys && nr == newest {
			gap = enosys
		}
		push(nr+1, gap)
	}
	if end := s.arch.base + privateCalls; gap != nil {
		// Numbers that no table will ever have get the default.
		if out[len(out)-1].lo < end {
			push(end, none)
		}
	}
	return out
}

func sameRules(a, b []rule) bool {
	return slices.EqualFunc(a, b, func(x, y rule) bool { return x.ret == y.ret && slices.Equal(x.conds, y.conds) })
}

func validOp(o specs.LinuxSeccompOperator) bool {
	switch o {
	case specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual:
		return true
	}
	return false
}
