// Package run turns the flags of `docker run` and `docker create` into API types. Parse is
// pure but for the files flags name (--env-file, --label-file, seccomp profiles) and the
// environment -e NAME reads, both reached through the Flags value.
package run

import (
	"os"
	"time"

	"github.com/gantry/gantry/cli/opts"
	"github.com/spf13/pflag"
)

// Flags are the values of all flags shared by run and create.
type Flags struct {
	addHost, attach, capAdd, capDrop, device, deviceRule   *opts.List
	dns, dnsOption, dnsSearch, env, envFile, expose        *opts.List
	groupAdd, label, labelFile, link, linkLocal, logOpt    *opts.List
	netAlias, publish, securityOpt, storageOpt, tmpfs      *opts.List
	volume, volumesFrom                                    *opts.List
	annotation, sysctl                                     *opts.Map
	readBps, writeBps, readIOps, writeIOps, weightDevice   *deviceRates
	mounts                                                 mountList
	networks                                               networkList
	gpus                                                   gpuList
	ulimits                                                opts.Ulimits
	memory, memoryReservation, kernelMemory, shmSize, ioBW opts.Bytes
	memorySwap                                             opts.Bytes
	cpus                                                   opts.CPUs

	blkioWeight                                                             uint16
	cpuCount, cpuPercent, cpuPeriod, cpuQuota, rtPeriod, rtRuntime, cpuShar int64
	swappiness, pidsLimit                                                   int64
	ioMaxIOps                                                               uint64
	oomScoreAdj, stopTimeout                                                int

	cgroupParent, cgroupns, cidFile, cpusetCpus, cpusetMems, domainname               string
	entrypoint, healthCmd, healthAction, hostname, ip, ip6, ipc, isolation, logDriver string
	mac, pid, restart, runtime, stopSignal, user, userns, uts, volumeDriver           string
	workdir                                                                           string

	healthInterval, healthStartInterval, healthStartPeriod, healthTimeout time.Duration
	healthRetries                                                         int

	init, interactive, noHealth, oomKillDisable, privileged, publishAll bool
	readOnly, rm, tty, apiSocket                                        bool

	// Getenv and ReadFile are how the outside is reached.
	Getenv   func(string) (string, bool)
	ReadFile func(string) ([]byte, error)

	set *pflag.FlagSet
}

// Register makes the flags on fs and answers where their values will be.
func Register(fs *pflag.FlagSet) *Flags {
	f := &Flags{set: fs, Getenv: os.LookupEnv, ReadFile: readLimited}
	fs.SetInterspersed(false)
	f.lists(fs)
	f.resources(fs)
	f.identity(fs)
	f.health(fs)
	return f
}

func (f *Flags) lists(fs *pflag.FlagSet) {
	list := func(p **opts.List, name, short, usage string, check func(string) (string, error)) {
		*p = opts.NewList(check)
		fs.VarP(*p, name, short, usage)
	}
	list(&f.addHost, "add-host", "", "Add a custom host-to-IP mapping (host:ip)", checkHost)
	list(&f.attach, "attach", "a", "Attach to STDIN, STDOUT or STDERR", checkAttach)
	list(&f.capAdd, "cap-add", "", "Add Linux capabilities", nil)
	list(&f.capDrop, "cap-drop", "", "Drop Linux capabilities", nil)
	list(&f.device, "device", "", "Add a host device to the container", nil)
	list(&f.deviceRule, "device-cgroup-rule", "", "Add a rule to the cgroup allowed devices list", checkDeviceRule)
	list(&f.dns, "dns", "", "Set custom DNS servers", checkIP)
	list(&f.dnsOption, "dns-option", "", "Set DNS options", nil)
	list(&f.dnsOption, "dns-opt", "", "Set DNS options", nil)
	_ = fs.MarkHidden("dns-opt")
	fs.Lookup("dns-option").Value = f.dnsOption
	list(&f.dnsSearch, "dns-search", "", "Set custom DNS search domains", checkDomain)
	list(&f.env, "env", "e", "Set environment variables", f.checkEnv)
	list(&f.envFile, "env-file", "", "Read in a file of environment variables", nil)
	list(&f.expose, "expose", "", "Expose a port or a range of ports", nil)
	list(&f.groupAdd, "group-add", "", "Add additional groups to join", nil)
	list(&f.label, "label", "l", "Set meta data on a container", opts.Label)
	list(&f.labelFile, "label-file", "", "Read in a line delimited file of labels", nil)
	list(&f.link, "link", "", "Add link to another container", checkLink)
	list(&f.linkLocal, "link-local-ip", "", "Container IPv4/IPv6 link-local addresses", checkIP)
	list(&f.logOpt, "log-opt", "", "Log driver options", nil)
	list(&f.netAlias, "network-alias", "", "Add network-scoped alias for the container", nil)
	list(&f.netAlias, "net-alias", "", "Add network-scoped alias for the container", nil)
	_ = fs.MarkHidden("net-alias")
	fs.Lookup("network-alias").Value = f.netAlias
	list(&f.publish, "publish", "p", "Publish a container's port(s) to the host", nil)
	list(&f.securityOpt, "security-opt", "", "Security Options", nil)
	list(&f.storageOpt, "storage-opt", "", "Storage driver options for the container", nil)
	list(&f.tmpfs, "tmpfs", "", "Mount a tmpfs directory", nil)
	list(&f.volume, "volume", "v", "Bind mount a volume", nil)
	list(&f.volumesFrom, "volumes-from", "", "Mount volumes from the specified container(s)", nil)
	f.annotation = opts.NewMap(nil)
	fs.Var(f.annotation, "annotation", "Add an annotation to the container (passed through to the OCI runtime)")
	f.sysctl = opts.NewMap(checkSysctl)
	fs.Var(f.sysctl, "sysctl", "Sysctl options")
	fs.Var(&f.mounts, "mount", "Attach a filesystem mount to the container")
	fs.Var(&f.networks, "network", "Connect a container to a network")
	fs.Var(&f.networks, "net", "Connect a container to a network")
	_ = fs.MarkHidden("net")
	fs.Var(&f.gpus, "gpus", "GPU devices to add to the container ('all' to pass all GPUs)")
	fs.Var(&f.ulimits, "ulimit", "Ulimit options")
}

func (f *Flags) resources(fs *pflag.FlagSet) {
	rates := func(p **deviceRates, kind rateKind, name, usage string) {
		*p = &deviceRates{kind: kind}
		fs.Var(*p, name, usage)
	}
	fs.Uint16Var(&f.blkioWeight, "blkio-weight", 0, "Block IO (relative weight), between 10 and 1000, or 0 to disable (default 0)")
	rates(&f.weightDevice, rateWeight, "blkio-weight-device", "Block IO weight (relative device weight)")
	rates(&f.readBps, rateBps, "device-read-bps", "Limit read rate (bytes per second) from a device")
	rates(&f.readIOps, rateIOps, "device-read-iops", "Limit read rate (IO per second) from a device")
	rates(&f.writeBps, rateBps, "device-write-bps", "Limit write rate (bytes per second) to a device")
	rates(&f.writeIOps, rateIOps, "device-write-iops", "Limit write rate (IO per second) to a device")
	fs.StringVar(&f.cgroupParent, "cgroup-parent", "", "Optional parent cgroup for the container")
	fs.Int64Var(&f.cpuCount, "cpu-count", 0, "CPU count (Windows only)")
	fs.Int64Var(&f.cpuPercent, "cpu-percent", 0, "CPU percent (Windows only)")
	fs.Int64Var(&f.cpuPeriod, "cpu-period", 0, "Limit CPU CFS (Completely Fair Scheduler) period")
	fs.Int64Var(&f.cpuQuota, "cpu-quota", 0, "Limit CPU CFS (Completely Fair Scheduler) quota")
	fs.Int64Var(&f.rtPeriod, "cpu-rt-period", 0, "Limit CPU real-time period in microseconds")
	fs.Int64Var(&f.rtRuntime, "cpu-rt-runtime", 0, "Limit CPU real-time runtime in microseconds")
	fs.Int64VarP(&f.cpuShar, "cpu-shares", "c", 0, "CPU shares (relative weight)")
	fs.Var(&f.cpus, "cpus", "Number of CPUs")
	fs.StringVar(&f.cpusetCpus, "cpuset-cpus", "", "CPUs in which to allow execution (0-3, 0,1)")
	fs.StringVar(&f.cpusetMems, "cpuset-mems", "", "MEMs in which to allow execution (0-3, 0,1)")
	fs.Var(&f.ioBW, "io-maxbandwidth", "Maximum IO bandwidth limit for the system drive (Windows only)")
	fs.Uint64Var(&f.ioMaxIOps, "io-maxiops", 0, "Maximum IOps limit for the system drive (Windows only)")
	fs.Var(&f.kernelMemory, "kernel-memory", "Kernel memory limit")
	fs.VarP(&f.memory, "memory", "m", "Memory limit")
	fs.Var(&f.memoryReservation, "memory-reservation", "Memory soft limit")
	f.memorySwap.Swap = true
	fs.Var(&f.memorySwap, "memory-swap", "Swap limit equal to memory plus swap: '-1' to enable unlimited swap")
	fs.Int64Var(&f.swappiness, "memory-swappiness", -1, "Tune container memory swappiness (0 to 100)")
	fs.BoolVar(&f.oomKillDisable, "oom-kill-disable", false, "Disable OOM Killer")
	fs.IntVar(&f.oomScoreAdj, "oom-score-adj", 0, "Tune host's OOM preferences (-1000 to 1000)")
	fs.Int64Var(&f.pidsLimit, "pids-limit", 0, "Tune container pids limit (set -1 for unlimited)")
	fs.Var(&f.shmSize, "shm-size", "Size of /dev/shm")
}

func (f *Flags) identity(fs *pflag.FlagSet) {
	fs.StringVar(&f.cgroupns, "cgroupns", "", "Cgroup namespace to use (host|private)\n"+
		"'host':    Run the container in the Docker host's cgroup namespace\n"+
		"'private': Run the container in its own private cgroup namespace\n"+
		"'':        Use the cgroup namespace as configured by the\n"+
		"           default-cgroupns-mode option on the daemon (default)")
	fs.StringVar(&f.cidFile, "cidfile", "", "Write the container ID to the file")
	fs.StringVar(&f.domainname, "domainname", "", "Container NIS domain name")
	fs.StringVar(&f.entrypoint, "entrypoint", "", "Overwrite the default ENTRYPOINT of the image")
	fs.StringVarP(&f.hostname, "hostname", "h", "", "Container host name")
	fs.BoolVar(&f.init, "init", false, "Run an init inside the container that forwards signals and reaps processes")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.StringVar(&f.ip, "ip", "", "IPv4 address (e.g., 172.30.100.104)")
	fs.StringVar(&f.ip6, "ip6", "", "IPv6 address (e.g., 2001:db8::33)")
	fs.StringVar(&f.ipc, "ipc", "", "IPC mode to use")
	fs.StringVar(&f.isolation, "isolation", "", "Container isolation technology")
	fs.StringVar(&f.logDriver, "log-driver", "", "Logging driver for the container")
	fs.StringVar(&f.mac, "mac-address", "", "Container MAC address (e.g., 92:d0:c6:0a:29:33)")
	fs.StringVar(&f.pid, "pid", "", "PID namespace to use")
	fs.BoolVar(&f.privileged, "privileged", false, "Give extended privileges to this container")
	fs.BoolVarP(&f.publishAll, "publish-all", "P", false, "Publish all exposed ports to random ports")
	fs.BoolVar(&f.readOnly, "read-only", false, "Mount the container's root filesystem as read only")
	fs.StringVar(&f.restart, "restart", "no", "Restart policy to apply when a container exits")
	fs.BoolVar(&f.rm, "rm", false, "Automatically remove the container and its associated anonymous volumes when it exits")
	fs.StringVar(&f.runtime, "runtime", "", "Runtime to use for this container")
	fs.StringVar(&f.stopSignal, "stop-signal", "", "Signal to stop the container")
	fs.IntVar(&f.stopTimeout, "stop-timeout", 0, "Timeout (in seconds) to stop a container")
	fs.BoolVarP(&f.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.StringVarP(&f.user, "user", "u", "", "Username or UID (format: <name|uid>[:<group|gid>])")
	fs.StringVar(&f.userns, "userns", "", "User namespace to use")
	fs.StringVar(&f.uts, "uts", "", "UTS namespace to use")
	fs.StringVar(&f.volumeDriver, "volume-driver", "", "Optional volume driver for the container")
	fs.StringVarP(&f.workdir, "workdir", "w", "", "Working directory inside the container")
	fs.Bool("help", false, "Print usage")
}

func (f *Flags) health(fs *pflag.FlagSet) {
	fs.StringVar(&f.healthCmd, "health-cmd", "", "Command to run to check health")
	fs.DurationVar(&f.healthInterval, "health-interval", 0, "Time between running the check (ms|s|m|h) (default 0s)")
	fs.IntVar(&f.healthRetries, "health-retries", 0, "Consecutive failures needed to report unhealthy")
	fs.DurationVar(&f.healthTimeout, "health-timeout", 0, "Maximum time to allow one check to run (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthStartPeriod, "health-start-period", 0, "Start period for the container to initialize before starting health-retries countdown (ms|s|m|h) (default 0s)")
	fs.DurationVar(&f.healthStartInterval, "health-start-interval", 0, "Time between running the check during the start period (ms|s|m|h) (default 0s)")
	fs.StringVar(&f.healthAction, "health-on-failure", "", `What to do when the container turns unhealthy ("none", "stop", "kill", "restart")`)
	fs.BoolVar(&f.noHealth, "no-healthcheck", false, "Disable any container-specified HEALTHCHECK")
}
