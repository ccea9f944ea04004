package oci

import (
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup/rdt"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// joinRdt makes the container's class of service and puts its first process there,
// with the threads that init has.
func (s *starting) joinRdt(o *CreateOpts) error {
	g, err := rdt.Of(o.ID, o.Spec)
	if g == nil || err != nil {
		return err
	}
	if err := g.Create(); err != nil {
		return err
	}
	s.rdt = g
	return g.Join(s.child.pid)
}

// DeleteRdt removes what a container has of its own of Intel RDT: the class of service
// named by its id, its monitoring group. It is idempotent, and nothing for
// configurations without.
func DeleteRdt(id string, s *specs.Spec) error {
	g, err := rdt.Of(id, s)
	if g == nil || err != nil {
		return err
	}
	return g.Remove()
}

// UpdateRdt changes the schemata of a running container's class of service; "" stays.
// Class ErrInvalidArgument for values the kernel refuses, or without a class.
func UpdateRdt(id string, s *specs.Spec, l3CacheSchema, memBwSchema string) error {
	g, err := rdt.Of(id, s)
	if err != nil {
		return err
	}
	if g == nil {
		return errclass.Invalid("intelRdt: the container was made without")
	}
	return g.Set(l3CacheSchema, memBwSchema)
}
