package task

import (
	"context"
	"errors"
	"maps"
	"os"

	"github.com/gantry/gantry/engine/container/bundle"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/links"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/undo"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/events"
	networktypes "github.com/moby/moby/api/types/network"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// start carries out a start and tells the task how it went. It runs beside it.
func (t *Task) start(number uint64) {
	ctx, cancel := t.m.Scope.Timeout(effectTimeout)
	defer cancel()
	st := &starting{m: t.m, c: t.c, t: t, r: t.c.Record(), number: number}
	defer st.closeFiles()
	err := st.start(ctx)
	if err != nil {
		t.clients.Await()
		t.clients.Drop()
		code, err := bundle.StartError(err)
		t.send(message{ev: fsm.StartFailed{Run: number, Err: err, Code: code}})
		return
	}
	tellVolumes(t.m.Bus, st.r, events.ActionMount)
	run := st.run // all that stays of the start
	t.send(message{
		do:   func() { t.current = &run; t.keepSources(st.r.Mounts) },
		ev:   fsm.Started{Run: number},
		seen: func() { t.clients.Begin(number) },
	})
}

// starting is one start in progress.
type starting struct {
	m      *Manager
	c      *store.Container
	t      *Task
	r      *store.Record
	number uint64
	back   undo.List
	files  []*os.File // to close after the call, whatever happens
	run    store.Run
	joined bundle.Joined
	nsFDs  []*os.File
	mounts []specs.Mount
}

func (st *starting) closeFiles() {
	for _, f := range st.files {
		f.Close()
	}
}

// start takes what the run needs, one after the other, and starts it. When it fails
// nothing of the run is left; when the daemon's end cuts it off, the next daemon finds what a
// crash would have left.
func (st *starting) start(ctx context.Context) (err error) {
	defer func() {
		if err == nil || st.m.Scope.Closed() {
			return
		}
		if uerr := st.back.Run(); uerr != nil {
			st.m.Log.Warn("undoing a start", "container", st.c.ID, "error", uerr)
		}
	}()
	st.t.awaitForgotten(ctx)
	st.run = store.Run{Schema: store.Schema, Number: st.number, Phase: "starting"}
	file, err := st.m.Files.OpenRun(st.c.ID)
	if err != nil {
		return err
	}
	defer file.Close()
	st.back.Add(func() error { return st.m.Files.DropRun(st.c.ID) })
	if err := file.Save(&st.run); err != nil {
		return err
	}
	if err := st.network(ctx); err != nil {
		return err
	}
	if err := st.namespaces(); err != nil {
		return err
	}
	if err := st.volumes(ctx); err != nil {
		return err
	}
	req, err := st.m.Bundle.Start(ctx, st.r, st.c.Key(st.number), st.joined, st.mounts)
	if err != nil {
		return err
	}
	// Where it will be and what it holds is on record before it runs: whoever finds it
	// half started can end it, or take it over with its network.
	if cg, err := oci.CgroupOf(ctx, st.c.ID, req.Spec, req.SystemdCgroup); err == nil {
		st.run.Cgroup = cg
	}
	st.run.Runtime = req.Runtime
	if err := file.Save(&st.run); err != nil {
		return err
	}
	started, err := st.launch(ctx, req)
	if err != nil {
		return err
	}
	st.run.Phase, st.run.Pid, st.run.StartTicks = "running", started.Pid, started.StartTicks
	st.run.Started, st.run.Cgroup = started.Started, started.Cgroup
	if err := file.Save(&st.run); err != nil {
		// It runs: without the record a crash of both processes would lose it, no more.
		st.m.Log.Warn("recording a run", "container", st.c.ID, "error", err)
	}
	st.back.Keep()
	st.m.relink(st.c.ID, st.run.Endpoints[networktypes.NetworkBridge])
	return nil
}

// network gets the sandbox and writes the files that say what is in it.
func (st *starting) network(ctx context.Context) error {
	h, id := st.r.HostConfig, st.c.ID
	if h.NetworkMode.IsContainer() && !st.r.Config.NetworkDisabled {
		return st.joinNetwork(h.NetworkMode.ConnectedContainer())
	}
	eps := make(map[string]*networktypes.EndpointSettings, len(st.r.Networks))
	for n, e := range st.r.Networks {
		eps[n] = e.Copy()
	}
	req := sandboxRequest(st.r, eps)
	var err error
	if req.Links, err = links.Hosts(st.m.Index, st.r); err != nil {
		return err
	}
	req.LinkedTo = links.Targets(st.r)
	sb, err := st.m.Networks.Acquire(ctx, req)
	if err != nil {
		return prefixed("failed to set up container networking: ", err)
	}
	st.back.Add(func() error {
		ctx, cancel := st.m.Scope.Timeout(releaseTimeout)
		defer cancel()
		return st.m.Networks.Release(ctx, id)
	})
	if sb.NetNS != nil {
		st.join(specs.NetworkNamespace, sb.NetNS)
	}
	st.run.Sandbox, st.run.Endpoints, st.run.Ports = &sb.Record, sb.Endpoints, sb.Ports
	for name, data := range map[string][]byte{
		"hosts": sb.Hosts, "resolv.conf": sb.ResolvConf, "hostname": []byte(st.r.Config.Hostname + "\n"),
	} {
		if err := os.WriteFile(st.m.Files.HostFile(id, name), data, 0o644); err != nil {
			return err
		}
	}
	st.bindFiles(id)
	return nil
}

// sandboxRequest is what a container asks of the network, on the given networks.
func sandboxRequest(r *store.Record, eps map[string]*networktypes.EndpointSettings) network.SandboxRequest {
	h, cfg := r.HostConfig, r.Config
	return network.SandboxRequest{
		ContainerID: r.ID, Name: r.Name, Hostname: cfg.Hostname, Domainname: cfg.Domainname,
		Endpoints: eps, Ports: h.PortBindings, Exposed: cfg.ExposedPorts, PublishAll: h.PublishAllPorts,
		DNS: h.DNS, DNSSearch: h.DNSSearch, DNSOptions: h.DNSOptions, ExtraHosts: h.ExtraHosts,
		Sysctls: maps.Clone(h.Sysctls),
	}
}

// bindFiles mounts /etc/hosts and its like, unless the user mounts something there.
func (st *starting) bindFiles(id string) {
	for _, name := range []string{"hostname", "hosts", "resolv.conf"} {
		dest := "/etc/" + name
		taken := false
		for _, m := range st.r.Mounts {
			taken = taken || m.Destination == dest
		}
		if !taken {
			st.mounts = append(st.mounts, specs.Mount{
				Destination: dest, Type: "bind",
				Source: st.m.Files.HostFile(id, name), Options: []string{"rbind", "rprivate"},
			})
		}
	}
}

// join gives the run a namespace by descriptor, and closes that at the end.
func (st *starting) join(t specs.LinuxNamespaceType, f *os.File) {
	st.files = append(st.files, f)
	st.joined = append(st.joined, t)
	st.nsFDs = append(st.nsFDs, f)
}

func (st *starting) joinNetwork(ref string) error {
	other, err := st.m.Index.Get(ref)
	if err != nil {
		// Not of class NotFound: it is not the container that was asked for.
		return errclass.Internal("joining network namespace of container: %s", err.Error())
	}
	if v := other.View(); v.Phase == fsm.Restarting {
		return errclass.Conflict("container %s is restarting, wait until the container is running", other.ID)
	}
	f, err := other.Namespace("net")
	if err != nil {
		if errors.Is(err, fsm.ErrNotRunning) {
			return errclass.Conflict("cannot join network of a non running container: %s", other.ID)
		}
		return err
	}
	st.join(specs.NetworkNamespace, f)
	st.bindFiles(other.ID)
	return nil
}

// volumes mounts the volumes of the run.
func (st *starting) volumes(ctx context.Context) error {
	st.back.Add(func() error {
		ctx, cancel := st.m.Scope.Timeout(releaseTimeout)
		defer cancel()
		return mounts.UnmountVolumes(ctx, st.m.Volumes, st.c.ID, st.r.Mounts)
	})
	points, err := mounts.MountVolumes(ctx, st.m.Volumes, st.c.ID, st.r.Mounts)
	if err != nil {
		return err
	}
	r := *st.r
	r.Mounts = points
	st.r = &r
	return nil
}

// namespaces joins what other modes name.
func (st *starting) namespaces() error {
	h := st.r.HostConfig
	if !h.PidMode.IsContainer() {
		return nil
	}
	other, err := st.m.Index.Get(h.PidMode.Container())
	if err != nil {
		return err
	}
	f, err := other.Namespace("pid")
	if err != nil {
		if errors.Is(err, fsm.ErrNotRunning) {
			return errclass.Conflict("cannot join PID namespace of a non running container: container %s is not running", other.ID)
		}
		return err
	}
	st.join(specs.PIDNamespace, f)
	return nil
}

// launch hands the request to the shim, with the clients that are already attached.
func (st *starting) launch(ctx context.Context, req *shim.StartRequest) (*shim.Started, error) {
	st.t.clients.Await()
	clients := st.t.clients.Take()
	files := append([]*os.File{}, st.nsFDs...)
	for _, c := range clients {
		req.Attach = append(req.Attach, c.Spec)
		files = append(files, c.Conn)
	}
	defer func() {
		for _, c := range clients {
			c.Conn.Close()
		}
	}()
	started, err := st.m.Shim.Start(ctx, req, files)
	if err != nil {
		return nil, &bundle.LaunchError{Err: err}
	}
	return started, nil
}
