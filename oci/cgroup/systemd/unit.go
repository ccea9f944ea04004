// Package systemd makes containers' cgroups through systemd: as transient scope
// units of the machine's manager, or of an ordinary user's own. systemd owns the
// tree then, and every limit that it knows is given to it as a property of the unit,
// since it writes its own idea of them again whenever it reloads. What it does not
// know is written to the files as without it (package cgroup).
//
// Names, slices and properties are computed by pure functions; Manager talks D-Bus.
// The properties are those that runc sets, so that units look the same.
//
// Sources: org.freedesktop.systemd1(5), systemd.resource-control(5), systemd.slice(5).
package systemd

import (
	"cmp"
	"path"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

// Place is where a container's unit belongs.
type Place struct {
	// Slice is the name of the slice, "system.slice".
	Slice string
	// Name is the unit's own, "docker-0123.scope".
	Name string
	// Container is the id, for the description.
	Container string
}

// prefix is that of containers whose path says nothing: units are called as runc's.
const prefix = "runc"

// ParsePath reads a cgroupsPath of the form slice:prefix:name. An empty one is a
// unit named by the id. user is for a user's own manager, whose slices begin at
// another one. Class ErrInvalidArgument.
func ParsePath(cgroupsPath, id string, user bool) (Place, error) {
	pl := Place{Slice: "system.slice", Container: id}
	if user {
		pl.Slice = "user.slice"
	}
	name, pre := id, prefix
	if cgroupsPath != "" {
		parts := strings.Split(cgroupsPath, ":")
		if len(parts) != 3 {
			return pl, errclass.Invalid("expected cgroupsPath to be of format \"slice:prefix:name\" for systemd cgroups, got %q instead", cgroupsPath)
		}
		pl.Slice = cmp.Or(parts[0], pl.Slice)
		pre, name = parts[1], parts[2]
	}
	if name == "" {
		return pl, errclass.Invalid("cgroupsPath %q names no unit", cgroupsPath)
	}
	pl.Name = name
	if !strings.HasSuffix(name, ".slice") {
		pl.Name = name + ".scope"
		if pre != "" {
			pl.Name = pre + "-" + pl.Name
		}
	}
	if !validName(pl.Name) {
		return pl, errclass.Invalid("cgroupsPath %q: %q is not the name of a unit", cgroupsPath, pl.Name)
	}
	_, err := ExpandSlice(pl.Slice)
	return pl, err
}

// validName takes what systemd takes as the name of a unit (systemd.unit(5)).
func validName(s string) bool {
	const maxName = 255
	if len(s) > maxName {
		return false
	}
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(`:-_.\@`, r)
	}) < 0
}

// ExpandSlice is the path of a slice below the root: a-b.slice lies in a.slice.
// Class ErrInvalidArgument.
func ExpandSlice(slice string) (string, error) {
	name, ok := strings.CutSuffix(slice, ".slice")
	if !ok || name == "" || !validName(slice) {
		return "", errclass.Invalid("invalid slice name: %s", slice)
	}
	if name == "-" {
		return "/", nil
	}
	out, up := "/", ""
	for part := range strings.SplitSeq(name, "-") {
		if part == "" {
			return "", errclass.Invalid("invalid slice name: %s", slice)
		}
		up += part
		out = path.Join(out, up+".slice")
		up += "-"
	}
	return out, nil
}

// Path is the cgroup's path below the manager's own.
func (p Place) Path() string {
	dir, err := ExpandSlice(p.Slice)
	if err != nil {
		return "" // ParsePath has seen to it
	}
	return path.Join(dir, p.Name)
}
