package engine

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/spf13/pflag"
)

// flagSet binds every option to c. The same set reads the command line and, through
// the file's keys, daemon.json, so that both know the same options and values.
func flagSet(c *Config) *pflag.FlagSet {
	fs := pflag.NewFlagSet("dockerd", pflag.ContinueOnError)
	fs.SortFlags = true
	fs.StringVar(&c.ConfigFile, "config-file", c.ConfigFile, "Daemon configuration file")
	fs.BoolVar(&c.Validate, "validate", false, "Validate daemon configuration and exit")
	fs.VarP(listValue{&c.Hosts}, "host", "H", "Daemon socket(s) to connect to")
	fs.StringVar(&c.DataRoot, "data-root", c.DataRoot, "Root directory of persistent state")
	fs.StringVar(&c.ExecRoot, "exec-root", c.ExecRoot, "Root directory for execution state files")
	fs.StringVarP(&c.Pidfile, "pidfile", "p", c.Pidfile, "Path to use for daemon PID file")
	fs.StringVarP(&c.Group, "group", "G", c.Group, "Group for the unix socket")
	fs.BoolVarP(&c.Debug, "debug", "D", false, "Enable debug mode")
	fs.StringVarP(&c.LogLevel, "log-level", "l", c.LogLevel, `Set the logging level ("debug"|"info"|"warn"|"error"|"fatal")`)
	fs.StringVar(&c.LogFormat, "log-format", c.LogFormat, `Set the logging format ("text"|"json")`)
	fs.Var(listValue{&c.Labels}, "label", "Set key=value labels to the daemon")
	fs.IntVar(&c.ShutdownTimeout, "shutdown-timeout", c.ShutdownTimeout, "Set the default shutdown timeout")

	fs.BoolVar(&c.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&c.TLSVerify, "tlsverify", false, "Use TLS and verify the remote")
	fs.StringVar(&c.TLSCACert, "tlscacert", c.TLSCACert, "Trust certs signed only by this CA")
	fs.StringVar(&c.TLSCert, "tlscert", c.TLSCert, "Path to TLS certificate file")
	fs.StringVar(&c.TLSKey, "tlskey", c.TLSKey, "Path to TLS key file")

	fs.StringVar(&c.DefaultRuntime, "default-runtime", c.DefaultRuntime, "Default OCI runtime for containers")
	fs.Var(runtimesValue{c.Runtimes}, "add-runtime", "Register an additional OCI compatible runtime")
	fs.StringVar(&c.CgroupParent, "cgroup-parent", "", "Set parent cgroup for all containers")
	fs.Var(listValue{&c.ExecOpts}, "exec-opt", "Runtime execution options")
	fs.BoolVar(&c.Init, "init", false, "Run an init in the container to forward signals and reap processes")
	fs.StringVar(&c.SeccompProfile, "seccomp-profile", c.SeccompProfile, `Path to seccomp profile. Set to "unconfined" to disable the default seccomp profile`)
	fs.BoolVar(&c.NoNewPrivileges, "no-new-privileges", false, "Set no-new-privileges by default for new containers")
	fs.Var(sizeValue{&c.DefaultShmSize}, "default-shm-size", "Default shm size for containers")
	fs.IntVar(&c.DefaultStopTimeout, "default-stop-timeout", c.DefaultStopTimeout, "Default stop timeout for containers, in seconds")
	fs.StringVar(&c.LogDriver, "log-driver", c.LogDriver, "Default driver for container logs")
	fs.Var(mapValue{c.LogOpts}, "log-opt", "Default log driver options for containers")
	fs.StringVarP(&c.StorageDriver, "storage-driver", "s", "", "Storage driver to use")

	fs.Var(listValue{&c.InsecureRegistries}, "insecure-registry", "Enable insecure registry communication")
	fs.Var(listValue{&c.RegistryMirrors}, "registry-mirror", "Preferred registry mirror")
	fs.IntVar(&c.MaxConcurrentDownloads, "max-concurrent-downloads", c.MaxConcurrentDownloads, "Set the max concurrent downloads")
	fs.IntVar(&c.MaxDownloadAttempts, "max-download-attempts", c.MaxDownloadAttempts, "Set the max download attempts for each pull")
	networkFlags(fs, c)

	fs.BoolVar(&c.LiveRestore, "live-restore", true, "Accepted for compatibility: containers always outlive the daemon")
	fs.BoolVar(&c.Experimental, "experimental", false, "Accepted for compatibility: there are no hidden features")
	unbuiltFlags(fs)
	return fs
}

func networkFlags(fs *pflag.FlagSet, c *Config) {
	fs.StringVarP(&c.Bridge, "bridge", "b", "", `Attach containers to a network bridge; "none" disables the default network`)
	fs.StringVar(&c.BIP, "bip", "", "IPv4 address for the default bridge")
	fs.StringVar(&c.BIP6, "bip6", "", "IPv6 address for the default bridge")
	fs.StringVar(&c.FixedCIDR, "fixed-cidr", "", "IPv4 subnet for the default bridge network")
	fs.StringVar(&c.FixedCIDR6, "fixed-cidr-v6", "", "IPv6 subnet for the default bridge network")
	fs.StringVar(&c.DefaultGateway, "default-gateway", "", "Default gateway IPv4 address for the default bridge network")
	fs.StringVar(&c.DefaultGateway6, "default-gateway-v6", "", "Default gateway IPv6 address for the default bridge network")
	fs.Var(poolValue{&c.DefaultAddressPools}, "default-address-pool", "Default address pools for node specific local networks (base=CIDR,size=N)")
	fs.IntVar(&c.MTU, "mtu", c.MTU, "Set the MTU for the default bridge network")
	fs.BoolVar(&c.ICC, "icc", c.ICC, "Enable inter-container communication for the default bridge network")
	fs.BoolVar(&c.IPMasq, "ip-masq", c.IPMasq, "Enable IP masquerading for the default bridge network")
	fs.BoolVar(&c.IPForward, "ip-forward", c.IPForward, "Enable IP forwarding in system configuration")
	fs.BoolVar(&c.IPForwardNoDrop, "ip-forward-no-drop", false, "Do not drop forwarded packets of others when enabling IP forwarding")
	fs.BoolVar(&c.IPTables, "iptables", c.IPTables, "Enable addition of firewall rules")
	fs.BoolVar(&c.IP6Tables, "ip6tables", c.IP6Tables, "Enable addition of IPv6 firewall rules")
	fs.BoolVar(&c.IPv6, "ipv6", false, "Enable IPv6 networking for the default bridge network")
	fs.BoolVar(&c.UserlandProxy, "userland-proxy", c.UserlandProxy, "Forward what the kernel cannot")
	fs.BoolVar(&c.AllowDirectRouting, "allow-direct-routing", false, "Allow remote access to published ports on container IP addresses")
	fs.StringVar(&c.IP, "ip", "", "Host IP for port publishing from the default bridge network")
	fs.Var(mapMapValue{&c.DefaultNetworkOpts}, "default-network-opt", "Default network options (driver=option=value)")
	fs.StringVar(&c.AcceptMark, "bridge-accept-fwmark", "", "In bridge networks, accept packets with this firewall mark/mask")
	fs.StringVar(&c.FirewallBackend, "firewall-backend", "", `Firewall backend to use; "nftables" is the only one`)
	fs.StringVar(&c.UserlandProxyPath, "userland-proxy-path", "", "Accepted for compatibility: the daemon forwards itself")
	fs.IntVar(&c.NetworkControlPlaneMTU, "network-control-plane-mtu", 1500, "Accepted for compatibility: MTU of the cluster's own traffic")
	fs.StringVar(&c.ResolvConf, "resolv-conf", "", "The host's resolver configuration")
	fs.Lookup("resolv-conf").Hidden = true // only a key of the file with Docker
	fs.Var(listValue{&c.HostGatewayIPs}, "host-gateway-ip", "IP addresses that the special 'host-gateway' string in --add-host resolves to")
	fs.Var(listValue{&c.DNS}, "dns", "DNS server to use")
	fs.Var(listValue{&c.DNSOpts}, "dns-opt", "DNS options to use")
	fs.Var(listValue{&c.DNSSearch}, "dns-search", "DNS search domains to use")
}

// unbuiltFlags are Docker's options that this engine does not have yet, by type.
// They are known by name, so that the error says what the matter is; a boolean that
// is set to what it does anyway is accepted.
func unbuiltFlags(fs *pflag.FlagSet) {
	for typ, names := range map[string]string{
		"bool": "cri-containerd raw-logs restart rootless selinux-enabled",
		"string": `containerd containerd-namespace containerd-plugins-namespace default-cgroupns-mode
			default-ipc-mode http-proxy https-proxy no-proxy init-path metrics-addr swarm-default-advertise-addr
			userns-remap cpu-rt-period cpu-rt-runtime max-concurrent-uploads network-diagnostic-port`,
		"list": "authorization-plugin cdi-spec-dir node-generic-resource storage-opt default-ulimit",
		"map":  "feature nri-opts",
	} {
		for name := range strings.FieldsSeq(names) {
			v := unbuiltValue{name, typ}
			f := fs.VarPF(v, name, "", "Not built yet in this engine")
			f.Hidden = true
			if typ == "bool" {
				f.NoOptDefVal = "true"
			}
		}
	}
}

// isUnbuilt tells whether a flag is one of unbuiltFlags.
func isUnbuilt(f *pflag.Flag) bool {
	_, ok := f.Value.(unbuiltValue)
	return ok
}

type unbuiltValue struct{ name, typ string }

func (v unbuiltValue) String() string { return "" }
func (v unbuiltValue) Type() string   { return v.typ }
func (v unbuiltValue) Set(s string) error {
	if on, err := strconv.ParseBool(s); v.typ == "bool" && err == nil && !on {
		return nil
	}
	return errclass.Invalid("the option %s is known from Docker but not built yet in this engine", v.name)
}

// listValue appends; it is what Docker's list options do.
type listValue struct{ list *[]string }

func (v listValue) String() string {
	if v.list == nil || len(*v.list) == 0 {
		return ""
	}
	return "[" + strings.Join(*v.list, ",") + "]"
}
func (v listValue) Type() string { return "list" }
func (v listValue) Set(s string) error {
	if s == "" {
		return fmt.Errorf("must not be empty")
	}
	*v.list = append(*v.list, s)
	return nil
}

type mapValue struct{ m map[string]string }

func (v mapValue) String() string {
	if len(v.m) == 0 {
		return ""
	}
	return strings.TrimPrefix(fmt.Sprint(v.m), "map")
}
func (v mapValue) Type() string { return "map" }
func (v mapValue) Set(s string) error {
	key, value, ok := strings.Cut(s, "=")
	if !ok || key == "" {
		return fmt.Errorf("must be key=value")
	}
	v.m[key] = value
	return nil
}

// mapMapValue takes "driver=option=value".
type mapMapValue struct {
	m *map[string]map[string]string
}

func (v mapMapValue) String() string {
	if v.m == nil || len(*v.m) == 0 {
		return ""
	}
	return strings.TrimPrefix(fmt.Sprint(*v.m), "map")
}
func (v mapMapValue) Type() string { return "mapmap" }
func (v mapMapValue) Set(s string) error {
	name, opt, ok := strings.Cut(s, "=")
	key, value, ok2 := strings.Cut(opt, "=")
	if !ok || !ok2 || name == "" || key == "" {
		return fmt.Errorf("invalid map option %q: must be driver=option=value", s)
	}
	if *v.m == nil {
		*v.m = map[string]map[string]string{}
	}
	if (*v.m)[name] == nil {
		(*v.m)[name] = map[string]string{}
	}
	(*v.m)[name][key] = value
	return nil
}

type sizeValue struct{ n *int64 }

func (v sizeValue) String() string {
	if v.n == nil {
		return ""
	}
	return strconv.FormatInt(*v.n, 10)
}
func (v sizeValue) Type() string { return "bytes" }
func (v sizeValue) Set(s string) error {
	n, err := parseSize(s)
	if err == nil {
		*v.n = n
	}
	return err
}

// poolValue takes "base=172.80.0.0/16,size=24".
type poolValue struct{ list *[]string }

func (v poolValue) String() string { return listValue(v).String() }
func (v poolValue) Type() string   { return "pool-options" }
func (v poolValue) Set(s string) error {
	if _, err := parsePool(s); err != nil {
		return err
	}
	*v.list = append(*v.list, s)
	return nil
}
