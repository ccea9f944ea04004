// Package rootfs says how a container's root is made: the steps in their order, the file
// systems, device nodes and links. It does nothing itself. Two executors walk the same
// steps: oci/init in a process of its own, and oci/launch/startprog, which compiles them to
// a program of system calls. What they differ in is how a step is done, never which steps
// there are.
package rootfs

import (
	"path"

	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// Kind is what a step does.
type Kind uint8

// The steps in the order in which they occur.
const (
	// SetPropagation gives the host's tree, as this mount namespace sees it, the
	// propagation that the message asks for.
	SetPropagation Kind = iota
	// OpenSources opens the sources of binds, while the host's tree has that propagation.
	OpenSources
	// MakeTree makes the root as a mount that is attached nowhere.
	MakeTree
	// MakePrivate makes / private: what is mounted from now on does not travel to the host.
	MakePrivate
	// AttachTree mounts the root over the old one.
	AttachTree
	// Mount makes one mount of the spec: Step.Mount, whose place in the message is Step.Index.
	Mount
	// OpenDev opens /dev, a file system that this start has just mounted; nothing of the
	// image is in it. The steps up to CloseDev work on it.
	OpenDev
	// MakeDevice makes the node Step.Device.
	MakeDevice
	// MakeLink makes Step.Link in /dev, unless something of that name is there.
	MakeLink
	// ProtectDev makes /dev read-only, now that it is filled.
	ProtectDev
	// CloseDev ends what OpenDev began.
	CloseDev
	// MakeCwd makes the working directory Step.Path where it is missing, as Docker's
	// users expect. That it cannot be is no error here: entering it says why.
	MakeCwd
	// ProtectPath makes Step.Path read-only, with what is below it. A path that is missing
	// needs no protection.
	ProtectPath
	// OpenMasks prepares what covers masked paths; the steps up to CloseMasks use it.
	OpenMasks
	// MaskPath covers Step.Path: a directory by MaskFS, a file by the container's own
	// /dev/null. A path that is missing has nothing to hide.
	MaskPath
	// CloseMasks ends what OpenMasks began.
	CloseMasks
	// RunHooks runs the hooks that want the host's tree still there.
	RunHooks
	// ChangeRoot makes the tree the root and lets go of the host's.
	ChangeRoot
	// SetRootPropagation gives the new root the propagation Message.Root.Own.
	SetRootPropagation
	// ProtectRoot makes the root read-only.
	ProtectRoot
)

// Step is one step. Only the fields that its kind names are set.
type Step struct {
	Kind   Kind
	Index  int
	Mount  *initmsg.Mount
	Device *initmsg.Device
	Link   Link
	Path   string
}

// Link is a symbolic link in /dev.
type Link struct{ Name, Target string }

// Kcore is the file that the link /dev/core is about.
const Kcore = "/proc/kcore"

// links are those that every container finds in its /dev (runtime-spec, "Default
// symbolic links"), and core, where the kernel has what it points to.
func links(kcore bool) []Link {
	l := []Link{
		{"fd", "/proc/self/fd"},
		{"stdin", "/proc/self/fd/0"},
		{"stdout", "/proc/self/fd/1"},
		{"stderr", "/proc/self/fd/2"},
		{"ptmx", "pts/ptmx"},
	}
	if kcore {
		l = append(l, Link{"core", Kcore})
	}
	return l
}

// Steps are those of the container that m describes; kcore says whether the host has
// Kcore. The steps refer to m.
func Steps(m *initmsg.Message, kcore bool) []Step {
	s := make([]Step, 0, 16+len(m.Mounts)+len(m.Devices)+8+len(m.MaskedPaths)+len(m.ReadonlyPaths))
	do := func(kinds ...Kind) {
		for _, k := range kinds {
			s = append(s, Step{Kind: k})
		}
	}
	do(SetPropagation, OpenSources, MakeTree, MakePrivate, AttachTree)
	for i := range m.Mounts {
		s = append(s, Step{Kind: Mount, Index: i, Mount: &m.Mounts[i]})
	}
	if m.SetupDev {
		do(OpenDev)
		for i := range m.Devices {
			s = append(s, Step{Kind: MakeDevice, Device: &m.Devices[i]})
		}
		for _, l := range links(kcore) {
			s = append(s, Step{Kind: MakeLink, Link: l})
		}
		if devReadonly(m) {
			do(ProtectDev)
		}
		do(CloseDev)
	}
	if m.Process.Cwd != "/" {
		s = append(s, Step{Kind: MakeCwd, Path: m.Process.Cwd})
	}
	for _, p := range m.ReadonlyPaths {
		s = append(s, Step{Kind: ProtectPath, Path: p})
	}
	if len(m.MaskedPaths) != 0 {
		do(OpenMasks)
		for _, p := range m.MaskedPaths {
			s = append(s, Step{Kind: MaskPath, Path: p})
		}
		do(CloseMasks)
	}
	do(RunHooks, ChangeRoot)
	if m.Root.Own != 0 {
		do(SetRootPropagation)
	}
	if m.Root.Readonly {
		do(ProtectRoot)
	}
	return s
}

func devReadonly(m *initmsg.Message) bool {
	for i := range m.Mounts {
		if mt := &m.Mounts[i]; mt.Dest == Dev && mt.Set&unix.MOUNT_ATTR_RDONLY != 0 {
			return true
		}
	}
	return false
}

// Names and numbers of devices that every container has: the null device, which covers
// masked files, and the multiplexer of its terminals; and the file in Dev that its
// terminal is bound on.
const (
	Dev         = "/dev"
	Null        = Dev + "/null"
	NullMajor   = 1
	NullMinor   = 3
	Ptmx        = Dev + "/pts/ptmx"
	PtmxMajor   = 5
	PtmxMinor   = 2
	Console     = "console"
	ConsoleMode = 0o620
)

// Node tells how a device's node is made: the directory, its name there, and the type
// (S_IF…), which is 0 for a type that the spec does not know.
func Node(d *initmsg.Device) (dir, base string, typ uint32) {
	dir, base = path.Split(d.Path)
	switch d.Type {
	case 'c':
		typ = unix.S_IFCHR
	case 'b':
		typ = unix.S_IFBLK
	case 'p':
		typ = unix.S_IFIFO
	}
	return path.Clean(dir), base, typ
}
