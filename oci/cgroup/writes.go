package cgroup

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// write is one value for one file.
type write struct {
	controller  string // "" on v2
	file, value string
	// alternative is the file of kernels that lack file; it gets altValue if there is one.
	alternative, altValue string
	// optional: nothing is lost when the kernel has neither.
	optional bool
	// swap: when this write fails, the next one may have to go first.
	swap bool
}

func num[T ~int64 | ~uint64 | ~uint32 | ~uint16](v T) string { return fmt.Sprint(v) }

// limitV1 formats a limit where -1 means none.
func limitV1(v int64) string { return strconv.FormatInt(v, 10) }

// writesV1 says what res means on version 1 (kernel: admin-guide/cgroup-v1).
func writesV1(res *specs.LinuxResources) ([]write, error) {
	if len(res.Unified) != 0 {
		return nil, errclass.Invalid("unified resources need cgroup v2")
	}
	var ws []write
	add := func(controller, file, value string) {
		ws = append(ws, write{controller: controller, file: controller + "." + file, value: value})
	}
	if m := res.Memory; m != nil {
		ws = append(ws, memoryV1(m)...)
	}
	if c := res.CPU; c != nil {
		ws = cpuV1(ws, c)
	}
	if p := res.Pids; p != nil && p.Limit != nil {
		add("pids", "max", pidsMax(*p.Limit))
	}
	if b := res.BlockIO; b != nil {
		ws = append(ws, blkioV1(b)...)
	}
	for _, h := range res.HugepageLimits {
		add("hugetlb", h.Pagesize+".limit_in_bytes", num(h.Limit))
	}
	if n := res.Network; n != nil {
		if n.ClassID != nil {
			add("net_cls", "classid", num(*n.ClassID))
		}
		for _, p := range n.Priorities {
			add("net_prio", "ifpriomap", fmt.Sprintf("%s %d", p.Name, p.Priority))
		}
	}
	for _, dev := range slices.Sorted(maps.Keys(res.Rdma)) {
		add("rdma", "max", rdmaLine(dev, res.Rdma[dev]))
	}
	return ws, nil
}

func pidsMax(v int64) string {
	if v <= 0 {
		return "max"
	}
	return num(v)
}

// cpuV1 adds the writes for processor time and for the sets of processors and memory nodes.
func cpuV1(ws []write, c *specs.LinuxCPU) []write {
	add := func(controller, file, value string) {
		ws = append(ws, write{controller: controller, file: controller + "." + file, value: value})
	}
	if c.Shares != nil && *c.Shares != 0 {
		add("cpu", "shares", num(*c.Shares))
	}
	if c.Period != nil && *c.Period != 0 {
		add("cpu", "cfs_period_us", num(*c.Period))
		ws[len(ws)-1].swap = c.Quota != nil && *c.Quota != 0
	}
	if c.Quota != nil && *c.Quota != 0 {
		add("cpu", "cfs_quota_us", num(*c.Quota))
	}
	if c.Burst != nil {
		add("cpu", "cfs_burst_us", num(*c.Burst))
	}
	if c.RealtimePeriod != nil && *c.RealtimePeriod != 0 {
		add("cpu", "rt_period_us", num(*c.RealtimePeriod))
	}
	if c.RealtimeRuntime != nil && *c.RealtimeRuntime != 0 {
		add("cpu", "rt_runtime_us", num(*c.RealtimeRuntime))
	}
	if c.Idle != nil {
		add("cpu", "idle", num(*c.Idle))
	}
	if c.Cpus != "" {
		add("cpuset", "cpus", c.Cpus)
	}
	if c.Mems != "" {
		add("cpuset", "mems", c.Mems)
	}
	return ws
}

func memoryV1(m *specs.LinuxMemory) []write {
	var ws []write
	add := func(file, value string) {
		ws = append(ws, write{controller: "memory", file: "memory." + file, value: value})
	}
	if m.Limit != nil && *m.Limit != 0 {
		add("limit_in_bytes", limitV1(*m.Limit))
	}
	switch {
	case m.Swap != nil && *m.Swap != 0:
		if len(ws) > 0 {
			ws[0].swap = true
		}
		add("memsw.limit_in_bytes", limitV1(*m.Swap))
		ws[len(ws)-1].optional = true // kernels without swap accounting
	case m.Limit != nil && *m.Limit == -1:
		// No memory limit means no limit for both together either; it goes first.
		ws = append([]write{{controller: "memory", file: "memory.memsw.limit_in_bytes", value: "-1", optional: true}}, ws...)
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		add("soft_limit_in_bytes", limitV1(*m.Reservation))
	}
	if t := m.KernelTCP; t != nil && *t != 0 {
		add("kmem.tcp.limit_in_bytes", limitV1(*t))
	}
	if m.Swappiness != nil && *m.Swappiness <= 200 {
		add("swappiness", num(*m.Swappiness))
	}
	if m.DisableOOMKiller != nil && *m.DisableOOMKiller {
		add("oom_control", "1")
	}
	return ws
}

func blkioV1(b *specs.LinuxBlockIO) []write {
	var ws []write
	add := func(file, alternative, value string) {
		w := write{controller: "blkio", file: "blkio." + file, value: value}
		if alternative != "" {
			w.alternative = "blkio." + alternative
		}
		ws = append(ws, w)
	}
	if b.Weight != nil && *b.Weight != 0 {
		add("weight", "bfq.weight", num(*b.Weight))
	}
	if b.LeafWeight != nil && *b.LeafWeight != 0 {
		add("leaf_weight", "", num(*b.LeafWeight))
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			add("weight_device", "bfq.weight_device", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.Weight))
		}
		if d.LeafWeight != nil {
			add("leaf_weight_device", "", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, *d.LeafWeight))
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			add(t.v1, "", fmt.Sprintf("%d:%d %d", d.Major, d.Minor, d.Rate))
		}
	}
	return ws
}

type throttle struct {
	v1, v2  string
	devices []specs.LinuxThrottleDevice
}

func throttles(b *specs.LinuxBlockIO) []throttle {
	return []throttle{
		{"throttle.read_bps_device", "rbps", b.ThrottleReadBpsDevice},
		{"throttle.write_bps_device", "wbps", b.ThrottleWriteBpsDevice},
		{"throttle.read_iops_device", "riops", b.ThrottleReadIOPSDevice},
		{"throttle.write_iops_device", "wiops", b.ThrottleWriteIOPSDevice},
	}
}

func rdmaLine(dev string, r specs.LinuxRdma) string {
	var b strings.Builder
	b.WriteString(dev)
	if r.HcaHandles != nil {
		fmt.Fprintf(&b, " hca_handle=%d", *r.HcaHandles)
	}
	if r.HcaObjects != nil {
		fmt.Fprintf(&b, " hca_object=%d", *r.HcaObjects)
	}
	return b.String()
}

// limitV2 formats a limit where -1 means none.
func limitV2(v int64) string {
	if v == -1 {
		return "max"
	}
	return strconv.FormatInt(v, 10)
}

// writesV2 says what res means on version 2 (kernel: admin-guide/cgroup-v2).
func writesV2(res *specs.LinuxResources) ([]write, error) {
	var ws []write
	add := func(file, value string) { ws = append(ws, write{file: file, value: value}) }
	if m := res.Memory; m != nil {
		if err := memoryV2(m, add); err != nil {
			return nil, err
		}
	}
	if c := res.CPU; c != nil {
		cpuV2(c, add)
	}
	if p := res.Pids; p != nil && p.Limit != nil {
		add("pids.max", pidsMax(*p.Limit))
	}
	if b := res.BlockIO; b != nil {
		ws = ioV2(ws, b)
	}
	for _, h := range res.HugepageLimits {
		add("hugetlb."+h.Pagesize+".max", num(h.Limit))
		ws = append(ws, write{file: "hugetlb." + h.Pagesize + ".rsvd.max", value: num(h.Limit), optional: true})
	}
	for _, dev := range slices.Sorted(maps.Keys(res.Rdma)) {
		add("rdma.max", rdmaLine(dev, res.Rdma[dev]))
	}
	for _, k := range slices.Sorted(maps.Keys(res.Unified)) {
		if k == "" || strings.ContainsAny(k, "/\x00") || !strings.Contains(k, ".") || strings.HasPrefix(k, "cgroup.") {
			return nil, errclass.Invalid("unified resource %q is not a controller's file", k)
		}
		add(k, res.Unified[k])
	}
	return ws, nil
}

func cpuV2(c *specs.LinuxCPU, add func(file, value string)) {
	if c.Shares != nil && *c.Shares != 0 {
		add("cpu.weight", num(CPUWeight(*c.Shares)))
	}
	if c.Idle != nil {
		add("cpu.idle", num(*c.Idle))
	}
	if (c.Quota != nil && *c.Quota != 0) || (c.Period != nil && *c.Period != 0) {
		add("cpu.max", cpuMax(c))
	}
	if c.Burst != nil {
		add("cpu.max.burst", num(*c.Burst))
	}
	if c.Cpus != "" {
		add("cpuset.cpus", c.Cpus)
	}
	if c.Mems != "" {
		add("cpuset.mems", c.Mems)
	}
}

// ioV2 adds the writes for block devices: weights, of the BFQ scheduler or of the controller
// itself, and limits of each device.
func ioV2(ws []write, b *specs.LinuxBlockIO) []write {
	weight := func(dev string, w uint16) {
		ws = append(ws, write{file: "io.bfq.weight", value: dev + num(w), alternative: "io.weight", altValue: dev + num(ioWeight(w))})
	}
	if b.Weight != nil && *b.Weight != 0 {
		weight("", *b.Weight)
	}
	for _, d := range b.WeightDevice {
		if d.Weight != nil {
			weight(fmt.Sprintf("%d:%d ", d.Major, d.Minor), *d.Weight)
		}
	}
	for _, t := range throttles(b) {
		for _, d := range t.devices {
			ws = append(ws, write{file: "io.max", value: fmt.Sprintf("%d:%d %s=%d", d.Major, d.Minor, t.v2, d.Rate)})
		}
	}
	return ws
}

func memoryV2(m *specs.LinuxMemory, add func(file, value string)) error {
	limit, swap := int64(0), int64(0)
	if m.Limit != nil {
		limit = *m.Limit
	}
	if m.Swap != nil {
		swap = *m.Swap
	}
	if limit == -1 && swap == 0 {
		swap = -1
	}
	switch {
	case swap == -1:
		add("memory.swap.max", "max")
	case swap != 0 && limit > 0 && swap >= limit:
		add("memory.swap.max", num(swap-limit)) // the spec's value is both together
	case swap != 0:
		return errclass.Invalid("a limit for memory and swap needs a memory limit that is not above it")
	}
	if limit != 0 {
		add("memory.max", limitV2(limit))
	}
	if m.Reservation != nil && *m.Reservation != 0 {
		add("memory.low", limitV2(*m.Reservation))
	}
	return nil
}

func cpuMax(c *specs.LinuxCPU) string {
	s := "max"
	if c.Quota != nil && *c.Quota > 0 {
		s = num(*c.Quota)
	}
	p := uint64(100000)
	if c.Period != nil && *c.Period != 0 {
		p = *c.Period
	}
	return s + " " + num(p)
}

// ioWeight turns a blkio weight (10 to 1000) into that of the io controller (1 to
// 10000), as OCI runtimes agreed on.
func ioWeight(w uint16) uint64 {
	if w < 10 {
		return 1
	}
	return 1 + (uint64(w)-10)*9999/990
}

// CPUWeight turns v1's cpu.shares (2 to 262144, default 1024) into v2's cpu.weight
// (1 to 10000, default 100) along the curve that OCI runtimes agreed on, which
// maps minimum, default and maximum onto each other.
func CPUWeight(shares uint64) uint64 {
	switch {
	case shares == 0:
		return 0
	case shares <= 2:
		return 1
	case shares >= 262144:
		return 10000
	}
	l := math.Log2(float64(shares))
	return uint64(math.Ceil(math.Pow(10, (l*l+125*l)/612.0-7.0/34.0)))
}
