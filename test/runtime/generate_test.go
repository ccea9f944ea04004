package runtime

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// generator makes random specs of what all runtimes understand the same way. Not in
// it, since the others do otherwise on purpose: inheritable capabilities, which
// ours never sets, and with them ambient ones; program paths that do not exist.
type generator struct {
	*rand.Rand
	// host is a directory whose entries are bound: dir, with a file, and file.
	host string
}

func (g generator) chance(percent int) bool { return g.IntN(100) < percent }

func pick[T any](g generator, from ...T) T { return from[g.IntN(len(from))] }

// some picks each entry with the chance given, in a random order.
func some[T any](g generator, percent int, from ...T) []T {
	var out []T
	for _, i := range g.Perm(len(from)) {
		if g.chance(percent) {
			out = append(out, from[i])
		}
	}
	return out
}

func (g generator) spec() *specs.Spec {
	s := &specs.Spec{
		Version: "1.0.2", Root: &specs.Root{Path: "rootfs", Readonly: g.chance(30)}, Hostname: pick(g, "box", "h-1.example"),
		Process: g.process(), Mounts: g.mounts(), Linux: g.linux(),
	}
	if g.chance(15) {
		g.userNamespace(s)
	}
	return s
}

func (g generator) process() *specs.Process {
	p := &specs.Process{
		Args: []string{"/bin/sh", "-c", probe}, Cwd: pick(g, "/", "/", "/tmp", "/bin", "/link"),
		Env:             append([]string{"PATH=/bin"}, some(g, 40, "A=1", "B=two words", "EMPTY=", "HOME=/tmp", "A=again", "TERM=xterm")...),
		User:            specs.User{UID: pick[uint32](g, 0, 0, 0, 1000, 65534, 7), GID: pick[uint32](g, 0, 0, 100, 65534)},
		NoNewPrivileges: g.chance(50),
	}
	p.User.AdditionalGids = some(g, 30, uint32(0), 10, 20, 1000, 99999)
	if g.chance(30) {
		p.User.Umask = ptr(pick[uint32](g, 0, 0o22, 0o77, 0o27, 0o777))
	}
	if g.chance(90) {
		held := some(g, 60, "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID",
			"CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE", "CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_TIME")
		p.Capabilities = &specs.LinuxCapabilities{Bounding: held, Permitted: some(g, 80, held...)}
		p.Capabilities.Effective = some(g, 90, p.Capabilities.Permitted...)
	}
	for _, l := range some(g, 20, "RLIMIT_CORE", "RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_STACK", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE", "RLIMIT_CPU") {
		hard := uint64(200 + g.IntN(3000))
		if l == "RLIMIT_STACK" || l == "RLIMIT_FSIZE" {
			hard <<= 12
		}
		p.Rlimits = append(p.Rlimits, specs.POSIXRlimit{Type: l, Hard: hard, Soft: hard / uint64(1+g.IntN(2))})
	}
	if g.chance(50) {
		p.OOMScoreAdj = ptr(g.IntN(1001))
	}
	return p
}

func (g generator) mounts() []specs.Mount {
	ms := []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc", Options: some(g, 60, "nosuid", "noexec", "nodev")},
		{Destination: "/dev", Type: "tmpfs", Source: "tmpfs", Options: []string{"nosuid", pick(g, "strictatime", "noatime"), "mode=755", "size=65536k"}},
		{Destination: "/dev/pts", Type: "devpts", Source: "devpts", Options: []string{"nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"}},
	}
	flags := func() []string {
		return some(g, 25, "nosuid", "nodev", "noexec", "noatime", "nodiratime", pick(g, "ro", "rw"), pick(g, "private", "rprivate", "slave", "rslave", "shared", "rshared"))
	}
	dir, file := filepath.Join(g.host, "dir"), filepath.Join(g.host, "file")
	return append(ms, some(g, 35,
		specs.Mount{Destination: "/dev/shm", Type: "tmpfs", Source: "shm", Options: append(flags(), "mode=1777", "size=1m")},
		specs.Mount{Destination: "/dev/mqueue", Type: "mqueue", Source: "mqueue", Options: []string{"nosuid", "noexec", "nodev"}},
		specs.Mount{Destination: "/sys", Type: "sysfs", Source: "sysfs", Options: []string{"nosuid", "noexec", "nodev", pick(g, "ro", "rw")}},
		specs.Mount{Destination: "/t1", Type: "tmpfs", Source: "tmpfs", Options: append(flags(), some(g, 50, "size=64k", "mode=700", "nr_inodes=50")...)},
		specs.Mount{Destination: "/t2", Type: "tmpfs", Source: "named", Options: flags()},
		specs.Mount{Destination: "/b1", Type: "bind", Source: dir, Options: append(flags(), "bind")},
		specs.Mount{Destination: "/b2", Type: "none", Source: dir, Options: append(flags(), "rbind")},
		specs.Mount{Destination: "/f1", Type: "bind", Source: file, Options: append(flags(), "bind")},
		specs.Mount{Destination: "/link/deep", Type: "tmpfs", Source: "tmpfs", Options: flags()},
	)...)
}

func (g generator) linux() *specs.Linux {
	l := &specs.Linux{
		CgroupsPath: "/gruntime-differ", Resources: g.resources(),
		Namespaces:        []specs.LinuxNamespace{{Type: specs.MountNamespace}, {Type: specs.PIDNamespace}, {Type: specs.UTSNamespace}, {Type: specs.IPCNamespace}, {Type: specs.NetworkNamespace}},
		MaskedPaths:       some(g, 40, "/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/scsi", "/proc/acpi", "/sys/firmware", "/nosuch"),
		ReadonlyPaths:     some(g, 40, "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/nosuch"),
		RootfsPropagation: pick(g, "", "", "rprivate", "private", "rslave", "slave"),
	}
	if g.chance(30) {
		l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.CgroupNamespace})
	}
	for _, kv := range some(g, 25, "kernel.msgmax=4321", "kernel.shm_rmid_forced=1", "net.ipv4.ip_forward=1", "net.ipv4.ip_unprivileged_port_start=77", "kernel.sem=100 200 300 40") {
		if l.Sysctl == nil {
			l.Sysctl = make(map[string]string)
		}
		for i := range kv {
			if kv[i] == '=' {
				l.Sysctl[kv[:i]] = kv[i+1:]
				break
			}
		}
	}
	for i, d := range some(g, 30, "/dev/fuse", "/dev/deep/er", "/dev/mem2") {
		l.Devices = append(l.Devices, specs.LinuxDevice{
			Path: d, Type: pick(g, "c", "b"), Major: 10, Minor: int64(229 + i),
			FileMode: ptr(pick[os.FileMode](g, 0o600, 0o666, 0o640)), UID: ptr(pick[uint32](g, 0, 1000)), GID: ptr(pick[uint32](g, 0, 5)),
		})
	}
	if g.chance(50) {
		l.Seccomp = g.seccomp()
	}
	return l
}

func (g generator) resources() *specs.LinuxResources {
	r := new(specs.LinuxResources)
	if g.chance(60) {
		r.Devices = []specs.LinuxDeviceCgroup{{Allow: false, Access: "rwm"}}
		for range g.IntN(3) {
			r.Devices = append(r.Devices, specs.LinuxDeviceCgroup{Allow: true, Type: pick(g, "c", "b"), Major: ptr(pick[int64](g, 10, 1, 8)), Minor: ptr(int64(g.IntN(9))), Access: pick(g, "r", "rw", "rwm", "m")})
		}
	}
	if g.chance(40) {
		r.Memory = &specs.LinuxMemory{Limit: ptr(int64(64+g.IntN(64)) << 20)}
		if g.chance(50) {
			r.Memory.Reservation = ptr(int64(32 << 20))
		}
		if g.chance(50) {
			r.Memory.Swap = ptr(*r.Memory.Limit * 2)
		}
	}
	if g.chance(40) {
		r.CPU = &specs.LinuxCPU{Shares: ptr(uint64(100 + g.IntN(2000)))}
		if g.chance(50) {
			r.CPU.Period, r.CPU.Quota = ptr(uint64(100000)), ptr(int64(50000+g.IntN(100000)))
		}
		if g.chance(50) {
			r.CPU.Cpus, r.CPU.Mems = "0", "0"
		}
	}
	if g.chance(40) {
		r.Pids = &specs.LinuxPids{Limit: ptr(int64(50 + g.IntN(1000)))}
	}
	return r
}

// seccomp makes rules for calls that the probe makes, with errors it can tell.
func (g generator) seccomp() *specs.LinuxSeccomp {
	s := &specs.LinuxSeccomp{DefaultAction: specs.ActAllow, Architectures: []specs.Arch{specs.ArchX86_64, specs.ArchX86}[:1+g.IntN(2)]}
	for _, names := range some(g, 50, []string{"mkdir", "mkdirat"}, []string{"chmod", "fchmodat"}, []string{"symlink", "symlinkat", "nosuchcall"},
		[]string{"rmdir"}, []string{"link", "linkat"}, []string{"mknod", "mknodat"}, []string{"sethostname"}, []string{"kill"}, []string{"chroot"}) {
		rule := specs.LinuxSyscall{Names: names, Action: specs.ActErrno, ErrnoRet: ptr(pick[uint](g, 1, 13, 38, 28, 5))}
		switch names[0] {
		case "chmod":
			// busybox calls chmod(path, mode): the mode is the second argument.
			rule.Names = names[:1]
			op := pick(g, specs.OpEqualTo, specs.OpNotEqual, specs.OpLessThan, specs.OpLessEqual, specs.OpGreaterThan, specs.OpGreaterEqual, specs.OpMaskedEqual)
			a := specs.LinuxSeccompArg{Index: 1, Value: 0o644, Op: op}
			if op == specs.OpMaskedEqual {
				a.Value, a.ValueTwo = 0o600, 0o400
			}
			rule.Args = []specs.LinuxSeccompArg{a}
		case "kill":
			rule.Args = []specs.LinuxSeccompArg{{Index: 1, Value: pick[uint64](g, 0, 10, 1<<32), Op: specs.OpEqualTo}, {Index: 0, Value: 0, Op: specs.OpNotEqual}}
		}
		s.Syscalls = append(s.Syscalls, rule)
	}
	return s
}

func (g generator) userNamespace(s *specs.Spec) {
	s.Linux.Namespaces = append(s.Linux.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	s.Linux.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	s.Linux.GIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 200000, Size: 65536}}
	s.Linux.Devices = nil
	s.Process.User.AdditionalGids = nil
}

func ptr[T any](v T) *T { return &v }

// probe prints what a program can see of its surroundings, in sections.
const probe = `sec() { echo "## $1"; }
sec id; grep -E '^(Uid|Gid|Groups|Cap...|NoNewPrivs|Seccomp|Seccomp_filters|Cpus_allowed_list|Umask):' /proc/self/status
sec limits; cat /proc/self/limits
sec oom; cat /proc/self/oom_score_adj
sec slack; cat /proc/self/timerslack_ns
sec env; env | grep -v -E '^(SHLVL|_|PWD|OLDPWD)=' | sort
sec cwd; pwd -P; umask
sec names; hostname; cat /proc/sys/kernel/domainname
sec ns; for n in mnt pid uts ipc net cgroup user time; do echo $n $(readlink /proc/self/ns/$n); done
sec mountinfo; cat /proc/self/mountinfo
sec cgroup; cat /proc/self/cgroup
sec dev; find /dev | sort | xargs -n 50 stat -c '%n %F %a %u %g %t:%T' 2>&1; for l in fd stdin stdout stderr core ptmx; do echo $l $(readlink /dev/$l); done
sec root; for d in / /tmp /t1 /t2 /b1 /b2 /f1 /proc /sys /dev/shm /link/deep /dev/mqueue; do stat -c '%n %F %a %u %g' $d; done 2>&1
sec write; for d in / /t1 /t2 /b1 /b2 /dev /dev/shm /sys /proc/sys/kernel /tmp; do touch $d/w && echo $d ok && rm $d/w; done 2>&1; cat /f1 /b1/in /b2/in 2>&1
sec sysctl; cat /proc/sys/kernel/msgmax /proc/sys/kernel/shm_rmid_forced /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv4/ip_unprivileged_port_start /proc/sys/kernel/sem 2>&1
sec masked; for f in /proc/kcore /proc/keys /proc/timer_list /proc/scsi /proc/acpi /sys/firmware; do stat -c '%n %F %t:%T' $f 2>&1; done
sec net; cat /proc/net/dev | cut -d: -f1; cat /sys/class/net/lo/flags 2>&1
sec verdicts; cd /dev/pts; cd /tmp
try() { "$@" >/dev/null 2>/tmp/e; s=$?; echo "$1 $2 $s $(cat /tmp/e 2>/dev/null)"; }
try mkdir /tmp/d; try touch /tmp/f; try chmod 644 /tmp/f; try chmod 600 /tmp/f; try chmod 755 /tmp/f; try ln -s x /tmp/l; try ln /tmp/f /tmp/h; try rmdir /tmp/d
try mknod /tmp/n c 1 3; try mknod /tmp/p p; try hostname changed; try kill -0 1; try chroot / /bin/true; try chown 5 /tmp/f; try mount -t tmpfs x /tmp; try setpriv --nnp true
rm -rf /tmp/d /tmp/f /tmp/l /tmp/h /tmp/n /tmp/p /tmp/e
sec devices; for d in null zero full random urandom tty fuse mem2 deep/er; do head -c 0 /dev/$d >/dev/null 2>/tmp/e; echo $d $? $(cat /tmp/e 2>/dev/null); done; rm -f /tmp/e
sec fds; ls /proc/self/fd; readlink /proc/self/exe; tr '\0' ' ' </proc/1/cmdline | head -c 20
sec end
`

// write makes the bundle's tree and the host directory for binds.
func (g generator) write(bundle string) error {
	for _, d := range []string{"proc", "dev", "sys", "tmp", "t1", "t2", "b1", "b2", "real/deep", "etc"} {
		if err := os.MkdirAll(filepath.Join(bundle, "rootfs", d), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"f1": "", "etc/passwd": "root:x:0:0::/root:/bin/sh\nu:x:1000:1000::/home/u:/bin/sh\n", "etc/group": "root:x:0:\n"} {
		if err := os.WriteFile(filepath.Join(bundle, "rootfs", name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := os.Symlink("real", filepath.Join(bundle, "rootfs/link")); err != nil {
		return err
	}
	if err := os.Chmod(filepath.Join(bundle, "rootfs/tmp"), 0o1777); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(g.host, "dir"), 0o755); err != nil {
		return err
	}
	for _, f := range []string{"dir/in", "file"} {
		if err := os.WriteFile(filepath.Join(g.host, f), []byte(fmt.Sprintln("bound", f)), 0o644); err != nil {
			return err
		}
	}
	return nil
}
