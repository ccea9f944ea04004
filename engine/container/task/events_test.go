package task

import (
	"context"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/scope"
	"github.com/moby/moby/api/types/container"
)

// A daemon that is shutting down restarts nothing, and announces nothing.
func TestNoRestartAnnouncedAtShutdown(t *testing.T) {
	m := New(Deps{Bus: event.New(), Scope: scope.New()})
	c := store.NewContainer(&store.Record{ID: "c", Config: &container.Config{}}, &store.View{})
	task := &Task{m: m, c: c}
	task.tell(fsm.Tell{What: "die", Restarting: true})
	if err := m.Scope.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	task.tell(fsm.Tell{What: "die", Restarting: true})
	past, sub := m.Bus.Subscribe(time.Unix(0, 1))
	defer sub.Close()
	if len(past) != 2 || past[0].Actor.Attributes["restarting"] != "true" {
		t.Fatalf("%+v", past)
	}
	if said, ok := past[1].Actor.Attributes["restarting"]; ok {
		t.Errorf("announced at shutdown: %q", said)
	}
}
