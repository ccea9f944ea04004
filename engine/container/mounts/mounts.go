// Package mounts resolves the mounts that --volume, --mount, --tmpfs, --volumes-from and an
// image's VOLUME ask for, with Docker's syntax and messages.
package mounts

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

// Point is one mount of the user, resolved at create and kept in the container's record.
type Point struct {
	Type        mount.Type        `json:"type"`
	Source      string            `json:"source,omitempty"` // on the host
	Destination string            `json:"destination"`
	Mode        string            `json:"mode,omitempty"`
	RW          bool              `json:"rw"`
	Propagation mount.Propagation `json:"propagation,omitempty"`
	NonRec      bool              `json:"nonrec,omitempty"` // bind without what is mounted below
	// RONonRec: what is mounted below a read-only bind is not read-only.
	RONonRec bool     `json:"ro_nonrec,omitempty"`
	Options  []string `json:"options,omitempty"` // of a tmpfs
	// Listed mounts show in inspect's Mounts; --tmpfs ones do not, as in Docker.
	Listed bool `json:"listed,omitempty"`
	// MayCreate: a missing source is made as a directory at start (-v does).
	MayCreate bool `json:"may_create,omitempty"`

	// Of volumes. Name is "" until an anonymous one is made; those go with `rm -v`.
	Name      string            `json:"name,omitempty"`
	Anonymous bool              `json:"anonymous,omitempty"`
	Driver    string            `json:"driver,omitempty"`
	Labels    map[string]string `json:"-"` // for one that is to be made
	Opts      map[string]string `json:"-"`
	NoCopy    bool              `json:"-"` // nothing of the image's goes into it
	Shared    bool              `json:"-"` // another container's, by --volumes-from
}

// Resolve reads all mounts that a request and its image ask for, in Docker's order of
// precedence; of are another container's mounts, for --volumes-from. Errors are of class
// InvalidArgument, and what of says.
func Resolve(c *container.Config, h *container.HostConfig, of func(ref string) ([]Point, error)) ([]Point, error) {
	from, err := volumesFrom(h.VolumesFrom, of)
	if err != nil {
		return nil, err
	}
	var out []Point
	at := func(list []Point, dest string) int {
		return slices.IndexFunc(list, func(o Point) bool { return o.Destination == dest })
	}
	add := func(m Point, err error) error {
		if err == nil {
			err = MakeSource(m)
		}
		if err == nil && at(out, m.Destination) >= 0 {
			err = errclass.Invalid("Duplicate mount point: %s", m.Destination)
		}
		out = append(out, m)
		return err
	}
	for _, b := range h.Binds {
		if err := add(parseBind(b, h.VolumeDriver)); err != nil {
			return nil, err
		}
	}
	for _, mm := range h.Mounts {
		if err := add(fromMount(mm)); err != nil {
			return nil, err
		}
	}
	for dest, opts := range h.Tmpfs {
		if err := add(fromTmpfs(dest, opts)); err != nil {
			return nil, err
		}
	}
	for _, m := range from {
		if at(out, m.Destination) < 0 {
			out = append(out, m)
		}
	}
	for dest := range c.Volumes {
		m, err := parseBind(dest, h.VolumeDriver)
		if err != nil {
			return nil, err
		}
		if at(out, m.Destination) < 0 {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Point) int { return strings.Compare(a.Destination, b.Destination) })
	return out, nil
}

// volumesFrom reads "container[:ro|rw]"; of two mounts at one place the later counts.
func volumesFrom(refs []string, of func(string) ([]Point, error)) ([]Point, error) {
	var out []Point
	for _, ref := range refs {
		name, mode, _ := strings.Cut(ref, ":")
		if name == "" {
			return nil, errclass.Invalid("invalid volumes-from specification: %s", ref)
		}
		probe := Point{RW: true}
		if mode != "" {
			if err := bindMode(&probe, mode); err != nil {
				return nil, errclass.Invalid("%w", err)
			}
		}
		list, err := of(name)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			if m.Type == mount.TypeTmpfs {
				continue
			}
			m.RW, m.Shared, m.MayCreate, m.Mode = m.RW && probe.RW, true, false, ""
			out = slices.DeleteFunc(out, func(o Point) bool { return o.Destination == m.Destination })
			out = append(out, m)
		}
	}
	return out, nil
}

func fromTmpfs(dest, opts string) (Point, error) {
	if !path.IsAbs(dest) {
		return Point{}, errclass.Invalid("invalid mount path: '%s' mount path must be absolute", dest)
	}
	m := Point{Type: mount.TypeTmpfs, Destination: path.Clean(dest), RW: true, Options: tmpfsOptions(opts)}
	if m.Destination == "/" {
		return m, errclass.Invalid("invalid specification: destination can't be '/'")
	}
	return m, nil
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

// parseBind reads "dst", or "src:dst[:options]", of -v. driver is the one for volumes.
func parseBind(spec, driver string) (Point, error) {
	bad := func(format string, a ...any) (Point, error) {
		return Point{}, errclass.Invalid("invalid volume specification: '%s'"+format, append([]any{spec}, a...)...)
	}
	f := strings.Split(spec, ":")
	if len(f) > 3 || slices.Contains(f[:min(len(f), 2)], "") {
		return bad("")
	}
	if len(f) == 1 {
		f = []string{"", f[0]}
	}
	src, dst, typ := f[0], f[1], mount.TypeVolume
	if path.IsAbs(src) {
		typ = mount.TypeBind
	}
	if !path.IsAbs(dst) {
		return bad(": invalid mount config for type %q: invalid mount path: '%s' mount path must be absolute", typ, dst)
	}
	if dst = path.Clean(dst); dst == "/" {
		return bad(": invalid mount config for type %q: invalid specification: destination can't be '/'", typ)
	}
	m := Point{Type: typ, Destination: dst, RW: true, Listed: true}
	if typ == mount.TypeBind {
		m.Source, m.Propagation, m.MayCreate = path.Clean(src), mount.PropagationRPrivate, true
	} else {
		m.Name, m.Anonymous, m.Driver = src, src == "", driver
		if src != "" {
			m.Mode = "z" // as Docker shows it
		}
	}
	if len(f) == 3 {
		m.Mode = f[2]
		if err := bindMode(&m, f[2]); err != nil {
			return m, errclass.Invalid("%w", err)
		}
		if typ == mount.TypeVolume && m.Propagation != "" {
			return bad(": invalid mount config for type \"volume\": field BindOptions must not be specified")
		}
	}
	return m, nil
}

// bindMode reads the options of -v: each kind once.
func bindMode(m *Point, mode string) error {
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
			m.NoCopy = true
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
func fromMount(mm mount.Mount) (Point, error) {
	switch {
	case mm.Target == "":
		return badMount(mm, "field Target must not be empty")
	case !path.IsAbs(mm.Target):
		return badMount(mm, "invalid mount path: '%s' mount path must be absolute", mm.Target)
	case path.Clean(mm.Target) == "/":
		return badMount(mm, "invalid specification: destination can't be '/'")
	case mm.Type == mount.TypeBind && mm.Source == "":
		return badMount(mm, "field Source must not be empty")
	}
	if f := strangeOptions(mm); f != "" {
		return badMount(mm, "field %s must not be specified", f)
	}
	m := Point{Type: mm.Type, Source: mm.Source, Destination: path.Clean(mm.Target), RW: !mm.ReadOnly, Listed: true}
	switch mm.Type {
	case mount.TypeBind:
		return bindMount(m, mm)
	case mount.TypeTmpfs:
		return tmpfsMount(m, mm)
	case mount.TypeVolume:
		return volumeMount(m, mm)
	case mount.TypeCluster, mount.TypeImage:
		return Point{}, errclass.NotImplemented("mounts of type %q are not built yet", mm.Type)
	}
	return badMount(mm, "mount type unknown")
}

func badMount(mm mount.Mount, format string, a ...any) (Point, error) {
	return Point{}, errclass.Invalid("invalid mount config for type %q: %s", mm.Type, fmt.Sprintf(format, a...))
}

// bindMount is the rest of fromMount for binds.
func bindMount(m Point, mm mount.Mount) (Point, error) {
	if !path.IsAbs(mm.Source) {
		return badMount(mm, "invalid mount path: '%s' mount path must be absolute", mm.Source)
	}
	m.Source = path.Clean(mm.Source)
	m.Propagation = mount.PropagationRPrivate
	if b := mm.BindOptions; b != nil {
		if b.Propagation != "" {
			if !slices.Contains(mount.Propagations, b.Propagation) {
				return badMount(mm, "invalid propagation mode: %s", b.Propagation)
			}
			m.Propagation = b.Propagation
		}
		m.NonRec, m.MayCreate, m.RONonRec = b.NonRecursive, b.CreateMountpoint, b.ReadOnlyNonRecursive
		if err := checkReadOnly(mm, m.Propagation); err != nil {
			return m, err
		}
	}
	if _, err := os.Stat(m.Source); errors.Is(err, fs.ErrNotExist) && !m.MayCreate {
		return badMount(mm, "bind source path does not exist: %s", m.Source)
	}
	return m, nil
}

// tmpfsMount is the rest of fromMount for tmpfs.
func tmpfsMount(m Point, mm mount.Mount) (Point, error) {
	if mm.Source != "" {
		return badMount(mm, "field Source must not be specified")
	}
	m.Options = []string{"noexec", "nosuid", "nodev"}
	if o := mm.TmpfsOptions; o != nil {
		if o.SizeBytes < 0 {
			return badMount(mm, "invalid tmpfs size: %d", o.SizeBytes)
		}
		if o.SizeBytes > 0 {
			m.Options = append(m.Options, "size="+strconv.FormatInt(o.SizeBytes, 10))
		}
		if o.Mode != 0 {
			m.Options = append(m.Options, fmt.Sprintf("mode=%o", o.Mode))
		}
		for _, kv := range o.Options {
			switch {
			case len(kv) != 1 && len(kv) != 2:
				return badMount(mm, "invalid option array length: %d", len(kv))
			case len(kv) != 1 || kv[0] != "exec" && kv[0] != "noexec":
				return badMount(mm, "invalid option: %q", kv[0])
			}
			m.Options = append(m.Options, kv[0]) // the last one counts
		}
	}
	if mm.ReadOnly {
		m.Options = append(m.Options, "ro")
	}
	return m, nil
}

// strangeOptions names the options of a mount that another type has; "" for none.
func strangeOptions(mm mount.Mount) string {
	for _, o := range []struct {
		set  bool
		of   mount.Type
		name string
	}{
		{mm.BindOptions != nil, mount.TypeBind, "BindOptions"},
		{mm.VolumeOptions != nil, mount.TypeVolume, "VolumeOptions"},
		{mm.ImageOptions != nil, mount.TypeImage, "ImageOptions"},
		{mm.TmpfsOptions != nil, mount.TypeTmpfs, "TmpfsOptions"},
		{mm.ClusterOptions != nil, mount.TypeCluster, "ClusterOptions"},
	} {
		if o.set && o.of != mm.Type {
			return o.name
		}
	}
	return ""
}

// checkReadOnly refuses what a bind cannot be together with its propagation p.
func checkReadOnly(mm mount.Mount, p mount.Propagation) error {
	b := mm.BindOptions
	switch {
	case !b.ReadOnlyForceRecursive:
	case b.ReadOnlyNonRecursive:
		return errclass.Invalid("mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive")
	case !mm.ReadOnly:
		return errclass.Invalid("invalid mount config for type %q: ReadOnlyForceRecursive requires ReadOnly", mm.Type)
	case p != mount.PropagationRPrivate:
		return errclass.Invalid("invalid mount config for type %q: ReadOnlyForceRecursive requires propagation rprivate", mm.Type)
	}
	return nil
}

// volumeMount is the rest of fromMount for volumes.
func volumeMount(m Point, mm mount.Mount) (Point, error) {
	m.Name, m.Source, m.Anonymous, m.Mode = mm.Source, "", mm.Source == "", "z"
	switch o := mm.VolumeOptions; {
	case m.Anonymous && mm.ReadOnly:
		return badMount(mm, "must not set ReadOnly mode when using anonymous volumes")
	case o == nil:
	case o.Subpath != "":
		return m, errclass.NotImplemented("subpaths of volumes are not built yet")
	default:
		m.NoCopy, m.Labels = o.NoCopy, o.Labels
		if o.DriverConfig != nil {
			m.Driver, m.Opts = o.DriverConfig.Name, o.DriverConfig.Options
		}
	}
	return m, nil
}

// MakeSource makes the directory that -v names when there is nothing.
func MakeSource(m Point) error {
	if m.Type != mount.TypeBind || !m.MayCreate {
		return nil
	}
	if _, err := os.Stat(m.Source); !errors.Is(err, fs.ErrNotExist) {
		return nil // what else is wrong with it the start will say
	}
	if err := os.MkdirAll(m.Source, 0o755); err != nil {
		return fmt.Errorf("error while creating mount source path '%s': %w", m.Source, err)
	}
	return nil
}

// Spec is a mount as the runtime takes it.
func Spec(m Point) specs.Mount {
	if m.Type == mount.TypeTmpfs {
		return specs.Mount{Destination: m.Destination, Type: "tmpfs", Source: "tmpfs", Options: m.Options}
	}
	opts := []string{"rbind"}
	if m.NonRec {
		opts = []string{"bind"}
	}
	prop := m.Propagation
	if prop == "" {
		prop = mount.PropagationRPrivate
	}
	switch {
	case m.RW:
	case m.NonRec, m.RONonRec, prop != mount.PropagationRPrivate: // what comes later is not read-only either
		opts = append(opts, "ro")
	default:
		opts = append(opts, "rro") // with what is mounted below, as Docker since 25
	}
	return specs.Mount{Destination: m.Destination, Type: "bind", Source: m.Source, Options: append(opts, string(prop))}
}
