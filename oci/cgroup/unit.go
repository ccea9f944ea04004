package cgroup

import specs "github.com/opencontainers/runtime-spec/specs-go"

// Unit is the service manager's (systemd's) side of a cgroup that is one of its units. It
// gets limits before they are written to files, since it writes its own values again when it
// reloads.
type Unit interface {
	// Limit sets the values that will be written to files, as properties of the unit. It leaves
	// out those that have no property. Class ErrInvalidArgument for values it refuses.
	Limit([]Setting) error
	// AllowDevices sets the rules of devices on version 1.
	AllowDevices([]specs.LinuxDeviceCgroup) error
	// Stop ends the unit, whose processes are dead. It is idempotent.
	Stop() error
}

// Setting is a value for one of a cgroup's files.
type Setting struct {
	File, Value string
}

// WithUnit tells that the cgroup is a unit, and returns it.
func (g *Group) WithUnit(u Unit) *Group {
	g.unit = u
	return g
}

// Settings lists what res means in files, on version 2 or 1. Where kernels differ in
// a file's name both are in it. Class ErrInvalidArgument.
func Settings(res *specs.LinuxResources, v2 bool) ([]Setting, error) {
	ws, err := writes(res, v2)
	return settings(ws), err
}

func writes(res *specs.LinuxResources, v2 bool) ([]write, error) {
	if v2 {
		return writesV2(res)
	}
	return writesV1(res)
}

func settings(ws []write) []Setting {
	out := make([]Setting, 0, len(ws))
	for _, w := range ws {
		out = append(out, Setting{w.file, w.value})
		if w.alternative != "" {
			s := Setting{w.alternative, w.value}
			if w.altValue != "" {
				s.Value = w.altValue
			}
			out = append(out, s)
		}
	}
	return out
}
