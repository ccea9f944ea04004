package task

import (
	"context"
	"slices"

	"github.com/gantry/gantry/engine/container/links"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/errclass"
	networktypes "github.com/moby/moby/api/types/network"
)

// relink tells those that link to a container its address after it started: it may be
// another one than before.
func (m *Manager) relink(cid string, ep *networktypes.EndpointSettings) {
	if ep == nil {
		return
	}
	for _, c := range m.Index.All() {
		for _, l := range c.Record().Links {
			if l.Target != cid || !c.View().Phase.Up() {
				continue
			}
			if t := m.byID(c.ID); t != nil {
				t.send(message{do: func() {
					t.editFile("hosts", func(b []byte) []byte { return links.Readdress(b, l.Alias, ep.IPAddress, ep.GlobalIPv6Address) })
				}})
			}
		}
	}
}

// Unlink removes the container's link of the given alias; class NotFound without it,
// fsm.ErrGone when the container is gone.
func (t *Task) Unlink(ctx context.Context, alias string) error {
	return t.call(ctx, func() error { return t.unlink(alias) })
}

func (t *Task) unlink(alias string) error {
	r := t.c.Record()
	i := slices.IndexFunc(r.Links, func(l store.Link) bool { return l.Alias == alias })
	if i < 0 {
		return errclass.NotFound("Could not find entity for /%s/%s", r.Name, alias)
	}
	if err := t.keepRecord(func(r *store.Record) { r.Links = slices.Delete(slices.Clone(r.Links), i, i+1) }); err != nil {
		return err
	}
	if t.state.Phase.Up() {
		t.editFile("hosts", func(b []byte) []byte { return links.Drop(b, alias) })
		return t.m.Networks.SetLinks(r.ID, links.Targets(t.c.Record()))
	}
	return nil
}
