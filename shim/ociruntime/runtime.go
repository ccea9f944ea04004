// Package ociruntime is the seam of OCI runtimes: our own, in the shim's process (package oci),
// or another one's command line that is compatible with runc's. The shim treats the processes of
// both in the same way: it gives them their streams, is their parent, reaps them and writes their
// log. The usage of a container is read from its cgroup.
package ociruntime

import (
	"context"
	"os"
	"syscall"

	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Runtime makes containers and changes them. Every implementation passes
// runtimetest.Run.
//
// Who closes what: files in options stay the caller's, who may close them when the call
// returns. The PidFD and Console of a Process are the caller's to close, and the process is
// the caller's to reap: it is its child, or, of a caller that is a subreaper
// (PR_SET_CHILD_SUBREAPER, which implementations may rely on), has become it. A call may have
// child processes of its own and reaps them; while one is under way the caller takes no
// child that it does not know. What outlives a command of a runtime ends, and is reaped by
// the caller as any orphan.
//
// Idempotence: after an error, Start and Exec have left no process, cgroup or mount.
// Delete may be repeated, and also ends what a Start left whose caller died. KillAll, Pause,
// Resume and Update may be repeated.
//
// Error classes (errdefs): NotFound when a program or container does not exist,
// PermissionDenied when a program cannot be executed, InvalidArgument for a spec that asks
// for the impossible, NotImplemented for what the implementation cannot do; an error of the
// context when that ended. Texts are those that Docker's users know, without a prefix of the
// implementation's.
//
// All methods are safe for concurrent use, with one call at a time for a container but for
// Exec, Kill and KillAll.
type Runtime interface {
	// Start makes a container and returns when its program runs. What is left of an
	// earlier container of that name is removed first.
	Start(ctx context.Context, o *StartOpts) (*oci.Process, error)
	// Exec runs a further process in a running container.
	Exec(ctx context.Context, c *Container, o *ExecOpts) (*oci.Process, error)
	// Kill sends a signal to the container's first process. Class NotFound when it has
	// ended.
	Kill(ctx context.Context, c *Container, sig syscall.Signal) error
	// KillAll sends a signal to every process of the container. That there is none is no
	// error. SIGKILL ends those of a paused container, too, and returns when all have ended.
	KillAll(ctx context.Context, c *Container, sig syscall.Signal) error
	// Pause stops every process of the container until Resume, and Resume lets them go on.
	Pause(ctx context.Context, c *Container) error
	Resume(ctx context.Context, c *Container) error
	// Update changes limits; those that are nil stay.
	Update(ctx context.Context, c *Container, r *specs.LinuxResources) error
	// Delete ends what still runs of a container and removes what was made for it.
	Delete(ctx context.Context, c *Container) error
}

// Container names a container to the runtime that has started it.
type Container struct {
	ID string
	// Cgroup is what Start has reported, or oci.CgroupOf for a start whose answer is lost.
	Cgroup oci.CgroupRef
	// Init is the pidfd of its first process, Pid its number. Kill and Exec want them.
	Init *os.File
	Pid  int
}

// StartOpts describe a container to start.
type StartOpts struct {
	ID     string
	Spec   *specs.Spec // is not changed
	Rootfs oci.Rootfs
	// Seccomp and SeccompFlags are as in oci.CreateOpts: a compiled filter. A runtime
	// that cannot take one refuses it; Spec.Linux.Seccomp is for all.
	Seccomp      []byte
	SeccompFlags uint32
	// Namespaces to join by descriptor; they win over the spec's paths.
	Namespaces map[specs.LinuxNamespaceType]*os.File
	// Stdio are the streams without a terminal, ConsoleSize the first size of one.
	Stdio       oci.Stdio
	ConsoleSize oci.WinSize
	// InitReaper has a small process of ours as pid 1 (--init).
	InitReaper bool
	// SystemdCgroup has systemd make the cgroup; CgroupsPath is slice:prefix:name then.
	SystemdCgroup bool
}

// ExecOpts describe a further process.
type ExecOpts struct {
	Process      *specs.Process // is not changed
	Seccomp      []byte
	SeccompFlags uint32
	Stdio        oci.Stdio
	ConsoleSize  oci.WinSize
}

// Ref names an external runtime so that a later shim finds it again. Path is its
// executable, Args come before those of every call (daemon.json, "runtimeArgs").
type Ref struct {
	Path string   `json:"path"`
	Args []string `json:"args,omitempty"`
}

// Of is the runtime that r names; nil names ours. dir, of which the caller is the only
// user, is where an external one keeps its state.
func Of(r *Ref, dir string) Runtime {
	if r == nil {
		return Builtin{}
	}
	return &Command{ref: *r, dir: dir}
}
