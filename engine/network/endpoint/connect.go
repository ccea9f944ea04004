package endpoint

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"

	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/publish"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// Connect gives a running container one more network: r.Endpoints has exactly that
// one. ns is the container's network namespace and stays the caller's. The result's
// Record is the container's whole new record; Endpoints tells of the new
// endpoint only; Ports of all ports, nil unless the endpoint is the gateway now in a family:
// it is when it is the first, or goes before others by gateway priority or name.
// Errors: NotFound for the network or when the container has no sandbox, Forbidden
// when it is connected already ("endpoint with name … already exists"), else as Acquire.
func (s *Service) Connect(ctx context.Context, ns *os.File, r sandbox.Request) (_ *sandbox.Sandbox, err error) {
	if len(r.Endpoints) != 1 {
		return nil, errclass.Invalid("connecting takes one network, not %d", len(r.Endpoints))
	}
	c, err := s.claim(r.ContainerID)
	if err != nil {
		return nil, err
	}
	defer c.busy.Unlock()
	var u undo.List
	defer func() {
		if uerr := u.Run(); uerr != nil {
			s.log.Error("undoing a failed connect", "container", r.ContainerID, "error", uerr)
		}
	}()
	j, used, err := s.joinMore(r, c)
	if err != nil {
		return nil, err
	}
	joins := []*joining{j}
	u.Add(func() error { leave(c.id, joins); return nil })
	if err := s.attach(ctx, joins, used, &u); err != nil {
		return nil, err
	}
	el := electWith(c.ends, j)
	out, err := s.describe(r, joins)
	if err != nil {
		return nil, err
	}
	out.Ports = nil
	if el.won() {
		ends := recordsOf(el.ends)
		taken, err := s.ports.PublishMissing(el.now.published(), r, ends)
		if err != nil {
			return nil, err
		}
		u.Add(func() error { s.ports.GiveBack(taken, ends); return nil })
	}
	if err := netns.AddInterface(s.host.NS(), s.host.Conn(), ns, *j.iface); err != nil {
		return nil, err
	}
	if j.n.Zone != nil && c.resolver == nil {
		if err := s.resolveLate(c, ns, s.dnsRecord(r)); err != nil {
			return nil, errors.Join(err, s.removeInterface(ns, j.endpoint))
		}
		u.Add(func() error { s.stopResolving(c); return nil })
	}
	s.moveRoutes(ns, c, el)
	if out.Ports, err = s.publishElected(ctx, c, j, r, el, &u); err != nil {
		return nil, errors.Join(err, s.removeInterface(ns, j.endpoint))
	}
	u.Keep()
	s.mu.Lock()
	c.ends = el.ends
	out.Record = c.record()
	s.mu.Unlock()
	j.n.Announce(&j.Endpoint)
	s.refreshView(c)
	if err := s.relink(); err != nil {
		s.log.Error("opening the ports of linked containers", "container", r.ContainerID, "error", err)
	}
	j.n.Emit(s.bus, events.ActionConnect, map[string]string{"container": r.ContainerID})
	return out, nil
}

// publishElected publishes a container's ports on its gateways of now and tells what is
// shown; nil where the new endpoint is none. What was begun is in u.
func (s *Service) publishElected(ctx context.Context, c *container, j *joining, r sandbox.Request, el election, u *undo.List) (network.PortMap, error) {
	at := el.now.published()
	if err := s.ports.OpenRouted(at, r, j.published()); err != nil {
		return nil, err
	}
	if !el.won() {
		if len(j.Ports) == 0 {
			return nil, nil
		}
		return nil, s.ports.Apply(c.id, published(el.ends))
	}
	byDriver := programs([]*joining{j}, el.now)
	u.Add(func() error {
		s.ports.Move(c.id, &j.Endpoint, el.was.published())
		return s.ports.Apply(c.id, published(c.ends))
	})
	for _, from := range el.losers() {
		s.ports.Move(c.id, &from.Endpoint, at)
	}
	if err := s.ports.Apply(c.id, published(el.ends)); err != nil {
		return nil, err
	}
	s.ports.Flush(true, []publish.Endpoint{j.published()})
	shown := publish.Shown(r, recordsOf(el.ends))
	if err := s.program(ctx, byDriver, shown, u); err != nil {
		return nil, err
	}
	for _, from := range el.losers() {
		s.unprogram(ctx, from)
	}
	return shown, nil
}

// joinMore takes an endpoint's addresses and tells the names of the interfaces there are.
func (s *Service) joinMore(r sandbox.Request, c *container) (*joining, map[string]bool, error) {
	var j *joining
	for ref, es := range r.Endpoints {
		n, err := s.nets.Find(ref)
		if err != nil {
			return nil, nil, err
		}
		if n.User(c.id) != nil {
			return nil, nil, errclass.Forbidden("endpoint with name %s already exists in network %s", r.Name, n.Name)
		}
		if !n.Facts.HasInterfaces && !n.ConfigOnly {
			return nil, nil, errclass.Invalid("container cannot be connected to %s network while it runs", n.Name)
		}
		if j, err = joinOne(r, n, es); err != nil {
			return nil, nil, err
		}
	}
	used := map[string]bool{}
	for _, e := range c.ends {
		used[e.IfName] = true
	}
	return j, used, nil
}

// Disconnect takes a running container off a network and returns its whole new record.
// ns is its network namespace; nil (or one that is gone) leaves the interface inside to
// die with the host's end. Published ports move to the endpoint that is the gateway
// then. keep, if any, is called with the record before anything is taken down, to write it
// down: should the daemon die in between, the next one finds an interface that no record
// knows, and removes it. Errors: NotFound for the network, Forbidden when the container is not
// on it.
func (s *Service) Disconnect(ctx context.Context, ns *os.File, containerID, ref string, keep func(sandbox.Record)) (sandbox.Record, error) {
	c, err := s.claim(containerID)
	if err != nil {
		return sandbox.Record{}, err
	}
	defer c.busy.Unlock()
	n, err := s.nets.Find(ref)
	if err != nil {
		return sandbox.Record{}, err
	}
	i := slices.IndexFunc(c.ends, func(e *endpoint) bool { return e.n == n })
	if i < 0 {
		return sandbox.Record{}, errclass.Forbidden("container %s is not connected to network %s", containerID, n.Name)
	}
	e := c.ends[i]
	el := election{was: elect(c.ends), only: e, ends: slices.Delete(slices.Clone(c.ends), i, i+1)}
	el.now = elect(el.ends)
	s.locked(func() { c.ends = el.ends })
	if len(e.Ports) > 0 {
		s.ports.Move(c.id, &e.Endpoint, el.now.published())
		if err := s.ports.Apply(c.id, published(el.ends)); err != nil {
			s.log.Error("moving published ports", "container", c.id, "error", err)
		}
	}
	rec := c.record()
	if keep != nil {
		keep(rec)
	}
	if err := s.removeInterface(ns, e); err != nil {
		s.log.Error("removing an endpoint's interface", "interface", cmp.Or(e.HostIf, e.IfName), "error", err)
	}
	s.detach(ctx, e)
	s.moveRoutes(ns, c, el)
	n.Leave(containerID, &e.Endpoint)
	s.refreshView(c)
	if err := s.relink(); err != nil {
		s.log.Error("closing the ports of linked containers", "container", containerID, "error", err)
	}
	n.Emit(s.bus, events.ActionDisconnect, map[string]string{"container": containerID})
	return rec, nil
}

// removeInterface removes an endpoint's interface; one that is gone is no error.
func (s *Service) removeInterface(ns *os.File, e *endpoint) error {
	if e.HostIf == "" && (ns == nil || e.IfName == "") {
		return nil // it dies with the namespace
	}
	var err error
	if e.HostIf != "" {
		_, err = s.host.Do(rtnl.DelLink(e.HostIf))
	} else {
		err = netns.RemoveInterface(s.host.NS(), ns, e.IfName, e.SrcIf)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
