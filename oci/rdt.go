package oci

import (
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/rdt"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// rdtGroup is the class of service that a configuration names; nil: none.
func rdtGroup(id string, s *specs.Spec) (*rdt.Group, error) {
	if s == nil || s.Linux == nil || s.Linux.IntelRdt == nil {
		return nil, nil //nolint:nilnil // none was asked for
	}
	if !rdt.Available() {
		return nil, errclass.NotImplemented("intelRdt is specified in config, but Intel RDT is not enabled on this machine (%s is not mounted)", rdt.Root)
	}
	return rdt.Plan(rdt.Root, id, s.Linux.IntelRdt)
}

// joinRdt makes the container's class of service and puts its first process there,
// with the threads that init has.
func (s *starting) joinRdt(o *CreateOpts) error {
	g, err := rdtGroup(o.ID, o.Spec)
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
	g, err := rdtGroup(id, s)
	if g == nil || err != nil {
		return err
	}
	return g.Remove()
}

// UpdateRdt changes the schemata of a running container's class of service; "" stays.
// Class ErrInvalidArgument for values the kernel refuses, or without a class.
func UpdateRdt(id string, s *specs.Spec, l3CacheSchema, memBwSchema string) error {
	g, err := rdtGroup(id, s)
	if err != nil {
		return err
	}
	if g == nil {
		return errclass.Invalid("intelRdt: the container was made without")
	}
	return g.Set(l3CacheSchema, memBwSchema)
}
