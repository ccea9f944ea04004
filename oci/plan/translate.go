// Package plan translates a specification into the message for init (initmsg). It is pure: it
// changes nothing and does not look at the machine.
package plan

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// defaultDevices are those every container has (runtime-spec, "Default Devices").
var defaultDevices = [...]initmsg.Device{
	{Path: "/dev/null", Type: 'c', Major: 1, Minor: 3, Mode: 0o666},
	{Path: "/dev/zero", Type: 'c', Major: 1, Minor: 5, Mode: 0o666},
	{Path: "/dev/full", Type: 'c', Major: 1, Minor: 7, Mode: 0o666},
	{Path: "/dev/random", Type: 'c', Major: 1, Minor: 8, Mode: 0o666},
	{Path: "/dev/urandom", Type: 'c', Major: 1, Minor: 9, Mode: 0o666},
	{Path: "/dev/tty", Type: 'c', Major: 5, Minor: 0, Mode: 0o666},
}

// Devices are the nodes of a container's /dev: those every container has, and the
// configuration's. Class ErrInvalidArgument.
func Devices(ds []specs.LinuxDevice) ([]initmsg.Device, error) {
	out := slices.Clone(defaultDevices[:])
	for _, d := range ds {
		x := initmsg.Device{Path: path.Clean("/" + d.Path), Mode: 0o666}
		switch d.Type {
		case "c", "u":
			x.Type = 'c'
		case "b":
			x.Type = 'b'
		case "p":
			x.Type = 'p'
		default:
			return nil, errclass.Invalid("device %s: type %q", d.Path, d.Type)
		}
		if d.Major < 0 || d.Minor < 0 || d.Major > 1<<32-1 || d.Minor > 1<<32-1 {
			return nil, errclass.Invalid("device %s: number %d:%d", d.Path, d.Major, d.Minor)
		}
		x.Major, x.Minor = uint32(d.Major), uint32(d.Minor)
		if d.FileMode != nil {
			x.Mode = uint32(d.FileMode.Perm())
		}
		if d.UID != nil {
			x.UID = *d.UID
		}
		if d.GID != nil {
			x.GID = *d.GID
		}
		if i := slices.IndexFunc(out, func(y initmsg.Device) bool { return y.Path == x.Path }); i >= 0 {
			out[i] = x
			continue
		}
		out = append(out, x)
	}
	return out, nil
}

// Sysctl turns names into paths below /proc/sys: dots and slashes change
// places as with sysctl(8) when a slash is used first.
func Sysctl(in map[string]string) ([]initmsg.KV, error) {
	var out []initmsg.KV
	for k, v := range in {
		p := k
		if dot, slash := strings.IndexByte(k, '.'), strings.IndexByte(k, '/'); dot >= 0 && (slash < 0 || dot < slash) {
			p = strings.Map(func(r rune) rune {
				switch r {
				case '.':
					return '/'
				case '/':
					return '.'
				}
				return r
			}, k)
		}
		if p == "" || path.Clean("/"+p) != "/"+p {
			return nil, errclass.Invalid("sysctl %q is not a name", k)
		}
		out = append(out, initmsg.KV{Key: p, Value: v})
	}
	slices.SortFunc(out, func(a, b initmsg.KV) int { return cmp.Compare(a.Key, b.Key) })
	return out, nil
}

// Rlimits are the limits of a process. Class ErrInvalidArgument.
func Rlimits(in []specs.POSIXRlimit) ([]initmsg.Rlimit, error) {
	var out []initmsg.Rlimit
	for _, l := range in {
		t := slices.Index(rlimitNames[:], l.Type)
		if t < 0 {
			return nil, errclass.Invalid("invalid rlimit type: %s", l.Type)
		}
		if l.Soft > l.Hard {
			return nil, errclass.Invalid("rlimit %s: soft limit %d is above hard limit %d", l.Type, l.Soft, l.Hard)
		}
		out = append(out, initmsg.Rlimit{Type: uint32(t), Name: l.Type, Soft: l.Soft, Max: l.Hard})
	}
	return out, nil
}

// rlimitNames are in the order of the kernel's numbers on amd64 and arm64.
var rlimitNames = [...]string{
	"RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
	"RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE",
	"RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
}

// CgroupOwner is the host's id of the container's user when he is to manage cgroups of
// his own: in a cgroup namespace of the container, and a cgroup mount that can be
// written (runtime-spec, "Cgroup ownership").
func CgroupOwner(s *specs.Spec) *uint32 {
	own := slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool {
		return n.Type == specs.CgroupNamespace && n.Path == ""
	})
	writable := slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
		return m.Source == "cgroup" && m.Destination == "/sys/fs/cgroup" && !slices.Contains(m.Options, "ro")
	})
	if !own || !writable {
		return nil
	}
	uid := s.Process.User.UID
	user := slices.ContainsFunc(s.Linux.Namespaces, func(n specs.LinuxNamespace) bool { return n.Type == specs.UserNamespace })
	if !user {
		return &uid
	}
	for _, m := range s.Linux.UIDMappings {
		if uid >= m.ContainerID && uid-m.ContainerID < m.Size {
			host := m.HostID + uid - m.ContainerID
			return &host
		}
	}
	return nil // no id of ours: of a namespace that is joined
}

// procAllowed are the files of procfs over which the spec may mount: what lxcfs
// virtualizes, and harmless switches. Everything else at or below /proc would let
// an image stand in for what the runtime and security modules rely on.
var procAllowed = [...]string{
	"/proc/cpuinfo", "/proc/diskstats", "/proc/meminfo", "/proc/stat", "/proc/swaps", "/proc/uptime",
	"/proc/loadavg", "/proc/slabinfo", "/proc/sys/kernel/ns_last_pid", "/proc/sys/crypto/fips_enabled",
}

// checkProcDest refuses a mount at a place in procfs that is not among those. bind: it is
// one, whatever typ says. Class ErrInvalidArgument.
func checkProcDest(dest, typ string, bind bool) error {
	if dest == "/proc" {
		if typ == "proc" || bind { // a bind is checked to be procfs where it is opened
			return nil
		}
		return errclass.Invalid("%q cannot be mounted because it is not of type proc", dest)
	}
	if !strings.HasPrefix(dest, "/proc/") {
		return nil
	}
	for _, p := range procAllowed {
		if dest == p {
			return nil
		}
	}
	return errclass.Invalid("%q cannot be mounted because it is inside /proc", dest)
}
