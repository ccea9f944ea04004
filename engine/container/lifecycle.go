package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/validate"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	"golang.org/x/sys/unix"
)

const sigKill = int(unix.SIGKILL)

// Start runs the container; class NotModified when it runs already.
func (s *Service) Start(ctx context.Context, ref string) error {
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	c := t.Container()
	err = t.Ask(ctx, func(ticket fsm.Ticket) fsm.Event { return fsm.Start{T: ticket} })
	switch {
	case errors.Is(err, fsm.ErrAlready):
		return errclass.NotModified("container is already running")
	case errors.Is(err, fsm.ErrPaused):
		return errclass.Conflict("cannot start a paused container, try unpause instead")
	case errors.Is(err, fsm.ErrDead), errors.Is(err, fsm.ErrRemoving):
		return errclass.Conflict("container is marked for removal and cannot be started")
	}
	return words(c, err)
}

// Stop ends the container; class NotModified when it does not run.
func (s *Service) Stop(ctx context.Context, ref string, opts StopOptions) error {
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	c := t.Container()
	sig, timeout, err := s.validate.Stop(c.Record().Config, opts.Signal, opts.Timeout)
	if err != nil {
		return err
	}
	err = t.Ask(ctx, func(ticket fsm.Ticket) fsm.Event { return fsm.Stop{T: ticket, Signal: sig, Timeout: timeout} })
	if errors.Is(err, fsm.ErrAlready) || errors.Is(err, fsm.ErrRemoving) { // what is being removed does not run
		return errclass.NotModified("container is already stopped")
	}
	if err != nil {
		return fmt.Errorf("cannot stop container: %s: %w", ref, words(c, err))
	}
	return nil
}

// Restart stops the container if it runs, and starts it.
func (s *Service) Restart(ctx context.Context, ref string, opts StopOptions) error {
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	c := t.Container()
	sig, timeout, err := s.validate.Stop(c.Record().Config, opts.Signal, opts.Timeout)
	if err != nil {
		return err
	}
	err = t.Ask(ctx, func(ticket fsm.Ticket) fsm.Event { return fsm.Restart{T: ticket, Signal: sig, Timeout: timeout} })
	if err != nil {
		return fmt.Errorf("Cannot restart container %s: %w", ref, words(c, err))
	}
	return nil
}

// Kill sends a signal ("" is SIGKILL); SIGKILL waits for the end.
func (s *Service) Kill(ctx context.Context, ref, signal string) error {
	failed := func(err error) error { return fmt.Errorf("cannot kill container: %s: %w", ref, err) }
	t, err := s.tasks.Get(ref)
	if err != nil {
		return failed(err)
	}
	c := t.Container()
	sig := sigKill
	if signal != "" {
		if sig, err = validate.Signal(signal); err != nil {
			return failed(err)
		}
	}
	cancel := true
	if name := c.Record().Config.StopSignal; name != "" {
		if stop, err := validate.Signal(name); err == nil && stop != sigKill {
			cancel = sig == stop
		}
	}
	err = t.Ask(ctx, func(ticket fsm.Ticket) fsm.Event {
		return fsm.Kill{T: ticket, Signal: sig, Final: sig == sigKill, Cancel: cancel}
	})
	if errors.Is(err, fsm.ErrNotRunning) || errdefs.IsNotFound(err) {
		err = c.NotRunning()
	}
	if err != nil {
		return failed(words(c, err))
	}
	return nil
}

// Pause freezes the container's processes.
func (s *Service) Pause(ctx context.Context, ref string) error {
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	c := t.Container()
	err = t.Ask(ctx, func(ticket fsm.Ticket) fsm.Event { return fsm.Pause{T: ticket} })
	switch {
	case errors.Is(err, fsm.ErrPaused):
		return errclass.Conflict("container %s is already paused", c.ID)
	case errors.Is(err, fsm.ErrRestarting):
		return errclass.Conflict("container %s is restarting, wait until the container is running", c.ID)
	case errors.Is(err, fsm.ErrNotRunning):
		return c.NotRunning()
	}
	return words(c, err)
}

// Unpause thaws them.
func (s *Service) Unpause(ctx context.Context, ref string) error {
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	c := t.Container()
	err = t.Ask(ctx, func(ticket fsm.Ticket) fsm.Event { return fsm.Unpause{T: ticket} })
	if errors.Is(err, fsm.ErrNotPaused) {
		return errclass.Conflict("container %s is not paused", c.ID)
	}
	return words(c, err)
}

// Remove deletes the container; class Conflict when it runs and force is not given.
func (s *Service) Remove(ctx context.Context, ref string, opts RemoveOptions) error {
	if opts.Link {
		return s.unlink(ctx, ref)
	}
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	c := t.Container()
	err = t.Remove(ctx, opts.Force, opts.Volumes)
	const hint = "stop the container before removing or force remove"
	switch {
	case errors.Is(err, fsm.ErrIsPaused):
		return errclass.Conflict("cannot remove container %q: container is paused and must be unpaused first", "/"+c.Name())
	case errors.Is(err, fsm.ErrRunning):
		return errclass.Conflict("cannot remove container %q: container is running: %s", "/"+c.Name(), hint)
	case errors.Is(err, fsm.ErrRestarting):
		return errclass.Conflict("cannot remove container %q: container is restarting: %s", "/"+c.Name(), hint)
	case errors.Is(err, fsm.ErrRemoving):
		return errclass.Conflict("removal of container %s is already in progress", ref)
	case errors.Is(err, fsm.ErrGone):
		return errclass.NotFound("No such container: %s", ref)
	case err != nil:
		return fmt.Errorf("cannot remove container \"/%s\": %w", c.Name(), words(c, err))
	}
	return nil
}

// Wait answers once the wait stands; the channel then gets exactly one response.
func (s *Service) Wait(ctx context.Context, ref string, cond container.WaitCondition) (<-chan container.WaitResponse, error) {
	t, err := s.tasks.Get(ref)
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
	w, err := t.Wait(c)
	if err != nil {
		return nil, gone(ref, err)
	}
	out := make(chan container.WaitResponse, 1)
	go func() {
		code, err := w.Answer(ctx)
		r := container.WaitResponse{StatusCode: int64(code)}
		if err != nil {
			r.Error = &container.WaitExitError{Message: err.Error()}
		}
		out <- r
	}()
	return out, nil
}

// Rename gives the container another name.
func (s *Service) Rename(ctx context.Context, ref, name string) error {
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	if name = strings.TrimPrefix(name, "/"); name == "" {
		return errclass.Invalid("Neither old nor new names may be empty")
	}
	if err := validate.Name("/" + name); err != nil { // with the slash, as Docker tells it here
		return fmt.Errorf("Error when allocating new name: %w", err)
	}
	return gone(ref, t.Rename(ctx, name))
}

// unlink removes a link by its name "/parent/alias".
func (s *Service) unlink(ctx context.Context, ref string) error {
	parent, alias, ok := strings.Cut(strings.Trim(ref, "/"), "/")
	if !ok {
		return errclass.Conflict("Conflict, cannot remove the default link name of the container")
	}
	t, err := s.tasks.Get(parent)
	if errdefs.IsNotFound(err) {
		return errclass.NotFound("Cannot get parent /%s for link /%s", parent, ref)
	}
	if err != nil {
		return err
	}
	return gone(parent, t.Unlink(ctx, alias))
}

// NetworkConnect puts a container on one more network: at once when it runs, else from
// its next start on. Errors: NotFound for the container or the network, Forbidden when it
// is on it already, Invalid for settings that are refused, Conflict while it is removed.
func (s *Service) NetworkConnect(ctx context.Context, netRef, ref string, ep *networktypes.EndpointSettings) error {
	if ep == nil {
		ep = &networktypes.EndpointSettings{}
	}
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	return gone(ref, t.Connect(ctx, netRef, validate.Endpoint(ep)))
}

// NetworkDisconnect takes a container off a network: at once when it runs. force is
// for clients that know it: nothing here needs forcing. Errors: NotFound, Forbidden
// when it is not on the network, Invalid.
func (s *Service) NetworkDisconnect(ctx context.Context, netRef, ref string, _ bool) error {
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	return gone(ref, t.Disconnect(ctx, netRef))
}

// gone puts the end of a container between being found and being asked into Docker's words.
func gone(ref string, err error) error {
	if errors.Is(err, fsm.ErrGone) {
		return errclass.NotFound("No such container: %s", ref)
	}
	return err
}

// words puts what the state machine refused into Docker's words.
func words(c *store.Container, err error) error {
	switch {
	case errors.Is(err, fsm.ErrNotRunning):
		return c.NotRunning()
	case errors.Is(err, fsm.ErrRemoving), errors.Is(err, fsm.ErrDead):
		return errclass.Conflict("container %s is marked for removal", c.ID)
	case errors.Is(err, fsm.ErrUnkillable):
		return errclass.Internal("tried to kill container, but did not receive an exit event")
	}
	return gone(c.ID, err)
}
