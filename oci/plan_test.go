package oci

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci/plan"
	"github.com/gantry/gantry/oci/plan/caps"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestPlanMount(t *testing.T) {
	cg := &plan.Cgroups{V1: []initmsg.KV{{Key: "memory", Value: "/sys/fs/cgroup/memory/x"}}}
	for _, c := range []struct {
		name string
		in   specs.Mount
		want initmsg.Mount
	}{
		{
			"proc",
			specs.Mount{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
			initmsg.Mount{Type: "proc", Source: "proc", Dest: "/proc", NoSymlinks: true, Set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NODEV},
		},
		{
			"tmpfs with data",
			specs.Mount{Destination: "tmp/../t", Type: "tmpfs", Options: []string{"mode=1777", "size=64m", "noswap", "strictatime", "tmpcopyup"}},
			initmsg.Mount{
				Type: "tmpfs", Dest: "/t", Set: unix.MOUNT_ATTR_STRICTATIME, Clear: unix.MOUNT_ATTR__ATIME, CopyUp: true,
				Data: []initmsg.KV{{Key: "mode", Value: "1777"}, {Key: "size", Value: "64m"}}, Flags: []string{"noswap"},
			},
		},
		{
			"bind",
			specs.Mount{Destination: "/d", Source: "/s", Options: []string{"rbind", "ro", "rslave", "rnosuid"}},
			initmsg.Mount{
				Kind: initmsg.KindBind, Type: "bind", Source: "/s", Dest: "/d", Recursive: true, Set: unix.MOUNT_ATTR_RDONLY,
				RecSet: unix.MOUNT_ATTR_NOSUID, Propagation: unix.MS_SLAVE, PropagationRec: true,
			},
		},
		{
			"the last wins",
			specs.Mount{Destination: "/d", Type: "bind", Source: "/s", Options: []string{"ro", "rw", "nodev"}},
			initmsg.Mount{Kind: initmsg.KindBind, Type: "bind", Source: "/s", Dest: "/d", Set: unix.MOUNT_ATTR_NODEV, Clear: unix.MOUNT_ATTR_RDONLY},
		},
		{
			"cgroup",
			specs.Mount{Destination: "/sys/fs/cgroup", Type: "cgroup", Options: []string{"ro"}},
			initmsg.Mount{Kind: initmsg.KindCgroup1, Type: "cgroup", Source: "cgroup", Dest: "/sys/fs/cgroup", NoSymlinks: true, Set: unix.MOUNT_ATTR_RDONLY, Binds: cg.V1},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := plan.Mount(&c.in, cg)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%s: %+v, %v\nwant %+v", c.name, got, err, c.want)
			}
		})
	}
	for i, m := range []specs.Mount{
		{Destination: "/proc/self", Type: "tmpfs"},
		{Destination: "/proc/sys", Type: "bind", Source: "/x"},
		{Destination: "/proc", Type: "tmpfs"},
		{Destination: "/x/../proc/1", Type: "tmpfs"},
		{Destination: "/", Type: "tmpfs"},
		{Destination: "/x/..", Type: "bind", Source: "/y"},
		{Destination: "/x", Type: "bind", Source: "rel"},
		{Destination: "/x"},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if _, err := plan.Mount(&m, cg); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%+v: %v", m, err)
			}
		})
	}
	if _, err := plan.Mount(&specs.Mount{Destination: "/proc/meminfo", Type: "bind", Source: "/x", Options: []string{"bind"}}, cg); err != nil {
		t.Errorf("lxcfs's meminfo: %v", err)
	}
}

func TestPlanSysctl(t *testing.T) {
	got, err := plan.Sysctl(map[string]string{"net.ipv4.conf.eth0/1.forwarding": "1", "kernel.shmmax": "2", "net/ipv4/ip_forward": "3"})
	want := []initmsg.KV{{Key: "kernel/shmmax", Value: "2"}, {Key: "net/ipv4/conf/eth0.1/forwarding", Value: "1"}, {Key: "net/ipv4/ip_forward", Value: "3"}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	for _, k := range []string{"", "a..b", "../x", "/etc/passwd", "a/../../b", "."} {
		t.Run(k, func(t *testing.T) {
			if got, err := plan.Sysctl(map[string]string{k: "1"}); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%q: %v, %v", k, got, err)
			}
		})
	}
}

func TestPlanProcessRefuses(t *testing.T) {
	ok := func() *specs.Process { return &specs.Process{Args: []string{"x"}, Cwd: "/"} }
	for name, edit := range map[string]func(*specs.Process){
		"no args":       func(p *specs.Process) { p.Args = nil },
		"relative cwd":  func(p *specs.Process) { p.Cwd = "x" },
		"no cwd":        func(p *specs.Process) { p.Cwd = "" },
		"uid":           func(p *specs.Process) { p.User.UID = 1<<32 - 1 },
		"zero byte":     func(p *specs.Process) { p.Env = []string{"A=\x00"} },
		"rlimit":        func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_X"}} },
		"soft > hard":   func(p *specs.Process) { p.Rlimits = []specs.POSIXRlimit{{Type: "RLIMIT_CPU", Soft: 2, Hard: 1}} },
		"eff above prm": func(p *specs.Process) { p.Capabilities = &specs.LinuxCapabilities{Effective: []string{"CAP_CHOWN"}} },
	} {
		t.Run(name, func(t *testing.T) {
			p := ok()
			edit(p)
			if _, err := plan.Process(p, nil, nil, 0, WinSize{}, machine(nil, "")); !errors.Is(err, errdefs.ErrInvalidArgument) && caps.Held() != 0 {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	if _, err := plan.Process(ok(), nil, make([]byte, 7), 0, WinSize{}, machine(nil, "")); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("a torn filter: %v", err)
	}
}

func TestPlanDevices(t *testing.T) {
	got, err := plan.Devices([]specs.LinuxDevice{{Path: "/dev/null", Type: "c", Major: 1, Minor: 3}, {Path: "/dev/../dev/fuse", Type: "c", Major: 10, Minor: 229}})
	if err != nil || len(got) != 7 || got[len(got)-1].Path != "/dev/fuse" {
		t.Errorf("%v, %v", got, err)
	}
	for i, d := range []specs.LinuxDevice{{Path: "/dev/x", Type: "z"}, {Path: "/dev/x", Type: "c", Major: -1}} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if _, err := plan.Devices([]specs.LinuxDevice{d}); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%+v: %v", d, err)
			}
		})
	}
}

func TestCgroupPath(t *testing.T) {
	for in, want := range map[string]string{"": "/gantry/id", "/docker/x": "/docker/x", "rel/x": "/rel/x", "/a/../../b": "/b"} {
		t.Run(in, func(t *testing.T) {
			got, err := cgroupPath("id", in)
			if err != nil || got != want {
				t.Errorf("%q: %q, %v", in, got, err)
			}
		})
	}
	if _, err := cgroupPath("id", "/.."); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("root: %v", err)
	}
	if _, err := cgroupPath("id", "s.slice:docker:id"); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("systemd: %v", err)
	}
}

// FuzzPlan: no spec makes planning panic, and what is planned survives the codec.
func FuzzPlan(f *testing.F) {
	f.Add(`{"process":{"args":["sh"],"cwd":"/"},"root":{"path":"/r"},"linux":{"sysctl":{"a.b":"1"}},"mounts":[{"destination":"/proc","type":"proc"}]}`)
	f.Fuzz(func(t *testing.T, s string) {
		var spec specs.Spec
		if json.NewDecoder(strings.NewReader(s)).Decode(&spec) != nil || spec.Linux == nil {
			return
		}
		m, err := planCreate(&CreateOpts{ID: "x", Spec: &spec, Rootfs: Rootfs{Path: "/r"}}, &plan.Cgroups{})
		if err != nil {
			return
		}
		got, err := initmsg.Decode(initmsg.Encode(m))
		if err != nil || len(got.Mounts) != len(m.Mounts) {
			t.Errorf("codec: %v", err)
		}
		for _, mt := range got.Mounts {
			if mt.Dest == "/" || !strings.HasPrefix(mt.Dest, "/") || strings.Contains(mt.Dest, "/../") {
				t.Errorf("destination %q", mt.Dest)
			}
		}
	})
}

func TestPlanRootRefuses(t *testing.T) {
	spec := &specs.Spec{Linux: &specs.Linux{}}
	for i, r := range []Rootfs{
		{},
		{Path: "rel"},
		{Overlay: &Overlay{}},
		{Overlay: &Overlay{Lower: []string{"rel"}}},
		{Overlay: &Overlay{Lower: []string{"/l"}, Upper: "/u"}},
		{Overlay: &Overlay{Lower: []string{"/l"}, Upper: "u", Work: "/w"}},
		{Path: "/p", Overlay: &Overlay{Lower: []string{"/l"}}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if _, err := plan.Root(&r, spec); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%+v: %v", r, err)
			}
		})
	}
}
