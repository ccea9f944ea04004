package seccomp

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "export libseccomp's programs anew (needs cc and libseccomp-dev)")

// goldenDir holds profiles as JSON, and as .bpf what libseccomp 2.5.4 on amd64
// makes of them when it is called as runc calls it.
const goldenDir = "testdata/libseccomp"

// forLibseccomp writes a profile as export.c reads it.
func forLibseccomp(t *testing.T, s *specs.LinuxSeccomp) []byte {
	var b bytes.Buffer
	act := func(a specs.LinuxSeccompAction, e *uint) uint32 {
		v, err := action(a, e)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	def := act(s.DefaultAction, s.DefaultErrnoRet)
	fmt.Fprintf(&b, "default %x\n", def)
	for _, a := range s.Architectures {
		fmt.Fprintf(&b, "arch %s\n", strings.ToLower(strings.TrimPrefix(string(a), "SCMP_ARCH_")))
	}
	ops := []specs.LinuxSeccompOperator{"", specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	cond := func(c specs.LinuxSeccompArg) string {
		return fmt.Sprintf(" %d %d %x %x", c.Index, slices.Index(ops, c.Op), c.Value, c.ValueTwo)
	}
	for _, r := range s.Syscalls {
		ret := act(r.Action, r.ErrnoRet)
		if ret == def {
			continue // as runc
		}
		seen := map[uint]bool{}
		twice := false
		all := ""
		for _, c := range r.Args {
			twice = twice || seen[c.Index]
			seen[c.Index] = true
			all += cond(c)
		}
		for _, n := range r.Names {
			if !twice {
				fmt.Fprintf(&b, "rule %s %x %d%s\n", n, ret, len(r.Args), all)
				continue
			}
			for _, c := range r.Args {
				fmt.Fprintf(&b, "rule %s %x 1%s\n", n, ret, cond(c))
			}
		}
	}
	return b.Bytes()
}

// goldenProfiles are Docker's default and random ones.
func goldenProfiles(t *testing.T) map[string]*specs.LinuxSeccomp {
	out := map[string]*specs.LinuxSeccomp{"docker": defaultProfile(t)}
	native := *defaultProfile(t)
	native.Architectures = nil
	out["docker-native"] = &native
	ops := []specs.LinuxSeccompOperator{specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpEqualTo, specs.OpGreaterEqual, specs.OpGreaterThan, specs.OpMaskedEqual}
	acts := []specs.LinuxSeccompAction{specs.ActAllow, specs.ActErrno, specs.ActKillProcess, specs.ActTrap, specs.ActTrace, specs.ActLog, specs.ActKill, specs.ActNotify}
	var names []string
	for n := range callNames() {
		names = append(names, n)
	}
	slices.Sort(names)
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 11))
		s := &specs.LinuxSeccomp{DefaultAction: acts[seed%7]}
		if seed%2 == 1 {
			s.Architectures = []specs.Arch{specs.ArchX86_64, specs.ArchX86, specs.ArchX32}
		}
		order := r.Perm(len(names)) // each name in one rule: what several mean is runc's business
		for len(order) > 0 && len(s.Syscalls) < 40 {
			e := uint(1 + r.IntN(100))
			n := min(1+r.IntN(8), len(order))
			c := specs.LinuxSyscall{Action: acts[r.IntN(len(acts))], ErrnoRet: &e}
			for _, i := range order[:n] {
				c.Names = append(c.Names, names[i])
			}
			order = order[n:]
			for i := range r.IntN(4) {
				op := ops[r.IntN(len(ops))]
				a := specs.LinuxSeccompArg{Index: uint(i), Op: op, Value: r.Uint64() >> r.IntN(64), ValueTwo: r.Uint64() >> r.IntN(64)}
				if op == specs.OpMaskedEqual {
					a.ValueTwo &= a.Value
				} else {
					a.ValueTwo = 0
				}
				c.Args = append(c.Args, a)
			}
			s.Syscalls = append(s.Syscalls, c)
		}
		out[fmt.Sprintf("random%d", seed)] = s
	}
	return out
}

func exportGolden(t *testing.T) {
	tool := filepath.Join(t.TempDir(), "export")
	if out, err := exec.Command("cc", "-O1", "-o", tool, goldenDir+"/export.c", "-lseccomp").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for name, s := range goldenProfiles(t) {
		cmd := exec.Command(tool)
		cmd.Stdin = bytes.NewReader(forLibseccomp(t, s))
		var unknown bytes.Buffer
		cmd.Stderr = &unknown
		prog, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v: %s", name, err, unknown.Bytes())
		}
		// What this libseccomp does not know is no part of the comparison.
		drop := strings.Fields(unknown.String())
		for i := range s.Syscalls {
			c := &s.Syscalls[i]
			c.Names = slices.DeleteFunc(slices.Clone(c.Names), func(n string) bool { return slices.Contains(drop, n) })
		}
		s.Syscalls = slices.DeleteFunc(s.Syscalls, func(c specs.LinuxSyscall) bool { return len(c.Names) == 0 })
		j, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		for file, b := range map[string][]byte{name + ".json": j, name + ".bpf": prog} {
			if err := os.WriteFile(filepath.Join(goldenDir, file), b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestLibseccompVerdicts compares our program with libseccomp's over all numbers
// of the system-call tables and arguments near those of the rules.
func TestLibseccompVerdicts(t *testing.T) {
	if *update {
		exportGolden(t)
	}
	files, err := filepath.Glob(goldenDir + "/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal("no golden profiles")
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".json")
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var s specs.LinuxSeccomp
			if err := json.Unmarshal(b, &s); err != nil {
				t.Fatal(err)
			}
			theirs, err := os.ReadFile(strings.TrimSuffix(file, ".json") + ".bpf")
			if err != nil {
				t.Fatal(err)
			}
			sameVerdicts(t, &s, theirs)
		})
	}
}

func sameVerdicts(t *testing.T, s *specs.LinuxSeccomp, theirs []byte) {
	ours, _, err := compileFor(s, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	p, err := newPolicy(s, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	calls, bad, stub := 0, 0, 0
	for _, audit := range []uint32{auditX86_64, auditX86, auditAARCH64} {
		for _, base := range []uint32{0, x32Bit} {
			for nr := range uint32(600) {
				for i := range 30 {
					if i >= 12 && nr != 102 && nr != 117 { // socketcall and ipc
						break
					}
					c := call{nr | base, audit, interesting(s, r)}
					if i >= 6 && (nr == 102 || nr == 117) {
						c.args[0] = uint64(i - 5)
					}
					got, _ := simulate(t, ours, c)
					want, _ := simulate(t, theirs, c)
					calls++
					if got == want {
						continue
					}
					if got == retErrno|38 && newer(p, c) {
						stub++ // the ENOSYS that runc puts before libseccomp's program
						continue
					}
					if bad++; bad < 10 {
						t.Errorf("%+v: verdict %#x, libseccomp's %#x", c, got, want)
					}
				}
			}
		}
	}
	t.Logf("%d calls, %d answered ENOSYS as newer than the profile, %d differ; %d instructions, libseccomp %d", calls, stub, bad, len(ours)/8, len(theirs)/8)
}

// newer tells whether the profile names no call of that architecture as new as c.
func newer(p *policy, c call) bool {
	for i := range p.sections {
		s := &p.sections[i]
		if s.arch.audit != c.arch || (s.arch.base == x32Bit) != (c.nr&x32Bit != 0) {
			continue
		}
		for nr := range s.calls {
			if nr >= c.nr {
				return false
			}
		}
		return true
	}
	return false
}
