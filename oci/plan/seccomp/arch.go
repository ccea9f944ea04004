package seccomp

import (
	_ "embed"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/gantry/gantry/internal/errclass"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

//go:embed syscalls.tsv
var syscallsTSV string

// tableLine is a line of syscalls.tsv: a name with its number in each column, noNumber where
// it has none.
type tableLine struct {
	name string
	nr   [4]uint32
}

const noNumber = 1<<32 - 1

// table is syscalls.tsv, sorted by name; parsed at first use.
var table = sync.OnceValue(func() []tableLine {
	t := make([]tableLine, 0, 512)
	for line := range strings.Lines(syscallsTSV) {
		name, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "\t")
		c := tableLine{name: name}
		for i := range c.nr {
			var s string
			s, rest, _ = strings.Cut(rest, "\t")
			c.nr[i] = noNumber
			if v, err := strconv.ParseUint(s, 10, 32); s != "-" && err == nil {
				c.nr[i] = uint32(v)
			}
		}
		t = append(t, c)
	}
	return t
})

// Audit architectures (linux/audit.h), and the bit that marks x32's numbers.
const (
	auditX86_64  = 0xc000003e
	auditX86     = 0x40000003
	auditAARCH64 = 0xc00000b7
	auditARM     = 0x40000028
	x32Bit       = 0x40000000
	// privateCalls and above are architectures' private calls, not the table's.
	privateCalls = 0x000f0000
)

type arch struct {
	name   specs.Arch
	audit  uint32
	column int
	base   uint32 // added to numbers: x32's bit
}

// archOf returns an architecture this compiler knows.
func archOf(name specs.Arch) *arch {
	switch name {
	case specs.ArchX86_64:
		return &arch{name, auditX86_64, 0, 0}
	case specs.ArchX32:
		return &arch{name, auditX86_64, 0, x32Bit}
	case specs.ArchX86:
		return &arch{name, auditX86, 1, 0}
	case specs.ArchAARCH64:
		return &arch{name, auditAARCH64, 2, 0}
	case specs.ArchARM:
		return &arch{name, auditARM, 3, 0}
	}
	return nil
}

// archsOf lists the architectures of a filter, the machine's own first. Those of
// other machines cannot occur and are skipped.
func archsOf(names []specs.Arch, goarch string) ([]*arch, error) {
	native := map[string]specs.Arch{"amd64": specs.ArchX86_64, "arm64": specs.ArchAARCH64}[goarch]
	if native == "" {
		return nil, errclass.NotImplemented("seccomp: not supported on %s", goarch)
	}
	out := []*arch{archOf(native)}
	seen := map[specs.Arch]bool{native: true}
	for _, n := range names {
		if seen[n] {
			continue
		}
		seen[n] = true
		if a := archOf(n); a != nil {
			out = append(out, a)
		} else if !strings.HasPrefix(string(n), "SCMP_ARCH_") {
			return nil, errclass.Invalid("seccomp: unknown architecture %q", n)
		}
	}
	return out, nil
}

// x32Numbers are the calls that have a number of their own on x32
// (arch/x86/entry/syscalls/syscall_64.tbl), from 512 on.
const x32Numbers = "rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace rt_sigpending " +
	"rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid set_robust_list " +
	"get_robust_list vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg process_vm_readv " +
	"process_vm_writev setsockopt getsockopt io_setup io_submit execveat preadv2 pwritev2"

// x32Lacks are those that only the 64-bit table has.
const x32Lacks = " uselib _sysctl create_module get_kernel_syms query_module nfsservctl set_thread_area get_thread_area " +
	"epoll_ctl_old epoll_wait_old vserver uretprobe uprobe map_shadow_stack "

// x32Own maps the names of x32Numbers to their numbers.
var x32Own = sync.OnceValue(func() map[string]uint32 {
	m := make(map[string]uint32)
	for i, n := range strings.Fields(x32Numbers) {
		m[n] = 512 + uint32(i)
	}
	return m
})

// narrow tells that arguments have 32 bits. On x32 registers are wider, but its
// calls take the lower half of most; libseccomp compares that for all of them.
func (a *arch) narrow() bool { return a.base == x32Bit || a.audit == auditX86 || a.audit == auditARM }

func (a *arch) number(name string) (uint32, bool) {
	if a.base == x32Bit {
		if nr, ok := x32Own()[name]; ok {
			return nr + a.base, true
		}
		if strings.Contains(x32Lacks, " "+name+" ") {
			return 0, false
		}
	}
	t := table()
	i, ok := slices.BinarySearchFunc(t, name, func(c tableLine, name string) int { return strings.Compare(c.name, name) })
	if !ok || t[i].nr[a.column] == noNumber {
		return 0, false
	}
	return t[i].nr[a.column] + a.base, true
}

// socketCalls and ipcCalls are in the order of their numbers as the first argument
// of socketcall(2) and ipc(2), from 1 on (linux/net.h, linux/ipc.h).
const (
	socketCalls = "socket bind connect listen accept getsockname getpeername socketpair send recv sendto recvfrom shutdown " +
		"setsockopt getsockopt sendmsg recvmsg accept4 recvmmsg sendmmsg"
	ipcCalls = "semop semget semctl semtimedop - - - - - - msgsnd msgrcv msgget msgctl - - - - - - shmat shmdt shmget shmctl"
)

// multiplexer is a call that offers others by number.
type multiplexer struct {
	call  string
	which uint64
}

// multiplexers maps names to the call that offers them too.
var multiplexers = sync.OnceValue(func() map[string]multiplexer {
	m := make(map[string]multiplexer)
	for call, names := range map[string]string{"socketcall": socketCalls, "ipc": ipcCalls} {
		for i, n := range strings.Fields(names) {
			m[n] = multiplexer{call, uint64(i + 1)}
		}
	}
	return m
})

// multiplexed returns the number of the call that offers name too, and the
// condition by which it does.
func (a *arch) multiplexed(name string) (nr uint32, which specs.LinuxSeccompArg, ok bool) {
	if a.audit != auditX86 {
		return 0, which, false
	}
	m, ok := multiplexers()[name]
	if !ok || name == "-" {
		return 0, which, false
	}
	nr, ok = a.number(m.call)
	return nr, specs.LinuxSeccompArg{Index: 0, Op: specs.OpEqualTo, Value: m.which}, ok
}
