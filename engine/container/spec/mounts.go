package spec

import (
	"path"
	"slices"
	"sort"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// MaskedPaths are hidden from containers by default, as Docker's.
func MaskedPaths() []string {
	return []string{
		"/proc/acpi", "/proc/asound", "/proc/interrupts", "/proc/kcore", "/proc/keys",
		"/proc/latency_stats", "/proc/sched_debug", "/proc/scsi", "/proc/timer_list",
		"/proc/timer_stats", "/sys/devices/virtual/powercap", "/sys/firmware",
	}
}

// ReadonlyPaths are read-only in containers by default, as Docker's.
func ReadonlyPaths() []string {
	return []string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
}

func defaultMounts(h *container.HostConfig, writableCgroups bool) []specs.Mount {
	access, cgroups := "ro", "ro"
	if h.Privileged {
		access, cgroups = "rw", "rw"
	}
	if writableCgroups {
		cgroups = "rw"
	}
	sys := specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", access}}
	if h.NetworkMode.IsHost() && !h.Privileged {
		sys.Options = []string{"nosuid", "noexec", "nodev", "ro"}
	}
	ms := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: []string{"nosuid", "noexec", "nodev"}},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", "strictatime", "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"}},
		sys,
		{Destination: "/sys/fs/cgroup", Type: "cgroup", Source: "cgroup", Options: []string{cgroups, "nosuid", "noexec", "nodev"}},
	}
	// With the host's IPC namespace these are the host's queues, mounted there or not.
	ms = append(ms, specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}})
	if h.IpcMode.IsHost() {
		ms = append(ms,
			specs.Mount{Destination: "/dev/shm", Type: "bind", Source: "/dev/shm", Options: []string{"rbind", "nosuid", "noexec", "nodev"}})
		return ms
	}
	if !h.IpcMode.IsNone() {
		ms = append(ms, specs.Mount{
			Destination: "/dev/shm", Type: "tmpfs", Source: "shm",
			Options: []string{"nosuid", "noexec", "nodev", "mode=1777", "size=" + strconv.FormatInt(h.ShmSize, 10)},
		})
	}
	return ms
}

// mounts are the default ones that no mount of the user hides, then the user's, those
// nearer to the root first.
func mounts(in Input, writableCgroups bool) []specs.Mount {
	hidden := func(m specs.Mount) bool {
		return slices.ContainsFunc(in.Mounts, func(u specs.Mount) bool {
			d := path.Clean(u.Destination)
			return d == m.Destination || d == "/dev" && strings.HasPrefix(m.Destination, "/dev/")
		})
	}
	ms := slices.DeleteFunc(defaultMounts(in.Host, writableCgroups), hidden)
	user := slices.Clone(in.Mounts)
	sort.SliceStable(user, func(i, j int) bool { return depth(user[i].Destination) < depth(user[j].Destination) })
	return append(ms, user...)
}

func depth(p string) int {
	if p = path.Clean(p); p == "/" {
		return 0
	}
	return strings.Count(p, "/")
}
