package validate

import (
	"maps"
	"slices"
	"testing"

	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/jsonfile"
	"github.com/gantry/gantry/logs/local"
	"github.com/moby/moby/api/types/container"
)

func drivers() logs.Drivers { return logs.Drivers{jsonfile.Driver{}, local.Driver{}} }

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
			v := New(Config{Cgroup2: c.cgroup2, Logs: drivers(), LogDriver: "json-file", DefaultRuntime: "gantry"}, store.NewIndex(), nil)
			h := c.h
			if _, err := v.Normalize(&container.Config{Cmd: []string{"x"}}, &h); err != nil {
				t.Fatal(err)
			}
			if h.CgroupnsMode != c.cgroupns || (h.OomKillDisable != nil) != c.oomKill || !slices.Equal(h.SecurityOpt, c.security) {
				t.Errorf("%q %v %q", h.CgroupnsMode, h.OomKillDisable, h.SecurityOpt)
			}
		})
	}
}

// What a client sends to say "nothing" is kept as nothing, as with Docker.
func TestNothingIsKeptAsNothing(t *testing.T) {
	v := New(Config{Logs: drivers(), LogDriver: "json-file", DefaultRuntime: "gantry"}, store.NewIndex(), nil)
	unset, none := int64(-1), int64(0)
	h := &container.HostConfig{Resources: container.Resources{PidsLimit: &unset}}
	if _, err := v.Normalize(&container.Config{Cmd: []string{"x"}}, h); err != nil || h.PidsLimit != nil {
		t.Errorf("unlimited: %v %v", h.PidsLimit, err)
	}
	h = &container.HostConfig{Resources: container.Resources{MemorySwappiness: &unset, PidsLimit: &none}}
	c := &container.Config{Volumes: map[string]struct{}{}, Cmd: []string{"x"}}
	if _, err := v.Normalize(c, h); err != nil {
		t.Fatal(err)
	}
	mergeImage(c, &image.Image{})
	if h.MemorySwappiness != nil || h.PidsLimit != nil || c.Volumes != nil {
		t.Errorf("%v %v %v", h.MemorySwappiness, h.PidsLimit, c.Volumes)
	}
}

// The daemon's log options hold where a container with the daemon's driver does not say otherwise.
func TestLogOptionsAreMerged(t *testing.T) {
	ofDaemon := map[string]string{"max-size": "1m", "max-file": "4"}
	v := New(Config{Logs: drivers(), LogDriver: "json-file", LogOpts: ofDaemon, DefaultRuntime: "gantry"}, store.NewIndex(), nil)
	for _, c := range []struct {
		name string
		in   container.LogConfig
		want map[string]string
	}{
		{"nothing said", container.LogConfig{}, ofDaemon},
		{"one of its own", container.LogConfig{Config: map[string]string{"max-file": "2"}}, map[string]string{"max-size": "1m", "max-file": "2"}},
		{"the daemon's driver by name", container.LogConfig{Type: "json-file", Config: map[string]string{"tag": "x"}}, map[string]string{"max-size": "1m", "max-file": "4", "tag": "x"}},
		{"another driver", container.LogConfig{Type: "local", Config: map[string]string{"max-file": "2"}}, map[string]string{"max-file": "2"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &container.HostConfig{LogConfig: c.in}
			if _, err := v.Normalize(&container.Config{Cmd: []string{"x"}}, h); err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(h.LogConfig.Config, c.want) {
				t.Errorf("%v, want %v", h.LogConfig.Config, c.want)
			}
		})
	}
}
