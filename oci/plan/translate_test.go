package plan

import (
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

func TestCgroupOwner(t *testing.T) {
	spec := func(opts ...string) *specs.Spec {
		return &specs.Spec{
			Process: &specs.Process{User: specs.User{UID: 7}},
			Mounts:  []specs.Mount{{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: opts}},
			Linux:   &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: specs.CgroupNamespace}}},
		}
	}
	mapped := spec()
	mapped.Linux.Namespaces = append(mapped.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	mapped.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 5000, Size: 5}, {ContainerID: 5, HostID: 9000, Size: 5}}
	outside := spec()
	outside.Linux.Namespaces = mapped.Linux.Namespaces
	joined := spec()
	joined.Linux.Namespaces = []specs.LinuxNamespace{{Type: specs.CgroupNamespace, Path: "/proc/1/ns/cgroup"}}
	for name, c := range map[string]struct {
		spec *specs.Spec
		want int64
	}{"writable": {spec("nosuid"), 7}, "read-only": {spec("ro"), -1}, "mapped": {mapped, 9002}, "not mapped": {outside, -1}, "joined": {joined, -1}} {
		t.Run(name, func(t *testing.T) {
			got := int64(-1)
			if id := CgroupOwner(c.spec); id != nil {
				got = int64(*id)
			}
			if got != c.want {
				t.Errorf("%s: %d, want %d", name, got, c.want)
			}
		})
	}
}
