package task

import (
	"bytes"
	"context"
	"errors"
	"maps"
	"net/netip"
	"os"
	"slices"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/gantry/gantry/internal/errclass"
	networktypes "github.com/moby/moby/api/types/network"
)

// Connect puts the container on one more network: at once when it runs, else from its next
// start on. Errors: NotFound for the network, Forbidden when it is on it already, Invalid for
// settings that are refused, Conflict while it is removed; fsm.ErrGone when it is.
func (t *Task) Connect(ctx context.Context, ref string, ep *networktypes.EndpointSettings) error {
	return t.settled(ctx, func() error {
		if p := t.state.Phase; p == fsm.Removing || p == fsm.Removed || p == fsm.Dead {
			return errclass.Conflict("container is marked for removal and cannot be connected to a network")
		}
		n, err := t.netChange(ref)
		if err != nil {
			return err
		}
		return n.connect(ctx, ep)
	})
}

// Disconnect takes the container off a network: at once when it runs. Errors: NotFound for the
// network, Forbidden when it is not on it, Invalid; fsm.ErrGone when the container is gone.
func (t *Task) Disconnect(ctx context.Context, ref string) error {
	return t.settled(ctx, func() error {
		n, err := t.netChange(ref)
		if err != nil {
			return err
		}
		return n.disconnect(ctx)
	})
}

// settled runs do in the task while no start and no teardown is in progress.
func (t *Task) settled(ctx context.Context, do func() error) error {
	for {
		changed := t.c.Changed()
		answer, busy := make(chan error, 1), make(chan struct{})
		tell := func() { close(busy) }
		sent := t.send(message{do: func() {
			if p := t.state.Phase; p != fsm.Starting && p != fsm.Exiting {
				err := do()
				tell = func() { answer <- err }
			}
		}, seen: func() { tell() }}) // who asks after the answer sees the change
		if !sent {
			return fsm.ErrGone
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

// netChange is a change in progress of the networks that a container is on. It runs in the task.
type netChange struct {
	m        *Manager
	t        *Task
	c        *store.Container
	old      *store.Record
	id, name string // of the network
	driver   network.Description
}

func (t *Task) netChange(ref string) (*netChange, error) {
	n := &netChange{m: t.m, t: t, c: t.c, old: t.c.Record()}
	var err error
	n.id, n.name, n.driver, err = t.m.Networks.Known(ref)
	return n, err
}

func (n *netChange) connect(ctx context.Context, ep *networktypes.EndpointSettings) error {
	if err := n.mayJoin(); err != nil {
		return err
	}
	if n.t.state.Phase.Up() {
		if err := n.connectLive(ctx, ep); err != nil {
			return err
		}
	} else if n.key() != "" {
		return errclass.Forbidden("endpoint with name %s already exists in network %s", n.old.Name, n.name)
	} else if err := n.m.Networks.CheckEndpoint(n.name, ep); err != nil {
		return err // else the next start would fail
	}
	return n.keepNetworks(func(nets map[string]*networktypes.EndpointSettings) { nets[n.name] = ep.Copy() })
}

// mayJoin refuses networks that go with no other.
func (n *netChange) mayJoin() error {
	switch mode := n.old.HostConfig.NetworkMode; {
	case mode.IsContainer():
		return errclass.Invalid("container sharing network namespace with another container or host cannot be connected to any other network")
	case mode.IsHost() || n.driver.HostNamespace:
		return errclass.Invalid("container cannot be disconnected from host network or connected to host network")
	}
	for ref := range n.old.Networks {
		if _, _, d, err := n.m.Networks.Known(ref); err == nil && d.None() || n.driver.None() {
			return errclass.Invalid("container cannot be connected to multiple networks with one of the networks in private (none) mode")
		}
	}
	return nil
}

// key is under which name the record has the network; "" when it has not.
func (n *netChange) key() string {
	for key, ep := range n.old.Networks {
		if ep != nil && ep.NetworkID == n.id {
			return key
		}
		if got, _, _, err := n.m.Networks.Known(key); err == nil && got == n.id {
			return key
		}
	}
	return ""
}

// keepNetworks changes which networks the container has at its next start.
func (n *netChange) keepNetworks(edit func(map[string]*networktypes.EndpointSettings)) error {
	return n.t.keepRecord(func(r *store.Record) {
		r.Networks = maps.Clone(r.Networks)
		if r.Networks == nil {
			r.Networks = map[string]*networktypes.EndpointSettings{}
		}
		edit(r.Networks)
	})
}

func (n *netChange) connectLive(ctx context.Context, ep *networktypes.EndpointSettings) error {
	if n.t.current == nil || n.t.current.Sandbox == nil {
		return errclass.Conflict("container %s has no network sandbox", n.c.ID)
	}
	ns, err := n.c.Namespace("net")
	if err != nil {
		if errors.Is(err, fsm.ErrNotRunning) {
			return n.c.NotRunning()
		}
		return err
	}
	defer ns.Close()
	r := n.c.Record()
	sb, err := n.m.Networks.Connect(ctx, ns, sandboxRequest(r, map[string]*networktypes.EndpointSettings{n.name: ep.Copy()}))
	if err != nil {
		return err
	}
	run := *n.t.current
	run.Sandbox = &sb.Record
	run.Endpoints = maps.Clone(run.Endpoints)
	if run.Endpoints == nil {
		run.Endpoints = map[string]*networktypes.EndpointSettings{}
	}
	var own []netip.Addr
	for name, e := range sb.Endpoints {
		run.Endpoints[name] = e
		own = append(own, e.IPAddress, e.GlobalIPv6Address)
	}
	if sb.Ports != nil {
		run.Ports = sb.Ports
	}
	n.keepRun(&run)
	n.t.editFile("hosts", func(b []byte) []byte {
		for _, a := range own {
			if a.IsValid() {
				b = append(b, a.String()+"\t"+etcfiles.HostNames(r.Config.Hostname, r.Config.Domainname)+"\n"...)
			}
		}
		return b
	})
	n.t.editFile("resolv.conf", func(b []byte) []byte {
		if etcfiles.Generated(b) && sb.Record.DNS != nil && !bytes.Contains(b, []byte("\nnameserver 127.0.0.11\n")) {
			return sb.ResolvConf
		}
		return b
	})
	return nil
}

func (n *netChange) disconnect(ctx context.Context) error {
	if n.old.HostConfig.NetworkMode.IsHost() && n.driver.HostNamespace {
		return errclass.Invalid("container cannot be disconnected from host network or connected to host network")
	}
	key := n.key()
	if n.t.state.Phase.Up() && n.t.current != nil && n.t.current.Sandbox != nil {
		return n.disconnectLive(ctx, key)
	}
	if key == "" {
		return errclass.Forbidden("container %s is not connected to the network %s", n.c.ID, n.name)
	}
	return n.keepNetworks(func(nets map[string]*networktypes.EndpointSettings) { delete(nets, key) })
}

// disconnectLive takes a running container off a network. It is off by the records first:
// a daemon that dies in between leaves an interface that the next one removes.
func (n *netChange) disconnectLive(ctx context.Context, key string) error {
	var ns *os.File
	if !n.driver.None() {
		if f, err := n.c.Namespace("net"); err == nil {
			ns = f
			defer f.Close()
		}
	}
	var gone []netip.Addr
	var kept error
	keep := func(rec network.Record) {
		run := *n.t.current
		run.Sandbox, run.Endpoints = &rec, maps.Clone(run.Endpoints)
		for name, e := range run.Endpoints {
			if e != nil && e.NetworkID == n.id {
				gone = append(gone, e.IPAddress, e.GlobalIPv6Address)
				delete(run.Endpoints, name)
			}
		}
		run.Ports = portsBound(run.Ports, rec)
		kept = n.keepNetworks(func(nets map[string]*networktypes.EndpointSettings) { delete(nets, key) })
		n.keepRun(&run)
	}
	if _, err := n.m.Networks.Disconnect(ctx, ns, n.c.ID, n.id, keep); err != nil {
		return err
	}
	n.t.editFile("hosts", func(b []byte) []byte {
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

// keepRun replaces what is known of the run and writes it down. Should the daemon die
// before that, the next one finds an interface that no record knows, and removes it.
func (n *netChange) keepRun(run *store.Run) {
	n.t.current = run
	file, err := n.m.Files.AppendRun(n.c.ID)
	if err == nil {
		err = file.Save(run)
		file.Close()
	}
	if err != nil {
		n.m.Log.Error("recording a container's networks", "container", n.c.ID, "error", err)
	}
}

// portsBound are the container's ports with the bindings that a sandbox has now.
func portsBound(old networktypes.PortMap, rec network.Record) networktypes.PortMap {
	out := networktypes.PortMap{}
	for p := range old {
		out[p] = nil
	}
	for _, e := range rec.Endpoints {
		for _, m := range e.Ports {
			m.Show(out)
		}
	}
	return out
}
