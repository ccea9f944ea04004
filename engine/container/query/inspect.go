package query

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/links"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/api/types/storage"
)

// Inspect tells everything about a container.
func (q *Reader) Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error) {
	c, err := q.index.Get(ref)
	if err != nil {
		return container.InspectResponse{}, err
	}
	c.AwaitEnd(ctx)
	r, v := c.Record(), c.View()
	cfg, host := *r.Config, *r.HostConfig
	host.Links = links.Shown(q.index, r)
	args := r.Args
	if args == nil {
		args = []string{}
	}
	resp := container.InspectResponse{
		ID: c.ID, Created: r.Created.Format(time.RFC3339Nano), Path: r.Path, Args: args,
		State: stateResponse(v), Image: r.Image, Name: "/" + r.Name, RestartCount: v.Restarts,
		Driver: q.driver, Platform: r.Platform, HostConfig: &host, Config: &cfg,
		Mounts: mountList(r), ExecIDs: q.execs.Running(c.ID), ImageManifestDescriptor: r.Manifest,
		Storage:         &storage.Storage{RootFS: &storage.RootFSStorage{Snapshot: &storage.RootFSStorageSnapshot{Name: q.driver}}},
		NetworkSettings: &container.NetworkSettings{Ports: portsOf(r, v), Networks: withNetworkIDs(q.networks, v.Endpoints(r), v)},
	}
	if v.Run > 0 { // it was started, or that was tried
		resp.LogPath = q.logPath(r)
		files := c.ID
		if r.HostConfig.NetworkMode.IsContainer() {
			if other, err := q.index.Get(r.HostConfig.NetworkMode.ConnectedContainer()); err == nil {
				files = other.ID
			}
		}
		resp.HostnamePath = q.files.HostFile(files, "hostname")
		resp.HostsPath = q.files.HostFile(files, "hosts")
		resp.ResolvConfPath = q.files.HostFile(files, "resolv.conf")
	}
	if v.Phase.Up() && v.Current != nil && v.Current.Sandbox != nil {
		resp.NetworkSettings.SandboxID = c.ID
		// Programs enter it by this path. No file of ours stands for a network namespace:
		// this one is there for as long as the container runs.
		resp.NetworkSettings.SandboxKey = fmt.Sprintf("/proc/%d/ns/net", v.Current.Pid)
	}
	if resp.NetworkSettings.Networks == nil {
		resp.NetworkSettings.Networks = map[string]*networktypes.EndpointSettings{}
	}
	if size {
		rw, root := q.Sizes(ctx, c)
		resp.SizeRw, resp.SizeRootFs = &rw, &root
	}
	return resp, nil
}

func stateResponse(v *store.View) *container.State {
	st := &container.State{
		Status: stateOf(v.State), Running: v.Running(), Paused: v.Phase == fsm.Paused,
		Restarting: stateOf(v.State) == container.StateRestarting, OOMKilled: v.Last.OOM, Dead: v.Phase == fsm.Dead,
		ExitCode: v.Last.Code, Error: v.Error,
		StartedAt: stamp(v.Started), FinishedAt: stamp(v.Last.At),
	}
	if h := v.Health; h != nil {
		st.Health = &container.Health{Status: h.Status, FailingStreak: h.FailingStreak, Log: append([]*container.HealthcheckResult{}, h.Log...)}
	}
	if v.Phase == fsm.Exiting { // it shows as running: then nothing of its end does
		st.ExitCode, st.OOMKilled, st.FinishedAt = 0, false, stamp(time.Time{})
	}
	if v.Running() && v.Current != nil && st.Status != container.StateRestarting {
		st.Pid = v.Current.Pid
		if v.Current.Lost {
			st.Error = "output was lost while the daemon and the shim were both dead"
		}
	}
	if v.Last.Unknown && !v.Running() && st.Error == "" {
		st.Error = "the exit code could not be learned: the daemon and the shim were both dead"
	}
	return st
}

// stamp is a time as Docker shows it, the zero one included.
func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// logPath is the file of a log whose format is for others to read, too.
func (q *Reader) logPath(r *store.Record) string {
	d, err := q.logs.Find(r.HostConfig.LogConfig.Type)
	if err != nil || !d.Describe().PublicPath {
		return ""
	}
	return d.Path(q.files.Log(r.ID))
}
