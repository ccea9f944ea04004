package container

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/container/run"
	"github.com/gantry/gantry/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type execOptions struct {
	detach, interactive, privileged, tty bool
	detachKeys, user, workdir            string
	env, envFile                         *opts.List
}

func newExecCommand(cli *command.Cli) *cobra.Command {
	o := execOptions{
		env:     opts.NewList(func(v string) (string, error) { return run.CheckEnv(v, os.LookupEnv) }),
		envFile: opts.NewList(nil),
	}
	cmd := &cobra.Command{
		Use: "exec [OPTIONS] CONTAINER COMMAND [ARG...]", Short: "Execute a command in a running container",
		Args: command.MinArgs(2),
		Annotations: map[string]string{
			command.AnnCategory: "02", command.AnnAliases: "docker container exec, docker exec",
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExec(cmd.Context(), cli, args[0], args[1:], &o)
		},
		ValidArgsFunction: complete(cli, false, 1),
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.BoolVarP(&o.interactive, "interactive", "i", false, "Keep STDIN open even if not attached")
	fs.BoolVarP(&o.tty, "tty", "t", false, "Allocate a pseudo-TTY")
	fs.BoolVarP(&o.detach, "detach", "d", false, "Detached mode: run command in the background")
	fs.StringVarP(&o.user, "user", "u", "", `Username or UID (format: "<name|uid>[:<group|gid>]")`)
	fs.BoolVar(&o.privileged, "privileged", false, "Give extended privileges to the command")
	fs.VarP(o.env, "env", "e", "Set environment variables")
	fs.Var(o.envFile, "env-file", "Read in a file of environment variables")
	fs.StringVarP(&o.workdir, "workdir", "w", "", "Working directory inside the container")
	return cmd
}

func runExec(ctx context.Context, cli *command.Cli, ref string, argv []string, o *execOptions) error {
	env, err := run.KVFiles(o.envFile.All(), run.ReadFile, os.LookupEnv)
	if err != nil {
		return err
	}
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	eo := client.ExecCreateOptions{
		User: o.user, Privileged: o.privileged, TTY: o.tty, Env: append(env, o.env.All()...),
		WorkingDir: o.workdir, Cmd: argv, DetachKeys: cli.DetachKeys(o.detachKeys),
	}
	if !o.detach {
		eo.AttachStdout, eo.AttachStderr, eo.AttachStdin = true, true, o.interactive
	}
	// Asked for first, so that a missing container is told of before a missing terminal.
	if _, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{}); err != nil {
		return err
	}
	if !o.detach {
		if err := cli.In.CheckTTY(eo.AttachStdin, eo.TTY); err != nil {
			return err
		}
	}
	if o.tty {
		h, w := cli.Out.Size()
		eo.ConsoleSize = client.ConsoleSize{Height: h, Width: w}
	}
	created, err := cl.ExecCreate(ctx, ref, eo)
	if err != nil {
		return err
	}
	if created.ID == "" {
		return errors.New("exec ID empty")
	}
	if o.detach {
		_, err := cl.ExecStart(ctx, created.ID, client.ExecStartOptions{Detach: true, TTY: eo.TTY, ConsoleSize: eo.ConsoleSize})
		return err
	}
	return execAttached(ctx, cli, cl, created.ID, eo)
}

func execAttached(ctx context.Context, cli *command.Cli, cl *client.Client, id string, eo client.ExecCreateOptions) error {
	att, err := cl.ExecAttach(ctx, id, client.ExecAttachOptions{TTY: eo.TTY, ConsoleSize: eo.ConsoleSize})
	if err != nil {
		return err
	}
	defer att.Close()
	s := newStreamer(cli, att.HijackedResponse, &container.Config{
		Tty: eo.TTY, AttachStdin: eo.AttachStdin, AttachStdout: true, AttachStderr: true,
	}, eo.DetachKeys)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if eo.TTY && cli.In.IsTerminal() {
		resizer(ctx, cli, func(ctx context.Context, r client.ContainerResizeOptions) error {
			_, err := cl.ExecResize(ctx, id, client.ExecResizeOptions(r))
			return err
		})
	}
	if err := s.run(ctx); err != nil {
		return err
	}
	st, err := cl.ExecInspect(ctx, id, client.ExecInspectOptions{})
	if err != nil {
		if client.IsErrConnectionFailed(err) {
			return command.ExitError{Code: 255, Err: err}
		}
		return fmt.Errorf("reading exit status: %w", err)
	}
	return exitStatus(st.ExitCode)
}
