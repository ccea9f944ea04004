package task

import (
	"strconv"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/moby/moby/api/types/events"
)

// tell publishes what the state machine says happened.
func (t *Task) tell(e fsm.Tell) {
	var more map[string]string
	action := events.Action(e.What)
	switch action {
	case events.ActionKill:
		more = map[string]string{"signal": strconv.Itoa(e.Signal)}
	case events.ActionDie:
		more = map[string]string{
			"exitCode":     strconv.Itoa(t.state.Last.Code),
			"execDuration": strconv.FormatInt(int64(t.state.Last.Ran/time.Second), 10),
		}
		if e.Restarting && !t.m.Scope.Closed() { // a daemon that ends restarts nothing
			more["restarting"] = "true"
		}
	}
	t.c.Emit(t.m.Bus, action, more)
}

// oom publishes that the kernel killed a process of the container for its memory.
func (t *Task) oom() { t.c.Emit(t.m.Bus, events.ActionOOM, nil) }

// detached publishes that a client detached by keys.
func (t *Task) detached() { t.c.Emit(t.m.Bus, events.ActionDetach, nil) }
