package health

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"time"

	"github.com/gantry/gantry/internal/atomicfile"
	"github.com/gantry/gantry/internal/scope"
	"github.com/moby/moby/api/types/container"
)

// schema is the version of the record; maxRecord bounds one that is read back, in bytes.
const (
	schema    = 1
	maxRecord = 1 << 20
)

// record is health.json, without fsync: what is known of the health of one run.
type record struct {
	Schema int               `json:"schema"`
	Run    uint64            `json:"run"`
	Health *container.Health `json:"health"`
}

// Container is the container that is watched. Its methods may be called from anywhere.
type Container interface {
	// Do runs f where the watch's methods are called, and then, when everybody sees what it
	// changed and it answered true, the watch's Tell. It does nothing once the container's
	// task has ended.
	Do(f func() (tell bool))
	// Probe runs the check's command once, in the given run. Its result counts unless ctx has
	// ended.
	Probe(ctx context.Context, check *Check, run uint64) container.HealthcheckResult
	// Tell says that the health of a run has another status now.
	Tell(run uint64, status container.HealthStatus)
}

// Run is the state of a container's run as the watch needs it.
type Run struct {
	Number  uint64
	Up      bool // it has a process
	Running bool // which is neither frozen nor being stopped
	Started time.Time
}

// Watch is the health of a container: it probes while a run is up. Its methods are for one
// goroutine at a time, the container's task.
type Watch struct {
	c      Container
	path   string // the file that keeps the health over daemons
	log    *slog.Logger
	scope  *scope.Scope
	health *container.Health // never changed in place; nil without a check, or before the first run
	of     uint64            // the run it is of
	run    Run               // the one that is watched; Number 0: none
	check  *Check            // nil: the run has none
	timer  *time.Timer
	cancel context.CancelFunc // of the probe that runs; nil without one
}

// NewWatch makes one for a container, with what an earlier daemon kept in the file at path; up
// says whether it has a run that is up. Probes end with life.
func NewWatch(c Container, path string, up bool, life *scope.Scope, log *slog.Logger) *Watch {
	w := &Watch{c: c, path: path, log: log, scope: life}
	f, err := os.Open(path)
	if err != nil {
		return w // nothing is known, which the next probe changes
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxRecord))
	r := record{}
	if err != nil || json.Unmarshal(data, &r) != nil || r.Schema != schema || r.Health == nil {
		return w
	}
	w.health, w.of = r.Health, r.Run
	if !up {
		w.health = End(r.Health)
	}
	return w
}

// Health is the health now. It is not to be changed.
func (w *Watch) Health() *container.Health { return w.health }

// Tend begins, goes on with and ends the watch over a run; to be called whenever something may have changed.
func (w *Watch) Tend(r Run, config *container.Config) {
	over := w.run.Number != 0 || w.health != nil && w.health.Status != container.Unhealthy
	switch {
	case !r.Up && over:
		w.Stop()
		if w.health != nil && w.health.Status != container.Unhealthy {
			w.set(End(w.health))
		}
	case !r.Up:
	case w.run.Number == r.Number:
		w.run = r
	default:
		w.Stop()
		w.run = r
		if w.check = Of(config); w.check == nil {
			w.health = nil
			return
		}
		if w.health == nil || w.of != r.Number {
			w.of = r.Number
			w.set(Begin(w.health))
		}
		w.schedule(w.check.Next(w.health, r.Started, time.Now()))
	}
}

// Stop ends what the watch does by itself. A probe that runs tells nothing any more.
func (w *Watch) Stop() {
	if w.timer != nil {
		w.timer.Stop()
	}
	if w.cancel != nil {
		w.cancel()
	}
	w.run, w.check, w.timer, w.cancel = Run{}, nil, nil, nil
}

func (w *Watch) set(h *container.Health) {
	w.health = h
	if err := atomicfile.WriteJSON(w.path, &record{Schema: schema, Run: w.of, Health: h}, 0o600, false); err != nil {
		w.log.Warn("keeping a container's health", "file", w.path, "error", err)
	}
}

func (w *Watch) schedule(after time.Duration) {
	run := w.run.Number
	w.timer = time.AfterFunc(after, func() {
		w.c.Do(func() bool { w.due(run); return false })
	})
}

// due starts the probe of a run beside the task.
func (w *Watch) due(run uint64) {
	if w.run.Number != run || w.cancel != nil {
		return
	}
	if !w.run.Running { // what is frozen answers no probe, what is being stopped need not
		w.schedule(w.check.Interval)
		return
	}
	ctx, cancel := context.WithCancel(w.scope.Context())
	w.cancel = cancel
	check := w.check
	w.scope.Go(func() {
		defer cancel()
		r := w.c.Probe(ctx, check, run)
		if ctx.Err() == nil {
			w.c.Do(func() bool { return w.probed(run, r) })
		}
	})
}

// probed takes a result over; true when the status is another one.
func (w *Watch) probed(run uint64, r container.HealthcheckResult) bool {
	if w.run.Number != run {
		return false
	}
	w.cancel = nil
	before := w.health.Status
	w.set(w.check.Record(w.health, r, w.run.Started))
	w.schedule(w.check.Next(w.health, w.run.Started, time.Now()))
	return w.health.Status != before
}

// Tell passes the status on to the container.
func (w *Watch) Tell() { w.c.Tell(w.run.Number, w.health.Status) }
