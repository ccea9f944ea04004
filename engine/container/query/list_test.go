package query

import (
	"testing"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
)

func TestStatus(t *testing.T) {
	now := time.Now()
	up := &store.View{State: fsm.State{Phase: fsm.Running}, Started: now.Add(-2 * time.Second)}
	for _, c := range []struct {
		v    store.View
		want string
	}{
		{store.View{}, "Created"},
		{*up, "Up 2 seconds"},
		{store.View{State: fsm.State{Phase: fsm.Paused}, Started: now.Add(-5 * time.Minute)}, "Up 5 minutes (Paused)"},
		{store.View{State: fsm.State{Phase: fsm.Exited, Last: fsm.Exit{At: now.Add(-3 * time.Minute)}}}, "Exited (0) 3 minutes ago"},
		{store.View{State: fsm.State{Phase: fsm.Restarting, Last: fsm.Exit{Code: 1, At: now.Add(-time.Second)}}}, "Restarting (1) 1 second ago"},
		{store.View{State: fsm.State{Phase: fsm.Dead}}, "Dead"},
		{store.View{State: fsm.State{Phase: fsm.Removing}}, "Removal In Progress"},
	} {
		t.Run(c.want, func(t *testing.T) {
			if got := statusOf(&c.v, now); got != c.want {
				t.Errorf("%v: %q, want %q", c.v.Phase, got, c.want)
			}
		})
	}
}
