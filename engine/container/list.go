package container

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/docker/go-units"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/health"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// List tells the containers, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	sel, err := s.selection(ctx, o)
	if err != nil {
		return nil, err
	}
	type item struct {
		o *owner
		r *record
		v *view
	}
	var items []item
	for _, own := range s.index.all() {
		it := item{own, own.rec.Load(), own.view.Load()}
		if it.v.Phase == fsm.Removed || !sel.match(own, it.r, it.v) {
			continue
		}
		items = append(items, it)
	}
	slices.SortFunc(items, func(a, b item) int { return b.r.Created.Compare(a.r.Created) })
	if o.Limit > 0 && len(items) > o.Limit {
		items = items[:o.Limit]
	}
	now, linkNames := time.Now(), linkNames(s.index)
	out := make([]container.Summary, 0, len(items))
	for _, it := range items {
		sum := s.summary(it.o, it.r, it.v, now)
		sum.Names = append(sum.Names, linkNames[it.o.id]...)
		if o.Size {
			sum.SizeRw, sum.SizeRootFs = s.sizes(ctx, it.o)
		}
		out = append(out, sum)
	}
	return out, nil
}

// selection is a list request's filters, made ready.
type selection struct {
	f             filter.Args
	all           bool
	before, since time.Time
	exited        []int
	names         []func(string) bool
	ids           []func(string) bool
	images        map[string]bool // IDs of ancestors
	publish       []networktypes.PortRange
	expose        []networktypes.PortRange
}

func (s *Service) selection(ctx context.Context, o ListOptions) (*selection, error) {
	f := o.Filters
	if err := f.Check("ancestor", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!",
		"name", "network", "publish", "since", "status", "volume"); err != nil {
		return nil, err
	}
	sel := &selection{f: f, all: o.All || o.Limit > 0}
	for _, st := range f["status"] {
		if err := container.ValidateContainerState(container.ContainerState(st)); err != nil {
			return nil, errclass.Invalid("%w", err)
		}
		sel.all = true
	}
	for _, h := range f["health"] {
		if err := container.ValidateHealthStatus(container.HealthStatus(h)); err != nil {
			return nil, errclass.Invalid("%w", err)
		}
	}
	for _, e := range f["exited"] {
		code, err := strconv.Atoi(e)
		if err != nil {
			return nil, errclass.Invalid("invalid filter 'exited=%s'", e)
		}
		sel.exited, sel.all = append(sel.exited, code), true
	}
	for key, at := range map[string]*time.Time{"before": &sel.before, "since": &sel.since} {
		for _, ref := range f[key] {
			other, err := s.index.get(ref)
			if err != nil {
				return nil, err
			}
			*at, sel.all = other.rec.Load().Created, true
		}
	}
	for _, n := range f["name"] {
		sel.names = append(sel.names, matcher(n))
	}
	for _, id := range f["id"] {
		sel.ids = append(sel.ids, matcher("^"+id))
	}
	for key, out := range map[string]*[]networktypes.PortRange{"publish": &sel.publish, "expose": &sel.expose} {
		for _, p := range f[key] {
			r, err := networktypes.ParsePortRange(p)
			if err != nil {
				return nil, errclass.Invalid("invalid filter '%s=%s'", key, p)
			}
			*out = append(*out, r)
		}
	}
	return sel, s.ancestors(ctx, sel)
}

func (s *Service) ancestors(ctx context.Context, sel *selection) error {
	if len(sel.f["ancestor"]) == 0 {
		return nil
	}
	sel.images = map[string]bool{}
	for _, ref := range sel.f["ancestor"] {
		img, err := s.deps.Images.Resolve(ctx, ref, nil)
		if errdefs.IsNotFound(err) {
			continue // as Docker: nothing descends from it
		}
		if err != nil {
			return err
		}
		sel.images[string(img.ID)] = true
	}
	return nil
}

func (sel *selection) match(o *owner, r *record, v *view) bool {
	if !sel.all && !isUp(v.State) {
		return false
	}
	f := sel.f
	if len(f) == 0 {
		return true
	}
	anyOf := func(fs []func(string) bool, ss ...string) bool {
		return len(fs) == 0 || slices.ContainsFunc(fs, func(m func(string) bool) bool { return slices.ContainsFunc(ss, m) })
	}
	state := string(stateOf(v.State))
	switch {
	case !anyOf(sel.ids, o.id), !anyOf(sel.names, r.Name, "/"+r.Name):
	case !f.Any("status", func(s string) bool { return s == state }):
	case !f.Labels("label", r.Config.Labels):
	case len(sel.exited) > 0 && (v.Phase != fsm.Exited || !slices.Contains(sel.exited, v.Last.Code)):
	case !sel.before.IsZero() && !r.Created.Before(sel.before), !sel.since.IsZero() && !r.Created.After(sel.since):
	case sel.images != nil && !sel.images[r.Image]:
	case !f.Any("health", func(h string) bool { return h == string(healthOf(v).Status) }):
	case !f.Any("is-task", func(b string) bool { return b == "false" }):
	case !f.Any("network", func(n string) bool { return onNetwork(r, v, n) }):
	case !f.Any("volume", func(vol string) bool {
		return slices.ContainsFunc(r.Mounts, func(m mounts.Point) bool { return m.Name == vol || m.Source == vol || m.Destination == vol })
	}):
	case !sel.ports(r, v):
	default:
		return true
	}
	return false
}

func (sel *selection) ports(r *record, v *view) bool {
	in := func(ranges []networktypes.PortRange, p networktypes.Port) bool {
		return slices.ContainsFunc(ranges, func(pr networktypes.PortRange) bool {
			return pr.Proto() == p.Proto() && p.Num() >= pr.Start() && p.Num() <= pr.End()
		})
	}
	hit := func(ranges []networktypes.PortRange, published bool) bool {
		if len(ranges) == 0 {
			return true
		}
		for p, bs := range portsOf(r, v) {
			if in(ranges, p) && (!published || len(bs) > 0) {
				return true
			}
		}
		return false
	}
	return hit(sel.publish, true) && hit(sel.expose, false)
}

func onNetwork(r *record, v *view, ref string) bool {
	for name, ep := range endpointsOf(r, v) {
		if name == ref || ep != nil && len(ref) > 0 && strings.HasPrefix(ep.NetworkID, ref) {
			return true
		}
	}
	return false
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
func statusOf(v *view, now time.Time) string {
	state := stateOf(v.State)
	ago := func(t time.Time) string { return units.HumanDuration(now.Sub(t)) }
	switch state {
	case container.StateCreated:
		return "Created"
	case container.StateRunning:
		if words := health.Words(v.health); words != "" {
			return "Up " + ago(v.started) + " (" + words + ")"
		}
		return "Up " + ago(v.started)
	case container.StatePaused:
		return "Up " + ago(v.started) + " (Paused)"
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

func (s *Service) summary(o *owner, r *record, v *view, now time.Time) container.Summary {
	sum := container.Summary{
		ID: o.id, Names: []string{"/" + r.Name}, Image: r.Config.Image, ImageID: r.Image,
		ImageManifestDescriptor: r.Manifest, Command: commandLine(r), Created: r.Created.Unix(),
		Ports: portList(r, v), Labels: r.Config.Labels, State: stateOf(v.State), Status: statusOf(v, now),
		Mounts: mountList(r), NetworkSettings: &container.NetworkSettingsSummary{Networks: withNetworkIDs(s.deps.Networks, endpointsOf(r, v), v)},
		Health: healthOf(v),
	}
	sum.HostConfig.NetworkMode = string(r.HostConfig.NetworkMode)
	sum.HostConfig.Annotations = r.HostConfig.Annotations
	return sum
}

func healthOf(v *view) *container.HealthSummary {
	if v.health == nil {
		return &container.HealthSummary{Status: container.NoHealthcheck}
	}
	return &container.HealthSummary{Status: v.health.Status, FailingStreak: v.health.FailingStreak}
}

// commandLine shows the command as ps does: arguments with blanks in quotes.
func commandLine(r *record) string {
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
func portsOf(r *record, v *view) networktypes.PortMap {
	ports := networktypes.PortMap{}
	if !v.Phase.Up() || v.run == nil {
		return ports
	}
	if !r.HostConfig.NetworkMode.IsHost() && !r.HostConfig.NetworkMode.IsContainer() {
		for p := range r.Config.ExposedPorts {
			ports[p] = nil
		}
	}
	for p, bs := range v.run.ports {
		ports[p] = bs
	}
	return ports
}

func portList(r *record, v *view) []container.PortSummary {
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

// endpointsOf are the container's networks: as connected while it runs, else as asked for.
func endpointsOf(r *record, v *view) map[string]*networktypes.EndpointSettings {
	if v.Phase.Up() && v.run != nil && v.run.endpoints != nil {
		return v.run.endpoints
	}
	if r.Networks == nil {
		return map[string]*networktypes.EndpointSettings{}
	}
	return r.Networks
}

// withNetworkIDs tells for a container that ran and runs no more which networks it was on.
func withNetworkIDs(nets Networks, eps map[string]*networktypes.EndpointSettings, v *view) map[string]*networktypes.EndpointSettings {
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

func mountList(r *record) []container.MountPoint {
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

// sizes are what the writable layer takes, and with the image; what can't be told is 0.
func (s *Service) sizes(ctx context.Context, o *owner) (rw, root int64) {
	u, err := s.deps.Layers.Usage(ctx, o.id)
	if err != nil {
		return 0, 0
	}
	root = u.Size
	// Without its name the image may be gone, though the container holds the layers.
	if img, err := s.deps.Images.Resolve(ctx, o.rec.Load().Image, nil); err == nil {
		if n, err := s.deps.Images.Unpacked(ctx, img); err == nil {
			root += n
		}
	}
	return u.Size, root
}

// Prune removes all containers that do not run and match the filters.
func (s *Service) Prune(ctx context.Context, f filter.Args) (container.PruneReport, error) {
	rep := container.PruneReport{ContainersDeleted: []string{}}
	if err := f.Check("label", "label!", "until"); err != nil {
		return rep, err
	}
	var until time.Time
	if u := f["until"]; len(u) > 1 {
		return rep, errclass.Invalid("more than one until filter specified")
	} else if len(u) == 1 {
		t, err := parseTime(u[0], time.Now())
		if err != nil {
			return rep, err
		}
		until = t
	}
	for _, o := range s.index.all() {
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		r, v := o.rec.Load(), o.view.Load()
		if v.Phase != fsm.Created && v.Phase != fsm.Exited && v.Phase != fsm.Dead ||
			!until.IsZero() && r.Created.After(until) || !f.Labels("label", r.Config.Labels) {
			continue
		}
		size, _ := s.sizes(ctx, o)
		if err := s.Remove(ctx, o.id, RemoveOptions{}); err != nil {
			s.log.Warn("pruning a container", "container", o.id, "error", err)
			continue
		}
		rep.ContainersDeleted = append(rep.ContainersDeleted, o.id)
		rep.SpaceReclaimed += uint64(size)
	}
	return rep, nil
}

// parseTime reads a time as filters give it: a duration before now, seconds since the
// epoch, or RFC 3339.
func parseTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil {
		return now.Add(-d), nil
	}
	if sec, err := strconv.ParseFloat(s, 64); err == nil && sec > -1e11 && sec < 1e11 {
		return time.Unix(0, int64(sec*1e9)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errclass.Invalid("failed to parse value as time or duration: %q", s)
}
