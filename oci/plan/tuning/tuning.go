// Package tuning digests what a spec says about how the kernel schedules and places
// a container's processes, and about their clocks. It is pure.
package tuning

import (
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Process digests a process's scheduling. execCPUAffinity is for further
// processes, exec, only (runtime-spec, config.md). Class ErrInvalidArgument for invalid
// values.
func Process(p *specs.Process, exec bool, t *initmsg.Tuning) error {
	if err := planScheduler(p.Scheduler, t); err != nil {
		return err
	}
	if io := p.IOPriority; io != nil {
		class, ok := map[specs.IOPriorityClass]uint32{specs.IOPRIO_CLASS_RT: 1, specs.IOPRIO_CLASS_BE: 2, specs.IOPRIO_CLASS_IDLE: 3}[io.Class]
		if !ok {
			return errclass.Invalid("invalid ioPriority.class: %q", io.Class)
		}
		if io.Priority < 0 || io.Priority > 7 {
			return errclass.Invalid("invalid ioPriority.priority: %d", io.Priority)
		}
		const classShift = 13 // linux/ioprio.h
		t.HasIOPriority, t.IOPriority = true, class<<classShift|uint32(io.Priority)
	}
	a := p.ExecCPUAffinity
	if a == nil || !exec {
		return nil
	}
	var err error
	if t.CPUsInitial, err = cpuMask("execCPUAffinity.initial", a.Initial); err != nil {
		return err
	}
	t.CPUsFinal, err = cpuMask("execCPUAffinity.final", a.Final)
	return err
}

// maxCPU bounds CPU and node numbers: no kernel has more.
const maxCPU = 8192

// cpuMask reads a list as of cpuset(7): "0-3,7".
func cpuMask(what, list string) ([]byte, error) {
	if list == "" {
		return nil, nil
	}
	var mask []byte
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(strings.TrimSpace(part), "-")
		lo, err1 := strconv.ParseUint(from, 10, 16)
		hi, err2 := lo, error(nil)
		if isRange {
			hi, err2 = strconv.ParseUint(to, 10, 16)
		}
		if err1 != nil || err2 != nil || lo > hi || hi >= maxCPU {
			return nil, errclass.Invalid("%s: %q is not a list of numbers and ranges", what, list)
		}
		for n := lo; n <= hi; n++ {
			if need := int(n/8 + 1); need > len(mask) {
				mask = append(mask, make([]byte, need-len(mask))...)
			}
			mask[n/8] |= 1 << (n % 8)
		}
	}
	return mask, nil
}

// schedPolicies are in linux/sched.h.
var schedPolicies = map[specs.LinuxSchedulerPolicy]uint32{
	specs.SchedOther: 0, specs.SchedFIFO: 1, specs.SchedRR: 2, specs.SchedBatch: 3, specs.SchedISO: 4, specs.SchedIdle: 5,
	specs.SchedDeadline: 6,
}

var schedFlags = map[specs.LinuxSchedulerFlag]uint64{
	specs.SchedFlagResetOnFork: 1, specs.SchedFlagReclaim: 2, specs.SchedFlagDLOverrun: 4, specs.SchedFlagKeepPolicy: 8,
	specs.SchedFlagKeepParams: 0x10, specs.SchedFlagUtilClampMin: 0x20, specs.SchedFlagUtilClampMax: 0x40,
}

// planScheduler checks what runc checks; the kernel does the rest.
func planScheduler(s *specs.Scheduler, t *initmsg.Tuning) error {
	if s == nil {
		return nil
	}
	policy, ok := schedPolicies[s.Policy]
	if !ok {
		return errclass.Invalid("scheduler policy is required and must be one of the known ones, not %q", s.Policy)
	}
	realtime := s.Policy == specs.SchedFIFO || s.Policy == specs.SchedRR
	switch {
	case s.Nice < -20 || s.Nice > 19:
		return errclass.Invalid("invalid scheduler.nice: %d", s.Nice)
	case s.Priority != 0 && !realtime:
		return errclass.Invalid("scheduler.priority can only be specified for SchedFIFO or SchedRR policy")
	case s.Priority < 0 || s.Priority > 99:
		return errclass.Invalid("invalid scheduler.priority: %d", s.Priority)
	case s.Policy != specs.SchedDeadline && (s.Runtime|s.Deadline|s.Period) != 0:
		return errclass.Invalid("scheduler runtime/deadline/period can only be specified for SchedDeadline policy")
	}
	out := initmsg.Scheduler{
		Policy: policy, Nice: s.Nice, Priority: uint32(s.Priority), Runtime: s.Runtime, Deadline: s.Deadline, Period: s.Period,
	}
	for _, f := range s.Flags {
		bit, ok := schedFlags[f]
		if !ok {
			return errclass.Invalid("invalid scheduler.flags: %q", f)
		}
		out.Flags |= bit
	}
	t.HasScheduler, t.Scheduler = true, out
	return nil
}

// Placement digests what the spec's linux section says about how all of a
// container's processes run.
func Placement(p *specs.LinuxPersonality, mem *specs.LinuxMemoryPolicy, t *initmsg.Tuning) error {
	if p != nil {
		domain, ok := map[specs.LinuxPersonalityDomain]uint32{specs.PerLinux: 0, specs.PerLinux32: 8}[p.Domain]
		if !ok {
			return errclass.Invalid("personality domain %q is not supported", p.Domain)
		}
		if len(p.Flags) != 0 {
			return errclass.Invalid("personality flags are not supported (runtime-spec knows none)")
		}
		t.HasPersonality, t.Personality = true, domain
	}
	if mem == nil {
		return nil
	}
	// linux/mempolicy.h
	modes := []specs.MemoryPolicyModeType{
		specs.MpolDefault, specs.MpolPreferred, specs.MpolBind, specs.MpolInterleave, specs.MpolLocal,
		specs.MpolPreferredMany, specs.MpolWeightedInterleave,
	}
	mode := slices.Index(modes, mem.Mode)
	if mode < 0 {
		return errclass.Invalid("invalid memory policy mode %q", mem.Mode)
	}
	flags := map[specs.MemoryPolicyFlagType]uint32{specs.MpolFNumaBalancing: 1 << 13, specs.MpolFRelativeNodes: 1 << 14, specs.MpolFStaticNodes: 1 << 15}
	t.HasMemory, t.MemoryMode = true, uint32(mode)
	for _, f := range mem.Flags {
		bit, ok := flags[f]
		if !ok {
			return errclass.Invalid("invalid memory policy flag %q", f)
		}
		t.MemoryMode |= bit
	}
	var err error
	t.MemoryNodes, err = cpuMask("memory policy nodes", mem.Nodes)
	return err
}

// Time digests a time namespace's offsets (time_namespaces(7)) into m. Class
// ErrInvalidArgument when m makes no such namespace, or for other clocks.
func Time(in map[string]specs.LinuxTimeOffset, m *initmsg.Message) error {
	if len(in) == 0 {
		return nil
	}
	if !m.NewTimeNS {
		return errclass.Invalid("time namespace offsets are specified, but the container has no new time namespace")
	}
	for _, c := range [...]struct {
		name  string
		clock uint32
	}{{"monotonic", unix.CLOCK_MONOTONIC}, {"boottime", unix.CLOCK_BOOTTIME}} {
		o, ok := in[c.name]
		if !ok {
			continue
		}
		if o.Nanosecs >= 1e9 {
			return errclass.Invalid("time offset of %s: %d nanoseconds are a second or more", c.name, o.Nanosecs)
		}
		m.TimeOffsets = append(m.TimeOffsets, initmsg.TimeOffset{Clock: c.clock, Secs: o.Secs, Nanos: o.Nanosecs})
	}
	if len(m.TimeOffsets) != len(in) {
		return errclass.Invalid("time offsets: only the clocks monotonic and boottime have one")
	}
	return nil
}
