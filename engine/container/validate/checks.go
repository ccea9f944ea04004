package validate

import (
	"fmt"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/engine/container/health"
	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
)

// maxUmask has all permission bits.
const maxUmask = 0o777

// minMemory is the smallest memory limit, in bytes.
const minMemory = 6 << 20

// checkHealth validates the settings of the health check.
func checkHealth(c *container.Config, h *container.HostConfig) error {
	if _, ok := extension.ParseAction(h.Annotations[extension.HealthOnFailure]); !ok {
		return errclass.Invalid("invalid %s %q: must be one of none, stop, kill, restart", extension.HealthOnFailure, h.Annotations[extension.HealthOnFailure])
	}
	hc := c.Healthcheck
	if hc == nil {
		return nil
	}
	for _, d := range []struct {
		name string
		is   time.Duration
	}{
		{"Interval", hc.Interval}, {"Timeout", hc.Timeout}, {"StartPeriod", hc.StartPeriod}, {"StartInterval", hc.StartInterval},
	} {
		if d.is != 0 && d.is < container.MinimumDuration {
			return errclass.Invalid("%s in Healthcheck cannot be less than %s", d.name, container.MinimumDuration)
		}
	}
	if hc.Retries < 0 {
		return errclass.Invalid("Retries in Healthcheck cannot be negative")
	}
	return nil
}

// checkHealthAction refuses what is to follow from a health check that neither the request nor the image has.
func checkHealthAction(c *container.Config, h *container.HostConfig) error {
	if action, _ := extension.ParseAction(h.Annotations[extension.HealthOnFailure]); action != extension.Nothing && health.Of(c) == nil {
		return errclass.Invalid("%s needs a health check", extension.HealthOnFailure)
	}
	return nil
}

// checkModes validates namespaces and other modes.
func checkModes(h *container.HostConfig) error {
	switch {
	case !h.IpcMode.Valid():
		return errclass.Invalid("invalid IPC mode: %s", h.IpcMode)
	case !h.PidMode.Valid():
		return errclass.Invalid("invalid PID mode: %s", h.PidMode)
	case !h.UTSMode.Valid():
		return errclass.Invalid("invalid UTS mode: %s", h.UTSMode)
	case !h.CgroupnsMode.Valid():
		return errclass.Invalid("invalid cgroup namespace mode: %v", h.CgroupnsMode)
	case !h.UsernsMode.Valid():
		return errclass.Invalid("invalid userns mode: %v", h.UsernsMode)
	case h.ShmSize < 0:
		return errclass.Invalid("SHM size can not be less than 0")
	case h.Cgroup != "":
		return errclass.NotImplemented("joining another container's cgroup is not built")
	case !h.Isolation.IsDefault():
		return errclass.Invalid("invalid isolation '%s' on %s", h.Isolation, runtime.GOOS)
	case len(h.DeviceRequests) > 0:
		return errclass.Invalid("could not select device driver %q with capabilities: %v", h.DeviceRequests[0].Driver, h.DeviceRequests[0].Capabilities)
	case h.Umask != nil && *h.Umask > maxUmask:
		return errclass.Invalid("invalid umask %#o: must be between 0 and %#o", *h.Umask, maxUmask)
	case len(h.StorageOpt) > 0:
		return errclass.NotImplemented("storage options are not built yet")
	}
	return nil
}

// checkResources validates limits, on a machine with ncpu processors.
func checkResources(h *container.HostConfig, ncpu int) error {
	if err := checkNull(h); err != nil {
		return err
	}
	for _, err := range []error{
		checkMemory(h), checkCPU(h, ncpu), checkPriority(h), checkWindows(h), checkSets(h), checkUlimits(h),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

func checkPriority(h *container.HostConfig) error {
	switch {
	case h.BlkioWeight > 0 && (h.BlkioWeight < 10 || h.BlkioWeight > 1000):
		return errclass.Invalid("Range of blkio weight is from 10 to 1000")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return errclass.Invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	return nil
}

func checkMemory(h *container.HostConfig) error {
	switch {
	case h.Memory != 0 && h.Memory < minMemory:
		return errclass.Invalid("Minimum memory limit allowed is 6MB")
	case h.Memory > 0 && h.MemorySwap > 0 && h.MemorySwap < h.Memory:
		return errclass.Invalid("Minimum memoryswap limit should be larger than memory limit, see usage")
	case h.Memory == 0 && h.MemorySwap > 0:
		return errclass.Invalid("You should always set the Memory limit when using Memoryswap limit, see usage")
	case h.MemoryReservation > 0 && h.MemoryReservation < minMemory:
		return errclass.Invalid("Minimum memory reservation allowed is 6MB")
	case h.Memory > 0 && h.MemoryReservation > 0 && h.Memory < h.MemoryReservation:
		return errclass.Invalid("Minimum memory limit can not be less than memory reservation limit, see usage")
	case h.MemorySwappiness != nil && *h.MemorySwappiness != -1 && (*h.MemorySwappiness < 0 || *h.MemorySwappiness > 100):
		return errclass.Invalid("Invalid value: %v, valid memory swappiness range is 0-100", *h.MemorySwappiness)
	}
	return nil
}

func checkCPU(h *container.HostConfig, ncpu int) error {
	switch {
	case h.NanoCPUs > 0 && h.CPUPeriod > 0:
		return errclass.Invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case h.NanoCPUs > 0 && h.CPUQuota > 0:
		return errclass.Invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case h.NanoCPUs < 0 || h.NanoCPUs > int64(ncpu)*1e9:
		return errclass.Invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", ncpu, ncpu)
	case h.CPUPeriod != 0 && (h.CPUPeriod < 1000 || h.CPUPeriod > 1000000):
		return errclass.Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case h.CPUQuota > 0 && h.CPUQuota < 1000:
		return errclass.Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	}
	return nil
}

// checkNull refuses null in lists of objects.
func checkNull(h *container.HostConfig) error {
	null := map[string]bool{
		"Ulimits":            slices.Contains(h.Ulimits, nil),
		"BlkioWeightDevice":  slices.Contains(h.BlkioWeightDevice, nil),
		"BlkioDeviceReadBps": slices.Contains(h.BlkioDeviceReadBps, nil), "BlkioDeviceWriteBps": slices.Contains(h.BlkioDeviceWriteBps, nil),
		"BlkioDeviceReadIOps": slices.Contains(h.BlkioDeviceReadIOps, nil), "BlkioDeviceWriteIOps": slices.Contains(h.BlkioDeviceWriteIOps, nil),
	}
	for _, name := range slices.Sorted(maps.Keys(null)) {
		if null[name] {
			return errclass.Invalid("invalid %s: an entry is null", name)
		}
	}
	return nil
}

func checkUlimits(h *container.HostConfig) error {
	for _, u := range h.Ulimits {
		if u.Hard != -1 && (u.Soft > u.Hard || u.Soft == -1) {
			return errclass.Invalid("ulimit soft limit must be less than or equal to hard limit: %d > %d", u.Soft, u.Hard)
		}
		if _, err := units.ParseUlimit(fmt.Sprintf("%s=%d:%d", u.Name, u.Soft, u.Hard)); err != nil {
			return errclass.Invalid("%w", err)
		}
	}
	return nil
}

// checkWindows refuses the limits that only Windows has.
func checkWindows(h *container.HostConfig) error {
	switch {
	case h.IOMaximumBandwidth != 0 || h.IOMaximumIOps != 0:
		return errclass.Invalid("Invalid QoS settings: %s does not support Maximum IO Bandwidth or Maximum IO IOps", runtime.GOOS)
	case h.CPUCount != 0:
		return errclass.Invalid("invalid CpuCount: %d: not supported on %s", h.CPUCount, runtime.GOOS)
	case h.CPUPercent != 0:
		return errclass.Invalid("invalid CpuPercent: %d: not supported on %s", h.CPUPercent, runtime.GOOS)
	}
	return nil
}

func checkSets(h *container.HostConfig) error {
	cpus, err := parseSet(h.CpusetCpus)
	if err != nil {
		return errclass.Invalid("Invalid value %s for cpuset cpus: invalid format: %s", h.CpusetCpus, h.CpusetCpus)
	}
	if _, err := parseSet(h.CpusetMems); err != nil {
		return errclass.Invalid("Invalid value %s for cpuset mems: invalid format: %s", h.CpusetMems, h.CpusetMems)
	}
	if len(cpus) == 0 {
		return nil
	}
	text, rerr := os.ReadFile("/sys/devices/system/cpu/online")
	online, perr := parseSet(strings.TrimSpace(string(text)))
	if rerr != nil || perr != nil {
		return nil //nolint:nilerr // unknown here: the kernel will say
	}
	for _, c := range cpus {
		if !slices.Contains(online, c) {
			return errclass.Invalid("Requested CPUs are not available - requested %s, available: %s", h.CpusetCpus, strings.TrimSpace(string(text)))
		}
	}
	return nil
}

// parseSet reads "0-2,5".
func parseSet(s string) ([]int, error) {
	if s == "" {
		return nil, nil
	}
	const most = 8192 // as many CPUs as a kernel can have
	var out []int
	for part := range strings.SplitSeq(s, ",") {
		lo, hi, ok := strings.Cut(part, "-")
		if !ok {
			hi = lo
		}
		a, err1 := strconv.Atoi(lo)
		b, err2 := strconv.Atoi(hi)
		if err1 != nil || err2 != nil || a < 0 || b < a || b >= most || len(out) > most {
			return nil, fmt.Errorf("invalid set %q", s)
		}
		for i := a; i <= b; i++ {
			out = append(out, i)
		}
	}
	return out, nil
}

// checkSecurity validates capabilities, security options and sysctls.
func checkSecurity(h *container.HostConfig) error {
	if _, err := spec.ParseSecurity(h.SecurityOpt); err != nil {
		return err
	}
	if _, err := spec.NormalizeCaps("CapAdd", h.CapAdd); err != nil {
		return err
	}
	if _, err := spec.NormalizeCaps("CapDrop", h.CapDrop); err != nil {
		return err
	}
	for k := range h.Sysctls {
		if err := sysctl(k, h); err != nil {
			return err
		}
	}
	return nil
}

// sysctl refuses settings that would reach beyond the container's namespaces.
func sysctl(k string, h *container.HostConfig) error {
	ipc := []string{
		"kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shmall",
		"kernel.shmmax", "kernel.shmmni", "kernel.shm_rmid_forced",
	}
	switch {
	case strings.HasPrefix(k, "net."):
		if h.NetworkMode.IsHost() {
			return errclass.Invalid("sysctl '%s' not allowed in host network namespace", k)
		}
	case slices.Contains(ipc, k) || strings.HasPrefix(k, "fs.mqueue."):
		if h.IpcMode.IsHost() {
			return errclass.Invalid("sysctl '%s' not allowed in host ipc namespace", k)
		}
	case k == "kernel.domainname" || k == "kernel.hostname":
		if h.UTSMode.IsHost() {
			return errclass.Invalid("sysctl '%s' not allowed in host uts namespace", k)
		}
	default:
		return errclass.Invalid("sysctl '%s' is not whitelisted", k)
	}
	return nil
}
