package validate

import (
	"slices"
	"testing"

	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/image"
	"github.com/moby/moby/api/types/container"
)

// What is filled in where nothing is asked for.
func TestDefaults(t *testing.T) {
	for name, c := range map[string]struct {
		h        container.HostConfig
		cgroup2  bool
		cgroupns container.CgroupnsMode
		oomKill  bool // shown as enabled, not as unknown
		security []string
	}{
		"plain, v1":      {cgroupns: "private", oomKill: true},
		"plain, v2":      {cgroup2: true, cgroupns: "private"},
		"privileged, v1": {h: container.HostConfig{Privileged: true}, cgroupns: "host", oomKill: true, security: []string{"label=disable"}},
		"privileged, v2": {h: container.HostConfig{Privileged: true}, cgroup2: true, cgroupns: "private", security: []string{"label=disable"}},
		"host's IPC":     {h: container.HostConfig{IpcMode: "host"}, cgroup2: true, cgroupns: "private", security: []string{"label=disable"}},
		"host's pids":    {h: container.HostConfig{PidMode: "host"}, cgroup2: true, cgroupns: "private", security: []string{"label=disable"}},
		"asked for": {
			h: container.HostConfig{Privileged: true, CgroupnsMode: "host", SecurityOpt: []string{}}, cgroup2: true, cgroupns: "host", security: []string{},
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := New(Config{Cgroup2: c.cgroup2, LogDriver: "json-file", DefaultRuntime: "gantry"}, store.NewIndex(), nil)
			h := c.h
			if _, err := v.Normalize(&container.Config{Cmd: []string{"x"}}, &h); err != nil {
				t.Fatal(err)
			}
			if h.CgroupnsMode != c.cgroupns || (h.OomKillDisable != nil) != c.oomKill || !slices.Equal(h.SecurityOpt, c.security) {
				t.Errorf("%s: %q %v %q", name, h.CgroupnsMode, h.OomKillDisable, h.SecurityOpt)
			}
		})
	}
}

// What a client sends to say "nothing" is kept as nothing, as with Docker.
func TestNothingIsKeptAsNothing(t *testing.T) {
	v := New(Config{LogDriver: "json-file", DefaultRuntime: "gantry"}, store.NewIndex(), nil)
	unset, none := int64(-1), int64(0)
	h := &container.HostConfig{Resources: container.Resources{MemorySwappiness: &unset, PidsLimit: &none}}
	c := &container.Config{Volumes: map[string]struct{}{}, Cmd: []string{"x"}}
	if _, err := v.Normalize(c, h); err != nil {
		t.Fatal(err)
	}
	mergeImage(c, &image.Image{})
	if h.MemorySwappiness != nil || h.PidsLimit != nil || c.Volumes != nil {
		t.Errorf("%v %v %v", h.MemorySwappiness, h.PidsLimit, c.Volumes)
	}
}
