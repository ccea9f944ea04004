package exec

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/health"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/stream"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// Probe runs a health check's command once, in the given run. What goes wrong is a result too;
// there is none when ctx has ended.
func (x *Set) Probe(ctx context.Context, c *store.Container, check *health.Check, run uint64) container.HealthcheckResult {
	r := container.HealthcheckResult{Start: time.Now().UTC(), ExitCode: -1}
	p := &process{id: id.New(), c: c, finished: make(chan struct{}), config: container.ExecCreateRequest{
		Cmd: check.Command, AttachStdout: true, AttachStderr: true,
	}}
	code, output, err := x.probe(ctx, p, check.Timeout, run)
	x.remove(p)
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

// probe runs p and waits for its end. context.DeadlineExceeded after the timeout; it is killed then.
func (x *Set) probe(ctx context.Context, p *process, timeout time.Duration, run uint64) (code int, output string, err error) {
	if err := x.add(p); err != nil {
		return 0, "", err
	}
	if err := p.claim(); err != nil {
		return 0, "", err
	}
	if p.run != run {
		return 0, "", fsm.ErrNotRunning
	}
	// On record before it runs: a daemon that comes after ends it, nobody waits for it any more.
	if err := x.files.SaveProbe(p.c.ID, p.id); err != nil {
		return 0, "", err
	}
	out, conn, err := health.NewCapture()
	if err != nil {
		return 0, "", err
	}
	defer out.Close()
	x.scope.Go(out.Read)
	over := time.NewTimer(timeout)
	defer over.Stop()
	x.emit(p, events.ActionExecCreate, true, nil)
	err = x.launch(ctx, p, container.ExecStartRequest{}, []stream.Client{{Conn: conn, Spec: shim.AttachSpec{
		Client: id.New()[:id.ShortLen], Stdout: true, Stderr: true,
	}}})
	conn.Close()
	if err != nil {
		return 0, "", err
	}
	select {
	case <-p.finished:
		return *p.exitCode, out.Whole(ctx), nil
	case <-ctx.Done():
		return 0, "", ctx.Err()
	case <-over.C:
	}
	x.kill(ctx, p)
	patience := time.NewTimer(probePatience)
	defer patience.Stop()
	select {
	case <-p.finished:
	case <-patience.C:
	case <-ctx.Done():
	}
	return 0, out.SoFar(), context.DeadlineExceeded
}

// probePatience is how long a probe may take to end after SIGKILL.
const probePatience = 5 * time.Second

// kill ends a probe.
func (x *Set) kill(ctx context.Context, p *process) {
	if err := x.shim.Signal(ctx, p.key(), int(unix.SIGKILL)); err != nil {
		x.log.Warn("ending a health check", "container", p.c.ID, "error", err)
	}
}
