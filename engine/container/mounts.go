package container

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// mountPoints resolves all mounts a request asks for. Volumes that the image declares
// live in the writable layer until there are volumes.
func (s *Service) mountPoints(_ *container.Config, h *container.HostConfig) ([]mountPoint, error) {
	var out []mountPoint
	add := func(m mountPoint) error {
		if slices.ContainsFunc(out, func(o mountPoint) bool { return o.Destination == m.Destination }) {
			return errclass.Invalid("Duplicate mount point: %s", m.Destination)
		}
		out = append(out, m)
		return nil
	}
	for _, b := range h.Binds {
		m, err := parseBind(b)
		if err != nil {
			return nil, err
		}
		if err := makeSource(m); err != nil {
			return nil, err
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for _, mm := range h.Mounts {
		m, err := fromMount(mm)
		if err != nil {
			return nil, err
		}
		if err := makeSource(m); err != nil {
			return nil, err
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	for dest, opts := range h.Tmpfs {
		if !path.IsAbs(dest) {
			return nil, errclass.Invalid("invalid mount path: '%s' mount path must be absolute", dest)
		}
		m := mountPoint{Type: mount.TypeTmpfs, Destination: path.Clean(dest), RW: true, Options: tmpfsOptions(opts)}
		if m.Destination == "/" {
			return nil, errclass.Invalid("invalid specification: destination can't be '/'")
		}
		if err := add(m); err != nil {
			return nil, err
		}
	}
	slices.SortFunc(out, func(a, b mountPoint) int { return strings.Compare(a.Destination, b.Destination) })
	return out, nil
}

// tmpfsOptions adds Docker's own to what --tmpfs says.
func tmpfsOptions(opts string) []string {
	all := []string{"noexec", "nosuid", "nodev"}
	for o := range strings.SplitSeq(opts, ",") {
		switch o {
		case "":
		case "exec", "suid", "dev":
			all = slices.DeleteFunc(all, func(x string) bool { return x == "no"+o })
			all = append(all, o)
		default:
			all = append(all, o)
		}
	}
	return all
}

// parseBind reads "src:dst[:options]" of -v.
func parseBind(spec string) (mountPoint, error) {
	bad := func() (mountPoint, error) {
		return mountPoint{}, errclass.Invalid("invalid volume specification: '%s'", spec)
	}
	f := strings.Split(spec, ":")
	if len(f) > 3 || slices.Contains(f[:min(len(f), 2)], "") {
		return bad()
	}
	if len(f) == 1 {
		return mountPoint{}, errclass.NotImplemented("anonymous volumes are not built yet: %s", spec)
	}
	src, dst := f[0], f[1]
	if !path.IsAbs(dst) {
		return mountPoint{}, errclass.Invalid("invalid volume specification: '%s': invalid mount config for type \"volume\": invalid mount path: '%s' mount path must be absolute", spec, dst)
	}
	if dst = path.Clean(dst); dst == "/" {
		return mountPoint{}, errclass.Invalid("invalid volume specification: '%s': invalid mount config for type \"bind\": invalid specification: destination can't be '/'", spec)
	}
	if !path.IsAbs(src) {
		if !validName(src) {
			return mountPoint{}, errclass.Invalid("create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path", src, src)
		}
		return mountPoint{}, errclass.NotImplemented("named volumes are not built yet: %s", spec)
	}
	m := mountPoint{
		Type: mount.TypeBind, Source: path.Clean(src), Destination: dst, RW: true,
		Propagation: mount.PropagationRPrivate, Listed: true, MayCreate: true,
	}
	if len(f) == 3 {
		m.Mode = f[2]
		if err := bindMode(&m, f[2]); err != nil {
			return bad3(spec, err)
		}
	}
	return m, nil
}

func bad3(spec string, err error) (mountPoint, error) {
	return mountPoint{}, errclass.Invalid("invalid volume specification: '%s': %w", spec, err)
}

// bindMode reads the options of -v: each kind once.
func bindMode(m *mountPoint, mode string) error {
	bad := fmt.Errorf("invalid mode: %s", mode)
	var access, label, prop, cons, rec bool
	for o := range strings.SplitSeq(mode, ",") {
		once := func(seen *bool) error {
			if *seen {
				return bad
			}
			*seen = true
			return nil
		}
		var err error
		switch {
		case o == "ro" || o == "rw":
			err = once(&access)
			m.RW = o == "rw"
		case o == "z" || o == "Z": // no SELinux: nothing to label
			err = once(&label)
		case slices.Contains(mount.Propagations, mount.Propagation(o)) && o != "":
			err = once(&prop)
			m.Propagation = mount.Propagation(o)
		case o == "nocopy":
		case o == "consistent" || o == "cached" || o == "delegated":
			err = once(&cons)
		case o == "bind-nonrecursive":
			err = once(&rec)
			m.NonRec = true
		default:
			err = bad
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// fromMount reads one entry of HostConfig.Mounts, as --mount gives it.
func fromMount(mm mount.Mount) (mountPoint, error) {
	bad := func(format string, a ...any) (mountPoint, error) {
		return mountPoint{}, errclass.Invalid("invalid mount config for type %q: %s", mm.Type, fmt.Sprintf(format, a...))
	}
	switch {
	case mm.Target == "":
		return bad("field Target must not be empty")
	case !path.IsAbs(mm.Target):
		return bad("invalid mount path: '%s' mount path must be absolute", mm.Target)
	case path.Clean(mm.Target) == "/":
		return bad("invalid specification: destination can't be '/'")
	}
	m := mountPoint{Type: mm.Type, Source: mm.Source, Destination: path.Clean(mm.Target), RW: !mm.ReadOnly, Listed: true}
	switch mm.Type {
	case mount.TypeBind:
		if mm.Source == "" {
			return bad("field Source must not be empty")
		}
		if !path.IsAbs(mm.Source) {
			return bad("invalid mount path: '%s' mount path must be absolute", mm.Source)
		}
		if mm.VolumeOptions != nil || mm.TmpfsOptions != nil {
			return bad("field VolumeOptions must not be specified")
		}
		m.Source = path.Clean(mm.Source)
		m.Propagation = mount.PropagationRPrivate
		if b := mm.BindOptions; b != nil {
			if b.Propagation != "" {
				if !slices.Contains(mount.Propagations, b.Propagation) {
					return bad("invalid propagation mode: %s", b.Propagation)
				}
				m.Propagation = b.Propagation
			}
			m.NonRec, m.MayCreate = b.NonRecursive, b.CreateMountpoint
		}
		if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) && !m.MayCreate {
			return bad("bind source path does not exist: %s", m.Source)
		}
	case mount.TypeTmpfs:
		if mm.Source != "" {
			return bad("field Source must not be specified")
		}
		m.Options = []string{"noexec", "nosuid", "nodev"}
		if o := mm.TmpfsOptions; o != nil {
			if o.SizeBytes < 0 {
				return bad("invalid tmpfs size: %d", o.SizeBytes)
			}
			if o.SizeBytes > 0 {
				m.Options = append(m.Options, "size="+strconv.FormatInt(o.SizeBytes, 10))
			}
			if o.Mode != 0 {
				m.Options = append(m.Options, fmt.Sprintf("mode=%o", o.Mode))
			}
		}
		if mm.ReadOnly {
			m.Options = append(m.Options, "ro")
		}
	case mount.TypeVolume, mount.TypeCluster, mount.TypeImage:
		return mountPoint{}, errclass.NotImplemented("mounts of type %q are not built yet", mm.Type)
	default:
		return bad("mount type unknown")
	}
	return m, nil
}

// makeSource makes the directory that -v names when there is nothing.
func makeSource(m mountPoint) error {
	if m.Type != mount.TypeBind || !m.MayCreate {
		return nil
	}
	if _, err := os.Stat(m.Source); !errors.Is(err, fs.ErrNotExist) {
		return nil // what else is wrong with it the start will say
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return prefix("error while creating mount source path '"+m.Source+"': ", err)
	}
	return nil
}

// specMount is a mount as the runtime takes it.
func specMount(m mountPoint) specs.Mount {
	if m.Type == mount.TypeTmpfs {
		return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: m.Options}
	}
	opts := []string{"rbind"}
	if m.NonRec {
		opts = []string{"bind"}
	}
	if !m.RW {
		opts = append(opts, "ro")
	}
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: append(opts, string(m.Propagation))}
}
