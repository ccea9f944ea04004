package engine

import (
	"context"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/version"
	"github.com/moby/moby/api/types/registry"
	"github.com/moby/moby/api/types/swarm"
	"github.com/moby/moby/api/types/system"
)

// RuntimeName is how the built-in OCI runtime is called; "runc" is accepted for it.
const RuntimeName = "gantry"

// Events returns the engine's event bus.
func (e *Engine) Events() *event.Bus { return e.bus }

// Version answers GET /version, but for the API versions, which are the server's.
func (e *Engine) Version(context.Context) system.VersionResponse {
	return system.VersionResponse{
		Platform: system.PlatformInfo{Name: "Gantry"},
		Version:  version.Version, Os: runtime.GOOS, Arch: runtime.GOARCH,
		GitCommit: version.Commit, BuildTime: version.BuildTime, GoVersion: runtime.Version(), KernelVersion: e.host.kernel,
		Components: []system.ComponentVersion{
			{Name: "Engine", Version: version.Version, Details: map[string]string{
				"Os": runtime.GOOS, "Arch": runtime.GOARCH,
				"GitCommit": version.Commit, "BuildTime": version.BuildTime, "GoVersion": runtime.Version(),
				"KernelVersion": e.host.kernel, "Experimental": "false",
			}},
			{Name: "gantry-runtime", Version: version.Version, Details: map[string]string{"GitCommit": version.Commit}},
		},
	}
}

// Info answers GET /info.
func (e *Engine) Info(context.Context) (system.Info, error) {
	cfg := e.config()
	running, paused, stopped := e.containers.Counts()
	l := e.host.limits
	info := system.Info{
		ID: e.root.id, Name: e.host.name, Labels: append([]string{}, cfg.Labels...), ServerVersion: version.Version,
		Containers: running + paused + stopped, ContainersRunning: running, ContainersPaused: paused, ContainersStopped: stopped,
		Images: e.images.Len(), Driver: e.store.Driver().Name, DriverStatus: [][2]string{{"driver-type", "io.containerd.snapshotter.v1"}},
		Plugins: system.PluginsInfo{
			Volume: e.volumes.Drivers(), Network: e.networks.Drivers(), Log: logDrivers().Names(),
		},
		MemoryLimit: l.memory, SwapLimit: l.swap, OomKillDisable: l.oomKill, CPUCfsPeriod: l.cfsPeriod, CPUCfsQuota: l.cfsQuota,
		CPUShares: l.shares, CPUSet: l.cpuset, PidsLimit: l.pids, IPv4Forwarding: ipForwarding(),
		Debug: cfg.Debug, NFd: openFiles(), NGoroutines: runtime.NumGoroutine(), NEventsListener: e.bus.Subscribers(),
		SystemTime: time.Now().Format(time.RFC3339Nano), LoggingDriver: cfg.LogDriver, CgroupDriver: cfg.cgroupDriver(), CgroupVersion: "1",
		KernelVersion: e.host.kernel, OperatingSystem: e.host.os, OSVersion: e.host.osVersion, OSType: runtime.GOOS, Architecture: machine(),
		NCPU: runtime.NumCPU(), MemTotal: e.host.memory, DockerRootDir: cfg.DataRoot,
		IndexServerAddress: "https://index.docker.io/v1/", RegistryConfig: registryConfig(cfg),
		HTTPProxy: proxyURL("HTTP_PROXY"), HTTPSProxy: proxyURL("HTTPS_PROXY"), NoProxy: os.Getenv("NO_PROXY"),
		Runtimes:       cfg.runtimeInfo(e.runtimePath),
		DefaultRuntime: cfg.DefaultRuntime, Swarm: swarm.Info{LocalNodeState: swarm.LocalNodeStateInactive},
		LiveRestoreEnabled: true, InitBinary: "gantry-runtime",
		ContainerdCommit: system.Commit{ID: moduleVersion("github.com/containerd/containerd/v2")},
		RuncCommit:       system.Commit{ID: "gantry-runtime " + version.Version}, InitCommit: system.Commit{ID: "gantry-runtime " + version.Version},
		SecurityOptions: e.securityOptions(cfg), FirewallBackend: &system.FirewallInfo{Driver: "nftables"},
		CDISpecDirs: []string{}, Warnings: e.host.warnings(),
	}
	if e.host.cgroup2 {
		info.CgroupVersion = "2"
	}
	for _, s := range cfg.DefaultAddressPools {
		if p, err := parsePool(s); err == nil { // checked at start
			info.DefaultAddressPools = append(info.DefaultAddressPools, system.NetworkAddressPool{Base: p.Base, Size: p.Size})
		}
	}
	return info, nil
}

// Auth checks credentials against their registry.
func (e *Engine) Auth(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	return e.images.Login(ctx, a)
}

func (e *Engine) securityOptions(cfg *Config) []string {
	profile := cfg.SeccompProfile
	opts := []string{"name=seccomp,profile=" + profile}
	if profile == "unconfined" {
		opts = []string{"name=seccomp,profile=unconfined"}
	}
	if e.host.cgroup2 {
		opts = append(opts, "name=cgroupns")
	}
	if cfg.NoNewPrivileges {
		opts = append(opts, "name=no-new-privileges")
	}
	return opts
}

func registryConfig(cfg *Config) *registry.ServiceConfig {
	s := &registry.ServiceConfig{
		InsecureRegistryCIDRs: []netip.Prefix{netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("127.0.0.0/8")},
		IndexConfigs: map[string]*registry.IndexInfo{
			"docker.io": {Name: "docker.io", Mirrors: append([]string{}, cfg.RegistryMirrors...), Secure: true, Official: true},
		},
		Mirrors: append([]string{}, cfg.RegistryMirrors...),
	}
	for _, r := range cfg.InsecureRegistries {
		if p, err := netip.ParsePrefix(r); err == nil {
			s.InsecureRegistryCIDRs = append(s.InsecureRegistryCIDRs, p)
			continue
		}
		s.IndexConfigs[r] = &registry.IndexInfo{Name: r, Mirrors: []string{}}
	}
	return s
}

func ipForwarding() bool {
	data, err := os.ReadFile("/proc/sys/net/ipv4/ip_forward")
	return err == nil && strings.TrimSpace(string(data)) == "1"
}

// proxyURL shows a proxy without its password.
func proxyURL(name string) string {
	v := os.Getenv(name)
	if i := strings.Index(v, "@"); i >= 0 {
		if scheme, _, ok := strings.Cut(v[:i], "://"); ok {
			return scheme + "://xxxxx:xxxxx@" + v[i+1:]
		}
		return "xxxxx:xxxxx@" + v[i+1:]
	}
	return v
}

// moduleVersion is that of a library in this binary.
func moduleVersion(path string) string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, m := range info.Deps {
		if m.Path == path {
			return m.Version + " (in process)"
		}
	}
	return ""
}
