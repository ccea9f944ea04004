package oci_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/test/poll"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// needsUnified skips where cgroup v2 has no controllers; test/vm/run.sh runs these
// tests where it has.
func needsUnified(t testing.TB) {
	t.Helper()
	var st unix.Statfs_t
	if err := unix.Statfs("/sys/fs/cgroup", &st); err != nil || st.Type != unix.CGROUP2_SUPER_MAGIC {
		t.Skip("needs a unified cgroup hierarchy (make vm)")
	}
}

// dirOf is the cgroup's directory on the host.
func dirOf(b *box) string { return "/sys/fs/cgroup" + b.opts.Spec.Linux.CgroupsPath }

func fileOf(t testing.TB, b *box, name string) string {
	t.Helper()
	s, err := os.ReadFile(filepath.Join(dirOf(b), name))
	must(t, err)
	return strings.TrimSpace(string(s))
}

func wantFiles(t testing.TB, b *box, want map[string]string) {
	t.Helper()
	for name, w := range want {
		if got := fileOf(t, b, name); got != w {
			t.Errorf("%s is %q, want %q", name, got, w)
		}
	}
}

func ptr[T any](v T) *T { return &v }

// cgroupWritable lets the container manage cgroups of its own.
func (b *box) cgroupWritable() {
	for i, m := range b.opts.Spec.Mounts {
		if m.Type == "cgroup" {
			b.opts.Spec.Mounts[i].Options = []string{"nosuid", "noexec", "nodev"}
		}
	}
}

// within polls for something that the kernel does by itself.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	poll.Until(t, what, ok)
}

func TestUnifiedLimits(t *testing.T) {
	needsUnified(t)
	b := newBox(newRootfs(t), "sleep", "1000")
	r := b.opts.Spec.Linux.Resources
	r.Memory = &specs.LinuxMemory{Limit: ptr(int64(64 << 20)), Swap: ptr(int64(96 << 20)), Reservation: ptr(int64(32 << 20))}
	r.CPU = &specs.LinuxCPU{Shares: ptr(uint64(512)), Quota: ptr(int64(50000)), Period: ptr(uint64(100000)), Burst: ptr(uint64(1000)), Cpus: "0", Mems: "0"}
	r.Pids = &specs.LinuxPids{Limit: ptr(int64(50))}
	r.HugepageLimits = []specs.LinuxHugepageLimit{{Pagesize: "2MB", Limit: 4 << 20}}
	r.Unified = map[string]string{"memory.high": "50331648", "cpu.weight.nice": "0"}
	p := sleeping(t, b)
	wantFiles(t, b, map[string]string{
		"memory.max": "67108864", "memory.swap.max": "33554432", "memory.low": "33554432", "memory.high": "50331648",
		"cpu.max": "50000 100000", "cpu.max.burst": "1000", "cpu.weight": "100", "cpuset.cpus": "0", "cpuset.mems": "0",
		"pids.max": "50", "hugetlb.2MB.max": "4194304", "hugetlb.2MB.rsvd.max": "4194304",
	})
	must(t, oci.Update(p.Cgroup, &specs.LinuxResources{
		Memory: &specs.LinuxMemory{Limit: ptr(int64(128 << 20)), Swap: ptr(int64(-1))},
		CPU:    &specs.LinuxCPU{Shares: ptr(uint64(1024)), Quota: ptr(int64(-1))}, Pids: &specs.LinuxPids{Limit: ptr(int64(-1))},
		Unified: map[string]string{"memory.high": "max"},
	}))
	wantFiles(t, b, map[string]string{
		"memory.max": "134217728", "memory.swap.max": "max", "memory.low": "33554432", "memory.high": "max",
		"cpu.max": "max 100000", "cpu.weight": "100", "pids.max": "max",
	})
	for name, bad := range map[string]*specs.LinuxResources{
		"no such file":  {Unified: map[string]string{"memory.nonsense": "1"}},
		"no such value": {Unified: map[string]string{"memory.max": "much"}},
		"no such CPU":   {CPU: &specs.LinuxCPU{Cpus: "900"}},
	} {
		t.Run(name, func(t *testing.T) {
			if err := oci.Update(p.Cgroup, bad); !errors.Is(err, errdefs.ErrInvalidArgument) && !errors.Is(err, errdefs.ErrNotImplemented) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	s, err := oci.ReadStats(p.Cgroup)
	must(t, err)
	if s.Memory.Usage == 0 || s.Memory.MaxUsage != 0 && s.Memory.MaxUsage < s.Memory.Usage || s.Memory.Limit != 128<<20 || !s.Memory.V2 || s.Memory.Stat["anon"] == 0 ||
		s.CPU.Usage == 0 || s.Pids.Current != 1 || s.Pids.Limit != 0 {
		t.Errorf("%+v", s)
	}
}

// TestUnifiedWeight: a kernel without BFQ takes the weight in the io controller's scale.
func TestUnifiedWeight(t *testing.T) {
	needsUnified(t)
	b := newBox(newRootfs(t), "sleep", "1000")
	b.opts.Spec.Linux.Resources.BlockIO = &specs.LinuxBlockIO{Weight: ptr(uint16(500))}
	p, err := oci.Create(t.Context(), &b.opts)
	if errors.Is(err, errdefs.ErrNotImplemented) {
		t.Skip(err) // neither
	}
	must(t, err)
	defer func() {
		must(t, oci.KillAll(p.Cgroup, unix.SIGKILL))
		wait(t, p)
		must(t, oci.DeleteCgroup(p.Cgroup))
	}()
	for file, want := range map[string]string{"io.bfq.weight": "default 500", "io.weight": "default 4950"} {
		if got, err := os.ReadFile(filepath.Join(dirOf(b), file)); err == nil && strings.TrimSpace(string(got)) != want {
			t.Errorf("%s: %s", file, got)
		} else if err == nil {
			return
		}
	}
	t.Error("neither file")
}

func TestUnifiedFreeze(t *testing.T) {
	needsUnified(t)
	p, b := running(t, newRootfs(t))
	must(t, oci.Pause(p.Cgroup))
	if s := fileOf(t, b, "cgroup.events"); !strings.Contains(s, "frozen 1") {
		t.Errorf("%q", s)
	}
	must(t, oci.Resume(p.Cgroup))
	if s := fileOf(t, b, "cgroup.events"); !strings.Contains(s, "frozen 0") {
		t.Errorf("%q", s)
	}
	must(t, oci.Pause(p.Cgroup)) // the end of the test kills it frozen
}

// TestUnifiedOOM: one process is killed, or with memory.oom.group all of them; both are told.
func TestUnifiedOOM(t *testing.T) {
	needsUnified(t)
	root := newRootfs(t)
	for _, group := range []string{"0", "1"} {
		t.Run(group, func(t *testing.T) {
			b := newBox(root, "sh", "-c", "read x; tail /dev/zero; echo survived $?")
			b.opts.Spec.Linux.Resources.Memory = &specs.LinuxMemory{Limit: ptr(int64(16 << 20)), Swap: ptr(int64(16 << 20))}
			b.opts.Spec.Linux.Resources.Unified = map[string]string{"memory.oom.group": group}
			in, go1, err := os.Pipe()
			must(t, err)
			b.opts.Stdio.In = in
			p, collect, err := b.start(t)
			must(t, err)
			in.Close()
			ev, err := oci.OOMEvents(p.Cgroup)
			must(t, err)
			_, err = go1.WriteString("\n")
			must(t, err)
			must(t, ev.SetReadDeadline(time.Now().Add(30*time.Second)))
			within(t, "the kill", func() bool {
				if _, err := ev.Read(make([]byte, 4096)); err != nil {
					t.Fatal(err)
				}
				n, err := oci.OOMCount(p.Cgroup)
				must(t, err)
				return n > 0
			})
			ev.Close()
			go1.Close()
			code, out := wait(t, p), collect()
			if group == "0" && (code != 0 || out != "Killed\nsurvived 137\n") || group == "1" && (code != 137 || out != "") {
				t.Errorf("group %s: %d %q", group, code, out)
			}
			must(t, oci.DeleteCgroup(p.Cgroup))
		})
	}
}

// TestUnifiedKill: cgroup.kill ends what forks all the time, in nested cgroups too.
func TestUnifiedKill(t *testing.T) {
	needsUnified(t)
	b := newBox(newRootfs(t), "sh", "-c", "mkdir /sys/fs/cgroup/deep && (echo 0 >/sys/fs/cgroup/deep/cgroup.procs; while :; do sleep 0.01 & done) & while :; do sleep 0.01 & wait $!; done")
	b.opts.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(200))}
	b.cgroupWritable()
	p, err := oci.Create(t.Context(), &b.opts)
	must(t, err)
	within(t, "the nested cgroup", func() bool {
		s, _ := os.ReadFile(dirOf(b) + "/deep/cgroup.procs")
		return len(s) > 0
	})
	must(t, oci.KillAll(p.Cgroup, syscall.SIGKILL))
	if code := wait(t, p); code != 137 {
		t.Errorf("%d", code)
	}
	if pids, err := oci.Pids(p.Cgroup); err != nil || len(pids) != 0 {
		t.Errorf("%v %v", pids, err)
	}
	must(t, oci.DeleteCgroup(p.Cgroup))
	if _, err := os.Stat(dirOf(b)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("left: %v", err)
	}
}

// TestUnifiedDelegation: the container passes controllers on to cgroups of its own;
// its cgroup holds no processes then, and an exec joins its first process.
func TestUnifiedDelegation(t *testing.T) {
	needsUnified(t)
	b := newBox(newRootfs(t), "sh", "-c", `cd /sys/fs/cgroup && mkdir init work && echo $$ >init/cgroup.procs &&
		echo +memory +pids >cgroup.subtree_control && echo 7 >work/pids.max && cat work/pids.max >/ready; exec sleep 1000`)
	b.cgroupWritable()
	b.opts.Spec.Linux.Resources.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
	p := sleeping(t, b)
	ready := filepath.Join(b.opts.Rootfs.Path, "ready")
	within(t, "delegation", func() bool { s, _ := os.ReadFile(ready); return string(s) == "7\n" })
	bothWays(t, func(t *testing.T, fresh bool) {
		out, code, err := execBy(t, p, b, &specs.Process{
			Args:         []string{"sh", "-c", "cat /proc/self/cgroup; mknod /tmp/m c 1 1; cat /tmp/m 2>&1 | grep -o 'not permitted'; rm /tmp/m"},
			Capabilities: &specs.LinuxCapabilities{Bounding: dockerCaps, Effective: dockerCaps, Permitted: dockerCaps},
		}, fresh, func(*oci.ExecOpts) {})
		if err != nil || code != 0 || out != "0::/init\nnot permitted\n" {
			t.Errorf("%q %d %v", out, code, err)
		}
	})
	if n, err := oci.Pids(p.Cgroup); err != nil || len(n) != 1 {
		t.Errorf("%v %v", n, err)
	}
	must(t, oci.Pause(p.Cgroup))
	if _, _, err := execIn(t, p, b, &specs.Process{Args: []string{"true"}}); !errors.Is(err, errdefs.ErrFailedPrecondition) {
		t.Errorf("paused: %v", err)
	}
	must(t, oci.Resume(p.Cgroup))
}

// TestUnifiedOwner: the container's user manages cgroups below his own, and changes no limit of it.
func TestUnifiedOwner(t *testing.T) {
	needsUnified(t)
	root := newRootfs(t)
	must(t, os.Chmod(root, 0o777))
	b := newBox(root, "sh", "-c", `cd /sys/fs/cgroup; mkdir sub && echo made; echo $$ >sub/cgroup.procs && cat /proc/self/cgroup; (echo max >pids.max) 2>/dev/null || echo kept`)
	b.cgroupWritable()
	b.opts.Spec.Process.User = specs.User{UID: 1000, GID: 1000}
	b.opts.Spec.Linux.Resources.Pids = &specs.LinuxPids{Limit: ptr(int64(100))}
	if out, code := b.run(t); out != "made\n0::/sub\nkept\n" || code != 0 {
		t.Errorf("%q %d", out, code)
	}
}

// TestUnifiedDevices: the eBPF program allows what the rules allow, and no more.
func TestUnifiedDevices(t *testing.T) {
	needsUnified(t)
	b := newBox(newRootfs(t), "sh", "-c", `mknod /tmp/zero c 1 5; mknod /tmp/mem c 1 1; mknod /tmp/ram b 1 0
		for d in zero mem ram; do head -c 1 /tmp/$d >/dev/null 2>&1 && echo $d; done; true`)
	for _, c := range []struct {
		rules []specs.LinuxDeviceCgroup
		want  string
	}{
		{[]specs.LinuxDeviceCgroup{{Access: "rwm"}}, "zero\n"},
		{[]specs.LinuxDeviceCgroup{{Access: "rwm"}, {Allow: true, Type: "c", Major: ptr(int64(1)), Minor: ptr(int64(1)), Access: "r"}}, "zero\nmem\n"},
		{[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}}, "zero\nmem\nram\n"},
		{[]specs.LinuxDeviceCgroup{{Allow: true, Access: "rwm"}, {Type: "b", Access: "r"}}, "zero\nmem\n"},
	} {
		t.Run(c.want, func(t *testing.T) {
			b.opts.Spec.Linux.Resources.Devices = c.rules
			b.opts.Spec.Process.Capabilities.Bounding = append(dockerCaps, "CAP_SYS_RAWIO")
			b.opts.Spec.Process.Capabilities.Permitted = b.opts.Spec.Process.Capabilities.Bounding
			b.opts.Spec.Process.Capabilities.Effective = b.opts.Spec.Process.Capabilities.Bounding
			if out, code := b.run(t); out != c.want || code != 0 {
				t.Errorf("%+v: %q %d, want %q", c.rules, out, code, c.want)
			}
			must(t, os.RemoveAll(filepath.Join(b.opts.Rootfs.Path, "tmp")))
			must(t, os.Mkdir(filepath.Join(b.opts.Rootfs.Path, "tmp"), 0o777))
		})
	}
}
