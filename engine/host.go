package engine

import (
	"bufio"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// host is what /info and /version say about the machine; it is read once.
type host struct {
	kernel, name, os, osVersion string
	memory                      int64
	cgroup2                     bool
	limits                      limits
}

// limits tell which cgroup limits the kernel offers.
type limits struct {
	memory, swap, oomKill, cfsPeriod, cfsQuota, shares, cpuset, pids bool
}

func readHost() host {
	var h host
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.kernel = unix.ByteSliceToString(u.Release[:])
		h.name = unix.ByteSliceToString(u.Nodename[:])
	}
	for _, p := range []string{"/etc/os-release", "/usr/lib/os-release"} {
		f, err := os.Open(p)
		if err != nil {
			continue
		}
		h.os, h.osVersion = parseOSRelease(bufio.NewScanner(f))
		_ = f.Close() // was only read
		break
	}
	var si unix.Sysinfo_t
	if unix.Sysinfo(&si) == nil {
		h.memory = int64(si.Totalram) * int64(si.Unit)
	}
	h.cgroup2, h.limits = readLimits("/sys/fs/cgroup")
	return h
}

// parseOSRelease reads os-release(5); the result is "Linux" when it says nothing.
func parseOSRelease(sc *bufio.Scanner) (pretty, version string) {
	pretty = "Linux"
	for sc.Scan() {
		key, value, ok := strings.Cut(strings.TrimSpace(sc.Text()), "=")
		if !ok {
			continue
		}
		if u, err := strconv.Unquote(value); err == nil {
			value = u
		} else {
			value = strings.Trim(value, `'"`)
		}
		switch key {
		case "PRETTY_NAME":
			pretty = value
		case "VERSION_ID":
			version = value
		}
	}
	return pretty, version
}

// readLimits looks at the cgroup mounts: the unified hierarchy's controllers, or the
// files of version 1.
func readLimits(root string) (v2 bool, l limits) {
	if data, err := os.ReadFile(filepath.Join(root, "cgroup.controllers")); err == nil {
		has := func(c string) bool { return slices.Contains(strings.Fields(string(data)), c) }
		return true, limits{
			memory: has("memory"), swap: has("memory"), cfsPeriod: has("cpu"), cfsQuota: has("cpu"), shares: has("cpu"),
			cpuset: has("cpuset"), pids: has("pids"),
		}
	}
	has := func(p string) bool {
		_, err := os.Stat(filepath.Join(root, p))
		return err == nil
	}
	_, pids := os.Stat(filepath.Join(root, "pids"))
	return false, limits{
		memory: has("memory/memory.limit_in_bytes"), swap: has("memory/memory.memsw.limit_in_bytes"),
		oomKill: has("memory/memory.oom_control"), cfsPeriod: has("cpu/cpu.cfs_period_us"), cfsQuota: has("cpu/cpu.cfs_quota_us"),
		shares: has("cpu/cpu.shares"), cpuset: has("cpuset/cpuset.cpus"), pids: pids == nil,
	}
}

// warnings are Docker's sentences about limits that are missing.
func (h host) warnings() []string {
	var w []string
	for _, c := range []struct {
		ok   bool
		text string
	}{
		{h.limits.memory, "WARNING: No memory limit support"},
		{h.limits.swap || !h.limits.memory, "WARNING: No swap limit support"},
		{h.limits.oomKill || h.cgroup2, "WARNING: No oom kill disable support"},
		{h.limits.cfsQuota, "WARNING: No cpu cfs quota support"},
		{h.limits.cfsPeriod, "WARNING: No cpu cfs period support"},
		{h.limits.shares, "WARNING: No cpu shares support"},
		{h.limits.cpuset, "WARNING: No cpuset support"},
	} {
		if !c.ok {
			w = append(w, c.text)
		}
	}
	return w
}

// machine is the architecture as uname(1) says it.
func machine() string {
	switch runtime.GOARCH {
	case "amd64":
		return "x86_64"
	case "arm64":
		return "aarch64"
	}
	return runtime.GOARCH
}

// openFiles counts this process's descriptors.
func openFiles() int {
	d, err := os.Open("/proc/self/fd")
	if err != nil {
		return -1
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return len(names) - 1 // not the directory itself
}
