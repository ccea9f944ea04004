package spec

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

var update = flag.Bool("update", false, "write the golden files")

func TestBuild(t *testing.T) {
	pids, no := int64(100), true
	base := func() Input {
		return Input{
			ID:     "0123456789abcdef",
			Config: &container.Config{Hostname: "0123456789ab", Env: []string{"A=b"}},
			Host: &container.HostConfig{
				NetworkMode: "bridge", IpcMode: "private", CgroupnsMode: "private",
				ShmSize: 64 << 20, MaskedPaths: MaskedPaths(), ReadonlyPaths: ReadonlyPaths(),
			},
			Path: "/bin/sh", Args: []string{"-c", "true"}, User: User{Home: "/root"}, Held: KnownCaps(),
			Mounts:      []specs.Mount{{Destination: "/etc/hosts", Type: "bind", Source: "/h", Options: []string{"rbind", "rprivate"}}},
			BlockDevice: func(string) (int64, int64, error) { return 8, 0, nil },
		}
	}
	for name, change := range map[string]func(*Input){
		"default": func(*Input) {},
		"privileged": func(in *Input) {
			in.Host.Privileged = true
			in.AllDevices = []Device{{Path: "/dev/fuse", Type: "c", Major: 10, Minor: 229, Mode: 0o666}}
		},
		"host": func(in *Input) {
			in.Host.NetworkMode, in.Host.PidMode, in.Host.IpcMode, in.Host.UTSMode, in.Host.CgroupnsMode = "host", "host", "host", "host", "host"
		},
		"resources": func(in *Input) {
			h := in.Host
			h.Memory, h.MemorySwap, h.MemoryReservation, h.NanoCPUs, h.CPUShares = 64<<20, 128<<20, 32<<20, 1_500_000_000, 512
			h.PidsLimit, h.CpusetCpus, h.BlkioWeight, h.OomKillDisable = &pids, "0-1", 300, &no
			h.Ulimits = []*units.Ulimit{{Name: "nofile", Soft: 10, Hard: 20}}
			h.CgroupParent, h.OomScoreAdj = "/mine", 100
			h.DeviceCgroupRules = []string{"c 189:* rw"}
		},
		"user": func(in *Input) {
			in.User = User{UID: 1000, GID: 100, Groups: []uint32{100, 10}, Home: "/home/a"}
			in.Config.Tty, in.Config.WorkingDir = true, "/srv/"
			in.Host.CapAdd, in.Host.CapDrop = []string{"NET_ADMIN"}, []string{"ALL"}
			in.Host.SecurityOpt = []string{"no-new-privileges"}
			in.Host.ReadonlyRootfs = true
			in.Host.Sysctls = map[string]string{"net.core.somaxconn": "100"}
			in.Mounts = append(in.Mounts, specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/s"},
				specs.Mount{Destination: "/a", Type: "tmpfs", Source: "tmpfs"})
			in.Devices = []Device{{Path: "/dev/x", Type: "b", Major: 7, Minor: 1, Mode: 0o660, Access: "rwm"}}
		},
	} {
		t.Run(name, func(t *testing.T) {
			in := base()
			change(&in)
			sp, err := Build(in)
			if err != nil {
				t.Fatal(err)
			}
			got, _ := json.MarshalIndent(sp, "", "  ")
			golden := filepath.Join("testdata", name+".json")
			if *update {
				os.MkdirAll("testdata", 0o755)
				os.WriteFile(golden, append(got, '\n'), 0o644)
			}
			want, err := os.ReadFile(golden)
			if err != nil || string(want) != string(got)+"\n" {
				t.Errorf("differs from %s (run with -update and look): %v\n%s", golden, err, got)
			}
		})
	}
}

func TestBad(t *testing.T) {
	for _, h := range []container.HostConfig{
		{CapAdd: []string{"FOO"}},
		{CapDrop: []string{"BAR"}},
		{SecurityOpt: []string{"x"}},
		{SecurityOpt: []string{"no-new-privileges=maybe"}},
		{Resources: container.Resources{DeviceCgroupRules: []string{"c 1 r"}}},
		{Resources: container.Resources{DeviceCgroupRules: []string{"x 1:2 r"}}},
		{Resources: container.Resources{DeviceCgroupRules: []string{"c 1:-2 r"}}},
	} {
		if _, err := Build(Input{Config: &container.Config{}, Host: &h}); err == nil {
			t.Errorf("%+v accepted", h)
		}
	}
}

func TestSeccomp(t *testing.T) {
	sp := &specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{}}}
	if f, err := Seccomp("", sp); err != nil || f == nil || len(f.Syscalls) == 0 {
		t.Fatalf("%v %v", f, err)
	}
	if f, err := Seccomp("unconfined", sp); err != nil || f != nil {
		t.Fatalf("%v %v", f, err)
	}
	if _, err := Seccomp("{", sp); err == nil {
		t.Fatal("accepted half a profile")
	}
}

func TestMergeEnv(t *testing.T) {
	got := MergeEnv([]string{"A=1", "B=2"}, []string{"A=3", "B", "C=4", "D"})
	if len(got) != 2 || got[0] != "A=3" || got[1] != "C=4" {
		t.Errorf("%q", got)
	}
}

func TestCgroupsPath(t *testing.T) {
	for _, c := range []struct {
		systemd      bool
		daemon, mine string
		want         string
	}{
		{false, "", "", "/docker/id"},
		{false, "/d", "", "/d/id"},
		{false, "/d", "m", "/m/id"},
		{false, "", "x.slice", "/x.slice/id"},
		{true, "", "", "system.slice:docker:id"},
		{true, "d.slice", "", "d.slice:docker:id"},
		{true, "d.slice", "a-b.slice", "a-b.slice:docker:id"},
	} {
		t.Run(c.daemon+" "+c.mine, func(t *testing.T) {
			in := Input{ID: "id", CgroupParent: c.daemon, SystemdCgroup: c.systemd, Host: &container.HostConfig{}}
			in.Host.CgroupParent = c.mine
			if got := cgroupsPath(in); got != c.want {
				t.Errorf("%+v: %s", c, got)
			}
		})
	}
}
