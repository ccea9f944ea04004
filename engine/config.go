package engine

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/gantry/gantry/engine/container/validate"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/shim/ociruntime"
)

// Config is what flags and daemon.json say, checked. The names are those of the
// flags; see docs for each. It is plain data: a reload makes a new one.
type Config struct {
	ConfigFile string
	// ConfigFileGiven: the file must exist, because it was named.
	ConfigFileGiven bool
	Validate        bool

	Hosts    []string // unix://PATH, fd://[NAME], tcp://HOST:PORT
	DataRoot string   // absolute
	ExecRoot string   // absolute, on a tmpfs
	Pidfile  string   // "" for none
	Group    string   // owner of unix sockets

	TLS, TLSVerify             bool
	TLSCACert, TLSCert, TLSKey string

	Debug           bool
	LogLevel        string // debug, info, warn, error, fatal
	LogFormat       string // text, json
	Labels          []string
	ShutdownTimeout int // seconds

	DefaultRuntime     string
	Runtimes           map[string]ociruntime.Ref // external OCI runtimes by name
	CgroupParent       string
	ExecOpts           []string
	Init               bool
	SeccompProfile     string // path, "builtin", "unconfined"
	NoNewPrivileges    bool
	DefaultShmSize     int64 // bytes
	DefaultStopTimeout int   // seconds
	LogDriver          string
	LogOpts            map[string]string

	InsecureRegistries     []string
	RegistryMirrors        []string
	MaxConcurrentDownloads int
	MaxDownloadAttempts    int

	Bridge, BIP, BIP6, FixedCIDR, FixedCIDR6 string
	DefaultGateway, DefaultGateway6          string
	DefaultAddressPools                      []string // base=CIDR,size=N
	MTU                                      int
	ICC, IPMasq, IPForward, IPForwardNoDrop  bool
	IPTables, IP6Tables, IPv6, UserlandProxy bool
	AllowDirectRouting                       bool
	IP                                       string
	HostGatewayIPs                           []string
	DefaultNetworkOpts                       map[string]map[string]string // by driver
	ResolvConf, AcceptMark                   string
	FirewallBackend, UserlandProxyPath       string
	NetworkControlPlaneMTU                   int
	DNS, DNSOpts, DNSSearch                  []string
	StorageDriver                            string
	LiveRestore, Experimental                bool

	// set are the names of options that flags or file set, for reload messages.
	set map[string]string
}

// Defaults of the paths; a private daemon sets all of them.
const (
	DefaultConfigFile = "/etc/docker/daemon.json"
	DefaultDataRoot   = "/var/lib/docker"
	DefaultExecRoot   = "/run/gantry"
	DefaultPidfile    = "/run/docker.pid"
	DefaultHost       = "unix:///var/run/docker.sock"
)

// defaultConfig is the configuration without flags and file.
func defaultConfig() *Config {
	return &Config{
		ConfigFile: DefaultConfigFile, DataRoot: DefaultDataRoot, ExecRoot: DefaultExecRoot,
		Pidfile: DefaultPidfile, Group: "docker", LogLevel: "info", LogFormat: "text", ShutdownTimeout: 15,
		DefaultRuntime: RuntimeName, SeccompProfile: "builtin", DefaultShmSize: 64 << 20, DefaultStopTimeout: 10,
		LogDriver: "json-file", LogOpts: map[string]string{}, MaxConcurrentDownloads: 3, MaxDownloadAttempts: 5,
		Runtimes: map[string]ociruntime.Ref{},
		MTU:      1500, ICC: true, IPMasq: true, IPForward: true, IPTables: true, IP6Tables: true, UserlandProxy: true,
		TLSCACert: "/etc/docker/ca.pem", TLSCert: "/etc/docker/cert.pem", TLSKey: "/etc/docker/key.pem",
	}
}

// check validates what parsing alone does not, and makes paths absolute. Errors
// are of class InvalidArgument.
func (c *Config) check() error {
	if len(c.Hosts) == 0 {
		c.Hosts = []string{DefaultHost}
	}
	for _, p := range []*string{&c.DataRoot, &c.ExecRoot, &c.Pidfile} {
		if *p == "" {
			continue
		}
		abs, err := filepath.Abs(*p)
		if err != nil {
			return errclass.With(errdefs.ErrInvalidArgument, err)
		}
		*p = abs
	}
	if c.DataRoot == "" || c.ExecRoot == "" {
		return errclass.Invalid("data-root and exec-root must not be empty")
	}
	if c.DataRoot == c.ExecRoot {
		return errclass.Invalid("data-root and exec-root must not be the same directory")
	}
	for _, step := range []func() error{c.checkHosts, c.checkWords, c.checkNumbers, c.checkNetwork, c.checkRegistries} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// checkWords checks the options that take one of a few words.
func (c *Config) checkWords() error {
	switch c.LogLevel {
	case "debug", "info", "warn", "error", "fatal":
	default:
		return errclass.Invalid("invalid logging level: %s", c.LogLevel)
	}
	if c.LogFormat != "text" && c.LogFormat != "json" {
		return errclass.Invalid("invalid log format: %s", c.LogFormat)
	}
	if err := c.checkLog(); err != nil {
		return err
	}
	if _, ok := c.runtimes()[c.DefaultRuntime]; !ok {
		return errclass.Invalid("specified default runtime '%s' does not exist", c.DefaultRuntime)
	}
	if _, err := findStorageDriver(c.StorageDriver); err != nil {
		return err
	}
	for _, o := range c.ExecOpts {
		key, value, _ := strings.Cut(o, "=")
		switch {
		case !strings.EqualFold(key, "native.cgroupdriver"):
			return errclass.Invalid("invalid exec-opt %q", o)
		case value != cgroupfsDriver && value != systemdDriver:
			return errclass.Invalid("invalid setting for native.cgroupdriver: %q", value)
		}
	}
	if c.systemdCgroup() {
		if err := validate.Slice(c.CgroupParent); err != nil {
			return err
		}
	}
	for _, l := range c.Labels {
		if k, _, ok := strings.Cut(l, "="); !ok || k == "" {
			return errclass.Invalid("bad attribute format: %s", l)
		}
	}
	return nil
}

// checkLog checks the log driver that containers get, and its options.
func (c *Config) checkLog() error {
	drivers := logDrivers()
	if _, err := drivers.Find(c.LogDriver); err != nil {
		return errclass.Invalid("log-driver %q is not built yet in this engine (%s and none are)", c.LogDriver, strings.Join(drivers.Names(), ", "))
	}
	if _, err := drivers.Configure(c.LogDriver, logs.Place{}, c.LogOpts); err != nil {
		return errclass.Invalid("failed to set log opts: %w", err)
	}
	return nil
}

func (c *Config) checkNumbers() error {
	for name, n := range map[string]int{
		"max-concurrent-downloads": c.MaxConcurrentDownloads, "max-download-attempts": c.MaxDownloadAttempts,
		"mtu": c.MTU, "default-shm-size": int(c.DefaultShmSize),
	} {
		if n < 0 {
			return errclass.Invalid("invalid %s: %d", name, n)
		}
	}
	if c.DefaultStopTimeout < -1 || c.ShutdownTimeout < -1 {
		return errclass.Invalid("invalid timeout: must be -1 or more seconds")
	}
	return nil
}

func (c *Config) checkNetwork() error {
	if c.Bridge != "" && c.BIP != "" {
		return errclass.Invalid("you specified -b & --bip, mutually exclusive options. Please specify only one")
	}
	_, err := c.networkConfig()
	return err
}

func (c *Config) checkRegistries() error {
	for _, m := range c.RegistryMirrors {
		if !strings.HasPrefix(m, "https://") && !strings.HasPrefix(m, "http://") {
			return errclass.Invalid("invalid mirror: %q must start with http:// or https://", m)
		}
		if rest := m[strings.Index(m, "://")+3:]; rest == "" || strings.ContainsAny(rest, "@?#") {
			return errclass.Invalid("invalid mirror: %q must be a host without user, query or fragment", m)
		}
	}
	for _, r := range c.InsecureRegistries {
		if strings.Contains(r, "://") {
			return errclass.Invalid("insecure registry %s should not contain '://'", r)
		}
	}
	return nil
}

// stopTimeout is DefaultStopTimeout as a duration.
func (c *Config) stopTimeout() time.Duration {
	return time.Duration(c.DefaultStopTimeout) * time.Second
}

// parseSize reads "64m", "1g" or bytes.
func parseSize(s string) (int64, error) {
	n, err := units.RAMInBytes(s)
	if err != nil {
		return 0, errclass.Invalid("invalid size: '%s'", s)
	}
	return n, nil
}

// prefixOf parses an optional CIDR.
func prefixOf(option, s string) (netip.Prefix, error) {
	if s == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return p, errclass.Invalid("invalid %s: %w", option, err)
	}
	return p, nil
}

// addrOf parses an optional address.
func addrOf(option, s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, errclass.Invalid("invalid %s: %w", option, err)
	}
	return a, nil
}

func addrsOf(option string, list []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, s := range list {
		a, err := addrOf(option, s)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// String shows the options that were set, for the log.
func (c *Config) String() string {
	return fmt.Sprintf("config file %s, data-root %s, exec-root %s, hosts %s", c.ConfigFile, c.DataRoot, c.ExecRoot, strings.Join(c.Hosts, " "))
}

// The drivers that exec-opt native.cgroupdriver names.
const (
	cgroupfsDriver = "cgroupfs"
	systemdDriver  = "systemd"
)

// cgroupDriver is who makes cgroups; the last word counts.
func (c *Config) cgroupDriver() string {
	for _, o := range slices.Backward(c.ExecOpts) {
		if key, value, _ := strings.Cut(o, "="); strings.EqualFold(key, "native.cgroupdriver") {
			return value
		}
	}
	return cgroupfsDriver
}

func (c *Config) systemdCgroup() bool { return c.cgroupDriver() == systemdDriver }
