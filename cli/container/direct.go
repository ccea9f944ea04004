package container

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/distribution/reference"
	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/container/run"
	"github.com/gantry/gantry/cli/terminal"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
)

// direct runs a container by one request to an engine of ours. handled is false when nothing has happened and the
// ordinary requests must be made: they are the reference for everything that is seen here.
func (o *runOptions) direct(ctx context.Context, cli *command.Cli, res *run.Result) (handled bool, err error) {
	if !o.simple(res) {
		return false, nil
	}
	cfg := res.Config
	attached := cfg.AttachStdin || cfg.AttachStdout || cfg.AttachStderr
	asked, giveUp := context.WithCancel(ctx)
	defer giveUp()
	made := func() {}
	if o.signals != nil {
		made = o.signals.waiting(giveUp)
		o.signals.await()
	}
	height, width := cli.Out.Size()
	res.Host.ConsoleSize = [2]uint{height, width}
	cond := waitCondition(res.Host.AutoRemove)
	r, err := cli.Run(asked, &container.CreateRequest{Config: cfg, HostConfig: res.Host, NetworkingConfig: res.Networking}, o.query(cli, cfg, cond))
	made()
	switch {
	case errors.Is(err, command.ErrOrdinary):
		return false, nil
	case err != nil:
		return true, fail125(err, "run")
	}
	defer r.Close()
	for _, w := range r.Warnings {
		fmt.Fprintln(cli.Err, "WARNING:", w)
	}
	if !attached {
		return true, directDetached(cli, r)
	}
	if r.Streams == nil {
		return true, errors.New("the daemon sent no streams of container " + r.ID)
	}
	defer r.Streams.Close()
	if o.signals != nil {
		// From here on signals are the container's, and end nothing by themselves.
		ctx = context.WithoutCancel(ctx)
		o.signals.forward(ctx, killer(cli, r.ID), false)
	}
	return true, o.directAttached(ctx, cli, res, r, cond)
}

// simple tells the settings that the one request covers. Terminals need to know when the container has started; of a
// name that is none the ordinary way tells what is wrong.
func (o *runOptions) simple(res *run.Result) bool {
	_, err := reference.ParseAnyReference(res.Config.Image)
	return err == nil && !res.Config.Tty && o.pull != "always" && o.platform == "" && o.flags.CIDFile() == "" && !o.flags.APISocket() &&
		len(res.Host.CapAdd) == 0 && len(res.Host.CapDrop) == 0 // the client library normalizes capabilities
}

func (o *runOptions) query(cli *command.Cli, cfg *container.Config, cond container.WaitCondition) url.Values {
	q := url.Values{"condition": {string(cond)}}
	if o.name != "" {
		q.Set("name", o.name)
	}
	for name, on := range map[string]bool{"stdin": cfg.AttachStdin, "stdout": cfg.AttachStdout, "stderr": cfg.AttachStderr} {
		if on {
			q.Set(name, "1")
		}
	}
	if keys := cli.DetachKeys(o.detachKeys); keys != "" {
		q.Set("detachKeys", keys)
	}
	return q
}

func directDetached(cli *command.Cli, r *command.Run) error {
	m, err := r.Next()
	// The container is there even when it did not start.
	fmt.Fprintln(cli.Out, r.ID)
	switch {
	case err != nil:
		return startError(fmt.Errorf("error during connect: %w", err))
	case m.Failed != nil:
		return directFailed(m.Failed)
	}
	return nil
}

func directFailed(f *extension.RunFailed) error {
	return startError(errors.New("Error response from daemon: " + f.Message))
}

func (o *runOptions) directAttached(ctx context.Context, cli *command.Cli, res *run.Result, r *command.Run, cond container.WaitCondition) error {
	s := newStreamer(cli, client.NewHijackedResponse(r.Streams, ""), res.Config, o.detachKeys)
	streamCtx, endStream := context.WithCancel(ctx)
	defer endStream()
	streamed := make(chan error, 1)
	go func() { streamed <- s.run(streamCtx) }()
	ended := make(chan error, 1)
	failed := make(chan error, 1)
	go func() {
		m, err := r.Next()
		switch {
		case err != nil:
			ended <- o.lost(context.WithoutCancel(ctx), cli, r.ID, cond)
		case m.Failed != nil:
			failed <- directFailed(m.Failed)
		case m.Ended == nil:
			ended <- command.ExitError{Code: 125, Text: "error waiting for container: the daemon did not say how it ended"}
		case m.Ended.Error != "":
			fmt.Fprintln(cli.Err, "Error waiting for container:", m.Ended.Error)
			ended <- exitStatus(125)
		default:
			ended <- exitStatus(int(m.Ended.StatusCode))
		}
	}()
	select {
	case err := <-failed: // the start's own error is the one to tell
		endStream()
		_ = <-streamed
		return err
	case err := <-streamed:
		if errors.Is(err, terminal.ErrDetached) {
			return nil
		}
		if err != nil && (ctx.Err() != nil || notWritten(err)) {
			return err
		}
	}
	select {
	case err := <-failed:
		return err
	case err := <-ended:
		return err
	}
}

// lost waits for the end of a container whose daemon died: the next one knows it, unless it never started. One that
// was to remove itself is removed then: nobody else would.
func (o *runOptions) lost(ctx context.Context, cli *command.Cli, id string, cond container.WaitCondition) error {
	cl, err := cli.Client()
	if err != nil {
		return fail125(err, "run")
	}
	exit := waitExit(ctx, cli.Err, cl, id, cond)
	for {
		ins, err := cl.ContainerInspect(ctx, id, client.ContainerInspectOptions{})
		if err == nil && ins.Container.State != nil && ins.Container.State.Status == container.StateCreated {
			if cond == container.WaitConditionRemoved {
				_, _ = cl.ContainerRemove(ctx, id, client.ContainerRemoveOptions{RemoveVolumes: true})
			}
			return startError(errors.New("error during connect: the daemon went away before the container started"))
		}
		if !lostConnection(err) {
			return exitStatus(<-exit)
		}
		// No daemon answers yet. A wait that the next one takes would never end for a container that has not started.
		select {
		case code := <-exit:
			return exitStatus(code)
		case <-time.After(waitPause):
		}
	}
}
