package validate

import (
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
)

// Slice validates a cgroup parent where systemd makes cgroups; "" is the default
// one. Class ErrInvalidArgument.
func Slice(parent string) error {
	if name, ok := strings.CutSuffix(parent, ".slice"); parent != "" && (!ok || name == "" || strings.Contains(name, "/")) {
		return errclass.Invalid(`cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`)
	}
	return nil
}

// checkParent checks a container's own parent where systemd makes cgroups.
func (v *Validator) checkParent(h *container.HostConfig) error {
	if !v.cfg.SystemdCgroup {
		return nil
	}
	return Slice(h.CgroupParent)
}
