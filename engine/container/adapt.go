package container

import (
	"fmt"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"github.com/docker/go-units"
	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// minMemory is the smallest memory limit, in bytes.
const minMemory = 6 << 20

// adapt fills in Docker's defaults and checks the settings, with Docker's messages.
func (s *Service) adapt(c *container.Config, h *container.HostConfig) (warnings []string, err error) {
	s.defaults(h)
	for _, check := range []func(*container.Config, *container.HostConfig) error{
		checkConfig, checkNetwork, checkModes, checkRestart, s.checkRuntime, checkParent(s.cfg.SystemdCgroup), s.checkLog, s.checkResources, checkSecurity,
	} {
		if err := check(c, h); err != nil {
			return nil, err
		}
	}
	if h.NetworkMode.IsHost() && len(h.PortBindings) > 0 {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	return append(warnings, s.resourceWarnings(h)...), nil
}

func (s *Service) defaults(h *container.HostConfig) {
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = networktypes.NetworkBridge
	}
	if h.IpcMode.IsEmpty() {
		h.IpcMode = container.IPCModePrivate
	}
	if h.CgroupnsMode.IsEmpty() {
		h.CgroupnsMode = container.CgroupnsModePrivate
		if h.Privileged {
			h.CgroupnsMode = container.CgroupnsModeHost
		}
	}
	if h.ShmSize == 0 {
		h.ShmSize = s.now.Load().shmSize
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if h.Runtime == "" {
		h.Runtime = s.now.Load().runtime
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = s.cfg.LogDriver
	}
	if h.LogConfig.Config == nil {
		h.LogConfig.Config = map[string]string{}
		if h.LogConfig.Type == s.cfg.LogDriver {
			for k, v := range s.cfg.LogOpts {
				h.LogConfig.Config[k] = v
			}
		}
	}
	switch {
	case h.Privileged:
		h.MaskedPaths, h.ReadonlyPaths = nil, nil
	default:
		if h.MaskedPaths == nil {
			h.MaskedPaths = spec.MaskedPaths()
		}
		if h.ReadonlyPaths == nil {
			h.ReadonlyPaths = spec.ReadonlyPaths()
		}
	}
	if h.Memory > 0 && h.MemorySwap == 0 {
		h.MemorySwap = 2 * h.Memory
	}
	if h.PidsLimit != nil && *h.PidsLimit <= 0 {
		h.PidsLimit = nil
	}
	if h.MemorySwappiness != nil && *h.MemorySwappiness == -1 {
		h.MemorySwappiness = nil // the command line's way not to say
	}
	if h.PortBindings == nil {
		h.PortBindings = networktypes.PortMap{}
	}
}

func checkConfig(c *container.Config, h *container.HostConfig) error {
	if c.WorkingDir != "" {
		if !path.IsAbs(c.WorkingDir) {
			return errclass.Invalid("the working directory '%s' is invalid, it needs to be an absolute path", c.WorkingDir)
		}
		c.WorkingDir = path.Clean(c.WorkingDir)
	}
	for _, e := range c.Env {
		if e == "" || e[0] == '=' {
			return errclass.Invalid("invalid environment variable: %s", e)
		}
		if strings.ContainsRune(e, 0) {
			return errclass.Invalid("invalid environment variable: contains a null byte")
		}
	}
	for _, a := range slices.Concat(c.Entrypoint, c.Cmd) {
		if strings.ContainsRune(a, 0) {
			return errclass.Invalid("invalid command: contains a null byte")
		}
	}
	if c.StopSignal != "" {
		if _, err := parseSignal(c.StopSignal); err != nil {
			return err
		}
	}
	if hc := c.Healthcheck; hc != nil {
		if hc.Interval != 0 && hc.Interval < container.MinimumDuration {
			return errclass.Invalid("Interval in Healthcheck cannot be less than %s", container.MinimumDuration)
		}
		if hc.Timeout != 0 && hc.Timeout < container.MinimumDuration {
			return errclass.Invalid("Timeout in Healthcheck cannot be less than %s", container.MinimumDuration)
		}
		if hc.Retries < 0 {
			return errclass.Invalid("Retries in Healthcheck cannot be negative")
		}
	}
	if len(c.Hostname) > 64 {
		return errclass.Invalid("invalid hostname: %s: longer than 64 characters", c.Hostname)
	}
	if h.AutoRemove && !h.RestartPolicy.IsNone() {
		return errclass.Invalid("can't create 'AutoRemove' container with restart policy")
	}
	return nil
}

func checkNetwork(c *container.Config, h *container.HostConfig) error {
	m := h.NetworkMode
	conflict := func(what string) error { return errclass.Invalid("conflicting options: %s", what) }
	switch {
	case m.IsContainer() && m.ConnectedContainer() == "":
		return errclass.Invalid("invalid container format container:<name|id>")
	case m.IsContainer() && c.Hostname != "":
		return conflict("hostname and the network mode")
	case h.UTSMode.IsHost() && c.Hostname != "":
		return conflict("hostname and the UTS mode")
	case m.IsHost() && len(h.Links) > 0:
		return conflict("host type networking can't be used with links. This would result in undefined behavior")
	case m.IsContainer() && len(h.Links) > 0:
		return conflict("container type network can't be used with links. This would result in undefined behavior")
	case (m.IsContainer() || m.IsHost()) && len(h.DNS) > 0:
		return conflict("dns and the network mode")
	case m.IsContainer() && len(h.ExtraHosts) > 0:
		return conflict("custom host-to-IP mapping and the network mode")
	case m.IsContainer() && (len(h.PortBindings) > 0 || h.PublishAllPorts):
		return conflict("port publishing and the container type network mode")
	case m.IsContainer() && len(c.ExposedPorts) > 0:
		// An image's ports say nothing here: those of the other container count.
		c.ExposedPorts = nil
	}
	for _, e := range h.ExtraHosts {
		if name, addr, ok := strings.Cut(e, ":"); !ok || name == "" || addr == "" {
			return errclass.Invalid("invalid IP address in add-host: %q", addr)
		}
	}
	for p, bs := range h.PortBindings {
		for _, b := range bs {
			if b.HostPort == "" {
				continue
			}
			if _, err := networktypes.ParsePortRange(b.HostPort); err != nil {
				return errclass.Invalid("invalid port specification: %q", b.HostPort)
			}
		}
		if p.Num() == 0 {
			return errclass.Invalid("invalid port specification: %q", p.String())
		}
	}
	return nil
}

func checkModes(_ *container.Config, h *container.HostConfig) error {
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
	case len(h.StorageOpt) > 0:
		return errclass.NotImplemented("storage options are not built yet")
	}
	return nil
}

func checkRestart(_ *container.Config, h *container.HostConfig) error {
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return errclass.Invalid("%w", err)
	}
	return nil
}

func (s *Service) checkRuntime(_ *container.Config, h *container.HostConfig) error {
	if h.Runtime == s.now.Load().runtime {
		return nil
	}
	if slices.Contains(s.cfg.Runtimes, h.Runtime) {
		return errclass.NotImplemented("other OCI runtimes than %s are not built yet", s.now.Load().runtime)
	}
	return errclass.Invalid("unknown or invalid runtime name: %s", h.Runtime)
}

func (s *Service) checkLog(_ *container.Config, h *container.HostConfig) error {
	_, err := s.logConfig("", h.LogConfig)
	return err
}

func (s *Service) checkResources(_ *container.Config, h *container.HostConfig) error {
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
	case h.NanoCPUs > 0 && h.CPUPeriod > 0:
		return errclass.Invalid("Conflicting options: Nano CPUs and CPU Period cannot both be set")
	case h.NanoCPUs > 0 && h.CPUQuota > 0:
		return errclass.Invalid("Conflicting options: Nano CPUs and CPU Quota cannot both be set")
	case h.NanoCPUs < 0 || h.NanoCPUs > int64(s.ncpu)*1e9:
		return errclass.Invalid("range of CPUs is from 0.01 to %d.00, as there are only %d CPUs available", s.ncpu, s.ncpu)
	case h.CPUPeriod != 0 && (h.CPUPeriod < 1000 || h.CPUPeriod > 1000000):
		return errclass.Invalid("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)")
	case h.CPUQuota > 0 && h.CPUQuota < 1000:
		return errclass.Invalid("CPU cfs quota can not be less than 1ms (i.e. 1000)")
	case h.BlkioWeight > 0 && (h.BlkioWeight < 10 || h.BlkioWeight > 1000):
		return errclass.Invalid("Range of blkio weight is from 10 to 1000")
	case h.OomScoreAdj < -1000 || h.OomScoreAdj > 1000:
		return errclass.Invalid("Invalid value %d, range for oom score adj is [-1000, 1000]", h.OomScoreAdj)
	}
	if err := s.checkCpuset(h); err != nil {
		return err
	}
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

func (s *Service) checkCpuset(h *container.HostConfig) error {
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

func checkSecurity(_ *container.Config, h *container.HostConfig) error {
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
		if err := checkSysctl(k, h); err != nil {
			return err
		}
	}
	return nil
}

// checkSysctl refuses settings that would reach beyond the container's namespaces.
func checkSysctl(k string, h *container.HostConfig) error {
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

func (s *Service) resourceWarnings(h *container.HostConfig) []string {
	var w []string
	if h.OomKillDisable != nil && *h.OomKillDisable && h.Memory == 0 {
		w = append(w, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	return w
}

// platformWarning is Docker's, when the image is not for this machine and nobody asked for it.
func platformWarning(img *image.Image, asked bool) string {
	arch := img.Config.Architecture
	if arch == "" || arch == runtime.GOARCH || asked {
		return ""
	}
	os := img.Config.OS
	if os == "" {
		os = runtime.GOOS
	}
	return fmt.Sprintf("The requested image's platform (%s/%s) does not match the detected host platform (%s/%s) and no specific platform was requested",
		os, arch, runtime.GOOS, runtime.GOARCH)
}
