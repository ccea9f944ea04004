package container

import (
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
)

// CheckSlice refuses a parent that cannot be a slice of systemd's; "" is the default
// one. Class ErrInvalidArgument.
func CheckSlice(parent string) error {
	if name, ok := strings.CutSuffix(parent, ".slice"); parent != "" && (!ok || name == "" || strings.Contains(name, "/")) {
		return errclass.Invalid(`cgroup-parent for systemd cgroup should be a valid slice named as "xxx.slice"`)
	}
	return nil
}

// checkParent checks a container's own parent where systemd makes cgroups.
func checkParent(bySystemd bool) func(*container.Config, *container.HostConfig) error {
	return func(_ *container.Config, h *container.HostConfig) error {
		if !bySystemd {
			return nil
		}
		return CheckSlice(h.CgroupParent)
	}
}
