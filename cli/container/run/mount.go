package run

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/gantry/gantry/cli/opts"
	"github.com/moby/moby/api/types/mount"
)

// mountList is --mount.
type mountList struct{ vals []mount.Mount }

// Type implements pflag.Value.
func (m *mountList) Type() string { return "mount" }

// String implements pflag.Value.
func (m *mountList) String() string {
	out := make([]string, 0, len(m.vals))
	for _, v := range m.vals {
		out = append(out, fmt.Sprintf("%s %s %s", v.Type, v.Source, v.Target))
	}
	return strings.Join(out, ", ")
}

// Set implements pflag.Value.
func (m *mountList) Set(v string) error {
	mt, err := ParseMount(v)
	if err != nil {
		return err
	}
	m.vals = append(m.vals, mt)
	return nil
}

// ParseMount parses one value of --mount.
func ParseMount(v string) (mount.Mount, error) {
	fs, err := fields(v)
	if err != nil {
		return mount.Mount{}, err
	}
	p := mountParser{m: mount.Mount{Type: mount.TypeVolume}}
	for _, field := range fs {
		if err := p.field(field); err != nil {
			return mount.Mount{}, err
		}
	}
	if err := p.check(); err != nil {
		return mount.Mount{}, err
	}
	return p.m, nil
}

type mountParser struct{ m mount.Mount }

func (p *mountParser) bind() *mount.BindOptions {
	if p.m.BindOptions == nil {
		p.m.BindOptions = &mount.BindOptions{}
	}
	return p.m.BindOptions
}

func (p *mountParser) volume() *mount.VolumeOptions {
	if p.m.VolumeOptions == nil {
		p.m.VolumeOptions = &mount.VolumeOptions{Labels: map[string]string{}}
	}
	if p.m.VolumeOptions.DriverConfig == nil {
		p.m.VolumeOptions.DriverConfig = &mount.Driver{}
	}
	return p.m.VolumeOptions
}

func (p *mountParser) tmpfs() *mount.TmpfsOptions {
	if p.m.TmpfsOptions == nil {
		p.m.TmpfsOptions = &mount.TmpfsOptions{}
	}
	return p.m.TmpfsOptions
}

func flagValue(key, val string, has bool) (bool, error) {
	if !has {
		return true, nil
	}
	b, err := strconv.ParseBool(val)
	if err != nil {
		return false, fmt.Errorf("invalid value for %s: %s", key, val)
	}
	return b, nil
}

func (p *mountParser) field(field string) error {
	key, val, has := strings.Cut(field, "=")
	key = strings.ToLower(key)
	if !has {
		switch key {
		case "readonly", "ro", "volume-nocopy", "bind-nonrecursive":
		default:
			return fmt.Errorf("invalid field '%s' must be a key=value pair", field)
		}
	}
	var err error
	switch kind, _, _ := strings.Cut(key, "-"); kind {
	case "bind":
		return p.bindField(field, key, val, has)
	case "volume":
		return p.volumeField(field, key, val, has)
	case "tmpfs":
		return p.tmpfsField(field, key, val)
	}
	switch key {
	case "type":
		p.m.Type = mount.Type(strings.ToLower(val))
	case "source", "src":
		p.m.Source, err = opts.AbsSource(val)
	case "target", "dst", "destination":
		p.m.Target = val
	case "readonly", "ro":
		p.m.ReadOnly, err = flagValue(key, val, has)
	case "consistency":
		p.m.Consistency = mount.Consistency(strings.ToLower(val))
	case "image-subpath":
		p.m.ImageOptions = &mount.ImageOptions{Subpath: val}
	default:
		return unexpected(key, field)
	}
	return err
}

func unexpected(key, field string) error {
	return fmt.Errorf("unexpected key '%s' in '%s'", key, field)
}

func (p *mountParser) bindField(field, key, val string, has bool) (err error) {
	switch key {
	case "bind-propagation":
		p.bind().Propagation = mount.Propagation(strings.ToLower(val))
	case "bind-nonrecursive":
		p.bind().NonRecursive, err = flagValue(key, val, has)
	case "bind-recursive":
		err = p.recursive(val)
	case "bind-create-src":
		p.bind().CreateMountpoint, err = flagValue(key, val, has)
	default:
		err = unexpected(key, field)
	}
	return err
}

func (p *mountParser) volumeField(field, key, val string, has bool) (err error) {
	switch key {
	case "volume-subpath":
		p.volume().Subpath = val
	case "volume-nocopy":
		var b bool
		if b, err = flagValue(key, val, has); err != nil {
			err = fmt.Errorf("invalid value for volume-nocopy: %s", val)
		}
		p.volume().NoCopy = b
	case "volume-label":
		k, v, _ := strings.Cut(val, "=")
		p.volume().Labels[k] = v
	case "volume-driver":
		p.volume().DriverConfig.Name = val
	case "volume-opt":
		d := p.volume().DriverConfig
		if d.Options == nil {
			d.Options = map[string]string{}
		}
		k, v, _ := strings.Cut(val, "=")
		d.Options[k] = v
	default:
		err = unexpected(key, field)
	}
	return err
}

func (p *mountParser) tmpfsField(field, key, val string) error {
	switch key {
	case "tmpfs-size":
		n, err := units.RAMInBytes(val)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, val)
		}
		p.tmpfs().SizeBytes = n
	case "tmpfs-mode":
		n, err := strconv.ParseUint(val, 8, 32)
		if err != nil {
			return fmt.Errorf("invalid value for %s: %s", key, val)
		}
		p.tmpfs().Mode = os.FileMode(n)
	default:
		return unexpected(key, field)
	}
	return nil
}

func (p *mountParser) recursive(val string) error {
	switch val {
	case "enabled":
	case "disabled":
		p.bind().NonRecursive = true
	case "writable":
		p.bind().ReadOnlyNonRecursive = true
	case "readonly":
		p.bind().ReadOnlyForceRecursive = true
	default:
		return fmt.Errorf("invalid value for bind-recursive: %s (must be \"enabled\", \"disabled\", \"writable\", or \"readonly\")", val)
	}
	return nil
}

func (p *mountParser) check() error {
	m := &p.m
	if m.Type == "" {
		return errors.New("type is required")
	}
	if m.Target == "" {
		return errors.New("target is required")
	}
	for _, c := range []struct {
		set  bool
		want mount.Type
		name string
	}{
		{m.VolumeOptions != nil, mount.TypeVolume, "volume-*"},
		{m.ImageOptions != nil, mount.TypeImage, "image-*"},
		{m.BindOptions != nil, mount.TypeBind, "bind-*"},
		{m.TmpfsOptions != nil, mount.TypeTmpfs, "tmpfs-*"},
	} {
		if c.set && m.Type != c.want {
			return fmt.Errorf("cannot mix '%s' options with mount type '%s'", c.name, m.Type)
		}
	}
	if b := m.BindOptions; b != nil {
		if b.ReadOnlyNonRecursive && !m.ReadOnly {
			return errors.New("option 'bind-recursive=writable' requires 'readonly' to be specified in conjunction")
		}
		if b.ReadOnlyForceRecursive {
			if !m.ReadOnly {
				return errors.New("option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction")
			}
			if b.Propagation != mount.PropagationRPrivate {
				return errors.New("option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' to be specified in conjunction")
			}
		}
	}
	return nil
}
