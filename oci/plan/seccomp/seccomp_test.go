package seccomp

import (
	"encoding/binary"
	"iter"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	profile "github.com/moby/profiles/seccomp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

type call struct {
	nr, arch uint32
	args     [6]uint64
}

// simulate runs a program as the kernel would, and checks what its verifier does.
func simulate(t testing.TB, prog []byte, c call) (ret uint32, steps int) {
	t.Helper()
	data := make([]byte, 64)
	binary.LittleEndian.PutUint32(data[0:], c.nr)
	binary.LittleEndian.PutUint32(data[4:], c.arch)
	for i, a := range c.args {
		binary.LittleEndian.PutUint64(data[16+8*i:], a)
	}
	var acc uint32
	n := len(prog) / 8
	for pc := 0; pc < n; {
		op := binary.LittleEndian.Uint16(prog[8*pc:])
		jt, jf, k := int(prog[8*pc+2]), int(prog[8*pc+3]), binary.LittleEndian.Uint32(prog[8*pc+4:])
		steps++
		pc++
		cond := func(b bool) {
			if b {
				pc += jt
			} else {
				pc += jf
			}
		}
		switch op {
		case opLoad:
			if k%4 != 0 || k > 60 {
				t.Fatalf("load of %d", k)
			}
			acc = binary.LittleEndian.Uint32(data[k:])
		case opAnd:
			acc &= k
		case opJA:
			pc += int(k)
		case opJEQ:
			cond(acc == k)
		case opJGT:
			cond(acc > k)
		case opJGE:
			cond(acc >= k)
		case opRet:
			return k, steps
		default:
			t.Fatalf("instruction %#x", op)
		}
	}
	t.Fatal("the program ends without a verdict")
	return 0, 0
}

func holds(c specs.LinuxSeccompArg, args [6]uint64, narrow bool) bool {
	v := args[c.Index]
	if narrow {
		v, c.Value, c.ValueTwo = v&(1<<32-1), c.Value&(1<<32-1), c.ValueTwo&(1<<32-1)
	}
	switch c.Op {
	case specs.OpNotEqual:
		return v != c.Value
	case specs.OpEqualTo:
		return v == c.Value
	case specs.OpLessThan:
		return v < c.Value
	case specs.OpLessEqual:
		return v <= c.Value
	case specs.OpGreaterEqual:
		return v >= c.Value
	case specs.OpGreaterThan:
		return v > c.Value
	}
	return v&c.Value == c.ValueTwo
}

// naive evaluates the profile directly, without any of the compiler's structures.
func naive(t testing.TB, s *specs.LinuxSeccomp, goarch string, c call) uint32 {
	t.Helper()
	archs, err := archsOf(s.Architectures, goarch)
	if err != nil {
		t.Fatal(err)
	}
	var a *arch
	for _, x := range archs {
		if x.audit == c.arch && (x.audit != auditX86_64 || (c.nr >= x32Bit) == (x.base == x32Bit)) {
			a = x
		}
	}
	def, _ := action(s.DefaultAction, s.DefaultErrnoRet)
	if a == nil {
		if c.arch == auditX86_64 && goarch == "amd64" && c.nr == 1<<32-1 {
			return def
		}
		return retKillThread
	}
	newest := uint32(0)
	found := uint32(0)
	decided, conditional := false, false
	for i := range s.Syscalls {
		r := &s.Syscalls[i]
		ret, _ := action(r.Action, r.ErrnoRet)
		for _, name := range r.Names {
			nr, ok := a.number(name)
			if ok && nr-a.base < privateCalls {
				newest = max(newest, nr)
			}
			args := r.Args
			if !ok || nr != c.nr {
				var which specs.LinuxSeccompArg
				if nr, which, ok = a.multiplexed(name); !ok || nr != c.nr || c.args[0]&(1<<32-1) != which.Value {
					continue
				}
				// The condition holds; of the others those on the first argument go.
				args = slices.DeleteFunc(slices.Clone(args), func(x specs.LinuxSeccompArg) bool { return x.Index == 0 })
				if len(args) == 0 {
					args = []specs.LinuxSeccompArg{which}
				}
			}
			if ret == def {
				continue
			}
			if len(args) == 0 {
				if !decided {
					found, decided = ret, true
				}
				continue
			}
			if decided || conditional {
				continue
			}
			dup := map[uint]int{}
			for _, x := range args {
				dup[x.Index]++
			}
			and, or := true, false
			for j := range args {
				h := holds(args[j], c.args, a.narrow())
				and, or = and && h, or || h
			}
			if and || (len(dup) != len(args) && or) {
				found, conditional = ret, true
			}
		}
	}
	if decided || conditional {
		return found
	}
	permissive := def == retAllow || def == retLog || def&^retData == retTrace
	known := false
	for i := range s.Syscalls {
		for _, name := range s.Syscalls[i].Names {
			nr, ok := a.number(name)
			known = known || ok && nr == c.nr
			nr, _, ok = a.multiplexed(name)
			known = known || ok && nr == c.nr
			if ok {
				newest = max(newest, nr)
			}
		}
	}
	if !permissive && def != retErrno|38 && newest > 0 && !known && c.nr > newest {
		if c.nr-a.base < privateCalls || a.column == 3 && lastPrivate(s, a) >= privateCalls {
			return retErrno | 38
		}
	}
	return def
}

func lastPrivate(s *specs.LinuxSeccomp, a *arch) (last uint32) {
	for i := range s.Syscalls {
		for _, name := range s.Syscalls[i].Names {
			if nr, ok := a.number(name); ok {
				last = max(last, nr)
			}
		}
	}
	return last
}

// interesting are argument values around those that the profile compares with.
func interesting(s *specs.LinuxSeccomp, r *rand.Rand) [6]uint64 {
	var vals []uint64
	for i := range s.Syscalls {
		for _, a := range s.Syscalls[i].Args {
			vals = append(vals, a.Value, a.Value+1, a.Value-1, a.ValueTwo, a.Value^1<<32, a.Value|1<<63, a.ValueTwo|^a.Value)
		}
	}
	vals = append(vals, 0, 1, 1<<32, ^uint64(0), r.Uint64())
	var out [6]uint64
	for i := range out {
		out[i] = vals[r.IntN(len(vals))]
	}
	return out
}

func compare(t *testing.T, s *specs.LinuxSeccomp, goarch string, r *rand.Rand, tries int) {
	t.Helper()
	prog, _, err := compileFor(s, goarch)
	if err != nil {
		t.Fatal(err)
	}
	longest := 0
	for _, audit := range []uint32{auditX86_64, auditX86, auditAARCH64, auditARM, 0xdead} {
		nrs := []uint32{1<<32 - 1, x32Bit - 1, privateCalls - 1, privateCalls, 983041, 983045, 983046, 1 << 31}
		for nr := range uint32(620) {
			nrs = append(nrs, nr, nr|x32Bit)
		}
		for _, nr := range nrs {
			for range tries {
				c := call{nr, audit, interesting(s, r)}
				got, steps := simulate(t, prog, c)
				longest = max(longest, steps)
				if want := naive(t, s, goarch, c); got != want {
					t.Fatalf("%s: %+v: verdict %#x, want %#x", goarch, c, got, want)
				}
			}
		}
	}
	t.Logf("%s: %d instructions, at most %d run", goarch, len(prog)/8, longest)
}

func defaultProfile(t testing.TB) *specs.LinuxSeccomp {
	s, err := profile.GetDefaultProfile(&specs.Spec{
		Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}}}, Linux: &specs.Linux{},
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestDefaultProfileOverAllCalls(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	s := defaultProfile(t)
	compare(t, s, "amd64", r, 4)
	s.Architectures = []specs.Arch{specs.ArchAARCH64, specs.ArchARM}
	compare(t, s, "arm64", r, 4)
	s.Architectures = nil
	compare(t, s, "amd64", r, 4)
}

func TestRandomProfiles(t *testing.T) {
	ops := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	acts := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActTrap, specs.ActTrace, specs.ActLog, specs.ActNotify, specs.ActKill}
	var names []string
	for n := range callNames() {
		names = append(names, n)
	}
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 7))
		s := &specs.LinuxSeccomp{DefaultAction: acts[r.IntN(len(acts))], Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX32, specs.ArchX86}[:r.IntN(4)]}
		for range r.IntN(60) {
			e := uint(r.IntN(100))
			c := specs.LinuxSyscall{Action: acts[r.IntN(len(acts))], ErrnoRet: &e}
			for range 1 + r.IntN(20) {
				c.Names = append(c.Names, names[r.IntN(len(names))])
			}
			for range r.IntN(4) {
				c.Args = append(c.Args, specs.LinuxSeccompArg{Index: uint(r.IntN(6)), Op: ops[r.IntN(len(ops))], Value: r.Uint64() >> r.IntN(64), ValueTwo: r.Uint64() >> r.IntN(64)})
			}
			s.Syscalls = append(s.Syscalls, c)
		}
		prog, _, err := compileFor(s, "amd64")
		if err != nil {
			if errclass.Of(err) == errdefs.ErrInvalidArgument {
				continue // too many instructions
			}
			t.Fatal(err)
		}
		_ = prog
		compare(t, s, "amd64", r, 2)
	}
}

func TestRefused(t *testing.T) {
	big := uint(1 << 16)
	for name, s := range map[string]*specs.LinuxSeccomp{
		"action":   {DefaultAction: "SCMP_ACT_WHAT"},
		"errno":    {DefaultAction: specs.ActErrno, DefaultErrnoRet: &big},
		"flag":     {DefaultAction: specs.ActAllow, Flags: []specs.LinuxSeccompFlag{"X"}},
		"arch":     {DefaultAction: specs.ActAllow, Architectures: []specs.Arch{"X"}},
		"no names": {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActErrno}}},
		"index":    {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActErrno, Names: []string{"read"}, Args: []specs.LinuxSeccompArg{{Index: 6, Op: specs.OpEqualTo}}}}},
		"op":       {DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Action: specs.ActErrno, Names: []string{"read"}, Args: []specs.LinuxSeccompArg{{Op: "X"}}}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := compileFor(s, "amd64"); errclass.Of(err) != errdefs.ErrInvalidArgument {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	if _, _, err := compileFor(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "mips"); errclass.Of(err) != errdefs.ErrNotImplemented {
		t.Errorf("mips: %v", err)
	}
}

func TestFlagsAndUnknownNames(t *testing.T) {
	s := &specs.LinuxSeccomp{
		DefaultAction: specs.ActAllow,
		Flags:         []specs.LinuxSeccompFlag{specs.LinuxSeccompFlagLog, "SECCOMP_FILTER_FLAG_TSYNC"},
		Syscalls:      []specs.LinuxSyscall{{Action: specs.ActNotify, Names: []string{"no_such_call", "mkdir"}}},
	}
	_, flags, err := compileFor(s, "amd64")
	if err != nil || flags != unix.SECCOMP_FILTER_FLAG_LOG|unix.SECCOMP_FILTER_FLAG_NEW_LISTENER {
		t.Errorf("flags %#x, %v", flags, err)
	}
	_, flags, _ = compileFor(&specs.LinuxSeccomp{DefaultAction: specs.ActAllow}, "amd64")
	if flags != unix.SECCOMP_FILTER_FLAG_SPEC_ALLOW {
		t.Errorf("default flags %#x", flags)
	}
}

// TestNumbers checks the table at calls whose numbers differ between architectures.
func TestNumbers(t *testing.T) {
	for _, c := range []struct {
		arch specs.Arch
		name string
		nr   int64
	}{
		{specs.ArchX86_64, "execve", 59},
		{specs.ArchX86, "execve", 11},
		{specs.ArchX32, "execve", x32Bit + 520},
		{specs.ArchX32, "read", x32Bit},
		{specs.ArchX32, "uselib", -1},
		{specs.ArchX32, "map_shadow_stack", -1},
		{specs.ArchAARCH64, "execve", 221},
		{specs.ArchAARCH64, "open", -1},
		{specs.ArchAARCH64, "newfstatat", 79},
		{specs.ArchARM, "set_tls", 983045},
		{specs.ArchARM, "execve", 11},
		{specs.ArchX86, "socketcall", 102},
		{specs.ArchX86_64, "clone3", 435},
		{specs.ArchX32, "pwritev2", x32Bit + 547},
		{specs.ArchX86, "_llseek", 140},
	} {
		t.Run(c.name, func(t *testing.T) {
			nr, ok := archOf(c.arch).number(c.name)
			if ok != (c.nr >= 0) || ok && int64(nr) != c.nr {
				t.Errorf("%s on %s: %d, %v; want %d", c.name, c.arch, nr, ok, c.nr)
			}
		})
	}
}

func FuzzCompile(f *testing.F) {
	f.Add(uint8(6), uint8(1), uint64(0x7e020000), uint64(0), uint8(0), "clone")
	f.Fuzz(func(t *testing.T, op, act uint8, v1, v2 uint64, idx uint8, name string) {
		ops := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual, "bad"}
		acts := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActTrap, "bad"}
		s := &specs.LinuxSeccomp{DefaultAction: specs.ActErrno, Syscalls: []specs.LinuxSyscall{{
			Names: []string{name, "read"}, Action: acts[act%4],
			Args: []specs.LinuxSeccompArg{{Index: uint(idx), Op: ops[op%8], Value: v1, ValueTwo: v2}},
		}}}
		prog, _, err := compileFor(s, "amd64")
		if err != nil {
			return
		}
		for _, v := range []uint64{v1, v1 + 1, v1 - 1, v2, 0, ^uint64(0)} {
			c := call{nr: 0, arch: auditX86_64, args: [6]uint64{v, v, v, v, v, v}}
			if got, _ := simulate(t, prog, c); got != naive(t, s, "amd64", c) {
				t.Fatalf("%+v: %#x", c, got)
			}
		}
	})
}

func BenchmarkCompileDefault(b *testing.B) {
	s := defaultProfile(b)
	for b.Loop() {
		if _, _, err := Compile(s); err != nil {
			b.Fatal(err)
		}
	}
}

// callNames are those of x86-64's system calls.
func callNames() iter.Seq[string] {
	return func(yield func(string) bool) {
		for _, c := range table() {
			if c.nr[0] != noNumber && !yield(c.name) {
				return
			}
		}
	}
}

// TestTable: it is sorted, which lookups count on, and complete.
func TestTable(t *testing.T) {
	if !slices.IsSortedFunc(table(), func(a, b tableLine) int { return strings.Compare(a.name, b.name) }) {
		t.Error("not sorted")
	}
	for name, want := range map[string][4]uint32{"accept": {43, noNumber, 202, 285}, "read": {0, 3, 63, 3}, "write": {1, 4, 64, 4}} {
		t.Run(name, func(t *testing.T) {
			for column, nr := range want {
				a := &arch{column: column}
				got, ok := a.number(name)
				if ok != (nr != noNumber) || ok && got != nr {
					t.Errorf("%s in column %d: %d %v, want %d", name, column, got, ok, nr)
				}
			}
		})
	}
	if _, ok := (&arch{}).number("nope"); ok {
		t.Error("a call that is not there")
	}
}
