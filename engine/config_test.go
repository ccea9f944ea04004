package engine

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/shim/ociruntime"
)

// parseWith parses args with a configuration file of the given content.
func parseWith(t *testing.T, file string, args ...string) (*Config, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "daemon.json")
	if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	c, _, err := Parse(append([]string{"--config-file", path}, args...))
	if err != nil {
		return nil, err
	}
	return c, nil
}

func TestConfigMerges(t *testing.T) {
	c, err := parseWith(t, `{
		"debug": true, "hosts": ["unix:///a", "/b"], "labels": ["x=y"], "log-opts": {"max-size": "1m"}, "mtu": 1400,
		"default-shm-size": "128m", "insecure-registries": ["10.0.0.0/8"], "default-address-pools": [{"base": "10.1.0.0/16", "size": 24}],
		"dns": ["1.1.1.1"], "live-restore": true, "features": {"containerd-snapshotter": true}, "selinux-enabled": false,
		"host-gateway-ip": "10.9.9.9", "deprecated-key-path": "x", "exec-opts": ["native.cgroupdriver=cgroupfs"], "default-ulimits": {},
		"default-network-opts": {"bridge": {"com.docker.network.driver.mtu": "1337", "x": "a=b"}}, "resolv-conf": "/r"
	}`, "--data-root", "/d", "--log-level=warn", "--bridge-accept-fwmark=0x1/3", "--firewall-backend=nftables", "--userland-proxy-path=/x", "--network-control-plane-mtu=1400")
	if err != nil {
		t.Fatal(err)
	}
	if !c.Debug || c.LogLevel != "warn" || c.DataRoot != "/d" || c.MTU != 1400 || c.DefaultShmSize != 128<<20 || c.LogOpts["max-size"] != "1m" {
		t.Errorf("%+v", c)
	}
	if !reflect.DeepEqual(c.Hosts, []string{"unix:///a", "unix:///b"}) || !reflect.DeepEqual(c.Labels, []string{"x=y"}) || c.HostGatewayIPs[0] != "10.9.9.9" {
		t.Errorf("%+v", c)
	}
	n, err := c.networkConfig()
	if err != nil || n.AddressPools[0].Size != 24 || n.DNS[0].String() != "1.1.1.1" || !n.ICC || n.ResolvConf != "/r" ||
		n.NetworkOptions["bridge"]["com.docker.network.driver.mtu"] != "1337" || n.NetworkOptions["bridge"]["x"] != "a=b" || n.AcceptMark != 1 || n.AcceptMask != 3 {
		t.Errorf("%+v %v", n, err)
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		file string
		args []string
		want string
	}{
		{`{"foo": 1, "bar": 2, "debug": true}`, nil, "the following directives don't match any configuration option: bar, foo"},
		{`{"label": ["a=b"]}`, nil, "the following directives don't match any configuration option: label"},
		{`{"config-file": "x"}`, nil, "the following directives don't match any configuration option: config-file"},
		{`{"metrics-addr": "127.0.0.1:9323"}`, nil, "the following directives are known from Docker but not built yet in this engine: metrics-addr"},
		{`{"builder": {"gc": {"enabled": true}}}`, nil, "not built yet in this engine: builder"},
		{`{"runtimes": {"x": {}}}`, nil, "runtime 'x': either path or runtimeType must be configured"},
		{`{"runtimes": {"x": {"runtimeType": "io.containerd.kata.v2"}}}`, nil, "runtime 'x': runtimeType is not built yet"},
		{`{"runtimes": {"x": "/x"}}`, nil, "runtime 'x' is no object"},
		{`{"runtimes": ["x"]}`, nil, `invalid value for "runtimes"`},
		{`{"runtimes": {"runc": {"path": "/x"}}}`, nil, "runtime name 'runc' is reserved"},
		{`{"runtimes": {"x": {"path": "/x"}}}`, []string{"--add-runtime", "y=/y"}, "specified both as a flag and in the configuration file: runtimes"},
		{``, []string{"--add-runtime", "x"}, "invalid runtime argument: x"},
		{``, []string{"--add-runtime", "x=/x", "--add-runtime", "x=/y"}, "runtime 'x' was already defined"},
		{`{"debug": true, "labels": ["a=b"]}`, []string{"--debug=false", "--label", "c=d"}, "the following directives are specified both as a flag and in the configuration file: debug: (from flag: false, from file: true), labels: (from flag: [c=d], from file: [a=b])"},
		{`{"debug": "yes"}`, nil, `invalid value for "debug": json: cannot unmarshal string`},
		{`{"hosts": "unix:///x"}`, nil, `invalid value for "hosts"`},
		{`{`, nil, "invalid JSON: unexpected end of JSON input"},
		{``, []string{"--metrics-addr", "x"}, "the option metrics-addr is known from Docker but not built yet in this engine"},
		{``, []string{"--nothing"}, "unknown flag: --nothing"},
		{``, []string{"x"}, `"dockerd" accepts no arguments.`},
		{``, []string{"-H", "tcp://0.0.0.0:2375"}, "refusing to listen on tcp://0.0.0.0:2375 without --tlsverify"},
		{``, []string{"-H", "npipe://x"}, `unsupported protocol "npipe"`},
		{``, []string{"--log-level", "loud"}, "invalid logging level: loud"},
		{``, []string{"--log-opt", "max-size=x"}, `failed to set log opts: invalid value for max-size: x`},
		{``, []string{"--log-driver", "syslog"}, `log-driver "syslog" is not built yet`},
		{``, []string{"--storage-driver", "zfs"}, `error initializing graphdriver: driver not supported: zfs`},
		{``, []string{"--default-runtime", "kata"}, "specified default runtime 'kata' does not exist"},
		{``, []string{"--exec-opt", "native.cgroupdriver=cgroups"}, `invalid setting for native.cgroupdriver: "cgroups"`},
		{``, []string{"--exec-opt", "native.cgroupdriver=systemd", "--cgroup-parent", "/x"}, `should be a valid slice named as "xxx.slice"`},
		{``, []string{"--label", "x"}, "bad attribute format: x"},
		{``, []string{"--bip", "x"}, "invalid bip"},
		{``, []string{"--bip", "10.0.0.1/24", "-b", "br0"}, "mutually exclusive"},
		{``, []string{"--dns", "x"}, "invalid dns"},
		{``, []string{"--default-address-pool", "base=10.0.0.0/8,size=4"}, "invalid address pool"},
		{``, []string{"--registry-mirror", "mirror"}, "invalid mirror"},
		{``, []string{"--insecure-registry", "http://x"}, "should not contain '://'"},
		{``, []string{"--default-shm-size", "lots"}, "invalid size: 'lots'"},
		{``, []string{"--data-root", "/x", "--exec-root", "/x"}, "must not be the same directory"},
	} {
		t.Run(c.file+" "+c.want, func(t *testing.T) {
			_, err := parseWith(t, c.file, c.args...)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %q: %v, want …%s…", c.file, c.args, err, c.want)
			}
		})
	}
}

func TestConfigFileMustExistWhenNamed(t *testing.T) {
	if _, _, err := Parse([]string{"--config-file", "/nonexistent/daemon.json"}); err == nil {
		t.Error("no error")
	}
}

func TestEveryDockerOptionIsKnown(t *testing.T) {
	// Flags and keys of dockerd, from its reference; the file is a copy of that table.
	data, err := os.ReadFile("testdata/options.txt")
	if err != nil {
		t.Fatal(err)
	}
	fs := flagSet(defaultConfig())
	for line := range strings.Lines(string(data)) {
		flag, key, _ := strings.Cut(strings.TrimSpace(line), " ")
		if flag != "-" && fs.Lookup(flag) == nil && flag != "version" {
			t.Errorf("flag --%s is not known", flag)
		}
		if key == "" || key == "-" {
			continue
		}
		err := applyFile(flagSet(defaultConfig()), []byte(`{"`+key+`": 17e99}`))
		if err == nil || strings.Contains(err.Error(), "don't match") {
			t.Errorf("key %s: %v", key, err)
		}
	}
}

func FuzzConfigFile(f *testing.F) {
	f.Add([]byte(`{"debug": true, "hosts": ["unix:///a"], "log-opts": {"a": "b"}, "mtu": 1}`))
	f.Add([]byte(`{"default-address-pools": [{"base": "10.0.0.0/8", "size": 24}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := defaultConfig()
		if err := applyFile(flagSet(c), data); err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%v has no class", err)
			}
			return
		}
		_ = c.check()
	})
}

// Every driver that is built in may be the daemon's.
func TestLogDrivers(t *testing.T) {
	for _, d := range logDrivers() {
		args := []string{"--log-driver", d.Describe().Name}
		if _, err := parseWith(t, ``, args...); err != nil {
			t.Errorf("%v: %v", args, err)
		}
	}
}

func TestRuntimes(t *testing.T) {
	c, err := parseWith(t, `{"runtimes": {"Crun": {"path": "crun"}, "runsc": {"path": "/usr/bin/runsc", "runtimeArgs": ["--debug", "--platform=kvm"]}}, "default-runtime": "crun"}`)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]*ociruntime.Ref{
		"gantry": nil, "runc": nil, "crun": {Path: "crun"}, "runsc": {Path: "/usr/bin/runsc", Args: []string{"--debug", "--platform=kvm"}},
	}
	if got := c.runtimes(); !reflect.DeepEqual(got, want) {
		t.Errorf("%+v", got)
	}
	info := c.runtimeInfo("/own")
	if info["runc"].Path != "/own" || info["runsc"].Path != "/usr/bin/runsc" || len(info["runsc"].Args) != 2 || len(info) != 4 {
		t.Errorf("%+v", info)
	}
	if s := c.set["add-runtime"]; s != "[crun=crun runsc=/usr/bin/runsc --debug --platform=kvm]" {
		t.Errorf("%q", s)
	}
	if c, err = parseWith(t, ``, "--add-runtime", "a=/a", "--add-runtime", "b=b"); err != nil || !reflect.DeepEqual(c.Runtimes, map[string]ociruntime.Ref{"a": {Path: "/a"}, "b": {Path: "b"}}) {
		t.Errorf("%+v %v", c, err)
	}
}
