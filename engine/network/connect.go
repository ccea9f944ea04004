package network

import (
	"cmp"
	"context"
	"errors"
	"os"
	"slices"

	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

// Connect gives a running container one more network: r.Endpoints has exactly that
// one. ns is the container's network namespace and stays the caller's. The result's
// Record is the container's whole new record; Endpoints tells of the new
// endpoint only; Ports of all ports, nil unless the endpoint is the way out now in a family:
// it is when it is the first, or goes before others by gateway priority or name.
// Errors: NotFound for the network or when the container has no sandbox, Forbidden
// when it is connected already ("endpoint with name … already exists"), else as Acquire.
func (s *Service) Connect(ctx context.Context, ns *os.File, r SandboxRequest) (_ *Sandbox, err error) {
	if len(r.Endpoints) != 1 {
		return nil, errclass.Invalid("connecting takes one network, not %d", len(r.Endpoints))
	}
	sb, err := s.claim(r.ContainerID)
	if err != nil {
		return nil, err
	}
	defer sb.busy.Unlock()
	var u undo.List
	defer func() {
		if uerr := u.Run(); uerr != nil {
			s.log.Error("undoing a failed connect", "container", r.ContainerID, "error", uerr)
		}
	}()
	j, used, err := s.joinMore(r, sb)
	if err != nil {
		return nil, err
	}
	joins := []*joining{j}
	u.Add(func() error { s.locked(func() { leave(sb, joins) }); return nil })
	if err := s.drivers.attach(ctx, joins, used, &u); err != nil {
		return nil, err
	}
	turn := turnTo(s, sb, j)
	out, err := s.describe(r, joins)
	if err != nil {
		return nil, err
	}
	out.Ports = nil
	if turn.published() {
		taken, err := s.pub.publishMissing(turn.ways, r, turn.ends)
		if err != nil {
			return nil, err
		}
		had := sb.bindings
		sb.bindings = slices.Concat(had, taken)
		u.Add(func() error {
			sb.bindings = had
			s.pub.forgetRecords(taken, turn.ends)
			s.pub.unbind(taken)
			return nil
		})
	}
	if err := plumb.PlugIn(s.host, s.nl, ns, *j.plug); err != nil {
		return nil, err
	}
	if j.n.zone != nil && sb.resolver == nil {
		if err := s.resolveLate(sb, ns, dnsRecord(&s.cfg, r)); err != nil {
			return nil, errors.Join(err, s.pullOut(ns, j.e))
		}
		u.Add(func() error { s.stopResolving(sb); return nil })
	}
	moveRoutes(s, ns, sb, turn)
	if err := s.pub.openRouted(turn.ways, r, way{j.n, j.e}); err != nil {
		return nil, errors.Join(err, s.pullOut(ns, j.e))
	}
	if turn.published() {
		if out.Ports, err = s.publishTurn(ctx, sb, j, r, turn, &u); err != nil {
			return nil, errors.Join(err, s.pullOut(ns, j.e))
		}
	} else if len(j.e.Ports) > 0 {
		if err := s.publishAll(sb, turn.ends); err != nil {
			return nil, errors.Join(err, s.pullOut(ns, j.e))
		}
	}
	u.Keep()
	s.mu.Lock()
	sb.ends = turn.ends
	s.announce(j.n, j.e)
	out.Record = sb.record()
	s.mu.Unlock()
	s.refreshView(sb)
	if err := relink(s); err != nil {
		s.log.Error("opening the ports of linked containers", "container", r.ContainerID, "error", err)
	}
	emit(s.bus, events.ActionConnect, j.n, map[string]string{"container": r.ContainerID})
	return out, nil
}

// publishTurn publishes a container's ports on its ways out of now and tells what is shown.
// What was begun is in u.
func (s *Service) publishTurn(ctx context.Context, sb *sandbox, j *joining, r SandboxRequest, turn turn, u *undo.List) (network.PortMap, error) {
	programs := s.drivers.programs(j)
	for _, from := range turn.losers() {
		s.pub.move(sb, from, turn.ways)
	}
	if err := s.publishAll(sb, turn.ends); err != nil {
		return nil, err
	}
	s.pub.forgetFlows(true, way{j.n, j.e})
	shown := portMap(r, turn.ends)
	if err := s.drivers.program(ctx, programs, shown, u); err != nil {
		return nil, endpointError(turn.ways, r, err)
	}
	for _, from := range turn.losers() {
		if n := s.netOf(from); n != nil {
			s.drivers.unprogram(ctx, n, from)
		}
	}
	return shown, nil
}

// claim finds a container's sandbox and makes it busy.
func (s *Service) claim(containerID string) (*sandbox, error) {
	s.mu.Lock()
	sb := s.sandboxes[containerID]
	s.mu.Unlock()
	if sb != nil {
		sb.busy.Lock()
		if !sb.gone {
			return sb, nil
		}
		sb.busy.Unlock()
	}
	return nil, errclass.NotFound("container %s has no network sandbox", id.Short(containerID))
}

// joinMore takes an endpoint's addresses and tells the names of the interfaces there are.
func (s *Service) joinMore(r SandboxRequest, sb *sandbox) (*joining, map[string]bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var j *joining
	for ref, es := range r.Endpoints {
		n, err := s.find(ref)
		if err != nil {
			return nil, nil, err
		}
		if n.users[sb.id] != nil {
			return nil, nil, errclass.Forbidden("endpoint with name %s already exists in network %s", r.Name, n.net.Name)
		}
		if n.net.Driver == "host" || n.net.Driver == "null" {
			return nil, nil, errclass.Invalid("container cannot be connected to %s network while it runs", n.net.Name)
		}
		if j, err = s.joinOne(r, sb, n, es); err != nil {
			return nil, nil, err
		}
	}
	used := map[string]bool{}
	for _, e := range sb.ends {
		used[e.IfName] = true
	}
	return j, used, nil
}

func (sb *sandbox) record() Record {
	r := Record{ContainerID: sb.id, DNS: sb.dns, LinkedTo: sb.links.to, Exposed: sb.links.exposed}
	for _, e := range sb.ends {
		r.Endpoints = append(r.Endpoints, e.EndpointRecord)
	}
	return r
}

// Disconnect takes a running container off a network and returns its whole new record.
// ns is its network namespace; nil (or one that is gone) leaves the interface inside to
// die with the host's end. Published ports move to the network that is the way out
// then. keep, if any, is called with the record before anything is taken down, to write it
// down: should the daemon die in between, the next one finds an interface that no record
// knows, and removes it. Errors: NotFound for the network, or when the container is not on it.
func (s *Service) Disconnect(ctx context.Context, ns *os.File, containerID, ref string, keep func(Record)) (Record, error) {
	sb, err := s.claim(containerID)
	if err != nil {
		return Record{}, err
	}
	defer sb.busy.Unlock()
	s.mu.Lock()
	n, err := s.find(ref)
	if err != nil {
		s.mu.Unlock()
		return Record{}, err
	}
	i := slices.IndexFunc(sb.ends, func(e *endpoint) bool { return e.NetworkID == n.net.ID })
	if i < 0 {
		s.mu.Unlock()
		return Record{}, errclass.Forbidden("container %s is not connected to network %s", containerID, n.net.Name)
	}
	e := sb.ends[i]
	was4, was6 := s.drivers.waysOut(s.nets, sb.ends)
	sb.ends = slices.Delete(sb.ends, i, i+1)
	now4, now6 := s.drivers.waysOut(s.nets, sb.ends)
	s.mu.Unlock()
	if len(e.Ports) > 0 {
		s.movePorts(sb, e, now4, now6)
	}
	rec := sb.record()
	if keep != nil {
		keep(rec)
	}
	if err := s.pullOut(ns, e); err != nil {
		s.log.Error("removing an endpoint's interface", "interface", cmp.Or(e.HostIf, e.IfName), "error", err)
	}
	s.drivers.detach(ctx, n, e)
	moveRoutes(s, ns, sb, turn{was: [2]*endpoint{was4, was6}, now: [2]*endpoint{now4, now6}, only: e})
	s.mu.Lock()
	n.unaddress(e)
	withdraw(n, e)
	delete(n.users, containerID)
	s.mu.Unlock()
	s.refreshView(sb)
	if err := relink(s); err != nil {
		s.log.Error("closing the ports of linked containers", "container", containerID, "error", err)
	}
	emit(s.bus, events.ActionDisconnect, n, map[string]string{"container": containerID})
	return rec, nil
}

// pullOut removes an endpoint's interface; one that is gone is no error.
func (s *Service) pullOut(ns *os.File, e *endpoint) error {
	if e.HostIf == "" && (ns == nil || e.IfName == "") {
		return nil // it dies with the namespace
	}
	var err error
	if e.HostIf != "" {
		_, err = s.nl.Do(rtnl.DelLink(e.HostIf))
	} else {
		err = plumb.PullOut(s.host, ns, e.IfName, e.SrcIf)
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}
