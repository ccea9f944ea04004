package main

import (
	"context"
	"fmt"
	"io"

	"github.com/moby/moby/client"
)

// stand starts the container that execs run in.
func stand(ctx context.Context, e *engine) (err error) {
	if e.standing != "" {
		return nil
	}
	if e.standing, err = e.create(ctx, "none", "/bin/sleep", "600"); err != nil {
		return err
	}
	_, err = e.client.ContainerStart(ctx, e.standing, client.ContainerStartOptions{})
	return err
}

func fall(ctx context.Context, e *engine) {
	if e.standing != "" {
		_ = e.remove(ctx, e.standing) // the engine ends soon
		e.standing = ""
	}
}

// execOnce is what `docker exec` asks for: create, start with output attached, inspect.
func execOnce(ctx context.Context, e *engine) error {
	made, err := e.client.ExecCreate(ctx, e.standing, client.ExecCreateOptions{AttachStdout: true, AttachStderr: true, Cmd: []string{"/bin/true"}})
	if err != nil {
		return err
	}
	att, err := e.client.ExecAttach(ctx, made.ID, client.ExecAttachOptions{})
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, att.Reader)
	att.Close()
	if err != nil {
		return err
	}
	state, err := e.client.ExecInspect(ctx, made.ID, client.ExecInspectOptions{})
	if err == nil && (state.Running || state.ExitCode != 0) {
		err = fmt.Errorf("exec of true: running %t, exit code %d", state.Running, state.ExitCode)
	}
	return err
}
