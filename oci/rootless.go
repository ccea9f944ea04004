package oci

import (
	"errors"
	"os"
	"strings"
	"sync"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// confined tells whether this process is an ordinary user, or root of a user
// namespace only: then cgroups may not be ours to make.
var confined = sync.OnceValue(func() bool {
	if os.Geteuid() != 0 {
		return true
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295"
})

// ownGroup makes the cgroup where this user may, by delegation. Where not, and
// nothing was asked for that needs one, the container has none of its own.
func (s *starting) ownGroup(o *CreateOpts, sys *cgroup.System, g *cgroup.Group, ref CgroupRef) (*cgroup.Group, CgroupRef, error) {
	err := g.Create()
	if err == nil {
		s.group = g // undone with the rest
		return g, ref, nil
	}
	if !errors.Is(err, unix.EACCES) && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EROFS) {
		return nil, ref, err
	}
	if limits(o.Spec.Linux.Resources) {
		return nil, ref, errclass.Invalid("limits need a cgroup that this user may write to (delegation): %w", err)
	}
	s.noGroup = true
	none, err := sys.Open(nil)
	return none, CgroupRef{}, err
}

// limits tells whether resources ask for more than rules for devices.
func limits(r *specs.LinuxResources) bool {
	return r != nil && (r.Memory != nil || r.CPU != nil || r.Pids != nil || r.BlockIO != nil || len(r.HugepageLimits) != 0 ||
		r.Network != nil || len(r.Rdma) != 0 || len(r.Unified) != 0)
}
