package plan

import (
	"path"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/seccomp"
	"github.com/gantry/gantry/oci/plan/tuning"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Container is what is planned: oci.CreateOpts, as far as the message for init depends on
// it.
type Container struct {
	ID     string
	Spec   *specs.Spec // with Linux
	Rootfs Rootfs
	// Seccomp is the compiled filter with its flags; nil: the spec's is compiled.
	Seccomp      []byte
	SeccompFlags uint32
	ConsoleSize  WinSize
	// WaitGo has init wait before execve, Reaper stay as pid 1.
	WaitGo, Reaper bool
}

// Rootfs says what the container's root is made of. Exactly one of Path and
// Overlay is set. The overlay is mounted inside the container's own mount
// namespace: nothing of it shows in the host's mount table.
type Rootfs struct {
	// Path is a directory of the host that is the root as it is.
	Path string `json:"path,omitempty"`
	// Overlay is an overlay file system to assemble.
	Overlay *Overlay `json:"overlay,omitempty"`
	// Readonly remounts the assembled root read-only after set-up (--read-only).
	Readonly bool `json:"readonly,omitempty"`
}

// Overlay is an overlay mount: directories of the host, lowest layer last, as
// in the lowerdir option of overlayfs (kernel Documentation/filesystems/overlayfs.rst).
type Overlay struct {
	Lower []string `json:"lower"`
	Upper string   `json:"upper,omitempty"`
	Work  string   `json:"work,omitempty"`
	// Volatile says that Upper need not survive the machine's end: nothing of it is forced to the disk.
	Volatile bool `json:"volatile,omitempty"`
}

// WinSize is a terminal size in characters (tty_ioctl(4), TIOCSWINSZ).
type WinSize struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Machine is what a plan has to know of the machine.
type Machine struct {
	// SELinux and AppArmor tell that the kernel has them on.
	SELinux, AppArmor bool
	// Capabilities can be given, by their numbers' bits.
	Capabilities uint64
}

// Cgroups are what the mounts of a container need to know of its cgroups.
type Cgroups struct {
	V1 []initmsg.KV // see initmsg.Mount.Binds
	V2 string       // host directory, pure v2
}

// NSFlag returns the CLONE_NEW* flag of a namespace type, 0 for unknown ones.
func NSFlag(t specs.LinuxNamespaceType) uintptr {
	switch t {
	case specs.PIDNamespace:
		return unix.CLONE_NEWPID
	case specs.NetworkNamespace:
		return unix.CLONE_NEWNET
	case specs.MountNamespace:
		return unix.CLONE_NEWNS
	case specs.IPCNamespace:
		return unix.CLONE_NEWIPC
	case specs.UTSNamespace:
		return unix.CLONE_NEWUTS
	case specs.CgroupNamespace:
		return unix.CLONE_NEWCGROUP
	case specs.UserNamespace:
		return unix.CLONE_NEWUSER
	case specs.TimeNamespace:
		return unix.CLONE_NEWTIME
	}
	return 0
}

// Create translates a spec into the message for init. Namespaces are not in it. Class
// InvalidArgument for an invalid spec.
func Create(o *Container, cg *Cgroups, on Machine) (*initmsg.Message, error) {
	s := o.Spec
	if err := CheckLabels(s.Process, on); err != nil {
		return nil, err
	}
	p, err := Process(s.Process, s.Linux.Seccomp, o.Seccomp, o.SeccompFlags, o.ConsoleSize, on)
	if err != nil {
		return nil, err
	}
	m := &initmsg.Message{
		ID: o.ID, WaitGo: o.WaitGo, Reaper: o.Reaper, Hostname: s.Hostname, Domainname: s.Domainname,
		MaskedPaths: s.Linux.MaskedPaths, ReadonlyPaths: s.Linux.ReadonlyPaths, Process: *p, SetupDev: true,
	}
	if err := tuning.Process(s.Process, false, &m.Process.Tuning); err != nil {
		return nil, err
	}
	if err := tuning.Placement(s.Linux.Personality, s.Linux.MemoryPolicy, &m.Process.Tuning); err != nil {
		return nil, err
	}
	if m.Root, err = Root(&o.Rootfs, s); err != nil {
		return nil, err
	}
	for i := range s.Mounts {
		pm, err := Mount(&s.Mounts[i], cg)
		if err != nil {
			return nil, err
		}
		pm.Index = uint32(i) + 1
		if on.SELinux {
			labelMount(&pm, s.Linux.MountLabel)
		}
		if pm.Kind == initmsg.KindBind && pm.Dest == "/dev" {
			m.SetupDev = false // the host's own /dev is as it is
		}
		m.Mounts = append(m.Mounts, pm)
	}
	if m.SetupDev && !slices.ContainsFunc(m.Mounts, func(x initmsg.Mount) bool { return x.Dest == "/dev" }) {
		m.Mounts = withDev(m.Mounts)
	}
	if m.SetupDev {
		if m.Devices, err = Devices(s.Linux.Devices); err != nil {
			return nil, err
		}
	}
	if m.Sysctl, err = Sysctl(s.Linux.Sysctl); err != nil {
		return nil, err
	}
	return m, nil
}

// withDev adds a /dev for specs without: nodes are never made in the image's tree.
func withDev(ms []initmsg.Mount) []initmsg.Mount {
	dev := initmsg.Mount{
		Kind: initmsg.KindFS, Type: "tmpfs", Source: "tmpfs", Dest: "/dev", NoSymlinks: true,
		Set: unix.MOUNT_ATTR_NOSUID, Data: []initmsg.KV{{Key: "mode", Value: "755"}, {Key: "size", Value: "65536k"}},
	}
	at := slices.IndexFunc(ms, func(m initmsg.Mount) bool { return strings.HasPrefix(m.Dest, "/dev/") })
	if at < 0 {
		at = len(ms)
	}
	return slices.Insert(ms, at, dev)
}

// Process turns a process of a spec into the message for init. prog and flags are a compiled
// filter; without one sc is compiled. Class InvalidArgument for an invalid process.
func Process(p *specs.Process, sc *specs.LinuxSeccomp, prog []byte, flags uint32, size WinSize, on Machine) (*initmsg.Process, error) {
	switch {
	case p == nil:
		return nil, errclass.Invalid("process property must not be empty")
	case len(p.Args) == 0:
		return nil, errclass.Invalid("args must not be empty")
	case p.Cwd == "":
		return nil, errclass.Invalid("Cwd property must not be empty")
	case !path.IsAbs(p.Cwd):
		return nil, errclass.Invalid("Cwd must be an absolute path")
	case p.User.UID == 1<<32-1 || p.User.GID == 1<<32-1:
		return nil, errclass.Invalid("uid and gid must be below 4294967295")
	}
	for _, s := range slices.Concat(p.Args, p.Env, []string{p.Cwd}) {
		if strings.IndexByte(s, 0) >= 0 {
			return nil, errclass.Invalid("arguments, environment and working directory must not contain a zero byte")
		}
	}
	out := &initmsg.Process{
		Terminal: p.Terminal, Rows: uint32(size.Rows), Cols: uint32(size.Cols), Args: p.Args, Env: p.Env,
		Cwd: path.Clean(p.Cwd), UID: p.User.UID, GID: p.User.GID, Groups: p.User.AdditionalGids,
		NoNewPrivs: p.NoNewPrivileges, AppArmor: p.ApparmorProfile, SELinux: p.SelinuxLabel,
		Seccomp: prog, SeccompFlags: uint64(flags),
	}
	if u := p.User.Umask; u != nil {
		out.HasUmask, out.Umask = true, *u
	}
	if size == (WinSize{}) && p.ConsoleSize != nil {
		out.Rows, out.Cols = uint32(min(p.ConsoleSize.Height, 1<<16-1)), uint32(min(p.ConsoleSize.Width, 1<<16-1))
	}
	var err error
	if out.Caps, err = capabilities(p.Capabilities, on.Capabilities); err != nil {
		return nil, err
	}
	if out.Rlimits, err = Rlimits(p.Rlimits); err != nil {
		return nil, err
	}
	if prog == nil && sc != nil {
		var f uint32
		if out.Seccomp, f, err = seccomp.Compile(sc); err != nil {
			return nil, err
		}
		out.SeccompFlags = uint64(f)
	}
	if len(out.Seccomp)%8 != 0 || len(out.Seccomp) > 8*unix.BPF_MAXINSNS {
		return nil, errclass.Invalid("seccomp program of %d bytes", len(out.Seccomp))
	}
	return out, nil
}

// capNames are in the order of the kernel's numbers (linux/capability.h).
var capNames = [...]string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

// CapabilityNames are all capabilities of this kernel's interface by number, without CAP_.
func CapabilityNames() []string { return capNames[:] }

// capabilities turns names into masks. Names this runtime does not know are ignored,
// as runc does: a capability that nobody can name is one that nobody gets. What
// the runtime itself does not hold cannot be given either.
func capabilities(c *specs.LinuxCapabilities, own uint64) (initmsg.Caps, error) {
	if c == nil {
		return initmsg.Caps{}, nil
	}
	mask := func(names []string) (m uint64) {
		for _, n := range names {
			if i := slices.Index(capNames[:], strings.TrimPrefix(strings.ToUpper(n), "CAP_")); i >= 0 {
				m |= 1 << i
			}
		}
		return m & own
	}
	out := initmsg.Caps{Bounding: mask(c.Bounding), Effective: mask(c.Effective), Permitted: mask(c.Permitted), Ambient: mask(c.Ambient)}
	if out.Effective&^out.Permitted != 0 {
		return out, errclass.Invalid("capabilities: the effective set must be part of the permitted set")
	}
	return out, nil
}

// CheckLabels refuses labels of a process that no security module of the machine is for.
// Class InvalidArgument.
func CheckLabels(p *specs.Process, on Machine) error {
	if p != nil && p.SelinuxLabel != "" && !on.SELinux {
		return errclass.Invalid("selinux label is specified in config, but selinux is disabled or not supported")
	}
	if p != nil && p.ApparmorProfile != "" && p.ApparmorProfile != "unconfined" && !on.AppArmor {
		return errclass.Invalid("apparmor profile %q is specified in config, but apparmor is not enabled on this machine", p.ApparmorProfile)
	}
	return nil
}
