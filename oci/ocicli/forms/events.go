package forms

import (
	"math"

	"github.com/gantry/gantry/oci/cgroup"
)

// Event is a line that the command events prints.
type Event struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	Data any    `json:"data,omitempty"`
}

// Stats is the data of an event "stats".
type Stats struct {
	CPU               cpuStats           `json:"cpu"`
	CPUSet            cpuSet             `json:"cpuset"`
	Memory            memoryStats        `json:"memory"`
	Pids              pidsStats          `json:"pids"`
	Blkio             blkioStats         `json:"blkio"`
	Hugetlb           map[string]hugetlb `json:"hugetlb"`
	IntelRdt          struct{}           `json:"intel_rdt"`
	NetworkInterfaces []struct{}         `json:"network_interfaces"`
}

type (
	cpuStats struct {
		Usage struct {
			Total        uint64   `json:"total,omitempty"`
			PerCPU       []uint64 `json:"percpu,omitempty"`
			PerCPUKernel []uint64 `json:"percpu_kernel,omitempty"`
			PerCPUUser   []uint64 `json:"percpu_user,omitempty"`
			Kernel       uint64   `json:"kernel"`
			User         uint64   `json:"user"`
		} `json:"usage"`
		Throttling struct {
			Periods          uint64 `json:"periods,omitempty"`
			ThrottledPeriods uint64 `json:"throttledPeriods,omitempty"`
			ThrottledTime    uint64 `json:"throttledTime,omitempty"`
		} `json:"throttling"`
		PSI *psi `json:"psi,omitempty"`
	}
	cpuSet struct {
		CPUs                  []uint16 `json:"cpus,omitempty"`
		CPUExclusive          int64    `json:"cpu_exclusive"`
		Mems                  []uint16 `json:"mems,omitempty"`
		MemHardwall           int64    `json:"mem_hardwall"`
		MemExclusive          int64    `json:"mem_exclusive"`
		MemoryMigrate         int64    `json:"memory_migrate"`
		MemorySpreadPage      int64    `json:"memory_spread_page"`
		MemorySpreadSlab      int64    `json:"memory_spread_slab"`
		MemoryPressure        int64    `json:"memory_pressure"`
		SchedLoadBalance      int64    `json:"sched_load_balance"`
		SchedRelaxDomainLevel int64    `json:"sched_relax_domain_level"`
	}
	memoryEntry struct {
		Limit   uint64 `json:"limit"`
		Usage   uint64 `json:"usage,omitempty"`
		Max     uint64 `json:"max,omitempty"`
		Failcnt uint64 `json:"failcnt"`
	}
	memoryStats struct {
		Cache     uint64            `json:"cache,omitempty"`
		Usage     memoryEntry       `json:"usage"`
		Swap      memoryEntry       `json:"swap"`
		Kernel    memoryEntry       `json:"kernel"`
		KernelTCP memoryEntry       `json:"kernelTCP"`
		Raw       map[string]uint64 `json:"raw,omitempty"`
		PSI       *psi              `json:"psi,omitempty"`
	}
	pidsStats struct {
		Current uint64 `json:"current,omitempty"`
		Limit   uint64 `json:"limit,omitempty"`
	}
	blkioEntry struct {
		Major uint64 `json:"major,omitempty"`
		Minor uint64 `json:"minor,omitempty"`
		Op    string `json:"op,omitempty"`
		Value uint64 `json:"value,omitempty"`
	}
	blkioStats struct {
		ServiceBytes []blkioEntry `json:"ioServiceBytesRecursive,omitempty"`
		Serviced     []blkioEntry `json:"ioServicedRecursive,omitempty"`
		PSI          *psi         `json:"psi,omitempty"`
	}
	hugetlb struct {
		Usage   uint64 `json:"usage,omitempty"`
		Max     uint64 `json:"max,omitempty"`
		Failcnt uint64 `json:"failcnt"`
	}
	psiData struct {
		Avg10  float64 `json:"avg10"`
		Avg60  float64 `json:"avg60"`
		Avg300 float64 `json:"avg300"`
		Total  uint64  `json:"total"`
	}
	psi struct {
		Some psiData `json:"some"`
		Full psiData `json:"full"`
	}
)

// NewStats puts what the kernel counts into runc's form.
func NewStats(s *cgroup.Stats, d *cgroup.Details) *Stats {
	out := &Stats{Hugetlb: map[string]hugetlb{}}
	u := &out.CPU.Usage
	u.Total, u.PerCPU, u.Kernel, u.User = s.CPU.Usage, s.CPU.PerCPU, s.CPU.System, s.CPU.User
	u.PerCPUKernel, u.PerCPUUser = d.PerCPUKernel, d.PerCPUUser
	t := &out.CPU.Throttling
	t.Periods, t.ThrottledPeriods, t.ThrottledTime = s.CPU.Periods, s.CPU.ThrottledPeriods, s.CPU.ThrottledTime
	out.CPUSet = newSet(d)
	m := &out.Memory
	m.Raw = s.Memory.Stat
	m.Cache = s.Memory.Stat["cache"]
	none := uint64(math.MaxInt64) &^ 4095 // as version 1's files read without a limit
	if s.Memory.V2 {
		m.Cache, none = s.Memory.Stat["file"], math.MaxUint64
	}
	entry := func(c cgroup.Counter) memoryEntry {
		if c.Limit == 0 {
			c.Limit = none
		}
		return memoryEntry(c)
	}
	m.Usage = entry(cgroup.Counter{Limit: s.Memory.Limit, Usage: s.Memory.Usage, Max: s.Memory.MaxUsage, Failcnt: s.Memory.Failcnt})
	m.Swap = entry(d.Swap)
	if !s.Memory.V2 {
		m.Kernel, m.KernelTCP = entry(d.Kernel), entry(d.KernelTCP)
	}
	out.Pids = pidsStats{s.Pids.Current, s.Pids.Limit}
	for _, e := range s.Blkio.ServiceBytes {
		out.Blkio.ServiceBytes = append(out.Blkio.ServiceBytes, blkioEntry(e))
	}
	for _, e := range s.Blkio.Serviced {
		out.Blkio.Serviced = append(out.Blkio.Serviced, blkioEntry(e))
	}
	for size, c := range d.Hugetlb {
		out.Hugetlb[size] = hugetlb{c.Usage, c.Max, c.Failcnt}
	}
	out.CPU.PSI, out.Memory.PSI, out.Blkio.PSI = newPSI(d, "cpu"), newPSI(d, "memory"), newPSI(d, "io")
	return out
}

func newSet(d *cgroup.Details) cpuSet {
	f := d.Flags
	return cpuSet{
		CPUs: d.CPUs, Mems: d.Mems, CPUExclusive: f["cpu_exclusive"], MemHardwall: f["mem_hardwall"], MemExclusive: f["mem_exclusive"],
		MemoryMigrate: f["memory_migrate"], MemorySpreadPage: f["memory_spread_page"], MemorySpreadSlab: f["memory_spread_slab"],
		MemoryPressure: f["memory_pressure"], SchedLoadBalance: f["sched_load_balance"], SchedRelaxDomainLevel: f["sched_relax_domain_level"],
	}
}

func newPSI(d *cgroup.Details, controller string) *psi {
	p, ok := d.Pressure[controller]
	if !ok {
		return nil
	}
	return &psi{psiData(p.Some), psiData(p.Full)}
}
