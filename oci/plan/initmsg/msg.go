// Package initmsg is the message by which the runtime tells the process inside a
// container what to do: the OCI spec digested to what init needs, in a compact
// form that a fresh process decodes in microseconds, without reflection.
package initmsg

// Message is everything init has to know.
type Message struct {
	ID string
	// Exec: join the namespaces of a running container instead of making a root.
	Exec bool
	// WaitGo: send Ready when everything but execve is done, and wait for Go.
	WaitGo bool
	// Reaper: stay as pid 1 and run the program as a child.
	Reaper bool
	// Join are namespaces to enter, by descriptor number in init.
	Join []Join
	// NewCgroupNS: make a cgroup namespace rooted at the current cgroups.
	NewCgroupNS bool
	// NewTimeNS: make a time namespace with TimeOffsets for the program.
	NewTimeNS   bool
	TimeOffsets []TimeOffset
	// TakeRoot: the process was born in a user namespace without mappings, and must
	// become its root now that it has some.
	TakeRoot bool
	// LoopbackUp: the network namespace is new; bring lo up.
	LoopbackUp bool
	Hostname   string
	Domainname string
	Root       Root
	Mounts     []Mount
	// SetupDev: fill /dev with nodes and links (it is not a bind of the host's).
	SetupDev      bool
	Devices       []Device
	MaskedPaths   []string
	ReadonlyPaths []string
	Sysctl        []KV
	Process       Process
	Extra         Extra
}

// Join is one setns(2): a descriptor and the CLONE_NEW* flags for it.
type Join struct {
	FD    uint32
	Flags uint64
}

// KV is a key with a value.
type KV struct{ Key, Value string }

// Root says how the root is made; see oci.Rootfs.
type Root struct {
	Path     string
	Lower    []string
	Upper    string
	Work     string
	Volatile bool
	Readonly bool
	// Propagation (MS_SHARED, …) of the host's tree in the new mount namespace,
	// set before anything else, recursively when PropagationRec.
	Propagation    uint64
	PropagationRec bool
	// Own is the propagation of the container's root mount itself, 0: private.
	Own uint64
}

// The kinds of mounts.
const (
	KindFS      = 0 // a new instance of file system Type
	KindBind    = 1
	KindCgroup1 = 2 // a tmpfs with one bind per v1 hierarchy
)

// Mount is one mount, in order.
type Mount struct {
	Kind   uint8
	Type   string
	Source string
	// Dest is absolute and clean.
	Dest string
	// Set and Clear are MOUNT_ATTR_*, for the mount itself; RecSet and RecClear for
	// it and all below it.
	Set, Clear, RecSet, RecClear uint64
	// Propagation is MS_PRIVATE, …; 0 leaves it.
	Propagation    uint64
	PropagationRec bool
	// SourceFD is a bind's source as a detached tree, by descriptor number in init;
	// 0: init opens Source.
	SourceFD uint32
	// Index is the mount's place in the spec, from 1; 0: the runtime's own.
	Index uint32
	// Recursive: bind with everything mounted below the source.
	Recursive bool
	// NoSymlinks: no component of Dest may be a symbolic link.
	NoSymlinks bool
	// CopyUp: copy what the root has at Dest into the new file system.
	CopyUp bool
	// Data are fsconfig parameters; those without value are in Flags.
	Data  []KV
	Flags []string
	// Binds of KindCgroup1: name below Dest and host directory. A Value that
	// starts with "@" makes a symbolic link to the rest instead.
	Binds []KV
}

// Device is a node below /dev or elsewhere in the root.
type Device struct {
	Path  string
	Type  byte // 'c', 'b', 'p'
	Major uint32
	Minor uint32
	Mode  uint32
	UID   uint32
	GID   uint32
}

// Rlimit is one setrlimit(2).
type Rlimit struct {
	Type      uint32
	Name      string
	Soft, Max uint64
}

// Caps are capability sets as bit masks.
type Caps struct {
	Bounding, Effective, Permitted, Ambient uint64
}

// Process is the program and its credentials.
type Process struct {
	Terminal   bool
	Rows, Cols uint32
	Args, Env  []string
	Cwd        string
	UID, GID   uint32
	Groups     []uint32
	// NoGroups: the user namespace forbids setgroups(2).
	NoGroups   bool
	HasUmask   bool
	Umask      uint32
	Caps       Caps
	NoNewPrivs bool
	Rlimits    []Rlimit
	Seccomp    []byte
	// SeccompFlags are SECCOMP_FILTER_FLAG_*.
	SeccompFlags uint64
	AppArmor     string
	SELinux      string
	Tuning       Tuning
	// Notify is what an agent that handles system calls is told; see FrameAgent.
	Notify Notify
}

// Descriptor numbers in init.
const (
	FDSocket = 3 // to the runtime
	FDSelf   = 4 // our own executable
	FDFirst  = 5 // namespaces, in the order of Message.Join
)

// Argv of init, and the first argument of the reaper as people see it.
const (
	Arg0 = "gantry-runtime"
	Arg1 = "init"
	// Arg1Unmapped: its user namespace gets its mappings from a runtime without rights.
	Arg1Unmapped = "unmapped"
	ReaperArg0   = "/sbin/docker-init"
)

// Frames from init to the runtime: the type, a little-endian uint32 length, the
// payload. From the runtime to init: a Message frame, then Go as a single byte.
const (
	FrameMessage = 'M'
	FrameError   = 'E' // payload: class byte, text
	FrameWarning = 'W' // payload: text
	FrameConsole = 'C' // with the master as SCM_RIGHTS
	FrameReady   = 'R'
	FrameExec    = 'X' // execve follows
	FrameErrno   = 'F' // a program of system calls failed; see Failed
	GoByte       = 'G'
)

// Classes of errors in FrameError.
const (
	ClassUnknown = iota
	ClassNotFound
	ClassPermission
	ClassInvalid
	ClassNotImplemented
	ClassInternal
)

// MaxMessage bounds a Message in bytes; MaxReply bounds a payload from init.
const (
	MaxMessage = 16 << 20
	MaxReply   = 64 << 10
)
