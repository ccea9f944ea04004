package ociinit

import (
	"errors"
	"fmt"
	"strconv"
	"unsafe"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// tune sets how this thread, and so the program, is scheduled and placed. Real-time
// classes and negative nice values take CAP_SYS_NICE.
func tune(t *initmsg.Tuning) error {
	if t.HasScheduler {
		s := &t.Scheduler
		a := &unix.SchedAttr{
			Size: unix.SizeofSchedAttr, Policy: s.Policy, Flags: s.Flags, Nice: s.Nice, Priority: s.Priority,
			Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
		}
		if err := unix.SchedSetAttr(0, a, 0); err != nil {
			return invalid("set scheduler", err)
		}
	}
	if t.HasIOPriority {
		const whoProcess = 1 // linux/ioprio.h
		if _, _, e := unix.RawSyscall(unix.SYS_IOPRIO_SET, whoProcess, 0, uintptr(t.IOPriority)); e != 0 {
			return invalid("set io priority", e)
		}
	}
	if t.HasMemory {
		if err := setMempolicy(t); err != nil {
			return err
		}
	}
	if t.HasPersonality {
		if _, _, e := unix.RawSyscall(unix.SYS_PERSONALITY, uintptr(t.Personality), 0, 0); e != 0 {
			return invalid("set personality", e)
		}
	}
	return nil
}

func setMempolicy(t *initmsg.Tuning) error {
	// Whole words, and one bit more than there are, as the kernel counts.
	nodes := make([]uint64, (len(t.MemoryNodes)+7)/8)
	for i, b := range t.MemoryNodes {
		nodes[i/8] |= uint64(b) << (8 * (i % 8))
	}
	var p unsafe.Pointer
	n := uintptr(0)
	if len(nodes) != 0 {
		p, n = unsafe.Pointer(&nodes[0]), uintptr(64*len(nodes)+1)
	}
	if _, _, e := unix.RawSyscall(unix.SYS_SET_MEMPOLICY, uintptr(t.MemoryMode), uintptr(p), n); e != 0 {
		return invalid("set memory policy", e)
	}
	return nil
}

// setCPUs restricts this thread to a mask of CPUs, if there is one.
func setCPUs(mask []byte) error {
	if len(mask) == 0 {
		return nil
	}
	_, _, e := unix.RawSyscall(unix.SYS_SCHED_SETAFFINITY, 0, uintptr(len(mask)), uintptr(unsafe.Pointer(&mask[0])))
	if e != 0 {
		return invalid("set cpu affinity", e)
	}
	return nil
}

// invalid is fail for values out of the spec.
func invalid(what string, err error) error {
	if errors.Is(err, unix.EINVAL) {
		return errclass.Invalid("%s: %w", what, err)
	}
	return fail(what, err)
}

// kernelBefore tells that this kernel is older; false where nobody can tell.
func kernelBefore(major, minor int) bool {
	var u unix.Utsname
	var a, b int
	if unix.Uname(&u) != nil {
		return false
	}
	_, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &a, &b)
	return err == nil && (a < major || a == major && b < minor)
}

// newTime makes the time namespace that execve puts the program into, as Linux
// does since 6.3 (6.1 and 6.2 would leave it outside, without a word).
func newTime(offsets []initmsg.TimeOffset) error {
	if kernelBefore(6, 3) {
		return errclass.NotImplemented("a new time namespace needs Linux 6.3")
	}
	if err := unix.Unshare(unix.CLONE_NEWTIME); err != nil {
		return fail("unshare time namespace", err)
	}
	if len(offsets) == 0 {
		return nil
	}
	p, err := openProc()
	if err != nil {
		return err
	}
	defer p.close()
	text := ""
	for _, o := range offsets {
		text += fmt.Sprintf("%d %d %d\n", o.Clock, o.Secs, o.Nanos)
	}
	if err := p.write(strconv.Itoa(unix.Gettid())+"/timens_offsets", text); err != nil {
		if errors.Is(err, unix.ERANGE) {
			return errclass.Invalid("set time offsets: %w", err)
		}
		return invalid("set time offsets", err)
	}
	return nil
}
