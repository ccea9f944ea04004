// Package shim is the daemon's side of the shim, the one process that holds every container: the
// protocol, the Client and the FDStore. Package shim/shimd is the serving side; it runs as
// `gantry-runtime shim`.
//
// Transport: a unix stream socket in a 0700 directory, peer uid checked
// (SO_PEERCRED) on both sides. Frames are a 4-byte big-endian length and a JSON
// Envelope; descriptors travel as SCM_RIGHTS with the first byte of the frame.
package shim

import (
	"time"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim/ociruntime"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Version of the protocol. A shim outlives daemons: a daemon must speak to a
// shim of an older version, so messages only ever gain optional fields.
const Version = 1

// MaxFrame bounds one frame in bytes; longer ones end the connection.
const MaxFrame = 4 << 20

// RuntimesName is the directory in Config.Root where external OCI runtimes keep their
// state.
const RuntimesName = "runtimes"

// Key names one process the shim holds: a container's first process when Exec is
// empty, otherwise an exec in it. Run tells starts of one container apart.
type Key struct {
	Container string `json:"c"`
	Exec      string `json:"e,omitempty"`
	Run       uint64 `json:"r,omitempty"`
}

// AttachSpec describes one client to connect to a process's streams. The
// client's connection travels as a descriptor with the request: the shim talks
// to the client itself, so attached clients outlive the daemon.
type AttachSpec struct {
	// Client names this attachment in events; unique per shim.
	Client string `json:"client"`
	Stdin  bool   `json:"in,omitempty"`
	Stdout bool   `json:"out,omitempty"`
	Stderr bool   `json:"err,omitempty"`
	// Mux frames output with Docker's 8-byte stream header (non-tty).
	Mux bool `json:"mux,omitempty"`
	// DetachKeys is the byte sequence on stdin that detaches; empty: none.
	DetachKeys []byte `json:"keys,omitempty"`
	// Prefix are bytes already read from the client, to go to stdin first.
	Prefix []byte `json:"prefix,omitempty"`
	// CloseOnDetach: end the process's stdin when this client's input ends (StdinOnce).
	StdinOnce bool `json:"once,omitempty"`
}

// StartRequest starts a container. Descriptors: first one per entry of
// NamespaceFDs (in order), then one connection per entry of Attach.
type StartRequest struct {
	Key          Key         `json:"key"`
	Spec         *specs.Spec `json:"spec"`
	Rootfs       oci.Rootfs  `json:"rootfs"`
	Seccomp      []byte      `json:"seccomp,omitempty"`
	SeccompFlags uint32      `json:"seccomp_flags,omitempty"`
	InitReaper   bool        `json:"init_reaper,omitempty"` // as oci.CreateOpts.InitReaper
	// SystemdCgroup is oci.CreateOpts.SystemdCgroup.
	SystemdCgroup bool                       `json:"systemd_cgroup,omitempty"`
	NamespaceFDs  []specs.LinuxNamespaceType `json:"ns,omitempty"`
	OpenStdin     bool                       `json:"open_stdin,omitempty"`
	StdinOnce     bool                       `json:"stdin_once,omitempty"`
	ConsoleSize   oci.WinSize                `json:"console"`
	Log           *logs.Config               `json:"log,omitempty"` // nil: output goes nowhere
	Attach        []AttachSpec               `json:"attach,omitempty"`
	// Runtime is what makes the container; nil: our own. Another compiles filters
	// itself: Seccomp is empty then, and the spec has the profile.
	Runtime *ociruntime.Ref `json:"runtime,omitempty"`
}

// ExecRequest starts a process in a running container. Descriptors: one
// connection per entry of Attach.
type ExecRequest struct {
	Key          Key            `json:"key"`
	Process      *specs.Process `json:"process"`
	Seccomp      []byte         `json:"seccomp,omitempty"`
	SeccompFlags uint32         `json:"seccomp_flags,omitempty"`
	OpenStdin    bool           `json:"open_stdin,omitempty"`
	ConsoleSize  oci.WinSize    `json:"console"`
	Attach       []AttachSpec   `json:"attach,omitempty"`
}

// Started answers StartRequest and ExecRequest. Descriptors: pidfd, then the
// held stdio ends (see FDs), which the daemon keeps so that they outlive the shim.
type Started struct {
	Pid int `json:"pid"`
	// StartTicks is the process's start time of /proc/PID/stat: with Pid it names
	// the process for ever (OpenRunning).
	StartTicks uint64        `json:"ticks,omitempty"`
	Started    time.Time     `json:"started"`
	Cgroup     oci.CgroupRef `json:"cgroup"`
	FDs        []string      `json:"fds"` // names of the descriptors: "pidfd", "stdin", "stdout", "stderr", "pty"
	// Runtime is StartRequest.Runtime, for whoever takes the container over; nil for execs.
	Runtime *ociruntime.Ref `json:"runtime,omitempty"`
}

// Exit tells how a process ended, after the last byte of its output is in the log.
type Exit struct {
	Key       Key       `json:"key"`
	Code      int       `json:"code"`   // as Docker's: 128+signal when killed
	Signal    int       `json:"signal"` // 0 when it exited by itself
	OOMKilled bool      `json:"oom,omitempty"`
	At        time.Time `json:"at"`
	// Unknown is set when nobody could learn the code (both processes killed and
	// a kernel without PIDFD_INFO_EXIT); Code is then 255.
	Unknown bool `json:"unknown,omitempty"`
}

// Status is one held process in the answer to List.
type Status struct {
	Started
	Key    Key   `json:"key"`
	Paused bool  `json:"paused,omitempty"`
	Exit   *Exit `json:"exit,omitempty"` // ended, not yet acknowledged by Forget
	// Adopted: taken over from a shim that died. LostOutput: some output in
	// between could not be logged (both had died).
	Adopted    bool `json:"adopted,omitempty"`
	LostOutput bool `json:"lost,omitempty"`
	// What a successor needs besides the descriptors to go on with the process.
	// Attach are its clients; their connections are the descriptors named
	// "client:NAME" in FDs.
	Terminal  bool         `json:"tty,omitempty"`
	StdinOnce bool         `json:"stdin_once,omitempty"`
	Log       *logs.Config `json:"log,omitempty"`
	Attach    []AttachSpec `json:"attach,omitempty"`
}

// Event is pushed by the shim to a subscribed daemon. The zero Event comes from the
// client itself: a new shim took over, or the connection was restored; List again.
type Event struct {
	Exit *Exit `json:"exit,omitempty"`
	// OOM: the kernel killed something in this container's cgroup.
	OOM *Key `json:"oom,omitempty"`
	// Detached: an attached client left (Keys: by the detach sequence).
	Detached *Detached `json:"detached,omitempty"`
	// StdinClosed tells the client, not its user, to let go of its duplicate.
	StdinClosed *Key `json:"stdin_closed,omitempty"`
	// TakenOver tells that another daemon connected; this connection ends.
	TakenOver bool `json:"taken_over,omitempty"`
}

// Detached tells that an attached client is gone.
type Detached struct {
	Key    Key    `json:"key"`
	Client string `json:"client"`
	Keys   bool   `json:"keys,omitempty"`
}
