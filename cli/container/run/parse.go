package run

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/docker/go-connections/nat"
	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// Result is what the flags and arguments ask for.
type Result struct {
	Config     *container.Config
	Host       *container.HostConfig
	Networking *network.NetworkingConfig
}

// CIDFile is where the ID of the container is to be written; empty for nowhere.
func (f *Flags) CIDFile() string { return f.cidFile }

// APISocket says that the daemon's socket and the client's credentials go into the
// container.
func (f *Flags) APISocket() bool { return f.apiSocket }

// APISocketVar makes the --use-api-socket flag.
func (f *Flags) APISocketVar() {
	f.set.BoolVar(&f.apiSocket, "use-api-socket", false, "Bind mount Docker API socket and required auth")
}

// Parse turns flags and arguments (the image and its command) into API types.
func (f *Flags) Parse(args []string) (*Result, error) {
	if f.mac != "" {
		if _, err := validMAC(f.mac); err != nil {
			return nil, err
		}
	}
	if f.swappiness != -1 && (f.swappiness < 0 || f.swappiness > 100) {
		return nil, fmt.Errorf("invalid value: %d. Valid memory swappiness range is 0-100", f.swappiness)
	}
	binds, volumes, err := f.volumes()
	if err != nil {
		return nil, err
	}
	exposed, bindings, err := f.ports()
	if err != nil {
		return nil, err
	}
	env, err := f.environment()
	if err != nil {
		return nil, err
	}
	labels, err := f.labels()
	if err != nil {
		return nil, err
	}
	cfg := f.config(args)
	cfg.ExposedPorts, cfg.Env, cfg.Volumes, cfg.Labels = exposed, env, volumes, labels
	host, err := f.hostConfig(binds, bindings)
	if err != nil {
		return nil, err
	}
	if cfg.Healthcheck, err = f.healthcheck(); err != nil {
		return nil, err
	}
	r := &Result{Config: cfg, Host: host}
	host.NetworkMode, r.Networking, err = f.networking()
	if err != nil {
		return nil, err
	}
	if f.rm && !host.RestartPolicy.IsNone() {
		return nil, errors.New("conflicting options: cannot specify both --restart and --rm")
	}
	return r, nil
}

// config is what flags and arguments say of the program itself.
func (f *Flags) config(args []string) *container.Config {
	attachIn, attachOut, attachErr := f.attached()
	if f.interactive {
		attachIn = true
	}
	if len(f.attach.All()) == 0 {
		attachOut, attachErr = true, true
	}
	cfg := &container.Config{
		Hostname: f.hostname, Domainname: f.domainname, User: f.user,
		AttachStdin: attachIn && !f.attachedWithoutStdin(), AttachStdout: attachOut, AttachStderr: attachErr,
		Tty: f.tty, OpenStdin: f.interactive, WorkingDir: f.workdir, StopSignal: f.stopSignal,
	}
	cfg.StdinOnce = cfg.OpenStdin && cfg.AttachStdin
	if len(args) > 0 {
		cfg.Image = args[0]
	}
	if len(args) > 1 {
		cfg.Cmd = args[1:]
	}
	if f.entrypoint != "" {
		cfg.Entrypoint = []string{f.entrypoint}
	} else if f.set.Changed("entrypoint") {
		cfg.Entrypoint = []string{""}
	}
	if f.set.Changed("stop-timeout") {
		t := f.stopTimeout
		cfg.StopTimeout = &t
	}
	return cfg
}

func (f *Flags) attached() (in, out, errs bool) {
	for _, s := range f.attach.All() {
		in, out, errs = in || s == "stdin", out || s == "stdout", errs || s == "stderr"
	}
	return in, out, errs
}

// attachedWithoutStdin: with -a given, -i alone opens stdin but does not attach it.
func (f *Flags) attachedWithoutStdin() bool {
	in, _, _ := f.attached()
	return len(f.attach.All()) > 0 && !in
}

func (f *Flags) volumes() (binds []string, volumes map[string]struct{}, err error) {
	volumes = map[string]struct{}{}
	seen := map[string]bool{} // what is said twice in the same words counts once
	for _, v := range f.volume.All() {
		if v == "" {
			return nil, nil, errors.New("invalid empty volume spec")
		}
		if seen[v] {
			continue
		}
		seen[v] = true
		parts := strings.Split(v, ":")
		for _, p := range parts {
			if p == "" {
				return nil, nil, fmt.Errorf("invalid spec: %s: empty section between colons", v)
			}
		}
		if len(parts) == 1 {
			volumes[v] = struct{}{}
			continue
		}
		src, rest, _ := strings.Cut(v, ":")
		if src, err = opts.AbsSource(src); err != nil {
			return nil, nil, err
		}
		binds = append(binds, src+":"+rest)
	}
	return binds, volumes, nil
}

// publishShort turns the long form (target=80,published=8080) into the short one.
func publishShort(v string) (string, error) {
	if !strings.Contains(v, "=") {
		return v, nil
	}
	m := map[string]string{}
	for _, kv := range strings.Split(v, ",") {
		k, val, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			return "", fmt.Errorf("invalid publish opts format (should be name=value but got '%s')", kv)
		}
		m[k] = val
	}
	return fmt.Sprintf("%s:%s:%s/%s", m["ip"], m["published"], m["target"], m["protocol"]), nil
}

func (f *Flags) ports() (network.PortSet, network.PortMap, error) {
	var specs []string
	for _, v := range f.publish.All() {
		s, err := publishShort(v)
		if err != nil {
			return nil, nil, err
		}
		specs = append(specs, s)
	}
	set, binds, err := nat.ParsePortSpecs(specs)
	if err != nil {
		return nil, nil, err
	}
	exposed, mapped := network.PortSet{}, network.PortMap{}
	for p := range set {
		port, err := network.ParsePort(string(p))
		if err != nil {
			return nil, nil, err
		}
		exposed[port] = struct{}{}
		for _, b := range binds[p] {
			pb := network.PortBinding{HostPort: b.HostPort}
			if b.HostIP != "" {
				if pb.HostIP, err = netip.ParseAddr(b.HostIP); err != nil {
					return nil, nil, fmt.Errorf("invalid IP address: %s", b.HostIP)
				}
			}
			mapped[port] = append(mapped[port], pb)
		}
	}
	for _, e := range f.expose.All() {
		if strings.Contains(e, ":") {
			return nil, nil, fmt.Errorf("invalid port format for --expose: %s", e)
		}
		proto, portRange := nat.SplitProtoPort(e)
		start, end, err := exposeRange(portRange)
		if err != nil {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %s, error: %w", e, err)
		}
		if proto != "tcp" && proto != "udp" && proto != "sctp" {
			return nil, nil, fmt.Errorf("invalid range format for --expose: %s, error: invalid proto: %s", e, proto)
		}
		for i := start; i <= end; i++ {
			p, ok := network.PortFrom(uint16(i), network.IPProtocol(proto))
			if !ok {
				return nil, nil, fmt.Errorf("invalid port format for --expose: %s", e)
			}
			exposed[p] = struct{}{}
		}
	}
	return exposed, mapped, nil
}

// exposeRange parses first[-last].
func exposeRange(s string) (first, last int, err error) {
	if s == "" {
		return 0, 0, errors.New("empty string specified for ports")
	}
	a, b, both := strings.Cut(s, "-")
	n, err := strconv.ParseUint(a, 10, 16)
	if err != nil {
		return 0, 0, err
	}
	m := n
	if both {
		if m, err = strconv.ParseUint(b, 10, 16); err != nil {
			return 0, 0, err
		}
	}
	if m < n {
		return 0, 0, errors.New("invalid range specified for port: " + s)
	}
	return int(n), int(m), nil
}

func (f *Flags) environment() ([]string, error) {
	env, err := KVFiles(f.envFile.All(), f.ReadFile, f.Getenv)
	if err != nil {
		return nil, err
	}
	return append(env, f.env.All()...), nil
}

// KVFiles reads files of NAME=value lines (--env-file). A bare name takes its value with
// getenv and is left out when there is none, as it is when getenv is nil.
func KVFiles(files []string, read func(string) ([]byte, error), getenv func(string) (string, bool)) ([]string, error) {
	out := []string{}
	for _, name := range files {
		b, err := read(name)
		if err != nil {
			return nil, err
		}
		lines, err := parseKV(b, getenv)
		if err != nil {
			return nil, fmt.Errorf("invalid env file (%s): %w", name, err)
		}
		out = append(out, lines...)
	}
	return out, nil
}

// ReadFile is the default reader of the files flags name: regular, or a pipe, bounded.
func ReadFile(name string) ([]byte, error) { return readLimited(name) }

func parseKV(b []byte, getenv func(string) (string, bool)) ([]string, error) {
	b = bytes.TrimPrefix(b, []byte{0xEF, 0xBB, 0xBF})
	var out []string
	for i, raw := range bytes.Split(b, []byte("\n")) {
		if !utf8.Valid(raw) {
			return nil, fmt.Errorf("invalid utf8 bytes at line %d: %v", i+1, raw)
		}
		line := strings.TrimLeftFunc(strings.TrimSuffix(string(raw), "\r"), unicode.IsSpace)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, _, has := strings.Cut(line, "=")
		if strings.ContainsFunc(key, unicode.IsSpace) {
			return nil, fmt.Errorf("variable '%s' contains whitespaces", key)
		}
		if key == "" {
			return nil, fmt.Errorf("no variable name on line '%s'", line)
		}
		switch {
		case has:
			out = append(out, line)
		case getenv != nil:
			if v, ok := getenv(line); ok {
				out = append(out, line+"="+v)
			}
		}
	}
	return out, nil
}

func (f *Flags) labels() (map[string]string, error) {
	kvs, err := KVFiles(f.labelFile.All(), f.ReadFile, nil)
	if err != nil {
		return nil, err
	}
	return opts.KVToMap(append(kvs, f.label.All()...)), nil
}

func (f *Flags) hostConfig(binds []string, bindings network.PortMap) (*container.HostConfig, error) {
	if err := f.checkModes(); err != nil {
		return nil, err
	}
	restart, err := parseRestart(f.restart)
	if err != nil {
		return nil, err
	}
	logOpts := opts.KVToMap(f.logOpt.All())
	if f.logDriver == "none" && len(logOpts) > 0 {
		return nil, fmt.Errorf("invalid logging opts for driver %s", f.logDriver)
	}
	security, masked, readonly, err := f.security()
	if err != nil {
		return nil, err
	}
	storage := map[string]string{}
	for _, o := range f.storageOpt.All() {
		k, v, ok := strings.Cut(o, "=")
		if !ok {
			return nil, errors.New("invalid storage option")
		}
		storage[k] = v
	}
	tmpfs := map[string]string{}
	for _, t := range f.tmpfs.All() {
		k, v, _ := strings.Cut(t, ":")
		tmpfs[k] = v
	}
	dns, err := parseAddrs(f.dns.NonNil())
	if err != nil {
		return nil, err
	}
	if dns == nil {
		dns = []netip.Addr{}
	}
	res, err := f.limits()
	if err != nil {
		return nil, err
	}
	h := &container.HostConfig{
		Binds: binds, ContainerIDFile: f.cidFile, LogConfig: container.LogConfig{Type: f.logDriver, Config: logOpts},
		PortBindings: bindings, RestartPolicy: restart, AutoRemove: f.rm, VolumeDriver: f.volumeDriver,
		VolumesFrom: f.volumesFrom.All(), Annotations: f.annotations(),
		CapAdd: f.capAdd.All(), CapDrop: f.capDrop.All(), CgroupnsMode: container.CgroupnsMode(f.cgroupns),
		DNS: dns, DNSOptions: f.dnsOption.NonNil(), DNSSearch: f.dnsSearch.NonNil(), ExtraHosts: f.addHost.All(),
		GroupAdd: f.groupAdd.All(), IpcMode: container.IpcMode(f.ipc), Links: f.link.All(),
		OomScoreAdj: f.oomScoreAdj, PidMode: container.PidMode(f.pid), Privileged: f.privileged,
		PublishAllPorts: f.publishAll, ReadonlyRootfs: f.readOnly, SecurityOpt: security, StorageOpt: storage,
		Tmpfs: tmpfs, UTSMode: container.UTSMode(f.uts), UsernsMode: container.UsernsMode(f.userns),
		ShmSize: f.shmSize.N, Sysctls: f.sysctl.All(), Runtime: f.runtime,
		Isolation: container.Isolation(f.isolation), Resources: res, Mounts: f.mounts.vals,
		MaskedPaths: masked, ReadonlyPaths: readonly,
	}
	if f.set.Changed("init") {
		v := f.init
		h.Init = &v
	}
	return h, nil
}

func (f *Flags) checkModes() error {
	switch {
	case !container.PidMode(f.pid).Valid():
		return errors.New("--pid: invalid PID mode")
	case !container.UTSMode(f.uts).Valid():
		return errors.New("--uts: invalid UTS mode")
	case !container.UsernsMode(f.userns).Valid():
		return errors.New("--userns: invalid USER mode")
	case !container.CgroupnsMode(f.cgroupns).Valid():
		return errors.New("--cgroupns: invalid CGROUP mode")
	}
	return nil
}

func (f *Flags) limits() (container.Resources, error) {
	devs := []container.DeviceMapping{}
	reqs := f.gpus.reqs
	var cdi []string
	for _, d := range f.device.All() {
		if isCDI(d) {
			cdi = append(cdi, d)
			continue
		}
		m, err := parseDevice(d)
		if err != nil {
			return container.Resources{}, err
		}
		devs = append(devs, m)
	}
	if len(cdi) > 0 {
		reqs = append(reqs[:len(reqs):len(reqs)], container.DeviceRequest{Driver: "cdi", DeviceIDs: cdi})
	}
	sw := f.swappiness
	oom := f.oomKillDisable
	pids := f.pidsLimit
	r := container.Resources{
		CPUShares: f.cpuShar, Memory: f.memory.N, NanoCPUs: f.cpus.Nano, CgroupParent: f.cgroupParent,
		BlkioWeight: f.blkioWeight, BlkioWeightDevice: f.weightDevice.weights(),
		BlkioDeviceReadBps: f.readBps.throttle(), BlkioDeviceWriteBps: f.writeBps.throttle(),
		BlkioDeviceReadIOps: f.readIOps.throttle(), BlkioDeviceWriteIOps: f.writeIOps.throttle(),
		CPUPeriod: f.cpuPeriod, CPUQuota: f.cpuQuota, CPURealtimePeriod: f.rtPeriod, CPURealtimeRuntime: f.rtRuntime,
		CpusetCpus: f.cpusetCpus, CpusetMems: f.cpusetMems, Devices: devs, DeviceCgroupRules: f.deviceRule.All(),
		DeviceRequests: reqs, MemoryReservation: f.memoryReservation.N, MemorySwap: f.memorySwap.N,
		MemorySwappiness: &sw, OomKillDisable: &oom, PidsLimit: &pids, Ulimits: f.ulimits.All(),
		CPUCount: f.cpuCount, CPUPercent: f.cpuPercent, IOMaximumIOps: f.ioMaxIOps, IOMaximumBandwidth: uint64(f.ioBW.N),
	}
	return r, nil
}

// isCDI tells vendor.com/class=name from a path.
func isCDI(s string) bool {
	if strings.HasPrefix(s, "/") {
		return false
	}
	return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_.\-]*[A-Za-z0-9]?/[A-Za-z][A-Za-z0-9_\-]*=[A-Za-z0-9][A-Za-z0-9_.:\-]*$`).MatchString(s)
}

func parseDevice(v string) (container.DeviceMapping, error) {
	parts := strings.Split(v, ":")
	m := container.DeviceMapping{CgroupPermissions: "rwm"}
	switch len(parts) {
	case 3:
		m.PathOnHost, m.PathInContainer, m.CgroupPermissions = parts[0], parts[1], parts[2]
	case 2:
		m.PathOnHost = parts[0]
		if opts.ParsePermissions(parts[1]) {
			m.CgroupPermissions = parts[1]
		} else {
			m.PathInContainer = parts[1]
		}
	case 1:
		m.PathOnHost = parts[0]
	default:
		return m, fmt.Errorf("bad format for path: %s", v)
	}
	if m.PathInContainer == "" {
		m.PathInContainer = m.PathOnHost
	}
	for i, p := range []string{m.PathOnHost, m.PathInContainer} {
		if !filepath.IsAbs(p) && (i == 1 || p == "" || !strings.HasPrefix(p, ".")) {
			return m, fmt.Errorf("%s is not an absolute path", p)
		}
	}
	if len(parts) == 3 && !opts.ParsePermissions(m.CgroupPermissions) {
		return m, fmt.Errorf("bad mode specified: %s", m.CgroupPermissions)
	}
	return m, nil
}

func parseRestart(v string) (container.RestartPolicy, error) {
	if v == "" {
		return container.RestartPolicy{}, nil
	}
	name, num, has := strings.Cut(v, ":")
	if name == "" {
		return container.RestartPolicy{}, errors.New("invalid restart policy format: no policy provided before colon")
	}
	p := container.RestartPolicy{Name: container.RestartPolicyMode(name)}
	if has && num != "" {
		n, err := strconv.Atoi(num)
		if err != nil {
			return container.RestartPolicy{}, errors.New("invalid restart policy format: maximum retry count must be an integer")
		}
		p.MaximumRetryCount = n
	}
	return p, nil
}

func (f *Flags) security() (out, masked, readonly []string, err error) {
	for _, o := range f.securityOpt.All() {
		if o == "systempaths=unconfined" {
			masked, readonly = []string{}, []string{}
			continue
		}
		k, v, ok := strings.Cut(o, "=")
		if !ok && k != "no-new-privileges" {
			if k, v, ok = strings.Cut(o, ":"); !ok {
				return nil, nil, nil, fmt.Errorf("Invalid --security-opt: %q", o)
			}
		}
		if k == "seccomp" && v != "unconfined" && v != "builtin" {
			b, err := f.ReadFile(v)
			if err != nil {
				return nil, nil, nil, fmt.Errorf("opening seccomp profile (%s) failed: %w", v, err)
			}
			var buf bytes.Buffer
			if err := json.Compact(&buf, b); err != nil {
				return nil, nil, nil, fmt.Errorf("compacting json for seccomp profile (%s) failed: %w", v, err)
			}
			o = "seccomp=" + buf.String()
		}
		out = append(out, o)
	}
	return out, masked, readonly, nil
}

func (f *Flags) healthcheck() (*container.HealthConfig, error) {
	have := f.healthCmd != "" || f.healthInterval != 0 || f.healthTimeout != 0 ||
		f.healthStartPeriod != 0 || f.healthRetries != 0 || f.healthStartInterval != 0
	if _, ok := extension.ParseAction(f.healthAction); !ok {
		return nil, fmt.Errorf("invalid --health-on-failure: %q: must be one of none, stop, kill, restart", f.healthAction)
	}
	if f.noHealth {
		if have || f.healthAction != "" {
			return nil, errors.New("--no-healthcheck conflicts with --health-* options")
		}
		return &container.HealthConfig{Test: []string{"NONE"}}, nil
	}
	if !have {
		return nil, nil
	}
	for _, c := range []struct {
		name string
		d    time.Duration
	}{
		{"--health-interval", f.healthInterval},
		{"--health-timeout", f.healthTimeout},
		{"--health-retries", time.Duration(f.healthRetries)},
		{"--health-start-period", f.healthStartPeriod},
		{"--health-start-interval", f.healthStartInterval},
	} {
		if c.d < 0 {
			return nil, fmt.Errorf("%s cannot be negative", c.name)
		}
	}
	h := &container.HealthConfig{
		Interval: f.healthInterval, Timeout: f.healthTimeout, StartPeriod: f.healthStartPeriod,
		StartInterval: f.healthStartInterval, Retries: f.healthRetries,
	}
	if f.healthCmd != "" {
		h.Test = []string{"CMD-SHELL", f.healthCmd}
	}
	return h, nil
}

// annotations are those that were given, and what our engine is asked for by some.
func (f *Flags) annotations() map[string]string {
	all := f.annotation.All()
	if f.healthAction == "" {
		return all
	}
	with := map[string]string{}
	maps.Copy(with, all)
	with[extension.HealthOnFailure] = f.healthAction
	return with
}

func validMAC(v string) (string, error) {
	v = strings.TrimSpace(v)
	n := attachment{target: "default", mac: v}
	_, err := n.endpoint()
	return v, err
}

// HasAttach says whether -a was given.
func (f *Flags) HasAttach() bool { return len(f.attach.All()) > 0 }
