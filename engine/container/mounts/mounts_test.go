package mounts

import (
	"slices"
	"strings"
	"testing"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/mount"
)

func TestReadOnlyBinds(t *testing.T) {
	dir := t.TempDir()
	for name, c := range map[string]struct {
		binds   []string
		options *mount.BindOptions
		want    string
	}{
		"-v":                        {binds: []string{dir + ":/m:ro"}, want: "rbind rro rprivate"},
		"-v, slave":                 {binds: []string{dir + ":/m:ro,rslave"}, want: "rbind ro rslave"},
		"-v, not what is below":     {binds: []string{dir + ":/m:ro,bind-nonrecursive"}, want: "bind ro rprivate"},
		"--mount":                   {want: "rbind rro rprivate"},
		"bind-recursive=writable":   {options: &mount.BindOptions{ReadOnlyNonRecursive: true}, want: "rbind ro rprivate"},
		"bind-recursive=readonly":   {options: &mount.BindOptions{ReadOnlyForceRecursive: true}, want: "rbind rro rprivate"},
		"bind-recursive=disabled":   {options: &mount.BindOptions{NonRecursive: true}, want: "bind ro rprivate"},
		"bind-propagation=rshared":  {options: &mount.BindOptions{Propagation: "rshared"}, want: "rbind ro rshared"},
		"read-only in both, shared": {options: &mount.BindOptions{Propagation: "rshared", ReadOnlyNonRecursive: true}, want: "rbind ro rshared"},
	} {
		t.Run(name, func(t *testing.T) {
			h := &container.HostConfig{Binds: c.binds}
			if c.binds == nil {
				h.Mounts = []mount.Mount{{Type: mount.TypeBind, Source: dir, Target: "/m", ReadOnly: true, BindOptions: c.options}}
			}
			points, err := Resolve(&container.Config{}, h, nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(Spec(points[0]).Options, " "); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func TestMountRefusals(t *testing.T) {
	dir := t.TempDir()
	bind := func(m mount.Mount) mount.Mount {
		m.Type, m.Source, m.Target = mount.TypeBind, dir, "/m"
		return m
	}
	for text, m := range map[string]mount.Mount{
		"mount options conflict: ReadOnlyNonRecursive && ReadOnlyForceRecursive": bind(mount.Mount{
			ReadOnly: true, BindOptions: &mount.BindOptions{ReadOnlyNonRecursive: true, ReadOnlyForceRecursive: true},
		}),
		"ReadOnlyForceRecursive requires ReadOnly":                                        bind(mount.Mount{BindOptions: &mount.BindOptions{ReadOnlyForceRecursive: true}}),
		`invalid mount config for type "bind": field VolumeOptions must not be specified`: bind(mount.Mount{VolumeOptions: &mount.VolumeOptions{}}),
		`invalid mount config for type "bind": field TmpfsOptions must not be specified`:  bind(mount.Mount{TmpfsOptions: &mount.TmpfsOptions{}}),
		`invalid mount config for type "tmpfs": field BindOptions must not be specified`:  {Type: mount.TypeTmpfs, Target: "/m", BindOptions: &mount.BindOptions{}},
		`invalid mount config for type "volume": field ImageOptions must not be specified`: {
			Type: mount.TypeVolume, Target: "/m", ImageOptions: &mount.ImageOptions{},
		},
		`invalid option: "size"`:         {Type: mount.TypeTmpfs, Target: "/m", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{"size", "1"}}}},
		"invalid option array length: 0": {Type: mount.TypeTmpfs, Target: "/m", TmpfsOptions: &mount.TmpfsOptions{Options: [][]string{{}}}},
	} {
		t.Run(text, func(t *testing.T) {
			_, err := Resolve(&container.Config{}, &container.HostConfig{Mounts: []mount.Mount{m}}, nil)
			if err == nil || !strings.Contains(err.Error(), text) {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestTmpfsOptions(t *testing.T) {
	h := &container.HostConfig{Mounts: []mount.Mount{{Type: mount.TypeTmpfs, Target: "/m", TmpfsOptions: &mount.TmpfsOptions{
		SizeBytes: 4096, Mode: 0o700, Options: [][]string{{"exec"}},
	}}}}
	points, err := Resolve(&container.Config{}, h, nil)
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"noexec", "nosuid", "nodev", "size=4096", "mode=700", "exec"}; !slices.Equal(Spec(points[0]).Options, want) {
		t.Errorf("%q", points[0].Options)
	}
}
