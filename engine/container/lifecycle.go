package container

import (
	"context"
	"errors"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
)

// Start runs the container; class NotModified when it runs already.
func (s *Service) Start(ctx context.Context, ref string) error {
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	_, err = o.ask(ctx, func(t fsm.Ticket) fsm.Event { return fsm.Start{T: t} })
	switch {
	case errors.Is(err, fsm.ErrAlready):
		return errclass.NotModified("container is already running")
	case errors.Is(err, fsm.ErrPaused):
		return errclass.Conflict("cannot start a paused container, try unpause instead")
	case errors.Is(err, fsm.ErrDead), errors.Is(err, fsm.ErrRemoving):
		return errclass.Conflict("container is marked for removal and cannot be started")
	}
	return o.words(err)
}

// Stop ends the container; class NotModified when it does not run.
func (s *Service) Stop(ctx context.Context, ref string, opts StopOptions) error {
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	sig, timeout, err := s.stopParams(o, opts)
	if err != nil {
		return err
	}
	_, err = o.ask(ctx, func(t fsm.Ticket) fsm.Event { return fsm.Stop{T: t, Signal: sig, Timeout: timeout} })
	if errors.Is(err, fsm.ErrAlready) || errors.Is(err, fsm.ErrRemoving) { // what is being removed does not run
		return errclass.NotModified("container is already stopped")
	}
	if err != nil {
		return prefix("cannot stop container: "+ref+": ", o.words(err))
	}
	return nil
}

// Restart stops the container if it runs, and starts it.
func (s *Service) Restart(ctx context.Context, ref string, opts StopOptions) error {
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	sig, timeout, err := s.stopParams(o, opts)
	if err != nil {
		return err
	}
	_, err = o.ask(ctx, func(t fsm.Ticket) fsm.Event { return fsm.Restart{T: t, Signal: sig, Timeout: timeout} })
	if err != nil {
		return prefix("Cannot restart container "+ref+": ", o.words(err))
	}
	return nil
}

func (s *Service) stopParams(o *owner, opts StopOptions) (sig int, timeout time.Duration, err error) {
	cfg := o.rec.Load().Config
	name := opts.Signal
	if name == "" {
		name = cfg.StopSignal
	}
	if name == "" {
		name = "SIGTERM"
	}
	if sig, err = parseSignal(name); err != nil {
		return 0, 0, err
	}
	timeout = s.now.Load().stopTimeout
	for _, t := range []*int{cfg.StopTimeout, opts.Timeout} {
		if t != nil {
			timeout = time.Duration(*t) * time.Second
		}
	}
	return sig, timeout, nil
}

// Kill sends a signal ("" is SIGKILL); SIGKILL waits for the end.
func (s *Service) Kill(ctx context.Context, ref, signal string) error {
	failed := func(err error) error { return prefix("cannot kill container: "+ref+": ", err) }
	o, err := s.index.get(ref)
	if err != nil {
		return failed(err)
	}
	sig := sigKill
	if signal != "" {
		if sig, err = parseSignal(signal); err != nil {
			return failed(err)
		}
	}
	cancel := true
	if name := o.rec.Load().Config.StopSignal; name != "" {
		if stop, err := parseSignal(name); err == nil && stop != sigKill {
			cancel = sig == stop
		}
	}
	_, err = o.ask(ctx, func(t fsm.Ticket) fsm.Event {
		return fsm.Kill{T: t, Signal: sig, Final: sig == sigKill, Cancel: cancel}
	})
	if errors.Is(err, fsm.ErrNotRunning) || errdefs.IsNotFound(err) {
		err = o.notRunning()
	}
	if err != nil {
		return failed(o.words(err))
	}
	return nil
}

// Pause freezes the container's processes.
func (s *Service) Pause(ctx context.Context, ref string) error {
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	_, err = o.ask(ctx, func(t fsm.Ticket) fsm.Event { return fsm.Pause{T: t} })
	switch {
	case errors.Is(err, fsm.ErrPaused):
		return errclass.Conflict("container %s is already paused", o.id)
	case errors.Is(err, fsm.ErrRestarting):
		return errclass.Conflict("container %s is restarting, wait until the container is running", o.id)
	case errors.Is(err, fsm.ErrNotRunning):
		return o.notRunning()
	}
	return o.words(err)
}

// Unpause thaws them.
func (s *Service) Unpause(ctx context.Context, ref string) error {
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	_, err = o.ask(ctx, func(t fsm.Ticket) fsm.Event { return fsm.Unpause{T: t} })
	if errors.Is(err, fsm.ErrNotPaused) {
		return errclass.Conflict("container %s is not paused", o.id)
	}
	return o.words(err)
}

// Remove deletes the container; class Conflict when it runs and force is not given.
func (s *Service) Remove(ctx context.Context, ref string, opts RemoveOptions) error {
	if opts.Link {
		return unlink(s.index, ref)
	}
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	if opts.Volumes {
		o.withVolumes.Store(true)
	}
	_, err = o.ask(ctx, func(t fsm.Ticket) fsm.Event { return fsm.Remove{T: t, Force: opts.Force} })
	if err != nil && opts.Volumes && !errors.Is(err, fsm.ErrRemoving) {
		o.withVolumes.Store(false)
	}
	const hint = "stop the container before removing or force remove"
	switch {
	case errors.Is(err, fsm.ErrIsPaused):
		return errclass.Conflict("cannot remove container %q: container is paused and must be unpaused first", "/"+o.name())
	case errors.Is(err, fsm.ErrRunning):
		return errclass.Conflict("cannot remove container %q: container is running: %s", "/"+o.name(), hint)
	case errors.Is(err, fsm.ErrRestarting):
		return errclass.Conflict("cannot remove container %q: container is restarting: %s", "/"+o.name(), hint)
	case errors.Is(err, fsm.ErrRemoving):
		return errclass.Conflict("removal of container %s is already in progress", ref)
	case errors.Is(err, fsm.ErrGone):
		return errclass.NotFound("No such container: %s", ref)
	case err != nil:
		return prefix("cannot remove container \"/"+o.name()+"\": ", o.words(err))
	}
	return nil
}

// Wait answers once the wait stands; the channel then gets exactly one response.
func (s *Service) Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	o, err := s.index.get(ref)
	if err != nil {
		return nil, err
	}
	var c fsm.Condition
	switch cond {
	case "", container.WaitConditionNotRunning:
		c = fsm.NotRunning
	case container.WaitConditionNextExit:
		c = fsm.NextExit
	case container.WaitConditionRemoved:
		c = fsm.OnRemoval
	default:
		return nil, errclass.Invalid("invalid condition: %q", cond)
	}
	t, reply, err := o.request(func(t fsm.Ticket) fsm.Event { return fsm.Wait{T: t, Cond: c} })
	if err != nil {
		return nil, errclass.NotFound("No such container: %s", ref)
	}
	out := make(chan container.WaitResponse, 1)
	go func() {
		var a fsm.Answer
		select {
		case a = <-reply:
		case <-ctx.Done():
			o.send(message{ev: fsm.CancelWait{T: t}})
			out <- container.WaitResponse{StatusCode: -1, Error: &container.WaitExitError{Message: ctx.Err().Error()}}
			return
		}
		r := container.WaitResponse{StatusCode: int64(a.Code)}
		if a.Err != nil {
			r.Error = &container.WaitExitError{Message: a.Err.Error()}
		}
		out <- r
	}()
	return out, nil
}

// allocating begins what Docker says of a new name that cannot be.
const allocating = "Error when allocating new name: "

// Rename gives the container another name.
func (s *Service) Rename(ctx context.Context, ref, name string) error {
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	if name = trimSlash(name); name == "" {
		return errclass.Invalid("Neither old nor new names may be empty")
	}
	if err := checkName("/" + name); err != nil { // with the slash, as Docker tells it here
		return prefix(allocating, err)
	}
	answer := make(chan error, 1)
	sent := o.send(message{do: func(o *owner) { answer <- o.rename(name) }})
	if !sent {
		return errclass.NotFound("No such container: %s", ref)
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rename runs in the owner.
func (o *owner) rename(name string) error {
	old := o.rec.Load()
	if old.Name == name {
		return errclass.Invalid("Renaming a container with the same name as its current name")
	}
	if o.state.Phase == fsm.Removing || o.state.Phase == fsm.Removed {
		return errclass.Conflict("container %s is marked for removal and cannot be renamed", o.id)
	}
	if err := o.s.index.reserve(name, o.id); err != nil {
		return prefix(allocating, err)
	}
	r := *old
	r.Name = name
	if err := o.s.saveRecord(&r); err != nil {
		o.s.index.release(name, o.id)
		return err
	}
	o.rec.Store(&r)
	o.s.index.release(old.Name, o.id)
	o.emit(events.ActionRename, map[string]string{"oldName": "/" + old.Name})
	return nil
}

// Resize sets the size of the container's terminal.
func (s *Service) Resize(ctx context.Context, ref string, height, width uint16) error {
	o, err := s.index.get(ref)
	if err != nil {
		return err
	}
	v := o.view.Load()
	if !v.Phase.Up() {
		return o.notRunning()
	}
	if o.rec.Load().Config.Tty { // without a terminal there is nothing to do, which is no error
		if err := s.deps.Shim.Resize(ctx, o.key(v.Run), oci.WinSize{Rows: height, Cols: width}); err != nil {
			return prefix("cannot resize container: ", err)
		}
	}
	o.emit(events.ActionResize, map[string]string{"height": utoa(height), "width": utoa(width)})
	return nil
}

func (o *owner) notRunning() error {
	return errclass.Conflict("container %s is not running", o.id)
}

// words puts what the state machine refused into Docker's words.
func (o *owner) words(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fsm.ErrGone):
		return errclass.NotFound("No such container: %s", o.id)
	case errors.Is(err, fsm.ErrNotRunning):
		return o.notRunning()
	case errors.Is(err, fsm.ErrRemoving), errors.Is(err, fsm.ErrDead):
		return errclass.Conflict("container %s is marked for removal", o.id)
	case errors.Is(err, fsm.ErrUnkillable):
		return errclass.Internal("tried to kill container, but did not receive an exit event")
	}
	return err
}
