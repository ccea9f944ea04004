package oci

import (
	"context"
	"fmt"
	"os"

	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/oci/cgroup/rdt"
	"github.com/gantry/gantry/oci/cgroup/systemd"
	"github.com/gantry/gantry/oci/plan"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Prepared is a container's configuration digested as Create does it, for those who
// bring its processes about, or find them, in another way (package checkpoint).
type Prepared struct {
	// Message is what init would be told; it is not to be changed.
	Message *initmsg.Message
	// Group is the container's cgroup, which nobody has made yet, and Ref its name.
	Group *cgroup.Group
	Ref   CgroupRef

	sys   *cgroup.System
	place systemd.Place
	id    string
	spec  *specs.Spec
	rdt   *rdt.Group
}

// Prepare digests o without effects. ref is the cgroup of a container that exists;
// nil: where Create would make it. Errors as of Create; those of ordinary users have
// class ErrNotImplemented.
func Prepare(ctx context.Context, o *CreateOpts, ref *CgroupRef) (*Prepared, error) {
	if err := checkCreate(o); err != nil {
		return nil, err
	}
	opts := *o
	if o.Spec.Linux == nil {
		spec := *o.Spec
		spec.Linux = &specs.Linux{}
		opts.Spec = &spec
	}
	p := &Prepared{id: o.ID, spec: o.Spec}
	var err error
	if p.sys, err = cgroups(); err != nil {
		return nil, err
	}
	if ref != nil {
		p.Ref = *ref
	} else if p.Ref, p.place, err = locateCgroup(ctx, p.sys, o.ID, opts.Spec, o.SystemdCgroup); err != nil {
		return nil, err
	}
	if p.Group, err = openCgroup(p.Ref); err != nil {
		return nil, err
	}
	p.Message, err = planCreate(&opts, cgroupBinds(p.sys, p.Group))
	return p, err
}

// MakeGroup makes the cgroup, and the class of Intel RDT. With systemd the process pid
// is in the cgroup then, and in any case in the class.
func (p *Prepared) MakeGroup(ctx context.Context, pid int) error {
	if p.Ref.Systemd != "" {
		if err := startUnit(ctx, p.sys, p.place, pid, p.spec.Annotations); err != nil {
			return err
		}
	}
	if err := p.Group.Create(); err != nil {
		return err
	}
	g, err := rdt.Of(p.id, p.spec)
	if g == nil || err != nil {
		return err
	}
	if err := g.Create(); err != nil {
		return err
	}
	p.rdt = g
	return g.Join(pid)
}

// RemoveGroup undoes MakeGroup, when the processes have ended.
func (p *Prepared) RemoveGroup() {
	_ = p.Group.Delete()
	if p.rdt != nil {
		_ = p.rdt.Remove()
	}
}

// FreezeDir is the cgroup's directory that freezes it, "" when there is none.
func (p *Prepared) FreezeDir() string {
	if d, ok := p.Group.Dir("freezer"); ok {
		return d
	}
	if p.sys.Unified() {
		d, _ := p.Group.Dir("")
		return d
	}
	return ""
}

// Confined tells whether this process is an ordinary user, or root of a user namespace
// only.
func Confined() bool { return confined() }

// OpenNamespace opens a namespace file and proves that it is one of that type. Class
// ErrInvalidArgument.
func OpenNamespace(path string, t specs.LinuxNamespaceType) (*os.File, error) {
	return openNamespace(path, plan.NSFlag(t))
}

// SetOOMScore gives a process the score of its configuration; nil: 0, so that it does
// not keep another one.
func SetOOMScore(pid int, score *int) error {
	n := 0
	if score != nil {
		n = *score
	}
	if err := setOOMScore(pid, n); err != nil {
		return fmt.Errorf("oom_score_adj %d: %w", n, err)
	}
	return nil
}
