package ocicli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry/gantry/oci/cgroup/systemd"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// onSystemd makes the bundle's cgroup a unit of a slice of its own; skipped where
// systemd does not run the machine (test/vm/systemd.sh has one).
func onSystemd(t *testing.T, b *bundle) (unit, slice string) {
	t.Helper()
	if !systemd.Booted() {
		t.Skip("systemd does not run this machine: test/vm/systemd.sh has one that it runs")
	}
	slice = fmt.Sprintf("gantry-t%d.slice", os.Getpid())
	b.spec.Linux.CgroupsPath = slice + ":gantry:" + b.id
	b.flags = []string{"--systemd-cgroup"}
	t.Cleanup(func() { _ = exec.Command("systemctl", "stop", slice, "gantry.slice").Run() })
	return "gantry-" + b.id + ".scope", slice
}

// show is a unit's property.
func show(t *testing.T, unit, property string) string {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "-p", property, "--value", unit).CombinedOutput()
	if err != nil {
		t.Fatalf("systemctl show: %v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func unifiedHere() bool {
	_, err := os.Stat("/sys/fs/cgroup/cgroup.controllers")
	return err == nil
}

// file is a cgroup file of the unit: of version 2's, or of the controller's hierarchy.
func cgroupFile(t *testing.T, slice, unit, controller, v1, v2 string) string {
	t.Helper()
	p := filepath.Join("/sys/fs/cgroup/gantry.slice", slice, unit, v2)
	if !unifiedHere() {
		p = filepath.Join("/sys/fs/cgroup", controller, "gantry.slice", slice, unit, v1)
	}
	return strings.TrimSpace(readBack(t, p))
}

func TestSystemd(t *testing.T) {
	b := newBundle(t, "sh", "-c", "cat /proc/self/cgroup; exec sleep 1000")
	unit, slice := onSystemd(t, b)
	v := func(n int64) *int64 { return &n }
	u := func(n uint64) *uint64 { return &n }
	tenth := int64(229)
	ten := int64(10)
	b.spec.Linux.Resources = &specs.LinuxResources{
		Memory:  &specs.LinuxMemory{Limit: v(64 << 20)},
		CPU:     &specs.LinuxCPU{Quota: v(50000), Period: u(100000), Shares: u(512), Cpus: "0"},
		Pids:    &specs.LinuxPids{Limit: v(100)},
		Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}, {Allow: true, Type: "c", Major: &ten, Minor: &tenth, Access: "rwm"}},
	}
	b.spec.Annotations["org.systemd.property.TimeoutStopUSec"] = "uint64 7000000"
	b.write()
	b.ok("create", "{ID}")
	for p, want := range map[string]string{
		"ActiveState": "active", "Slice": slice, "Delegate": "yes", "TasksMax": "100", "DefaultDependencies": "no",
		"Description": "libcontainer container " + b.id, "CPUQuotaPerSecUSec": "500ms", "TimeoutStopUSec": "7s",
	} {
		t.Run(p, func(t *testing.T) {
			if got := show(t, unit, p); got != want {
				t.Errorf("%s=%s, want %s", p, got, want)
			}
		})
	}
	if !unifiedHere() {
		if got := show(t, unit, "DevicePolicy") + show(t, unit, "DeviceAllow"); !strings.HasPrefix(got, "strict") || !strings.Contains(got, "/dev/char/10:229 rwm") {
			t.Errorf("devices: %s", got)
		}
	}
	files := func(when, memory, pids string) {
		t.Helper()
		for i, c := range [][4]string{
			{"memory", "memory.limit_in_bytes", "memory.max", memory},
			{"pids", "pids.max", "pids.max", pids},
			{"cpuset", "cpuset.cpus", "cpuset.cpus", "0"},
		} {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				if got := cgroupFile(t, slice, unit, c[0], c[1], c[2]); got != c[3] {
					t.Errorf("%s: %s is %s, want %s", when, c[2], got, c[3])
				}
			})
		}
		if !unifiedHere() {
			if got := cgroupFile(t, slice, unit, "devices", "devices.list", ""); strings.Contains(got, "a *:*") || !strings.Contains(got, "c 10:229 rwm") {
				t.Errorf("%s: devices.list is %s", when, got)
			}
		}
	}
	files("created", "67108864", "100")
	b.ok("start", "{ID}")
	b.ok("update", "--memory", "96m", "--pids-limit", "77", "{ID}")
	if got := show(t, unit, "TasksMax"); got != "77" {
		t.Errorf("TasksMax after update: %s", got)
	}
	files("updated", "100663296", "77")
	if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
		t.Fatalf("reload: %v %s", err, out)
	}
	files("reloaded", "100663296", "77")
	if got := b.ok("exec", "{ID}", "sh", "-c", "cat /proc/self/cgroup"); strings.Count(got, unit) != strings.Count(strings.TrimSpace(got), "\n")+1 {
		t.Errorf("exec is in %s", got)
	}
	b.ok("pause", "{ID}")
	if s := b.status(); s != "paused" {
		t.Errorf("status %s", s)
	}
	b.ok("resume", "{ID}")
	b.ok("kill", "{ID}", "KILL")
	await(t, "the end", func() bool { return b.status() == "stopped" })
	b.ok("delete", "{ID}")
	gone(t, unit)
}

// gone checks that nothing is left of a unit.
func gone(t *testing.T, unit string) {
	t.Helper()
	if s := show(t, unit, "LoadState"); s != "not-found" {
		t.Errorf("unit %s: %s", unit, s)
	}
	out, err := exec.Command("find", "/sys/fs/cgroup", "-name", unit).Output()
	if err != nil || len(out) != 0 {
		t.Errorf("left of the cgroup: %s %v", out, err)
	}
}

func TestSystemdRun(t *testing.T) {
	b := newBundle(t, "sh", "-c", "cat /proc/self/cgroup; exit 7")
	unit, slice := onSystemd(t, b)
	few := int64(5)
	b.spec.Linux.Resources = &specs.LinuxResources{Pids: &specs.LinuxPids{Limit: &few}}
	b.write()
	r := b.cmd(nil, "run", "{ID}")
	if r.code != 7 || !strings.Contains(r.out, "/gantry.slice/"+slice+"/"+unit) {
		t.Errorf("%+v", r)
	}
	gone(t, unit)
	// What fails to start leaves nothing.
	b.spec.Process.Args = []string{"nosuch"}
	b.write()
	if r := b.cmd(nil, "run", "{ID}"); r.code == 0 {
		t.Errorf("%+v", r)
	}
	gone(t, unit)
	for _, p := range []string{"/a/path", "nosuffix:a:b", "a.slice:b"} {
		b.spec.Linux.CgroupsPath = p
		b.write()
		b.refused("slice", "run", "{ID}")
	}
}

// TestSystemdDeviceUse: the rules hold after systemd reloaded.
func TestSystemdDeviceUse(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	onSystemd(t, b)
	one, seven := int64(1), int64(11) // kmsg
	b.spec.Linux.Resources = &specs.LinuxResources{Devices: []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}}
	// systemd makes these namespaces borders of delegation (nsdelegate).
	b.spec.Linux.Namespaces = append(b.spec.Linux.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	b.spec.Linux.Devices = []specs.LinuxDevice{{Path: "/dev/kmsg", Type: "c", Major: one, Minor: seven}}
	b.write()
	b.ok("run", "-d", "{ID}")
	for _, when := range []string{"at first", "after a reload"} {
		t.Run(when, func(t *testing.T) {
			r := b.cmd(nil, "exec", "{ID}", "sh", "-c", "echo x >/dev/null && echo null; exec 3</dev/kmsg && echo kmsg")
			if r.out != "null\n" || !strings.Contains(r.err, "Operation not permitted") {
				t.Errorf("%s: %+v", when, r)
			}
			if out, err := exec.Command("systemctl", "daemon-reload").CombinedOutput(); err != nil {
				t.Fatalf("reload: %v %s", err, out)
			}
		})
	}
	b.ok("delete", "--force", "{ID}")
}
