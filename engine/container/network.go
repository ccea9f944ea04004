package container

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"
	"strconv"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/gantry/gantry/internal/errclass"
	networktypes "github.com/moby/moby/api/types/network"
)

// NetworkConnect puts a container on one more network: at once when it runs, else from
// its next start on. Errors: NotFound for the container or the network, Forbidden when it
// is on it already, Invalid for what cannot be, Conflict while it is removed.
func (s *Service) NetworkConnect(ctx context.Context, netRef, ref string, ep *networktypes.EndpointSettings) error {
	if ep == nil {
		ep = &networktypes.EndpointSettings{}
	}
	return s.settled(ctx, ref, func(o *owner) error { return o.connect(ctx, netRef, ep.Copy()) })
}

// NetworkDisconnect takes a container off a network: at once when it runs. force is
// for clients that know it: nothing here needs forcing. Errors: NotFound, Forbidden
// when it is not on the network, Invalid.
func (s *Service) NetworkDisconnect(ctx context.Context, netRef, ref string, _ bool) error {
	return s.settled(ctx, ref, func(o *owner) error { return o.disconnect(ctx, netRef) })
}

// settled runs do in the container's owner while no start and no end is in progress.
func (s *Service) settled(ctx context.Context, ref string, do func(o *owner) error) error {
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	for {
		changed := o.changed.wait()
		answer, busy := make(chan error, 1), make(chan struct{})
		tell := func() { close(busy) }
		sent := o.send(message{do: func(o *owner) {
			if p := o.state.Phase; p != fsm.Starting && p != fsm.Exiting {
				err := do(o)
				tell = func() { answer <- err }
			}
		}, seen: func(*owner) { tell() }}) // who asks after the answer sees the change
		if !sent {
			return errclass.NotFound("No such container: %s", ref)
		}
		select {
		case err := <-answer:
			return err
		case <-busy:
		case <-ctx.Done():
			return ctx.Err()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// connect runs in the owner.
func (o *owner) connect(ctx context.Context, netRef string, ep *networktypes.EndpointSettings) error {
	if p := o.state.Phase; p == fsm.Removing || p == fsm.Removed || p == fsm.Dead {
		return errclass.Conflict("container is marked for removal and cannot be connected to a network")
	}
	nid, name, driver, err := o.s.deps.Networks.Known(netRef)
	if err != nil {
		return err
	}
	old := o.rec.Load()
	if err := o.mayJoin(driver, old); err != nil {
		return err
	}
	if o.state.Phase.Up() {
		if err := o.connectLive(ctx, name, ep); err != nil {
			return err
		}
	} else if key := o.onNetwork(nid, old); key != "" {
		return errclass.Forbidden("endpoint with name %s already exists in network %s", old.Name, name)
	} else if err := o.s.deps.Networks.CheckEndpoint(name, ep); err != nil {
		return err // else the next start would fail
	}
	return o.keepNetworks(func(nets map[string]*networktypes.EndpointSettings) { nets[name] = ep.Copy() })
}

// mayJoin refuses networks that go with no other.
func (o *owner) mayJoin(driver string, r *record) error {
	switch {
	case r.HostConfig.NetworkMode.IsContainer():
		return errclass.Invalid("container sharing network namespace with another container or host cannot be connected to any other network")
	case r.HostConfig.NetworkMode.IsHost() || driver == "host":
		return errclass.Invalid("container cannot be disconnected from host network or connected to host network")
	}
	for ref := range r.Networks {
		if _, _, d, err := o.s.deps.Networks.Known(ref); err == nil && d == "null" || driver == "null" {
			return errclass.Invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
	}
	return nil
}

// onNetwork returns under which key the record has the network.
func (o *owner) onNetwork(nid string, r *record) string {
	for key, ep := range r.Networks {
		if ep != nil && ep.NetworkID == nid {
			return key
		}
		if got, _, _, err := o.s.deps.Networks.Known(key); err == nil && got == nid {
			return key
		}
	}
	return ""
}

// keepNetworks changes which networks the container has at its next start.
func (o *owner) keepNetworks(edit func(map[string]*networktypes.EndpointSettings)) error {
	r := *o.rec.Load()
	r.Networks = maps.Clone(r.Networks)
	if r.Networks == nil {
		r.Networks = map[string]*networktypes.EndpointSettings{}
	}
	edit(r.Networks)
	if err := o.s.saveRecord(&r); err != nil {
		return err
	}
	o.rec.Store(&r)
	return nil
}

func (o *owner) connectLive(ctx context.Context, name string, ep *networktypes.EndpointSettings) error {
	if o.run == nil || o.run.sandbox == nil {
		return errclass.Conflict("container %s has no network sandbox", o.id)
	}
	ns, err := o.namespace("net")
	if err != nil {
		if errors.Is(err, fsm.ErrNotRunning) {
			return o.notRunning()
		}
		return err
	}
	defer ns.Close()
	r := o.rec.Load()
	sb, err := o.s.deps.Networks.Connect(ctx, ns, sandboxRequest(r, map[string]*networktypes.EndpointSettings{name: ep.Copy()}))
	if err != nil {
		return err
	}
	run := *o.run
	run.sandbox = &sb.Record
	run.endpoints = maps.Clone(run.endpoints)
	if run.endpoints == nil {
		run.endpoints = map[string]*networktypes.EndpointSettings{}
	}
	var own []netip.Addr
	for n, e := range sb.Endpoints {
		run.endpoints[n] = e
		own = append(own, e.IPAddress, e.GlobalIPv6Address)
	}
	if sb.Ports != nil {
		run.ports = sb.Ports
	}
	o.keepRun(&run)
	o.editFile("hosts", func(b []byte) []byte {
		for _, a := range own {
			if a.IsValid() {
				b = append(b, a.String()+"\t"+etcfiles.HostNames(r.Config.Hostname, r.Config.Domainname)+"\n"...)
			}
		}
		return b
	})
	o.editFile("resolv.conf", func(b []byte) []byte {
		if etcfiles.Generated(b) && sb.Record.DNS != nil && !bytes.Contains(b, []byte("\nnameserver 127.0.0.11\n")) {
			return sb.ResolvConf
		}
		return b
	})
	return nil
}

// disconnect runs in the owner.
func (o *owner) disconnect(ctx context.Context, netRef string) error {
	nid, name, driver, err := o.s.deps.Networks.Known(netRef)
	if err != nil {
		return err
	}
	old := o.rec.Load()
	if old.HostConfig.NetworkMode.IsHost() && driver == "host" {
		return errclass.Invalid("container cannot be disconnected from host network or connected to host network")
	}
	key := o.onNetwork(nid, old)
	if o.state.Phase.Up() && o.run != nil && o.run.sandbox != nil {
		return o.disconnectLive(ctx, nid, driver, key)
	}
	if key == "" {
		return errclass.Forbidden("container %s is not connected to the network %s", o.id, name)
	}
	return o.keepNetworks(func(nets map[string]*networktypes.EndpointSettings) { delete(nets, key) })
}

// disconnectLive takes a running container off a network. It is off by the records first:
// a daemon that dies in between leaves an interface that the next one removes.
func (o *owner) disconnectLive(ctx context.Context, nid, driver, key string) error {
	var ns *os.File
	if driver != "null" {
		if f, err := o.namespace("net"); err == nil {
			ns = f
			defer f.Close()
		}
	}
	var gone []netip.Addr
	var kept error
	keep := func(rec network.Record) {
		run := *o.run
		run.sandbox, run.endpoints = &rec, maps.Clone(run.endpoints)
		for n, e := range run.endpoints {
			if e != nil && e.NetworkID == nid {
				gone = append(gone, e.IPAddress, e.GlobalIPv6Address)
				delete(run.endpoints, n)
			}
		}
		run.ports = portsBound(run.ports, rec)
		kept = o.keepNetworks(func(nets map[string]*networktypes.EndpointSettings) { delete(nets, key) })
		o.keepRun(&run)
	}
	if _, err := o.s.deps.Networks.Disconnect(ctx, ns, o.id, nid, keep); err != nil {
		return err
	}
	o.editFile("hosts", func(b []byte) []byte {
		var out []byte
		for line := range bytes.Lines(b) {
			if !slices.ContainsFunc(gone, func(a netip.Addr) bool {
				return a.IsValid() && bytes.HasPrefix(line, []byte(a.String()+"\t"))
			}) {
				out = append(out, line...)
			}
		}
		return out
	})
	return kept
}

// portsBound are the container's ports with the bindings that a sandbox has now.
func portsBound(old networktypes.PortMap, rec network.Record) networktypes.PortMap {
	out := networktypes.PortMap{}
	for p := range old {
		out[p] = nil
	}
	for _, e := range rec.Endpoints {
		for _, p := range e.Ports {
			if port, ok := networktypes.PortFrom(p.ContainerPort, networktypes.IPProtocol(p.Proto)); ok && p.HostPort != 0 {
				out[port] = append(out[port], networktypes.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort))})
			}
		}
	}
	return out
}

// keepRun replaces what is known of the run and writes it down. Should the daemon die
// before that, the next one finds an interface that no record knows, and removes it.
func (o *owner) keepRun(run *runInfo) {
	o.run = run
	rec, err := o.s.readRun(o.id)
	if err == nil {
		rec.Sandbox, rec.Endpoints, rec.Ports = run.sandbox, run.endpoints, run.ports
		var file *runFile
		if file, err = o.s.appendRun(o.id); err == nil {
			err = file.save(rec)
			file.f.Close()
		}
	}
	if err != nil {
		o.s.log.Error("recording a container's networks", "container", o.id, "error", err)
	}
}

// editFile changes a file of the container's in place: it is mounted there. What cannot
// be changed stays as it was.
func (o *owner) editFile(name string, edit func([]byte) []byte) {
	path := o.s.hostFile(o.id, name)
	old, err := readFile(path)
	if err == nil {
		if now := edit(slices.Clone(old)); !bytes.Equal(now, old) {
			err = os.WriteFile(path, now, 0o644)
		}
	}
	if err != nil {
		o.s.log.Warn("changing a container's file", "container", o.id, "file", name, "error", err)
	}
}
