package oci

import (
	"context"
	"os"
	"path"
	"strings"
	"sync"
	"syscall"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/oci/cgroup/systemd"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cgroups is this machine's layout, read once.
var cgroups = sync.OnceValues(cgroup.Find)

func openCgroup(ref CgroupRef) (*cgroup.Group, error) {
	sys, err := cgroups()
	if err != nil {
		return nil, err
	}
	g, err := sys.Open(ref.Paths)
	if err == nil && ref.Systemd != "" {
		g.WithUnit(manager().Unit(ref.Systemd))
	}
	return g, err
}

// manager is the systemd that makes this process's units.
var manager = sync.OnceValue(func() *systemd.Manager { return systemd.NewManager(confined()) })

// locateCgroup says where a container's cgroup is to be, and nothing is touched but
// that a user's own systemd is asked for its place.
func locateCgroup(ctx context.Context, sys *cgroup.System, id string, spec *specs.Spec, bySystemd bool) (CgroupRef, systemd.Place, error) {
	p := ""
	if spec.Linux != nil {
		p = spec.Linux.CgroupsPath
	}
	if !bySystemd {
		dir, err := cgroupPath(id, p)
		return CgroupRef{Paths: sys.Paths(dir)}, systemd.Place{}, err
	}
	place, err := systemd.ParsePath(p, id, confined())
	if err != nil {
		return CgroupRef{}, place, err
	}
	if confined() && !sys.Unified() {
		return CgroupRef{}, place, errclass.NotImplemented("a user's own systemd makes cgroups on cgroup v2 only")
	}
	root, err := manager().Root(ctx)
	if err != nil {
		return CgroupRef{}, place, err
	}
	return CgroupRef{Paths: sys.Paths(path.Join(root, place.Path())), Systemd: place.Name}, place, nil
}

// cgroupPath is where a container's cgroup is below every hierarchy.
func cgroupPath(id, p string) (string, error) {
	if p == "" {
		return "/gantry/" + id, nil
	}
	if !path.IsAbs(p) && strings.Count(p, ":") == 2 {
		return "", errclass.Invalid("cgroupsPath %q is one for the systemd cgroup driver, which was not asked for (--systemd-cgroup)", p)
	}
	clean := path.Clean("/" + p)
	if clean == "/" {
		return "", errclass.Invalid("cgroupsPath %q: the root cannot be a container's cgroup", p)
	}
	return clean, nil
}

// startUnit has systemd make the container's cgroup with its first process in it.
func startUnit(ctx context.Context, sys *cgroup.System, place systemd.Place, pid int, annotations map[string]string) error {
	extra, err := systemd.Annotated(annotations)
	if err != nil {
		return err
	}
	return manager().Start(ctx, place, pid, sys.Unified(), extra)
}

// DeleteCgroup removes the container's cgroup directories, nested ones first. It
// tries again for a bounded time (about a second) while the kernel still lets go
// of dead processes, and is idempotent: directories that are gone are no error.
// Cgroups that still hold processes answer with class ErrFailedPrecondition.
func DeleteCgroup(ref CgroupRef) error {
	g, err := openCgroup(ref)
	if err != nil {
		return err
	}
	return g.Delete()
}

// KillAll sends sig to every process in the cgroup and those nested in it. With
// SIGKILL it goes on, for about two seconds, until none is left.
func KillAll(ref CgroupRef, sig syscall.Signal) error {
	g, err := openCgroup(ref)
	if err != nil {
		return err
	}
	return g.Kill(sig)
}

// Pause freezes every process of the cgroup and returns when all are frozen.
// Class ErrNotFound when the cgroup is gone.
func Pause(ref CgroupRef) error {
	g, err := openCgroup(ref)
	if err != nil {
		return err
	}
	return g.Freeze(true)
}

// Resume thaws what Pause froze.
func Resume(ref CgroupRef) error {
	g, err := openCgroup(ref)
	if err != nil {
		return err
	}
	return g.Freeze(false)
}

// Update changes the limits of a running container; fields that are not set
// stay, and so do the device rules. Class ErrInvalidArgument for values that the
// kernel refuses.
func Update(ref CgroupRef, res *specs.LinuxResources) error {
	g, err := openCgroup(ref)
	if err != nil {
		return err
	}
	return g.Set(res)
}

// Pids lists all processes of the cgroup and of those nested in it, in the
// caller's pid namespace, in ascending order.
func Pids(ref CgroupRef) ([]int, error) {
	g, err := openCgroup(ref)
	if err != nil {
		return nil, err
	}
	return g.Pids()
}

// OOMCount tells how many times the kernel killed a process of the cgroup
// because of its memory limit.
func OOMCount(ref CgroupRef) (uint64, error) {
	g, err := openCgroup(ref)
	if err != nil {
		return 0, err
	}
	return g.OOMKills()
}

// OOMEvents returns a descriptor that becomes readable (v1: an eventfd to read 8
// bytes from; v2: an inotify descriptor on memory.events) when OOMCount may have
// changed, or the cgroup was removed. The caller closes it; reads go through the
// Go poller.
func OOMEvents(ref CgroupRef) (*os.File, error) {
	g, err := openCgroup(ref)
	if err != nil {
		return nil, err
	}
	return g.OOMEvents()
}

// Stats is a cgroup's usage.
type Stats = cgroup.Stats

// ReadStats reads the cgroup's usage now. Class ErrNotFound when it is gone.
func ReadStats(ref CgroupRef) (*Stats, error) {
	g, err := openCgroup(ref)
	if err != nil {
		return nil, err
	}
	return g.Stats()
}

// Details is what Stats leaves out.
type Details = cgroup.Details

// ReadDetails reads them now. Class ErrNotFound when the cgroup is gone.
func ReadDetails(ref CgroupRef) (*Details, error) {
	g, err := openCgroup(ref)
	if err != nil {
		return nil, err
	}
	return g.Details()
}
