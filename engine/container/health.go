package container

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/health"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// newWatch makes the watch over a container's health.
func newWatch(o *owner) *health.Watch {
	w := health.Owner{
		Path: filepath.Join(o.s.dir(o.id), "health.json"), Log: o.s.log, Beside: o.s.beside,
		Do: func(f func() bool) {
			var tell bool
			o.send(message{do: func(*owner) { tell = f() }, seen: func(o *owner) {
				if tell {
					o.health.Tell()
				}
			}})
		},
		Probe: func(ctx context.Context, check *health.Check, run uint64) container.HealthcheckResult {
			return probe(ctx, o, check, run)
		},
		Tell: func(run uint64, status container.HealthStatus) { healthIs(o, run, status) },
	}
	return health.NewWatch(w, o.state.Phase.Up())
}

// healthIs publishes a new status, and lets follow what is asked for.
func healthIs(o *owner, run uint64, status container.HealthStatus) {
	o.emit(events.ActionHealthStatus+": "+events.Action(status), nil)
	if status != container.Unhealthy {
		return
	}
	ev := fsm.Unhealthy{Run: run}
	action, _ := extension.ParseAction(o.rec.Load().HostConfig.Annotations[extension.HealthOnFailure]) // checked at create
	switch action {
	case extension.Stop:
		ev.Do = fsm.StopIt
	case extension.Kill:
		ev.Do = fsm.KillIt
	case extension.Restart:
		ev.Do = fsm.RestartIt
	default:
		return
	}
	var err error
	if ev.Signal, ev.Timeout, err = o.s.stopParams(o, StopOptions{}); err != nil {
		ev.Signal = sigKill // checked at create: cannot be
	}
	o.s.log.Info("a container is unhealthy", "container", o.id, "action", string(action))
	o.s.beside(func() { o.send(message{ev: ev}) })
}

// probe runs the check's command once. What goes wrong is a result too.
func probe(ctx context.Context, o *owner, check *health.Check, run uint64) container.HealthcheckResult {
	r := container.HealthcheckResult{Start: time.Now().UTC(), ExitCode: -1}
	e := &execProc{id: id.New(), o: o, finished: make(chan struct{}), config: container.ExecCreateRequest{
		Cmd: check.Command, AttachStdout: true, AttachStderr: true,
	}}
	code, output, err := e.probe(ctx, check.Timeout, run)
	o.s.execs.remove(e)
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		r.Output = fmt.Sprintf("Health check exceeded timeout (%v)", check.Timeout)
		if output != "" {
			r.Output += ": " + output
		}
	case err != nil:
		r.Output = err.Error()
	default:
		r.ExitCode, r.Output = code, output
	}
	r.End = time.Now().UTC()
	return r
}

// probe runs e and waits for its end. context.DeadlineExceeded after the timeout; it is killed then.
func (e *execProc) probe(ctx context.Context, timeout time.Duration, run uint64) (code int, output string, err error) {
	s, o := e.o.s, e.o
	if err := s.execs.add(e); err != nil {
		return 0, "", err
	}
	if err := e.claim(); err != nil {
		return 0, "", err
	}
	if e.run != run {
		return 0, "", fsm.ErrNotRunning
	}
	// On record before it runs: a daemon that comes after ends it, nobody waits for it any more.
	if err := os.WriteFile(probePath(s, o.id), []byte(e.id), 0o600); err != nil {
		return 0, "", err
	}
	out, conn, err := health.NewCapture()
	if err != nil {
		return 0, "", err
	}
	defer out.Close()
	s.beside(out.Read)
	over := time.NewTimer(timeout)
	defer over.Stop()
	e.emit(events.ActionExecCreate, true, nil)
	err = e.start(ctx, container.ExecStartRequest{}, []pendingAttach{{conn: conn, spec: shim.AttachSpec{
		Client: id.New()[:id.ShortLen], Stdout: true, Stderr: true,
	}}})
	conn.Close()
	if err != nil {
		return 0, "", err
	}
	select {
	case <-e.finished:
		return *e.exitCode, out.Whole(ctx), nil
	case <-ctx.Done():
		return 0, "", ctx.Err()
	case <-over.C:
	}
	endProbe(ctx, s, shim.Key{Container: o.id, Exec: e.id, Run: run})
	patience := time.NewTimer(probePatience)
	defer patience.Stop()
	select {
	case <-e.finished:
	case <-patience.C:
	case <-ctx.Done():
	}
	return 0, out.SoFar(), context.DeadlineExceeded
}

// probePatience is how long a probe may take to end after SIGKILL.
const probePatience = 5 * time.Second

// probePath names the probe that runs, on tmpfs.
func probePath(s *Service, id string) string { return filepath.Join(s.runDir(id), "probe") }

// endOldProbe ends a probe that an earlier daemon started: its result is nobody's any more,
// and the next one is due.
func endOldProbe(ctx context.Context, s *Service, key shim.Key) {
	if data, err := readFile(probePath(s, key.Container)); err == nil && string(data) == key.Exec {
		endProbe(ctx, s, key)
	}
}

func endProbe(ctx context.Context, s *Service, key shim.Key) {
	if err := s.deps.Shim.Signal(ctx, key, sigKill); err != nil {
		s.log.Warn("ending a health check", "container", key.Container, "error", err)
	}
}
