// Package hostdev looks up the host's device nodes for containers that ask for them.
package hostdev

import (
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// device looks up a device node of the host; class InvalidArgument when it is none.
func device(p string) (spec.Device, error) {
	var st unix.Stat_t
	if err := unix.Stat(p, &st); err != nil {
		return spec.Device{}, errclass.Invalid("error gathering device information while adding custom device %q: %w", p, err)
	}
	d := spec.Device{
		Path: p, Major: int64(unix.Major(st.Rdev)), Minor: int64(unix.Minor(st.Rdev)),
		Mode: st.Mode & 0o7777, UID: st.Uid, GID: st.Gid, Access: "rwm",
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		d.Type = "c"
	case unix.S_IFBLK:
		d.Type = "b"
	default:
		return d, errclass.Invalid("error gathering device information while adding custom device %q: not a device node", p)
	}
	return d, nil
}

// Mapped looks up what --device names: nodes, or all nodes below a directory; class
// InvalidArgument for what is none.
func Mapped(ms []container.DeviceMapping) ([]spec.Device, error) {
	var out []spec.Device
	for _, m := range ms {
		inside := m.PathInContainer
		if inside == "" {
			inside = m.PathOnHost
		}
		add := func(host, in string) error {
			d, err := device(host)
			if err != nil {
				return err
			}
			d.Path = in
			if m.CgroupPermissions != "" {
				d.Access = m.CgroupPermissions
			}
			out = append(out, d)
			return nil
		}
		var st unix.Stat_t
		if unix.Stat(m.PathOnHost, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFDIR {
			if err := add(m.PathOnHost, inside); err != nil {
				return nil, err
			}
			continue
		}
		below, err := Below(m.PathOnHost)
		if err != nil {
			return nil, err
		}
		for _, d := range below {
			if err := add(d.Path, path.Join(inside, strings.TrimPrefix(d.Path, m.PathOnHost))); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

// maxDevices bounds how many nodes of a directory are taken.
const maxDevices = 16384

// Below lists the device nodes below a directory of the host, but the ones
// containers have of their own.
func Below(root string) ([]spec.Device, error) {
	var out []spec.Device
	own := []string{"pts", "shm", "fd", "mqueue", ".lxc", ".lxd-mounts", ".udev"}
	err := filepath.WalkDir(root, func(p string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil // went away meanwhile
		}
		if err != nil {
			return err
		}
		if e.IsDir() {
			if p != root && slices.Contains(own, e.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if e.Type()&fs.ModeDevice == 0 || e.Name() == "console" || e.Name() == "ptmx" {
			return nil
		}
		d, err := device(p)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(out) == maxDevices {
			return fmt.Errorf("more than %d devices below %s", maxDevices, root)
		}
		out = append(out, d)
		return nil
	})
	return out, err
}

// Block is the number of the block device p; class InvalidArgument when it is none.
func Block(p string) (major, minor int64, err error) {
	d, err := device(p)
	if err == nil && d.Type != "b" {
		err = errclass.Invalid("%s is not a block device", p)
	}
	return d.Major, d.Minor, err
}
