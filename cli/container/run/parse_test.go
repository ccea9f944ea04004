package run

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	"github.com/moby/moby/api/types/network"
	"github.com/spf13/pflag"
)

// parse runs flags and arguments through Parse, with files and environment of its own.
func parse(t testing.TB, args string) (*Result, error) {
	t.Helper()
	fs := pflag.NewFlagSet("run", pflag.ContinueOnError)
	f := Register(fs)
	f.Getenv = func(k string) (string, bool) {
		if k == "HOST_VAR" {
			return "v", true
		}
		return "", false
	}
	f.ReadFile = func(name string) ([]byte, error) {
		switch name {
		case "env":
			return []byte("\xef\xbb\xbfA=1\r\n  # no\n\n  B=2 3\nHOST_VAR\nNOT_SET\n"), nil
		case "space":
			return []byte("A B=1\n"), nil
		case "noname":
			return []byte("=1\n"), nil
		case "bytes":
			return []byte("A=\xff\n"), nil
		case "seccomp":
			return []byte("{ \"a\" : 1 }\n"), nil
		}
		return nil, &os.PathError{Op: "open", Path: name, Err: os.ErrNotExist}
	}
	if err := fs.Parse(strings.Fields(args)); err != nil {
		return nil, err
	}
	return f.Parse(fs.Args())
}

func TestParse(t *testing.T) {
	for _, c := range []struct {
		args string
		get  func(*Result) any
		want any
	}{
		{"img a -b", func(r *Result) any { return []any{r.Config.Image, r.Config.Cmd} }, []any{"img", []string{"a", "-b"}}},
		{"-i img", func(r *Result) any {
			c := r.Config
			return []bool{c.AttachStdin, c.AttachStdout, c.AttachStderr, c.OpenStdin, c.StdinOnce}
		}, []bool{true, true, true, true, true}},
		{"-i -a stdout img", func(r *Result) any {
			c := r.Config
			return []bool{c.AttachStdin, c.AttachStdout, c.AttachStderr, c.OpenStdin, c.StdinOnce}
		}, []bool{false, true, false, true, false}},
		{
			"--env-file env -e X=1 -e HOST_VAR -e GONE img", func(r *Result) any { return r.Config.Env },
			[]string{"A=1", "B=2 3", "HOST_VAR=v", "X=1", "HOST_VAR=v", "GONE"},
		},
		{
			"-v /a:/b -v v:/c:ro -v /anon img", func(r *Result) any { return []any{r.Host.Binds, r.Config.Volumes} },
			[]any{[]string{"/a:/b", "v:/c:ro"}, map[string]struct{}{"/anon": {}}},
		},
		{"--annotation a=b --health-cmd x --health-on-failure KILL img", func(r *Result) any { return r.Host.Annotations }, map[string]string{
			"a": "b", "gantry.health-on-failure": "KILL",
		}},
		{"-p 127.0.0.1:80:81/udp img", func(r *Result) any { return r.Host.PortBindings[network.MustParsePort("81/udp")][0].HostIP.String() }, "127.0.0.1"},
		{"-p 8000-8001:80-81 img", func(r *Result) any { return len(r.Config.ExposedPorts) }, 2},
		{"--expose 5-7/udp img", func(r *Result) any { return len(r.Config.ExposedPorts) }, 3},
		{"-m 64m --cpus .5 --pids-limit 3 img", func(r *Result) any {
			return []int64{r.Host.Memory, r.Host.NanoCPUs, *r.Host.PidsLimit}
		}, []int64{64 << 20, 5e8, 3}},
		{
			"--restart on-failure:3 img", func(r *Result) any { return r.Host.RestartPolicy },
			container.RestartPolicy{Name: "on-failure", MaximumRetryCount: 3},
		},
		{
			"--device /dev/null:/dev/x:r img", func(r *Result) any { return r.Host.Devices },
			[]container.DeviceMapping{{PathOnHost: "/dev/null", PathInContainer: "/dev/x", CgroupPermissions: "r"}},
		},
		{"--security-opt seccomp=seccomp img", func(r *Result) any { return r.Host.SecurityOpt }, []string{`seccomp={"a":1}`}},
		{"--network n1 --network-alias x img", func(r *Result) any { return r.Networking.EndpointsConfig["n1"].Aliases }, []string{"x"}},
		{
			"--network host img", func(r *Result) any { return []any{r.Host.NetworkMode, len(r.Networking.EndpointsConfig)} },
			[]any{container.NetworkMode("host"), 0},
		},
		{"--entrypoint= img", func(r *Result) any { return r.Config.Entrypoint }, []string{""}},
		{"--tmpfs /a:size=1m --tmpfs /b img", func(r *Result) any { return r.Host.Tmpfs }, map[string]string{"/a": "size=1m", "/b": ""}},
		{"--init=false img", func(r *Result) any { return *r.Host.Init }, false},
		{"img", func(r *Result) any { return r.Host.Init == nil && r.Config.StopTimeout == nil }, true},
	} {
		t.Run(c.args, func(t *testing.T) {
			r, err := parse(t, c.args)
			if err != nil {
				t.Errorf("%s: %v", c.args, err)
				return
			}
			if got := c.get(r); !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s:\n got %#v\nwant %#v", c.args, got, c.want)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for args, want := range map[string]string{
		"-m x img":                                     `invalid argument "x" for "-m, --memory" flag: invalid size: 'x'`,
		"--rm --restart always img":                    "conflicting options: cannot specify both --restart and --rm",
		"-p x img":                                     "invalid containerPort: x",
		"-p 1:2/bad img":                               "invalid proto: bad",
		"-p 1-2:1-3 img":                               "invalid ranges specified for container and host Ports: 1-3 and 1-2",
		"-p 80: img":                                   "no port specified: 80:<empty>",
		"--expose 1:2 img":                             "invalid port format for --expose: 1:2",
		"--expose 9-1 img":                             "invalid range format for --expose: 9-1, error: invalid range specified for port: 9-1",
		"--env-file space img":                         "invalid env file (space): variable 'A B' contains whitespaces",
		"--env-file noname img":                        "invalid env file (noname): no variable name on line '=1'",
		"--env-file bytes img":                         "invalid env file (bytes): invalid utf8 bytes at line 1: [65 61 255]",
		"--env-file none img":                          "open none: file does not exist",
		"-v a::b img":                                  "invalid spec: a::b: empty section between colons",
		"--memory-swappiness 101 img":                  "invalid value: 101. Valid memory swappiness range is 0-100",
		"--pid x img":                                  "--pid: invalid PID mode",
		"--no-healthcheck --health-cmd x img":          "--no-healthcheck conflicts with --health-* options",
		"--network a --network a img":                  `network "a" is specified multiple times`,
		"--network a --network host img":               "conflicting options: cannot attach both user-defined and non-user-defined network-modes",
		"--mount type=bind,src=/a img":                 `invalid argument "type=bind,src=/a" for "--mount" flag: target is required`,
		"--gpus x img":                                 `invalid argument "x" for "--gpus" flag: invalid count (x): value must be either "all" or an integer: invalid syntax`,
		"--security-opt bad img":                       `Invalid --security-opt: "bad"`,
		"--device /a:/b:x img":                         "bad mode specified: x",
		"--log-driver none --log-opt a=b img":          "invalid logging opts for driver none",
		"--restart :3 img":                             "invalid restart policy format: no policy provided before colon",
		"--ulimit nofile=2:1 img":                      `invalid argument "nofile=2:1" for "--ulimit" flag: ulimit soft limit must be less than or equal to hard limit: 2 > 1`,
		"--sysctl bad=1 img":                           `invalid argument "bad=1" for "--sysctl" flag: sysctl 'bad=1' is not allowed`,
		"--network name=a,ip=1.1.1.1 --ip 1.1.1.2 img": "conflicting options: cannot specify both --ip and per-network IPv4 address",
	} {
		t.Run(args, func(t *testing.T) {
			if _, err := parse(t, args); err == nil || err.Error() != want {
				t.Errorf("%s:\n got %v\nwant %s", args, err, want)
			}
		})
	}
}

func TestParseMount(t *testing.T) {
	m, err := ParseMount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1777")
	if err != nil {
		t.Fatal(err)
	}
	want := mount.Mount{Type: "tmpfs", Target: "/t", TmpfsOptions: &mount.TmpfsOptions{SizeBytes: 1 << 20, Mode: 0o1777}}
	if !reflect.DeepEqual(m, want) {
		t.Errorf("got %+v, want %+v", m, want)
	}
}

func FuzzParseMount(f *testing.F) {
	for _, s := range []string{"type=bind,src=/a,dst=/b,ro", `"a=b",c`, "type=volume,volume-opt=o=1,dst=/x", "\"", ",,,"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if m, err := ParseMount(s); err == nil && (m.Target == "" || m.Type == "") {
			t.Errorf("%q gives a mount without type or target", s)
		}
	})
}

func FuzzEnvFile(f *testing.F) {
	f.Add([]byte("A=1\nB\n#c\n"))
	f.Add([]byte("\xef\xbb\xbfA=\xff"))
	f.Fuzz(func(t *testing.T, b []byte) {
		lines, err := parseKV(b, func(string) (string, bool) { return "x", true })
		if err != nil {
			return
		}
		for _, l := range lines {
			if k, _, ok := strings.Cut(l, "="); !ok || k == "" {
				t.Errorf("line %q without a name", l)
			}
		}
	})
}

func FuzzPublish(f *testing.F) {
	for _, s := range []string{"80", "1-3:4-6/udp", "[::1]:1:2", "target=1,published=2", "::", "1:2:3:4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		fl := Register(fs)
		if err := fs.Set("publish", s); err != nil {
			return
		}
		set, _, err := fl.ports()
		if err == nil && len(set) == 0 {
			t.Errorf("%q publishes nothing", s)
		}
	})
}
