package container

import (
	"context"

	apistream "github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container/stream"
	"github.com/gantry/gantry/engine/container/validate"
	"github.com/moby/moby/api/types/container"
)

// Attach connects a client to the container's streams; before the start it waits for
// it. It takes the connection over and returns when the client is connected.
func (s *Service) Attach(ctx context.Context, ref string, opts AttachOptions, hijack apistream.Hijack) error {
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	keys, err := validate.DetachKeys(opts.DetachKeys)
	if err != nil {
		return err
	}
	client, err := t.Clients().Arrive(stream.Options{Stdin: opts.Stdin, Stdout: opts.Stdout, Stderr: opts.Stderr, Keys: keys}, hijack)
	if err != nil {
		return err
	}
	defer client.Arrived()
	if opts.Logs {
		client.Arrived() // old output may be long; no start waits for it
		lo := LogsOptions{Stdout: opts.Stdout, Stderr: opts.Stderr, Tail: -1}
		if err := s.Logs(ctx, ref, lo, client); err != nil {
			client.Conn.Close()
			return nil // the stream is the only place left to say it, and it is broken
		}
	}
	if !opts.Stream {
		return client.Conn.Close()
	}
	client.Join(ctx)
	return nil
}

// Resize sets the size of the container's terminal.
func (s *Service) Resize(ctx context.Context, ref string, height, width uint16) error {
	t, err := s.tasks.Get(ref)
	if err != nil {
		return err
	}
	return t.Clients().Resize(ctx, height, width)
}

// ExecCreate prepares a process; class Conflict when the container does not run.
func (s *Service) ExecCreate(_ context.Context, ref string, q container.ExecCreateRequest) (execID string, err error) {
	c, err := s.index.Get(ref)
	if err != nil {
		return "", err
	}
	return s.execs.Create(c, ref, q)
}

// ExecStart runs a prepared process. Detached it returns when the process runs, with an error
// when it could not; attached it takes the connection, and what goes wrong after that is
// written to it, as Docker does.
func (s *Service) ExecStart(ctx context.Context, execID string, opts container.ExecStartRequest, hijack apistream.Hijack) error {
	return s.execs.Start(ctx, execID, opts, hijack)
}

// ExecInspect tells how an exec is.
func (s *Service) ExecInspect(_ context.Context, execID string) (container.ExecInspectResponse, error) {
	return s.execs.Inspect(execID)
}

// ExecResize sets the size of an exec's terminal.
func (s *Service) ExecResize(ctx context.Context, execID string, height, width uint16) error {
	return s.execs.Resize(ctx, execID, height, width)
}
