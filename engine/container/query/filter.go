package query

import (
	"context"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

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

func (q *Reader) selection(ctx context.Context, o ListOptions) (*selection, error) {
	f := o.Filters
	if err := f.Check("ancestor", "annotation", "before", "exited", "expose", "health", "id", "is-task", "isolation", "label", "label!",
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
			other, err := q.index.Get(ref)
			if err != nil {
				return nil, err
			}
			*at, sel.all = other.Record().Created, true
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
	return sel, q.ancestors(ctx, sel)
}

func (q *Reader) ancestors(ctx context.Context, sel *selection) error {
	if len(sel.f["ancestor"]) == 0 {
		return nil
	}
	sel.images = map[string]bool{}
	for _, ref := range sel.f["ancestor"] {
		img, err := q.images.Resolve(ctx, ref, nil)
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

func (sel *selection) match(c *store.Container, r *store.Record, v *store.View) bool {
	if !sel.all && !v.Running() {
		return false
	}
	f := sel.f
	if len(f) == 0 {
		return true
	}
	anyOf := func(fs []func(string) bool, ss ...string) bool {
		return len(fs) == 0 || slices.ContainsFunc(fs, func(m func(string) bool) bool { return slices.ContainsFunc(ss, m) })
	}
	switch {
	case !anyOf(sel.ids, c.ID), !anyOf(sel.names, r.Name, "/"+r.Name):
	case !f.Labels("label", r.Config.Labels), !f.Labels("annotation", r.HostConfig.Annotations):
	case !sel.state(v):
	case !sel.before.IsZero() && !r.Created.Before(sel.before), !sel.since.IsZero() && !r.Created.After(sel.since):
	case sel.images != nil && !sel.images[r.Image]:
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

// state matches the filters that ask how the container is.
func (sel *selection) state(v *store.View) bool {
	if len(sel.exited) > 0 && (v.Phase != fsm.Exited || !slices.Contains(sel.exited, v.Last.Code)) {
		return false
	}
	state, health := string(stateOf(v.State)), string(healthOf(v).Status)
	return sel.f.Any("status", func(s string) bool { return s == state }) &&
		sel.f.Any("health", func(h string) bool { return h == health }) &&
		sel.f.Any("is-task", func(b string) bool { return b == "false" })
}

func (sel *selection) ports(r *store.Record, v *store.View) bool {
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

func onNetwork(r *store.Record, v *store.View, ref string) bool {
	for name, ep := range v.Endpoints(r) {
		if name == ref || ep != nil && len(ref) > 0 && strings.HasPrefix(ep.NetworkID, ref) {
			return true
		}
	}
	return false
}

// Prunable lists the containers that do not run and match a prune's filters.
func (q *Reader) Prunable(f filter.Args) ([]*store.Container, error) {
	if err := f.Check("label", "label!", "until"); err != nil {
		return nil, err
	}
	var until time.Time
	if u := f["until"]; len(u) > 1 {
		return nil, errclass.Invalid("more than one until filter specified")
	} else if len(u) == 1 {
		t, err := parseTime(u[0], time.Now())
		if err != nil {
			return nil, err
		}
		until = t
	}
	var out []*store.Container
	for _, c := range q.index.All() {
		r, v := c.Record(), c.View()
		if v.Phase != fsm.Created && v.Phase != fsm.Exited && v.Phase != fsm.Dead ||
			!until.IsZero() && r.Created.After(until) || !f.Labels("label", r.Config.Labels) {
			continue
		}
		out = append(out, c)
	}
	return out, nil
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

// matcher is Docker's match of name filters: a regular expression, the text itself
// when it is none.
func matcher(pattern string) func(string) bool {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return func(s string) bool { return s == pattern }
	}
	return re.MatchString
}
