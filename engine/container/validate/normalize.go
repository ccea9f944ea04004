// Package validate normalizes and validates container settings: those of a create request, of an
// exec, and of a stop. No other package does so. Errors have Docker's messages and the class
// InvalidArgument, or NotImplemented for what this engine lacks.
package validate

import (
	"maps"
	"path"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/logs"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// Config is what the daemon's settings say about the settings of containers.
type Config struct {
	// Runtimes are the names --runtime may give, besides DefaultRuntime.
	Runtimes       []string
	DefaultRuntime string
	SystemdCgroup  bool
	Cgroup2        bool // the machine has no cgroups of version 1
	// Logs are the log drivers there are. LogOpts are the options of LogDriver where a container
	// does not set them itself.
	Logs        logs.Drivers
	LogDriver   string
	LogOpts     map[string]string
	ShmSize     int64 // bytes
	StopTimeout time.Duration
}

// Networks is what validation asks of engine/network.
type Networks interface {
	// CheckEndpoint refuses settings that the network, if it is there, cannot give.
	CheckEndpoint(ref string, es *networktypes.EndpointSettings) error
}

// Validator knows the daemon's settings and the other containers. Safe for concurrent use.
type Validator struct {
	cfg      Config // what stays
	now      atomic.Pointer[changeable]
	index    *store.Index
	networks Networks
	ncpu     int
}

// changeable are the settings that a running daemon may change; replaced as a whole.
type changeable struct {
	shmSize     int64
	stopTimeout time.Duration
	runtime     string
}

// New makes one; index has the containers that settings may name.
func New(cfg Config, index *store.Index, networks Networks) *Validator {
	v := &Validator{cfg: cfg, index: index, networks: networks, ncpu: runtime.NumCPU()}
	v.Reconfigure(cfg.ShmSize, cfg.StopTimeout, cfg.DefaultRuntime)
	return v
}

// Reconfigure takes over new defaults: for containers created, and stops asked, from now on.
// shmSize is in bytes. Nothing else of a Config can change.
func (v *Validator) Reconfigure(shmSize int64, stopTimeout time.Duration, runtime string) {
	v.now.Store(&changeable{shmSize: shmSize, stopTimeout: stopTimeout, runtime: runtime})
}

// Normalize fills in Docker's defaults and validates the settings. It changes what it is given;
// maps and slices that are shared are replaced.
func (v *Validator) Normalize(c *container.Config, h *container.HostConfig) (warnings []string, err error) {
	v.defaults(h)
	for _, check := range []func() error{
		func() error { return checkConfig(c, h) },
		func() error { return checkHealth(c, h) },
		func() error { return checkNetwork(c, h) },
		func() error { return checkHosts(h) },
		func() error { return checkPorts(h) },
		func() error { return checkModes(h) },
		func() error { return checkRestart(h) },
		func() error { return v.checkRuntime(h) },
		func() error { return v.checkParent(h) },
		func() error {
			_, err := v.cfg.Logs.Configure(h.LogConfig.Type, logs.Place{}, h.LogConfig.Config)
			return err
		},
		func() error { return checkResources(h, v.ncpu) },
		func() error { return checkSecurity(h) },
	} {
		if err := check(); err != nil {
			return nil, err
		}
	}
	if h.NetworkMode.IsHost() && len(h.PortBindings) > 0 {
		warnings = append(warnings, "Published ports are discarded when using host network mode")
	}
	return append(warnings, resourceWarnings(h)...), nil
}

func (v *Validator) defaults(h *container.HostConfig) {
	v.defaultModes(h)
	v.defaultLimits(h)
	if h.SecurityOpt == nil && (h.Privileged || h.IpcMode.IsHost() || h.PidMode.IsHost()) {
		h.SecurityOpt = []string{"label=disable"}
	}
	if h.RestartPolicy.Name == "" {
		h.RestartPolicy.Name = container.RestartPolicyDisabled
	}
	if h.Runtime == "" {
		h.Runtime = v.now.Load().runtime
	}
	if h.LogConfig.Type == "" {
		h.LogConfig.Type = v.cfg.LogDriver
	}
	opts := map[string]string{}
	if h.LogConfig.Type == v.cfg.LogDriver {
		maps.Copy(opts, v.cfg.LogOpts)
	}
	maps.Copy(opts, h.LogConfig.Config)
	h.LogConfig.Config = opts
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
	if h.PortBindings == nil {
		h.PortBindings = networktypes.PortMap{}
	}
}

func (v *Validator) defaultModes(h *container.HostConfig) {
	if h.NetworkMode == "" || h.NetworkMode.IsDefault() {
		h.NetworkMode = networktypes.NetworkBridge
	}
	if h.IpcMode.IsEmpty() {
		h.IpcMode = container.IPCModePrivate
	}
	if h.CgroupnsMode.IsEmpty() {
		h.CgroupnsMode = container.CgroupnsModePrivate
		if h.Privileged && !v.cfg.Cgroup2 {
			h.CgroupnsMode = container.CgroupnsModeHost
		}
	}
}

func (v *Validator) defaultLimits(h *container.HostConfig) {
	if h.OomKillDisable == nil && !v.cfg.Cgroup2 { // version 2 cannot
		h.OomKillDisable = new(bool)
	}
	if h.ShmSize == 0 {
		h.ShmSize = v.now.Load().shmSize
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
		if _, err := Signal(c.StopSignal); err != nil {
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
	switch {
	case h.NetworkMode.IsContainer():
		return checkJoined(c, h)
	case h.UTSMode.IsHost() && c.Hostname != "":
		return conflict("hostname and the UTS mode")
	case h.NetworkMode.IsHost() && len(h.Links) > 0:
		return conflict("host type networking can't be used with links. This would result in undefined behavior")
	case h.NetworkMode.IsHost() && len(h.DNS) > 0:
		return conflict("dns and the network mode")
	}
	return nil
}

// checkJoined validates what goes with the network of another container.
func checkJoined(c *container.Config, h *container.HostConfig) error {
	switch {
	case h.NetworkMode.ConnectedContainer() == "":
		return errclass.Invalid("invalid container format container:<name|id>")
	case c.Hostname != "":
		return conflict("hostname and the network mode")
	case len(h.Links) > 0:
		return conflict("container type network can't be used with links. This would result in undefined behavior")
	case len(h.DNS) > 0:
		return conflict("dns and the network mode")
	case len(h.ExtraHosts) > 0:
		return conflict("custom host-to-IP mapping and the network mode")
	case len(h.PortBindings) > 0 || h.PublishAllPorts:
		return conflict("port publishing and the container type network mode")
	}
	// An image's ports say nothing here: those of the other container count.
	c.ExposedPorts = nil
	return nil
}

func conflict(what string) error { return errclass.Invalid("conflicting options: %s", what) }

// checkHosts validates what is added to the hosts file.
func checkHosts(h *container.HostConfig) error {
	for _, e := range h.ExtraHosts {
		if name, addr, ok := strings.Cut(e, ":"); !ok || name == "" || addr == "" {
			return errclass.Invalid("invalid IP address in add-host: %q", addr)
		}
	}
	return nil
}

func checkPorts(h *container.HostConfig) error {
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

func (v *Validator) checkRuntime(h *container.HostConfig) error {
	if h.Runtime == v.now.Load().runtime || slices.Contains(v.cfg.Runtimes, h.Runtime) {
		return nil
	}
	return errclass.Invalid("unknown or invalid runtime name: %s", h.Runtime)
}

func resourceWarnings(h *container.HostConfig) []string {
	var w []string
	if h.OomKillDisable != nil && *h.OomKillDisable && h.Memory == 0 {
		w = append(w, "OOM killer is disabled for the container, but no memory limit is set, this can result in the system running out of resources.")
	}
	return w
}
