package oci_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// reachable makes root and all above it enterable for other users, and gives the
// tree to an owner.
func reachable(t testing.TB, root string, uid int) {
	t.Helper()
	must(t, filepath.Walk(root, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, uid, uid)
	}))
	for d := filepath.Dir(root); d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
}

func (b *box) userNS(host uint32) {
	l := b.opts.Spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: host, Size: 65536}}
	l.GIDMappings = l.UIDMappings
}

func TestIDMappedMounts(t *testing.T) {
	root := newRootfs(t)
	src := filepath.Join(t.TempDir(), "private", "src")
	must(t, os.MkdirAll(src, 0o755))
	must(t, os.WriteFile(filepath.Join(src, "f"), nil, 0o644))
	must(t, os.Lchown(filepath.Join(src, "f"), 1000, 1000))
	must(t, os.Chmod(filepath.Dir(src), 0o700)) // for the host's root only
	own := []specs.LinuxIDMapping{{ContainerID: 1000, HostID: 2000, Size: 1}}
	bind := func(opts ...string) specs.Mount {
		return specs.Mount{Destination: "/m", Type: "bind", Source: src, Options: append([]string{"bind"}, opts...)}
	}
	mapped := bind()
	mapped.UIDMappings, mapped.GIDMappings = own, own
	rec := mapped
	rec.Options = []string{"rbind", "ridmap", "ro"}
	for name, c := range map[string]struct {
		m     specs.Mount
		inner bool
		want  string
	}{
		"given":         {mapped, false, "2000 2000\n"},
		"given, rec":    {rec, false, "2000 2000\n"},
		"container's":   {bind("idmap"), true, "1000 1000\n"},
		"none":          {bind(), false, "1000 1000\n"},
		"none, in user": {bind("idmap", "ro"), true, "1000 1000\n"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(root, "stat", "-c", "%u %g", "/m/f")
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, c.m)
			if c.inner {
				reachable(t, root, 100000)
				b.userNS(100000)
			}
			if out, code := b.run(t); out != c.want || code != 0 {
				t.Errorf("%s: %q %d, want %q", name, out, code, c.want)
			}
			if c.inner {
				reachable(t, root, 0)
			}
		})
	}
	half := bind()
	half.UIDMappings = own
	for name, m := range map[string]specs.Mount{"no mapping": bind("idmap"), "half": half} {
		t.Run(name, func(t *testing.T) {
			b := newBox(root, "true")
			b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, m)
			if _, _, err := b.tryRun(t); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	b := newBox(root, "true")
	tmp := specs.Mount{Destination: "/t", Type: "tmpfs", Source: "tmpfs", UIDMappings: own, GIDMappings: own}
	b.opts.Spec.Mounts = append(b.opts.Spec.Mounts, tmp)
	if _, _, err := b.tryRun(t); !errors.Is(err, errdefs.ErrNotImplemented) {
		t.Errorf("tmpfs: %v", err)
	}
}

func TestTimeNamespace(t *testing.T) {
	needsTimeNS(t)
	root := newRootfs(t)
	b := newBox(root, "sh", "-c", "cat /proc/self/timens_offsets; cut -d. -f1 /proc/uptime")
	l := b.opts.Spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.TimeNamespace})
	l.TimeOffsets = map[string]specs.LinuxTimeOffset{"monotonic": {Secs: 1000, Nanosecs: 5}, "boottime": {Secs: 1000000}}
	out, code := b.run(t)
	f := strings.Fields(out)
	if code != 0 || len(f) != 7 || strings.Join(f[:6], " ") != "monotonic 1000 5 boottime 1000000 0" || len(f[6]) < 7 {
		t.Errorf("%q %d", out, code)
	}
	l.TimeOffsets = map[string]specs.LinuxTimeOffset{"realtime": {Secs: 1}}
	if _, _, err := b.tryRun(t); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("realtime: %v", err)
	}
	l.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: -1 << 40}}
	if _, _, err := b.tryRun(t); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("before boot: %v", err)
	}
}

func TestTuning(t *testing.T) {
	root := newRootfs(t)
	b := newBox(root, "sh", "-c", "uname -m; ionice; awk '{print $19, $41}' /proc/self/stat")
	p := b.opts.Spec.Process
	p.Scheduler = &specs.Scheduler{Policy: specs.SchedBatch, Nice: 7}
	p.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 6}
	b.opts.Spec.Linux.Personality = &specs.LinuxPersonality{Domain: specs.PerLinux32}
	b.opts.Spec.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "0"}
	if out, code := b.run(t); out != "i686\nbest-effort: prio 6\n7 3\n" || code != 0 {
		t.Errorf("%q %d", out, code)
	}
	fifo := newBox(root, "awk", "{print $40, $41}", "/proc/self/stat")
	fifo.opts.Spec.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedFIFO, Priority: 9, Flags: []specs.LinuxSchedulerFlag{specs.SchedFlagResetOnFork}}
	if out, code, err := fifo.tryRun(t); err == nil && (out != "9 1\n" || code != 0) {
		t.Errorf("fifo: %q %d", out, code)
	} else if err != nil {
		t.Logf("fifo: %v", err) // without a real-time budget in the cgroup
	}
	run, rb := running(t, root)
	out, _, err := execBy(t, run, rb, &specs.Process{
		Args:            []string{"grep", "Cpus_allowed_list", "/proc/self/status"},
		ExecCPUAffinity: &specs.CPUAffinity{Initial: "0", Final: "0"},
	}, true, func(o *oci.ExecOpts) { o.Fresh = false }) // that is init's work
	if err != nil || out != "Cpus_allowed_list:\t0\n" {
		t.Errorf("affinity: %q %v", out, err)
	}
}

func TestRefusedSettings(t *testing.T) {
	root := newRootfs(t)
	for name, c := range map[string]struct {
		set   func(*specs.Spec)
		class error
		text  string
	}{
		"rdt":      {func(s *specs.Spec) { s.Linux.IntelRdt = &specs.LinuxIntelRdt{ClosID: "x"} }, errdefs.ErrNotImplemented, "RDT"},
		"label":    {func(s *specs.Spec) { s.Process.SelinuxLabel = "system_u:system_r:x:s0" }, errdefs.ErrInvalidArgument, "selinux"},
		"apparmor": {func(s *specs.Spec) { s.Process.ApparmorProfile = "docker-default" }, errdefs.ErrInvalidArgument, "apparmor"},
		"domain":   {func(s *specs.Spec) { s.Linux.Personality = &specs.LinuxPersonality{Domain: "BSD"} }, errdefs.ErrInvalidArgument, "BSD"},
		"policy":   {func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: "X"} }, errdefs.ErrInvalidArgument, "X"},
		"nice":     {func(s *specs.Spec) { s.Process.Scheduler = &specs.Scheduler{Policy: specs.SchedOther, Nice: 20} }, errdefs.ErrInvalidArgument, "nice"},
		"ionice": {func(s *specs.Spec) {
			s.Process.IOPriority = &specs.LinuxIOPriority{Class: specs.IOPRIO_CLASS_BE, Priority: 8}
		}, errdefs.ErrInvalidArgument, "8"},
		"memory": {func(s *specs.Spec) { s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: "MPOL_X"} }, errdefs.ErrInvalidArgument, "MPOL_X"},
		"nodes": {func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "3-1"}
		}, errdefs.ErrInvalidArgument, "3-1"},
		"no such node": {func(s *specs.Spec) {
			s.Linux.MemoryPolicy = &specs.LinuxMemoryPolicy{Mode: specs.MpolBind, Nodes: "900"}
		}, errdefs.ErrInvalidArgument, "memory policy"},
		"offsets": {func(s *specs.Spec) { s.Linux.TimeOffsets = map[string]specs.LinuxTimeOffset{"boottime": {Secs: 1}} }, errdefs.ErrInvalidArgument, "time namespace"},
		"no map": {func(s *specs.Spec) {
			s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
		}, errdefs.ErrInvalidArgument, "mappings"},
		"agent": {func(s *specs.Spec) {
			s.Linux.Seccomp = &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Syscalls: []specs.LinuxSyscall{{Names: []string{"mkdir"}, Action: specs.ActNotify}}}
		}, errdefs.ErrInvalidArgument, "listenerPath"},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBox(root, "true")
			c.set(b.opts.Spec)
			_, _, err := b.tryRun(t)
			if !errors.Is(err, c.class) || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
