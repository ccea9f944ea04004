package main

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// commandOperations are those of the command line, if every engine has one.
func commandOperations(engines []*engine) []operation {
	if slices.ContainsFunc(engines, func(e *engine) bool { return e.docker == "" }) {
		return nil
	}
	nothing := func(context.Context, *engine) error { return nil }
	cleared := func(context.Context, *engine) {}
	docker := func(args ...string) func(context.Context, *engine) error {
		return func(ctx context.Context, e *engine) error { return e.run(ctx, args...) }
	}
	run := func(network string) func(context.Context, *engine) error {
		return func(ctx context.Context, e *engine) error {
			return e.run(ctx, "run", "--rm", "--network", network, "--cgroup-parent", e.cgroup+"/containers", e.image, "true")
		}
	}
	return []operation{
		{name: "docker --version", prepare: nothing, once: docker("--version"), clear: cleared},
		{name: "docker run --rm, no network", prepare: nothing, once: run("none"), clear: cleared},
		{name: "docker run --rm, bridge", prepare: nothing, once: run("bridge"), clear: cleared},
		{name: "docker exec", prepare: stand, once: func(ctx context.Context, e *engine) error {
			return e.run(ctx, "exec", e.standing, "true")
		}, clear: fall},
	}
}

// run runs a command of the engine's own command line, and counts the processor time that it took itself.
func (e *engine) run(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, e.docker, args...)
	cmd.Env = []string{"DOCKER_HOST=" + e.socket, "DOCKER_CONFIG=/nonexistent", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("docker %s: %w: %s", args[0], err, out)
	}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		e.command += time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	return nil
}
