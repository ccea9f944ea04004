package cgroup

import (
	"fmt"
	"runtime"
	"strings"
	"unsafe"

	"github.com/gantry/gantry/internal/errclass"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// DefaultDevices are the rules that every container has besides its own: making
// any node (not using it), and the devices of its /dev.
func DefaultDevices() []specs.LinuxDeviceCgroup {
	n := func(v int64) *int64 { return &v }
	rule := func(typ string, major, minor *int64, access string) specs.LinuxDeviceCgroup {
		return specs.LinuxDeviceCgroup{Allow: true, Type: typ, Major: major, Minor: minor, Access: access}
	}
	return []specs.LinuxDeviceCgroup{
		rule("c", nil, nil, "m"), rule("b", nil, nil, "m"),
		rule("c", n(1), n(3), "rwm"), rule("c", n(1), n(5), "rwm"), rule("c", n(1), n(7), "rwm"),
		rule("c", n(1), n(8), "rwm"), rule("c", n(1), n(9), "rwm"), rule("c", n(5), n(0), "rwm"),
		rule("c", n(136), nil, "rwm"), rule("c", n(5), n(2), "rwm"),
	}
}

type deviceLine struct {
	allow bool
	text  string
}

// deviceLines says what the rules are on v1: lines for devices.deny and
// devices.allow, in order, after everything was denied.
func deviceLines(rules []specs.LinuxDeviceCgroup) []deviceLine {
	out := []deviceLine{{text: "a"}}
	for _, r := range rules {
		if wildcard(r) {
			out = append(out[:0], deviceLine{allow: r.Allow, text: "a"})
			continue
		}
		types := []string{r.Type}
		if r.Type == "a" || r.Type == "" {
			types = []string{"b", "c"}
		}
		for _, t := range types {
			if t == "u" {
				t = "c"
			}
			out = append(out, deviceLine{r.Allow, fmt.Sprintf("%s %s:%s %s", t, devNum(r.Major), devNum(r.Minor), access(r))})
		}
	}
	return out
}

// wildcard tells a rule for all of every device; what came before it is void.
func wildcard(r specs.LinuxDeviceCgroup) bool {
	a := access(r)
	return (r.Type == "a" || r.Type == "") && devNum(r.Major) == "*" && devNum(r.Minor) == "*" &&
		strings.Contains(a, "r") && strings.Contains(a, "w") && strings.Contains(a, "m")
}

func access(r specs.LinuxDeviceCgroup) string {
	if r.Access == "" {
		return "rwm"
	}
	return r.Access
}

func devNum(n *int64) string {
	if n == nil || *n < 0 {
		return "*"
	}
	return num(*n)
}

// The few eBPF instructions that a device filter needs (linux/bpf.h).
const (
	opLoadW   = 0x61 // dst = *(u32 *)(src + off)
	opMov     = 0xb7 // dst = imm
	opMovReg  = 0xbf // dst = src
	opAnd     = 0x57
	opAnd32   = 0x54
	opRsh     = 0x77
	opJneReg  = 0x5d
	opJne     = 0x55
	opJeq     = 0x15
	opJne32   = 0x56
	opExit    = 0x95
	devBlock  = 1
	devChar   = 2
	accMknod  = 1
	accRead   = 2
	accWrite  = 4
	insnBytes = 8
)

type insn struct {
	op  uint8
	dst uint8
	src uint8
	off int16
	imm int32
}

func (i insn) bytes() [insnBytes]byte {
	return [insnBytes]byte{
		i.op, i.dst | i.src<<4, byte(i.off), byte(i.off >> 8),
		byte(i.imm), byte(i.imm >> 8), byte(i.imm >> 16), byte(i.imm >> 24),
	}
}

// deviceProgram is the rules as an eBPF program of type cgroup/dev for v2: the
// last rule that matches decides, nothing matching denies. An allow rule matches
// when it grants all of the access, a deny rule when it forbids some of it.
func deviceProgram(rules []specs.LinuxDeviceCgroup) []byte {
	p := []insn{
		{op: opLoadW, dst: 2, src: 1, off: 0}, // access_type = access << 16 | type
		{op: opMovReg, dst: 3, src: 2},
		{op: opAnd32, dst: 2, imm: 0xffff}, // r2: type
		{op: opRsh, dst: 3, imm: 16},       // r3: access
		{op: opLoadW, dst: 4, src: 1, off: 4},
		{op: opLoadW, dst: 5, src: 1, off: 8},
	}
	decided := false // the verifier takes no instructions that are never reached
	for i := len(rules) - 1; i >= 0 && !decided; i-- {
		p = append(p, ruleInsns(rules[i])...)
		decided = wildcard(rules[i])
	}
	if !decided {
		p = append(p, insn{op: opMov, imm: 0}, insn{op: opExit})
	}
	out := make([]byte, 0, len(p)*insnBytes)
	for _, i := range p {
		b := i.bytes()
		out = append(out, b[:]...)
	}
	return out
}

func ruleInsns(r specs.LinuxDeviceCgroup) []insn {
	var tests []insn // each jumps to the end of the rule when it does not match
	switch r.Type {
	case "b":
		tests = append(tests, insn{op: opJne, dst: 2, imm: devBlock})
	case "c", "u":
		tests = append(tests, insn{op: opJne, dst: 2, imm: devChar})
	}
	mask := int32(0)
	for _, c := range access(r) {
		mask |= map[rune]int32{'r': accRead, 'w': accWrite, 'm': accMknod}[c]
	}
	if mask != accRead|accWrite|accMknod {
		if r.Allow {
			tests = append(tests, insn{op: opMovReg, dst: 1, src: 3}, insn{op: opAnd, dst: 1, imm: mask}, insn{op: opJneReg, dst: 1, src: 3})
		} else {
			tests = append(tests, insn{op: opMovReg, dst: 1, src: 3}, insn{op: opAnd, dst: 1, imm: mask}, insn{op: opJeq, dst: 1, imm: 0})
		}
	}
	// 32-bit compares: a device number has no sign.
	if devNum(r.Major) != "*" {
		tests = append(tests, insn{op: opJne32, dst: 4, imm: int32(uint32(*r.Major))})
	}
	if devNum(r.Minor) != "*" {
		tests = append(tests, insn{op: opJne32, dst: 5, imm: int32(uint32(*r.Minor))})
	}
	verdict := int32(0)
	if r.Allow {
		verdict = 1
	}
	all := append(tests, insn{op: opMov, imm: verdict}, insn{op: opExit})
	for i := range all {
		switch all[i].op {
		case opJne, opJne32, opJneReg, opJeq:
			all[i].off = int16(len(all) - i - 1)
		}
	}
	return all
}

// attachDeviceProgram loads prog and attaches it to the cgroup directory, in
// place of one that an earlier call attached.
func attachDeviceProgram(dir string, prog []byte) error {
	cg, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open cgroup %s: %w", dir, err)
	}
	defer unix.Close(cg)
	fd, err := loadDeviceProgram(prog)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	old, err := attachedPrograms(cg)
	if err != nil {
		return err
	}
	attr := struct {
		target, prog, typ, flags, replace uint32
	}{uint32(cg), uint32(fd), unix.BPF_CGROUP_DEVICE, unix.BPF_F_ALLOW_MULTI, 0}
	if len(old) == 1 {
		id := struct{ id, next, flags uint32 }{id: old[0]}
		if ofd, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_GET_FD_BY_ID, uintptr(unsafe.Pointer(&id)), unsafe.Sizeof(id)); e == 0 {
			defer unix.Close(int(ofd))
			attr.flags |= unix.BPF_F_REPLACE
			attr.replace = uint32(ofd)
		}
	}
	if _, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr)); e != 0 {
		return fmt.Errorf("attach device filter to %s: %w", dir, e)
	}
	return nil
}

func loadDeviceProgram(prog []byte) (int, error) {
	license := []byte("Apache\x00")
	attr := struct {
		typ, n       uint32
		insns        uint64
		license      uint64
		level, size  uint32
		buf          uint64
		version      uint32
		flags        uint32
		name         [16]byte
		ifindex      uint32
		expectedType uint32
	}{
		typ: unix.BPF_PROG_TYPE_CGROUP_DEVICE, n: uint32(len(prog) / insnBytes),
		insns: uint64(uintptr(unsafe.Pointer(&prog[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	var fd uintptr
	var e unix.Errno
	err := undisturbed(func() {
		fd, _, e = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	})
	runtime.KeepAlive(prog)
	runtime.KeepAlive(license)
	switch {
	case err != nil:
		return -1, fmt.Errorf("load device filter: %w", err)
	case e == unix.ENOSYS:
		return -1, errclass.NotImplemented("device rules on cgroup v2 need eBPF in the kernel")
	case e != 0:
		return -1, fmt.Errorf("load device filter: %w", e)
	}
	return int(fd), nil
}

// undisturbed calls f, which makes one short system call, with all signals of the thread
// blocked: the kernel's verifier gives up with EAGAIN when one is pending, and Go's
// runtime sends itself some all the time.
func undisturbed(f func()) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	all, before := unix.Sigset_t{}, unix.Sigset_t{}
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	f()
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); err != nil {
		return fmt.Errorf("unblock signals: %w", err)
	}
	return nil
}

func attachedPrograms(cg int) ([]uint32, error) {
	ids := make([]uint32, 64)
	attr := struct {
		target, typ, query, attach uint32
		ids                        uint64
		n                          uint32
		_                          uint32
	}{target: uint32(cg), typ: unix.BPF_CGROUP_DEVICE, ids: uint64(uintptr(unsafe.Pointer(&ids[0]))), n: uint32(len(ids))}
	_, _, e := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(ids)
	if e != 0 {
		return nil, fmt.Errorf("query device filters: %w", e)
	}
	return ids[:min(int(attr.n), len(ids))], nil
}
