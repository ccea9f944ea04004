// Package spec translates a container's settings into an OCI runtime specification, with
// Docker's defaults. Build is pure: whatever must be looked up on the host (devices, users)
// is part of its Input.
package spec

import (
	"cmp"
	"fmt"
	"maps"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// DefaultPath is PATH where neither image nor user set one.
const DefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// User is a resolved user.
type User struct {
	UID, GID uint32
	Groups   []uint32 // supplementary
	Home     string
}

// Device is a device node of the host.
type Device struct {
	Path         string // in the container
	Type         string // "c" or "b"
	Major, Minor int64
	Mode         uint32 // permission bits
	UID, GID     uint32
	Access       string // for the cgroup, of "rwm"
}

// Input is everything Build decides by.
type Input struct {
	ID     string
	Config *container.Config
	Host   *container.HostConfig
	// Path and Args are the program, entrypoint and command already joined.
	Path string
	Args []string
	User User
	// Mounts of the user, and those for /etc/hosts and its like; they hide default
	// mounts at the same place.
	Mounts []specs.Mount
	// Devices asked for with --device, looked up; AllDevices with --privileged.
	Devices    []Device
	AllDevices []Device
	// Held are the capabilities the daemon itself has.
	Held []string
	// Joined are the namespaces that come by descriptor.
	Joined []specs.LinuxNamespaceType
	// CgroupParent is used where the container names none.
	CgroupParent string
	// SystemdCgroup: systemd makes cgroups; a parent is a slice then.
	SystemdCgroup bool
	// NoNewPrivileges is the daemon's default.
	NoNewPrivileges bool
	// BlockDevice looks up a block device of the host for I/O limits.
	BlockDevice func(path string) (major, minor int64, err error)
	ConsoleSize [2]uint
	// LinkEnv are variables that tell of linked containers.
	LinkEnv []string
}

// Build makes the spec. Errors are of class InvalidArgument, in Docker's words.
func Build(in Input) (*specs.Spec, error) {
	sec, err := ParseSecurity(in.Host.SecurityOpt)
	if err != nil {
		return nil, err
	}
	caps, err := Capabilities(in.Host.CapAdd, in.Host.CapDrop, in.Host.Privileged, in.Held)
	if err != nil {
		return nil, err
	}
	res, err := resources(in)
	if err != nil {
		return nil, err
	}
	sp := &specs.Spec{
		Version:     specs.Version,
		Hostname:    in.Config.Hostname,
		Domainname:  in.Config.Domainname,
		Root:        &specs.Root{Path: "rootfs", Readonly: in.Host.ReadonlyRootfs},
		Mounts:      mounts(in, sec.WritableCgroups),
		Annotations: maps.Clone(in.Host.Annotations),
		Process: &specs.Process{
			Terminal:        in.Config.Tty,
			User:            specs.User{UID: in.User.UID, GID: in.User.GID, AdditionalGids: groups(in.User), Umask: in.Host.Umask},
			Args:            append([]string{in.Path}, in.Args...),
			Env:             Env(in.Config, in.User.Home, in.LinkEnv),
			Cwd:             cwd(in.Config.WorkingDir),
			Capabilities:    processCaps(caps, in.User.UID),
			Rlimits:         rlimits(in.Host.Ulimits),
			NoNewPrivileges: sec.noNewPrivileges(in.NoNewPrivileges),
			OOMScoreAdj:     &in.Host.OomScoreAdj,
		},
		Linux: &specs.Linux{
			Namespaces:  namespaces(in),
			Devices:     deviceNodes(in),
			Resources:   res,
			CgroupsPath: cgroupsPath(in),
			Sysctl:      sysctls(in),
		},
	}
	if in.Config.Tty && (in.ConsoleSize[0] != 0 || in.ConsoleSize[1] != 0) {
		sp.Process.ConsoleSize = &specs.Box{Height: in.ConsoleSize[0], Width: in.ConsoleSize[1]}
	}
	if in.Host.UTSMode.IsHost() {
		sp.Hostname, sp.Domainname = "", ""
	}
	if !in.Host.Privileged {
		sp.Linux.MaskedPaths = slices.Clone(in.Host.MaskedPaths)
		sp.Linux.ReadonlyPaths = slices.Clone(in.Host.ReadonlyPaths)
	}
	return sp, nil
}

// groups puts the primary group first, so that setgroups never leaves it out.
func groups(u User) []uint32 {
	gs := []uint32{u.GID}
	for _, g := range u.Groups {
		if !slices.Contains(gs, g) {
			gs = append(gs, g)
		}
	}
	return gs
}

func cwd(dir string) string {
	if dir == "" {
		return "/"
	}
	return path.Clean("/" + dir)
}

// Env is the environment of a container's first process: Docker's own variables and those of
// links, those of the configuration over them, and HOME when nobody set it.
func Env(c *container.Config, home string, links []string) []string {
	env := []string{"PATH=" + DefaultPath, "HOSTNAME=" + hostname(c)}
	if c.Tty {
		env = append(env, "TERM=xterm")
	}
	return WithHome(MergeEnv(append(env, links...), c.Env), home)
}

func hostname(c *container.Config) string {
	if c.Domainname != "" {
		return c.Hostname + "." + c.Domainname
	}
	return c.Hostname
}

// MergeEnv puts over's variables into base: "K=V" replaces or is added, "K" alone removes.
func MergeEnv(base, over []string) []string {
	at := make(map[string]int, len(base)+len(over))
	env := make([]string, 0, len(base)+len(over))
	for _, list := range [][]string{base, over} {
		for _, e := range list {
			k, _, set := strings.Cut(e, "=")
			i, known := at[k]
			switch {
			case set && known:
				env[i] = e
			case set:
				at[k] = len(env)
				env = append(env, e)
			case known:
				env[i] = ""
				delete(at, k)
			}
		}
	}
	return slices.DeleteFunc(env, func(e string) bool { return e == "" })
}

// WithHome adds HOME when env has none.
func WithHome(env []string, home string) []string {
	if home == "" || slices.ContainsFunc(env, func(e string) bool { return strings.HasPrefix(e, "HOME=") }) {
		return env
	}
	return append(env, "HOME="+home)
}

func rlimits(us []*container.Ulimit) []specs.POSIXRlimit {
	var out []specs.POSIXRlimit
	for _, u := range us {
		out = append(out, specs.POSIXRlimit{
			Type: "RLIMIT_" + strings.ToUpper(u.Name), Soft: uint64(u.Soft), Hard: uint64(u.Hard),
		})
	}
	return out
}

func cgroupsPath(in Input) string {
	parent := in.Host.CgroupParent
	if parent == "" {
		parent = in.CgroupParent
	}
	if in.SystemdCgroup {
		return cmp.Or(parent, "system.slice") + ":docker:" + in.ID
	}
	if parent == "" {
		parent = "/docker"
	}
	return path.Join("/", parent, in.ID)
}

func sysctls(in Input) map[string]string {
	s := map[string]string{}
	if in.Host.NetworkMode.IsPrivate() {
		// As Docker: low ports and ping need no privilege in a network of one's own.
		s["net.ipv4.ip_unprivileged_port_start"] = "0"
		s["net.ipv4.ping_group_range"] = "0 2147483647"
	}
	maps.Copy(s, in.Host.Sysctls)
	if len(s) == 0 {
		return nil
	}
	return s
}

func namespaces(in Input) []specs.LinuxNamespace {
	ns := []specs.LinuxNamespace{{Type: specs.MountNamespace}}
	joined := func(t specs.LinuxNamespaceType) bool { return slices.Contains(in.Joined, t) }
	add := func(t specs.LinuxNamespaceType, private bool) {
		if private || joined(t) {
			ns = append(ns, specs.LinuxNamespace{Type: t})
		}
	}
	h := in.Host
	add(specs.NetworkNamespace, h.NetworkMode.IsPrivate())
	add(specs.UTSNamespace, h.UTSMode.IsPrivate())
	add(specs.PIDNamespace, h.PidMode.IsPrivate())
	add(specs.IPCNamespace, !h.IpcMode.IsHost() && !h.IpcMode.IsContainer())
	add(specs.CgroupNamespace, !h.CgroupnsMode.IsHost())
	return ns
}

// Security is what --security-opt says.
type Security struct {
	NoNewPrivileges *bool
	// Seccomp is "unconfined", "builtin", a profile's JSON, or "" for the default.
	Seccomp  string
	AppArmor string
	Labels   []string
	// WritableCgroups: the container may make cgroups below its own.
	WritableCgroups bool
}

func (s Security) noNewPrivileges(def bool) bool {
	if s.NoNewPrivileges != nil {
		return *s.NoNewPrivileges
	}
	return def
}

// ParseSecurity reads the values of --security-opt.
func ParseSecurity(opts []string) (s Security, err error) {
	for _, o := range opts {
		k, v, ok := strings.Cut(o, "=")
		if !ok {
			if k, v, ok = strings.Cut(o, ":"); !ok {
				if o == "no-new-privileges" {
					on := true
					s.NoNewPrivileges = &on
					continue
				}
				return s, errclass.Invalid("invalid --security-opt 1: %q", o)
			}
		}
		switch k {
		case "label":
			s.Labels = append(s.Labels, v)
		case "apparmor":
			s.AppArmor = v
		case "seccomp":
			s.Seccomp = v
		case "no-new-privileges":
			var on bool
			if on, err = strconv.ParseBool(v); err != nil {
				return s, errclass.Invalid("invalid --security-opt 2: %q", o)
			}
			s.NoNewPrivileges = &on
		case "writable-cgroups":
			if s.WritableCgroups, err = strconv.ParseBool(v); err != nil {
				return s, errclass.Invalid("invalid --security-opt 2: %q", o)
			}
		case "systempaths": // the client has put it into paths already
		default:
			return s, errclass.Invalid("invalid --security-opt 2: %q", o)
		}
	}
	return s, nil
}

func invalid(format string, a ...any) error { return errclass.Invalid("%w", fmt.Errorf(format, a...)) }
