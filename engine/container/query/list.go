package query

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/docker/go-units"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/health"
	"github.com/gantry/gantry/engine/container/links"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// List tells the containers, newest first.
func (q *Reader) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	sel, err := q.selection(ctx, o)
	if err != nil {
		return nil, err
	}
	type item struct {
		c *store.Container
		r *store.Record
		v *store.View
	}
	var items []item
	for _, c := range q.index.All() {
		it := item{c, c.Record(), c.View()}
		if it.v.Phase == fsm.Removed || !sel.match(c, it.r, it.v) {
			continue
		}
		items = append(items, it)
	}
	slices.SortFunc(items, func(a, b item) int { return b.r.Created.Compare(a.r.Created) })
	if o.Limit > 0 && len(items) > o.Limit {
		items = items[:o.Limit]
	}
	now, linkNames := time.Now(), links.Names(q.index)
	out := make([]container.Summary, 0, len(items))
	for _, it := range items {
		sum := q.summary(it.c, it.r, it.v, now)
		sum.Names = append(sum.Names, linkNames[it.c.ID]...)
		if o.Size {
			sum.SizeRw, sum.SizeRootFs = q.Sizes(ctx, it.c)
		}
		out = append(out, sum)
	}
	return out, nil
}

// stateOf is the phase as Docker names it.
func stateOf(st fsm.State) container.ContainerState {
	switch st.Phase {
	case fsm.Created:
		return container.StateCreated
	case fsm.Starting:
		switch {
		case st.ByPolicy:
			return container.StateRestarting
		case st.Ran:
			return container.StateExited
		}
		return container.StateCreated
	case fsm.Running, fsm.Stopping, fsm.Exiting:
		return container.StateRunning
	case fsm.Paused:
		return container.StatePaused
	case fsm.Restarting:
		return container.StateRestarting
	case fsm.Removing, fsm.Removed:
		return container.StateRemoving
	case fsm.Dead:
		return container.StateDead
	default:
		return container.StateExited
	}
}

// statusOf is the status column of ps.
func statusOf(v *store.View, now time.Time) string {
	state := stateOf(v.State)
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch state {
	case container.StateCreated:
		return "Created"
	case container.StateRunning:
		if words := health.Words(v.Health); words != "" {
			return "Up " + ago(v.Started) + " (" + words + ")"
		}
		return "Up " + ago(v.Started)
	case container.StatePaused:
		return "Up " + ago(v.Started) + " (Paused)"
	case container.StateRestarting:
		return fmt.Sprintf("Restarting (%d) %s ago", v.Last.Code, ago(v.Last.At))
	case container.StateRemoving:
		return "Removal In Progress"
	case container.StateDead:
		return "Dead"
	}
	if v.Last.At.IsZero() {
		return fmt.Sprintf("Exited (%d)", v.Last.Code)
	}
	return fmt.Sprintf("Exited (%d) %s ago", v.Last.Code, ago(v.Last.At))
}

func (q *Reader) summary(c *store.Container, r *store.Record, v *store.View, now time.Time) container.Summary {
	sum := container.Summary{
		ID: c.ID, Names: []string{"/" + r.Name}, Image: r.Config.Image, ImageID: r.Image,
		ImageManifestDescriptor: r.Manifest, Command: commandLine(r), Created: r.Created.Unix(),
		Ports: portList(r, v), Labels: r.Config.Labels, State: stateOf(v.State), Status: statusOf(v, now),
		Mounts: mountList(r), NetworkSettings: &container.NetworkSettingsSummary{Networks: withNetworkIDs(q.networks, v.Endpoints(r), v)},
		Health: healthOf(v),
	}
	sum.HostConfig.NetworkMode = string(r.HostConfig.NetworkMode)
	sum.HostConfig.Annotations = r.HostConfig.Annotations
	return sum
}

func healthOf(v *store.View) *container.HealthSummary {
	if v.Health == nil {
		return &container.HealthSummary{Status: container.NoHealthcheck}
	}
	return &container.HealthSummary{Status: v.Health.Status, FailingStreak: v.Health.FailingStreak}
}

// commandLine shows the command as ps does: arguments with blanks in quotes.
func commandLine(r *store.Record) string {
	if len(r.Args) == 0 {
		return r.Path
	}
	var parts []string
	for _, a := range r.Args {
		if strings.Contains(a, " ") {
			a = "'" + a + "'"
		}
		parts = append(parts, a)
	}
	return r.Path + " " + strings.Join(parts, " ")
}

// portsOf are the ports of a container that runs as they are bound, else none.
func portsOf(r *store.Record, v *store.View) networktypes.PortMap {
	ports := networktypes.PortMap{}
	if !v.Phase.Up() || v.Current == nil {
		return ports
	}
	if !r.HostConfig.NetworkMode.IsHost() && !r.HostConfig.NetworkMode.IsContainer() {
		for p := range r.Config.ExposedPorts {
			ports[p] = nil
		}
	}
	for p, bs := range v.Current.Ports {
		ports[p] = bs
	}
	return ports
}

func portList(r *store.Record, v *store.View) []container.PortSummary {
	out := []container.PortSummary{}
	for p, bs := range portsOf(r, v) {
		if len(bs) == 0 {
			out = append(out, container.PortSummary{PrivatePort: p.Num(), Type: string(p.Proto())})
		}
		for _, b := range bs {
			public, err := strconv.ParseUint(b.HostPort, 10, 16)
			if err != nil {
				continue
			}
			out = append(out, container.PortSummary{IP: b.HostIP, PrivatePort: p.Num(), PublicPort: uint16(public), Type: string(p.Proto())})
		}
	}
	slices.SortFunc(out, func(a, b container.PortSummary) int {
		if c := int(a.PrivatePort) - int(b.PrivatePort); c != 0 {
			return c
		}
		if c := strings.Compare(a.Type, b.Type); c != 0 {
			return c
		}
		if c := a.IP.Compare(b.IP); c != 0 {
			return c
		}
		return int(a.PublicPort) - int(b.PublicPort)
	})
	return out
}

// withNetworkIDs tells for a container that ran and runs no more which networks it was on.
func withNetworkIDs(nets Networks, eps map[string]*networktypes.EndpointSettings, v *store.View) map[string]*networktypes.EndpointSettings {
	if !v.Ran || v.Phase.Up() {
		return eps
	}
	out := make(map[string]*networktypes.EndpointSettings, len(eps))
	for name, ep := range eps {
		if id, _, _, err := nets.Known(name); err == nil && ep != nil && ep.NetworkID == "" {
			ep = ep.Copy()
			ep.NetworkID = id
		}
		out[name] = ep
	}
	return out
}

func mountList(r *store.Record) []container.MountPoint {
	out := []container.MountPoint{}
	for _, m := range r.Mounts {
		if m.Listed {
			out = append(out, container.MountPoint{
				Type: m.Type, Name: m.Name, Source: m.Source, Destination: m.Destination, Driver: m.Driver,
				Mode: m.Mode, RW: m.RW, Propagation: m.Propagation,
			})
		}
	}
	return out
}

// Sizes are what the writable layer takes, and with the image; what can't be told is 0.
func (q *Reader) Sizes(ctx context.Context, c *store.Container) (rw, root int64) {
	u, err := q.layers.Usage(ctx, c.ID)
	if err != nil {
		return 0, 0
	}
	root = u.Size
	// Without its name the image may be gone, though the container holds the layers.
	if img, err := q.images.Resolve(ctx, c.Record().Image, nil); err == nil {
		if n, err := q.images.Unpacked(ctx, img); err == nil {
			root += n
		}
	}
	return u.Size, root
}
