package spec

import (
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/blkiodev"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func ptr[T any](v T) *T { return &v }

func resources(in Input) (*specs.LinuxResources, error) {
	h := in.Host
	r := &specs.LinuxResources{Memory: memory(in), CPU: cpu(in)}
	if h.PidsLimit != nil && *h.PidsLimit != 0 {
		limit := *h.PidsLimit
		r.Pids = &specs.LinuxPids{Limit: &limit}
	}
	var err error
	if r.BlockIO, err = blockIO(in); err != nil {
		return nil, err
	}
	if r.Devices, err = deviceRules(in); err != nil {
		return nil, err
	}
	return r, nil
}

func memory(in Input) *specs.LinuxMemory {
	h := in.Host
	m := specs.LinuxMemory{}
	set := false
	if h.Memory > 0 {
		m.Limit, set = ptr(h.Memory), true
	}
	if h.MemoryReservation > 0 {
		m.Reservation, set = ptr(h.MemoryReservation), true
	}
	if h.MemorySwap != 0 {
		m.Swap, set = ptr(h.MemorySwap), true
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness >= 0 {
		m.Swappiness, set = ptr(uint64(*h.MemorySwappiness)), true
	}
	if h.OomKillDisable != nil && *h.OomKillDisable {
		m.DisableOOMKiller, set = ptr(true), true
	}
	if !set {
		return nil
	}
	return &m
}

// cpuPeriod is the period in microseconds that --cpus is expressed by.
const cpuPeriod = 100_000

func cpu(in Input) *specs.LinuxCPU {
	h := in.Host
	c := specs.LinuxCPU{Cpus: h.CpusetCpus, Mems: h.CpusetMems}
	set := h.CpusetCpus != "" || h.CpusetMems != ""
	if h.CPUShares > 0 {
		c.Shares, set = ptr(uint64(h.CPUShares)), true
	}
	if h.NanoCPUs > 0 {
		c.Period, c.Quota, set = ptr(uint64(cpuPeriod)), ptr(h.NanoCPUs*cpuPeriod/1e9), true
	}
	if h.CPUPeriod != 0 {
		c.Period, set = ptr(uint64(h.CPUPeriod)), true
	}
	if h.CPUQuota != 0 {
		c.Quota, set = ptr(h.CPUQuota), true
	}
	if h.CPURealtimePeriod != 0 {
		c.RealtimePeriod, set = ptr(uint64(h.CPURealtimePeriod)), true
	}
	if h.CPURealtimeRuntime != 0 {
		c.RealtimeRuntime, set = ptr(h.CPURealtimeRuntime), true
	}
	if !set {
		return nil
	}
	return &c
}

func blockIO(in Input) (*specs.LinuxBlockIO, error) {
	h := in.Host
	b := specs.LinuxBlockIO{}
	set := false
	if h.BlkioWeight != 0 {
		b.Weight, set = ptr(h.BlkioWeight), true
	}
	for _, w := range h.BlkioWeightDevice {
		if w == nil { // earlier engines kept such
			continue
		}
		major, minor, err := in.BlockDevice(w.Path)
		if err != nil {
			return nil, invalid("%w", err)
		}
		d := specs.LinuxWeightDevice{Weight: ptr(w.Weight)}
		d.Major, d.Minor = major, minor
		b.WeightDevice, set = append(b.WeightDevice, d), true
	}
	for _, t := range []struct {
		in  []*blkiodev.ThrottleDevice
		out *[]specs.LinuxThrottleDevice
	}{
		{h.BlkioDeviceReadBps, &b.ThrottleReadBpsDevice},
		{h.BlkioDeviceWriteBps, &b.ThrottleWriteBpsDevice},
		{h.BlkioDeviceReadIOps, &b.ThrottleReadIOPSDevice},
		{h.BlkioDeviceWriteIOps, &b.ThrottleWriteIOPSDevice},
	} {
		for _, dev := range t.in {
			if dev == nil {
				continue
			}
			major, minor, err := in.BlockDevice(dev.Path)
			if err != nil {
				return nil, invalid("%w", err)
			}
			d := specs.LinuxThrottleDevice{Rate: dev.Rate}
			d.Major, d.Minor = major, minor
			*t.out, set = append(*t.out, d), true
		}
	}
	if !set {
		return nil, nil
	}
	return &b, nil
}

// deviceRules denies everything, then allows the devices every container has, those
// asked for, and the rules of --device-cgroup-rule.
func deviceRules(in Input) ([]specs.LinuxDeviceCgroup, error) {
	if in.Host.Privileged {
		return []specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, nil
	}
	allow := func(typ string, major, minor int64, access string) specs.LinuxDeviceCgroup {
		r := specs.LinuxDeviceCgroup{Allow: true, Type: typ, Access: access}
		if major >= 0 {
			r.Major = &major
		}
		if minor >= 0 {
			r.Minor = &minor
		}
		return r
	}
	rules := []specs.LinuxDeviceCgroup{
		{Allow: false, Access: "rwm"},
		allow("c", -1, -1, "m"), allow("b", -1, -1, "m"), // mknod, but not use
		allow("c", 1, 3, "rwm"), allow("c", 1, 5, "rwm"), allow("c", 1, 7, "rwm"), // null, zero, full
		allow("c", 1, 8, "rwm"), allow("c", 1, 9, "rwm"), // random, urandom
		allow("c", 5, 0, "rwm"), allow("c", 5, 1, "rwm"), allow("c", 5, 2, "rwm"), // tty, console, ptmx
		allow("c", 136, -1, "rwm"), // pts
	}
	for _, d := range in.Devices {
		rules = append(rules, allow(d.Type, d.Major, d.Minor, d.Access))
	}
	for _, text := range in.Host.DeviceCgroupRules {
		r, err := parseDeviceRule(text)
		if err != nil {
			return nil, err
		}
		rules = append(rules, r)
	}
	return rules, nil
}

// parseDeviceRule reads "c 189:* rwm".
func parseDeviceRule(text string) (specs.LinuxDeviceCgroup, error) {
	bad := func() (specs.LinuxDeviceCgroup, error) {
		return specs.LinuxDeviceCgroup{}, invalid("invalid device cgroup rule format: '%s'", text)
	}
	f := strings.Fields(text)
	if len(f) != 3 || (f[0] != "a" && f[0] != "b" && f[0] != "c") || len(f[2]) > 3 || strings.Trim(f[2], "rwm") != "" {
		return bad()
	}
	maj, mnr, ok := strings.Cut(f[1], ":")
	if !ok {
		return bad()
	}
	r := specs.LinuxDeviceCgroup{Allow: true, Type: f[0], Access: f[2]}
	for _, n := range []struct {
		text string
		out  **int64
	}{{maj, &r.Major}, {mnr, &r.Minor}} {
		if n.text == "*" {
			continue
		}
		v, err := strconv.ParseUint(n.text, 10, 32)
		if err != nil {
			return bad()
		}
		*n.out = ptr(int64(v))
	}
	return r, nil
}

func deviceNodes(in Input) []specs.LinuxDevice {
	devs := in.Devices
	if in.Host.Privileged {
		devs = append(append([]Device{}, in.AllDevices...), devs...)
	}
	var out []specs.LinuxDevice
	for _, d := range devs {
		mode := osMode(d.Mode)
		out = append(out, specs.LinuxDevice{
			Path: d.Path, Type: d.Type, Major: d.Major, Minor: d.Minor,
			FileMode: &mode, UID: ptr(d.UID), GID: ptr(d.GID),
		})
	}
	return out
}
