package container

import (
	"fmt"
	"path"
	"runtime"
	"slices"
	"strings"

	"github.com/gantry/gantry/engine/container/checks"
	"github.com/gantry/gantry/engine/container/logs"
	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// adapt fills in Docker's defaults and checks the settings, with Docker's messages.
func (s *Service) adapt(c *container.Config, h *container.HostConfig) (warnings []string, err error) {
	s.defaults(h)
	for _, check := range []func() error{
		func() error { return checkConfig(c, h) },
		func() error { return checks.Health(c, h) },
		func() error { return checkNetwork(c, h) },
		func() error { return checks.Modes(h) },
		func() error { return checkRestart(h) },
		func() error { return s.checkRuntime(h) },
		func() error { return checkParent(s.cfg.SystemdCgroup)(c, h) },
		func() error { _, err := logs.ConfigOf("", h.LogConfig); return err },
		func() error { return checks.Resources(h, s.ncpu) },
		func() error { return checks.Security(h) },
	} {
		if err := check(); err != nil {
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
		if h.Privileged && !s.cfg.Cgroup2 {
			h.CgroupnsMode = container.CgroupnsModeHost
		}
	}
	if h.OomKillDisable == nil && !s.cfg.Cgroup2 { // version 2 cannot
		h.OomKillDisable = new(bool)
	}
	if h.SecurityOpt == nil && (h.Privileged || h.IpcMode.IsHost() || h.PidMode.IsHost()) {
		h.SecurityOpt = []string{"label=disable"}
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

func checkRestart(h *container.HostConfig) error {
	if err := container.ValidateRestartPolicy(h.RestartPolicy); err != nil {
		return errclass.Invalid("%w", err)
	}
	return nil
}

func (s *Service) checkRuntime(h *container.HostConfig) error {
	if h.Runtime == s.now.Load().runtime {
		return nil
	}
	if slices.Contains(s.cfg.Runtimes, h.Runtime) {
		return errclass.NotImplemented("other OCI runtimes than %s are not built yet", s.now.Load().runtime)
	}
	return errclass.Invalid("unknown or invalid runtime name: %s", h.Runtime)
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
