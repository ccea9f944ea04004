package plan

import (
	"path"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/mountopt"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Mount translates one mount of the spec for init. Class InvalidArgument for an invalid
// one.
func Mount(m *specs.Mount, cg *Cgroups) (initmsg.Mount, error) {
	out := initmsg.Mount{Type: m.Type, Source: m.Source, Dest: path.Clean("/" + m.Destination)}
	isBind := m.Type == "bind"
	for _, o := range m.Options {
		if err := mountOption(&out, o, &isBind); err != nil {
			return out, err
		}
	}
	if out.Dest == "/" {
		return out, errclass.Invalid("mount destination %q: the root cannot be mounted over", m.Destination)
	}
	if err := checkProcDest(out.Dest, m.Type, isBind); err != nil {
		return out, err
	}
	switch {
	case isBind:
		out.Kind, out.Type, out.Data, out.Flags = initmsg.KindBind, "bind", nil, nil
		if !path.IsAbs(m.Source) {
			return out, errclass.Invalid("mount source %q of %s is not absolute", m.Source, m.Destination)
		}
		out.NoSymlinks = out.Dest == "/proc" || out.Dest == "/sys" || out.Dest == "/dev" || strings.HasPrefix(out.Dest, "/proc/")
	case m.Type == "cgroup" || m.Type == "cgroup2":
		cgroupMount(&out, cg)
	case m.Type == "proc" || m.Type == "sysfs" || m.Type == "mqueue" || m.Type == "devpts":
		out.NoSymlinks = true
	case m.Type == "":
		return out, errclass.Invalid("mount at %s has no type", m.Destination)
	default:
		out.NoSymlinks = out.Dest == "/dev" || strings.HasPrefix(out.Dest, "/dev/")
	}
	return out, nil
}

func mountOption(out *initmsg.Mount, o string, isBind *bool) error {
	if a, ok := mountopt.Attr(o); ok {
		out.Set = out.Set&^a.Clear | a.Set
		out.Clear = out.Clear&^a.Set | a.Clear
		return nil
	}
	if prop, rec, ok := mountopt.Propagation(o); ok {
		out.Propagation, out.PropagationRec = prop, rec
		return nil
	}
	if strings.HasPrefix(o, "r") {
		if a, ok := mountopt.Attr(o[1:]); ok {
			out.RecSet = out.RecSet&^a.Clear | a.Set
			out.RecClear = out.RecClear&^a.Set | a.Clear
			return nil
		}
	}
	switch o {
	case "bind":
		*isBind = true
	case "rbind":
		*isBind, out.Recursive = true, true
	case "tmpcopyup":
		out.CopyUp = true
	case "defaults", "loud", "nomand", "noiversion", "iversion", "nolazytime", "acl", "noacl", "remount", "norecurse", "":
	case "idmap", "ridmap": // see oci.planIDMapping
	case "async":
	case "sync", "dirsync", "lazytime", "silent", "mand":
		out.Flags = append(out.Flags, o)
	default:
		if k, v, ok := strings.Cut(o, "="); ok {
			out.Data = append(out.Data, initmsg.KV{Key: k, Value: v})
		} else {
			out.Flags = append(out.Flags, o)
		}
	}
	return nil
}

// labelMount gives the files of a new file system their SELinux label, where it
// takes one (mount(8), "context="). The kernel's own have theirs.
func labelMount(m *initmsg.Mount, label string) {
	if label == "" || m.Kind != initmsg.KindFS {
		return
	}
	switch m.Type {
	case "proc", "sysfs", "mqueue":
	default:
		m.Data = append(m.Data, initmsg.KV{Key: "context", Value: label})
	}
}

// cgroupMount shows a container its own cgroups: a bind of them, with the
// cgroup namespace making them look like the root of the hierarchy.
func cgroupMount(out *initmsg.Mount, cg *Cgroups) {
	out.NoSymlinks = true
	out.Source, out.Data, out.Flags = "cgroup", nil, nil
	if cg.V2 != "" {
		out.Kind, out.Source = initmsg.KindBind, cg.V2
		if out.Propagation == 0 {
			out.Propagation = unix.MS_PRIVATE
		}
		return
	}
	out.Kind = initmsg.KindCgroup1
	out.Binds = cg.V1
}

// Root translates the root and the propagation of mounts for init. Class InvalidArgument for
// invalid settings.
func Root(r *Rootfs, spec *specs.Spec) (initmsg.Root, error) {
	out := initmsg.Root{Path: r.Path, Readonly: r.Readonly, Propagation: unix.MS_SLAVE, PropagationRec: true}
	if spec.Root != nil {
		out.Readonly = out.Readonly || spec.Root.Readonly
		if out.Path == "" && r.Overlay == nil {
			out.Path = spec.Root.Path
		}
	}
	if o := r.Overlay; o != nil {
		if r.Path != "" || len(o.Lower) == 0 || (o.Upper == "") != (o.Work == "") {
			return out, errclass.Invalid("the root needs either a path, or an overlay with lower layers and both of upper and work, or none")
		}
		for _, p := range append([]string{o.Upper, o.Work}, o.Lower...) {
			if p != "" && !path.IsAbs(p) {
				return out, errclass.Invalid("overlay directory %q is not absolute", p)
			}
		}
		out.Lower, out.Upper, out.Work, out.Volatile = o.Lower, o.Upper, o.Work, o.Volatile && o.Upper != ""
	} else if !path.IsAbs(out.Path) {
		return out, errclass.Invalid("root path %q is not absolute", out.Path)
	}
	if p := spec.Linux.RootfsPropagation; p != "" {
		prop, rec, ok := mountopt.Propagation(p)
		if !ok {
			return out, errclass.Invalid("rootfsPropagation=%s is not supported", p)
		}
		out.Propagation, out.PropagationRec = prop, rec
		if prop == unix.MS_UNBINDABLE { // the host's tree must stay bindable for us
			out.Propagation = unix.MS_PRIVATE
		}
		if prop != unix.MS_PRIVATE {
			out.Own = prop
		}
	}
	return out, nil
}
