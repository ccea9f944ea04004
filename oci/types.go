// Package oci is Gantry's OCI runtime as a library: it turns an OCI runtime spec
// into processes. It knows namespaces, cgroups, mounts, capabilities and seccomp;
// it knows nothing of images, networks' addressing, HTTP or the engine.
//
// Sources: OCI runtime-spec v1.3; clone(2), pidfd_open(2), mount_setattr(2),
// fsopen(2), seccomp(2), capabilities(7), cgroups(7).
package oci

import (
	"os"

	"github.com/gantry/gantry/oci/plan"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

type (
	// Rootfs says what a container's root is made of.
	Rootfs = plan.Rootfs
	// Overlay is an overlay mount.
	Overlay = plan.Overlay
	// WinSize is a terminal size in characters.
	WinSize = plan.WinSize
)

// Stdio are the three standard streams of a process without a terminal, as the
// process sees them. The caller keeps ownership and closes them after the call.
type Stdio struct {
	In, Out, Err *os.File
}

// CreateOpts describes a container to make. Files stay the caller's: Create
// duplicates what it needs before it returns, and closes nothing it was given.
type CreateOpts struct {
	ID     string
	Spec   *specs.Spec
	Rootfs Rootfs
	// Seccomp is the compiled classic-BPF program (8 bytes an instruction, host
	// order) to load instead of compiling Spec.Linux.Seccomp. Nil: compile that.
	Seccomp []byte
	// SeccompFlags are the SECCOMP_FILTER_FLAG_* for Seccomp.
	SeccompFlags uint32
	// Namespaces to join by descriptor; they win over the spec's paths.
	Namespaces map[specs.LinuxNamespaceType]*os.File
	// Stdio is used when Spec.Process.Terminal is false.
	Stdio Stdio
	// ConsoleSize is the first size of the terminal when Terminal is true.
	ConsoleSize WinSize
	// Hold stops the container's init right before execve until
	// Process.Release is called (OCI "created" state). Without it Create
	// returns only when the program runs, or failed to.
	Hold bool
	// InitReaper keeps a small process of ours as pid 1 (--init): it starts the
	// program, passes signals on, reaps orphans and ends with the program's status.
	// It has the program's own credentials and shows as /sbin/docker-init.
	InitReaper bool
	// StartSocket, with Hold, is what the held init waits on instead of
	// Process.Release: a listening socket made by ListenStart. Any later process
	// calls StartHeld; this one may end.
	StartSocket *os.File
	// Preserve are descriptors that the program gets as 3, 4, ….
	Preserve []*os.File
	// NoPivot makes the root by chroot(2) where pivot_root(2) refuses (a ramdisk).
	NoPivot bool
	// NoNewKeyring leaves the program the caller's session keyring.
	NoNewKeyring bool
	// Fresh has the process start through a fresh init, also where a program of system
	// calls would do, which is cheaper. Nothing else differs.
	Fresh bool
	// SystemdCgroup has systemd make the cgroup, as a unit: the spec's cgroupsPath is
	// slice:prefix:name then, and annotations org.systemd.property.NAME are properties
	// of the unit.
	SystemdCgroup bool
	// Bundle is the path that hooks are told. Create runs the hooks prestart,
	// createRuntime, createContainer and startContainer; poststart and
	// poststop are the caller's, by RunHooks.
	Bundle string
}

// ExecOpts describes a further process in a running container.
type ExecOpts struct {
	ContainerID string
	// Init is the pidfd of the container's first process; its namespaces are joined.
	Init *os.File
	// InitPid is the pid of that process, verified against Init.
	InitPid int
	Process *specs.Process
	// Cgroup is the container's cgroup as Process.Cgroup reported it.
	Cgroup       CgroupRef
	Seccomp      []byte
	SeccompFlags uint32
	Stdio        Stdio
	ConsoleSize  WinSize
	// Preserve are descriptors that the program gets as 3, 4, ….
	Preserve []*os.File
	// IgnorePaused starts the process in a paused container too; Exec then returns
	// when somebody has resumed it.
	IgnorePaused bool
	// Spec is the container's, for its class of Intel RDT; nil: it has none.
	Spec *specs.Spec
	// Personality and MemoryPolicy are those of the container's spec.
	Personality  *specs.LinuxPersonality
	MemoryPolicy *specs.LinuxMemoryPolicy
	// Notify says who handles the system calls of a filter with SCMP_ACT_NOTIFY.
	Notify *Notify
	// Fresh has the process start through a fresh init, also where a program of
	// system calls would be safe, which is cheaper. Nothing else differs.
	Fresh bool
}

// CgroupRef names a container's cgroup so that a later process of ours finds it
// again: the path below each hierarchy's mount point, per controller on v1 ("" is
// the key of v2's).
type CgroupRef struct {
	Paths   map[string]string `json:"paths,omitempty"`
	Systemd string            `json:"systemd,omitempty"` // unit name with the systemd driver
}

// Notify names the agent that handles system calls for a container, and the data that
// the agent gets about it (runtime-spec, config-linux.md, "The Seccomp Notify Action").
type Notify struct {
	// Path is the agent's socket; Metadata is the spec's listenerMetadata.
	Path, Metadata string
	// Bundle and Annotations are those of the container's state.
	Bundle      string
	Annotations map[string]string
}
