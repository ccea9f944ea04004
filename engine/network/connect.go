package network

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"os"
	"slices"

	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/engine/network/rtnl"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// Connect gives a running container one more network: r.Endpoints has exactly that
// one. ns is the container's network namespace and stays the caller's. The result's
// Record is the container's whole new record; Endpoints and Ports tell of the new
// endpoint only, Ports is nil unless the container's ports were published by it.
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
	firstOut := s.firstWayOut(sb, j)
	out, err := s.describe(r, joins)
	if err != nil {
		return nil, err
	}
	out.Ports = nil
	if firstOut {
		gw4, gw6 := s.drivers.gateways(joins)
		setGateways(gw4, gw6)
		if sb.bindings, err = s.pub.publish(waysOf(gw4, gw6), r); err != nil {
			return nil, err
		}
		u.Add(func() error { s.pub.unbind(sb.bindings); sb.bindings = nil; return nil })
		out.Ports = portMap(r, []*endpoint{j.e})
	}
	if err := plumb.PlugIn(s.host, s.nl, ns, *j.plug); err != nil {
		return nil, err
	}
	if j.n.zone != nil && sb.resolver == nil {
		if err := s.resolveLate(sb, ns, s.cfg.dnsRecord(r)); err != nil {
			return nil, errors.Join(err, s.pullOut(ns, j.e))
		}
		u.Add(func() error { s.stopResolving(sb); return nil })
	}
	if out.Ports != nil {
		if err := s.fw.Publish(r.ContainerID, s.pub.firewallPorts(way{j.n, j.e})); err != nil {
			return nil, errors.Join(err, s.pullOut(ns, j.e))
		}
	}
	u.Keep()
	s.mu.Lock()
	sb.ends = append(sb.ends, j.e)
	s.announce(j.n, j.e)
	out.Record = sb.record()
	s.mu.Unlock()
	s.refreshView(sb)
	emit(s.bus, events.ActionConnect, j.n, map[string]string{"container": r.ContainerID})
	return out, nil
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

// firstWayOut tells whether an endpoint that joins is the sandbox's first way out.
func (s *Service) firstWayOut(sb *sandbox, j *joining) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range sb.ends {
		if s.drivers.wayOut(s.nets[e.NetworkID], e, false) {
			return false
		}
	}
	gw4, gw6 := s.drivers.gateways([]*joining{j})
	return gw4 != nil || gw6 != nil
}

func (sb *sandbox) record() Record {
	r := Record{ContainerID: sb.id, DNS: sb.dns}
	for _, e := range sb.ends {
		r.Endpoints = append(r.Endpoints, e.EndpointRecord)
	}
	return r
}

// Disconnect takes a running container off a network and returns its whole new record.
// ns is its network namespace; nil (or one that is gone) leaves the interface inside to
// die with the host's end. Published ports move to the network that is the way out
// then. Errors: NotFound for the network, or when the container is not on it.
func (s *Service) Disconnect(ctx context.Context, ns *os.File, containerID, ref string) (Record, error) {
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
	was4, was6 := s.drivers.waysOut(s.nets, sb)
	sb.ends = slices.Delete(sb.ends, i, i+1)
	now4, now6 := s.drivers.waysOut(s.nets, sb)
	s.mu.Unlock()
	if len(e.Ports) > 0 {
		if err := s.fw.Unpublish(containerID); err != nil {
			s.log.Error("removing published ports from the firewall", "container", containerID, "error", err)
		}
	}
	if err := s.pullOut(ns, e); err != nil {
		s.log.Error("removing an endpoint's interface", "interface", cmp.Or(e.HostIf, e.IfName), "error", err)
	}
	s.drivers.detach(ctx, n, e)
	for i, to := range []*endpoint{now4, now6} {
		if was := []*endpoint{was4, was6}[i]; was != e || to == nil || to.Direct {
			continue
		}
		if err := moveRoute(s.host, ns, to, s.netOf(to).gateway(to, i == 1)); err != nil {
			s.log.Error("moving a container's default route", "container", containerID, "error", err)
		}
	}
	if len(e.Ports) > 0 {
		s.movePorts(sb, e, now4, now6)
	}
	s.mu.Lock()
	n.unaddress(e)
	withdraw(n, e)
	delete(n.users, containerID)
	rec := sb.record()
	s.mu.Unlock()
	s.refreshView(sb)
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
		err = s.host.Inside(ns, func() error {
			in, err := rtnl.Dial()
			if err != nil {
				return err
			}
			defer in.Close()
			if e.SrcIf != "" {
				return plumb.MoveBack(s.host, in, e.IfName, e.SrcIf)
			}
			_, err = in.Do(rtnl.DelLink(e.IfName))
			return err
		})
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// waysOut are the endpoints that have the default routes, nil without. Service.mu is held.
func (d *drivers) waysOut(nets map[string]*netw, sb *sandbox) (v4, v6 *endpoint) {
	for _, e := range sb.ends {
		if v4 == nil && d.wayOut(nets[e.NetworkID], e, false) {
			v4 = e
		}
		if v6 == nil && d.wayOut(nets[e.NetworkID], e, true) {
			v6 = e
		}
	}
	return v4, v6
}

// moveRoute makes another endpoint the default route, in the container's namespace;
// an invalid gateway leaves all as it is.
func moveRoute(h plumb.HostNS, ns *os.File, to *endpoint, gw netip.Addr) error {
	if ns == nil || !gw.IsValid() {
		return nil
	}
	return h.Inside(ns, func() error {
		in, err := rtnl.Dial()
		if err != nil {
			return err
		}
		defer in.Close()
		l, err := in.LinkByName(to.IfName)
		if err != nil {
			return err
		}
		_, err = in.Do(rtnl.AddRoute(l.Index, netip.Prefix{}, gw))
		return err
	})
}

// movePorts gives an endpoint's published ports to the ways out that are left, and those
// that have none back; the firewall then has what all endpoints publish.
func (s *Service) movePorts(sb *sandbox, from, v4, v6 *endpoint) {
	var ws ways
	for _, f := range []struct {
		e *endpoint
		w *way
	}{{v4, &ws.v4}, {v6, &ws.v6}} {
		if f.e == nil {
			continue
		}
		if n := s.netOf(f.e); n != nil && n.net.Driver == "bridge" {
			*f.w = way{n, f.e}
		}
	}
	s.pub.move(sb, from, ws)
	var on []way
	for _, e := range sb.ends {
		on = append(on, way{s.netOf(e), e})
	}
	if err := s.fw.Publish(sb.id, s.pub.firewallPorts(on...)); err != nil {
		s.log.Error("moving published ports", "container", sb.id, "error", err)
	}
}
