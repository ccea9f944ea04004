package container

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// Inspect tells everything about a container.
func (s *Service) Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error) {
	o, err := s.index.get(ref)
	if err != nil {
		return container.InspectResponse{}, err
	}
	awaitEnd(ctx, o)
	r, v := o.rec.Load(), o.view.Load()
	cfg, host := *r.Config, *r.HostConfig
	host.Links = shownLinks(s, r)
	args := r.Args
	if args == nil {
		args = []string{}
	}
	resp := container.InspectResponse{
		ID: o.id, Created: r.Created.Format(time.RFC3339Nano), Path: r.Path, Args: args,
		State: stateResponse(v), Image: r.Image, Name: "/" + r.Name, RestartCount: v.Restarts,
		Driver: s.cfg.StorageDriver, Platform: r.Platform, HostConfig: &host, Config: &cfg,
		Mounts: mountList(r), ExecIDs: s.execs.running(o), ImageManifestDescriptor: r.Manifest,
		Storage:         &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: s.cfg.StorageDriver}}},
		NetworkSettings: &container.NetworkSettings{Ports: portsOf(r, v), Networks: withNetworkIDs(s.deps.Networks, endpointsOf(r, v), v)},
	}
	if v.Run > 0 { // it was started, or that was tried
		if r.HostConfig.LogConfig.Type == "json-file" {
			resp.LogPath = s.logPath(o.id)
		}
		files := o.id
		if r.HostConfig.NetworkMode.IsContainer() {
			if other, err := s.index.get(r.HostConfig.NetworkMode.ConnectedContainer()); err == nil {
				files = other.id
			}
		}
		resp.HostnamePath = s.hostFile(files, "hostname")
		resp.HostsPath = s.hostFile(files, "hosts")
		resp.ResolvConfPath = s.hostFile(files, "resolv.conf")
	}
	if v.Phase.Up() && v.run != nil && v.run.sandbox != nil {
		resp.NetworkSettings.SandboxID = o.id
		// Programs enter it by this path. No file of ours stands for a network namespace:
		// this one is there for as long as the container runs.
		resp.NetworkSettings.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", v.run.pid)
	}
	if resp.NetworkSettings.Networks == nil {
		resp.NetworkSettings.Networks = map[string]*networktypes.EndpointSettings{}
	}
	if size {
		rw, root := s.sizes(ctx, o)
		resp.SizeRw, resp.SizeRootFs = &rw, &root
	}
	return resp, nil
}

func stateResponse(v *view) *container.State {
	st := &container.State{
		Status: stateOf(v.State), Running: isUp(v.State), Paused: v.Phase == fsm.Paused,
		Restarting: stateOf(v.State) == container.StateRestarting, OOMKilled: v.Last.OOM, Dead: v.Phase == fsm.Dead,
		ExitCode: v.Last.Code, Error: v.Error,
		StartedAt: stamp(v.started), FinishedAt: stamp(v.Last.At),
	}
	if h := v.health; h != nil {
		st.Health = &container.Health{Status: h.Status, FailingStreak: h.FailingStreak, Log: append([]*container.HealthcheckResult{}, h.Log...)}
	}
	if v.Phase == fsm.Exiting { // it shows as running: then nothing of its end does
		st.ExitCode, st.OOMKilled, st.FinishedAt = 0, false, stamp(time.Time{})
	}
	if isUp(v.State) && v.run != nil && st.Status != container.StateRestarting {
		st.Pid = v.run.pid
		if v.run.lost {
			st.Error = "output was lost while the daemon and the shim were both dead"
		}
	}
	if v.Last.Unknown && !isUp(v.State) && st.Error == "" {
		st.Error = "the exit code could not be learned: the daemon and the shim were both dead"
	}
	return st
}

// stamp is a time as Docker shows it, the zero one included.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// endPatience bounds how long who asks about a container waits for its end to be done with.
const endPatience = 2 * time.Second

// awaitEnd waits while what the last run held is given back, so that who saw the event of
// a container's death is not told that it runs.
func awaitEnd(ctx context.Context, o *owner) {
	ctx, cancel := context.WithTimeout(ctx, endPatience)
	defer cancel()
	for {
		changed := o.changed.wait()
		if o.view.Load().Phase != fsm.Exiting {
			return
		}
		select {
		case <-changed:
		case <-o.done:
			return
		case <-ctx.Done():
			return
		}
	}
}
