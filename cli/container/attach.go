package container

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/terminal"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type attachOptions struct {
	noStdin, sigProxy bool
	detachKeys        string
}

func newAttachCommand(cli *command.Cli) *cobra.Command {
	var o attachOptions
	cmd := &cobra.Command{
		Use: "attach [OPTIONS] CONTAINER", Short: "Attach local standard input, output, and error streams to a running container",
		Args:        command.ExactArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker container attach, docker attach"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runAttach(cmd.Context(), cli, args[0], o)
		},
		ValidArgsFunction: complete(cli, false, 1),
	}
	fs := cmd.Flags()
	fs.BoolVar(&o.noStdin, "no-stdin", false, "Do not attach STDIN")
	fs.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy all received signals to the process")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	return cmd
}

func runAttach(ctx context.Context, cli *command.Cli, ref string, o attachOptions) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	// Asked for before anything else: an end in between must not be missed.
	ins, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	c := ins.Container
	if c.State == nil || c.Config == nil {
		return errors.New("daemon sent no state of " + ref)
	}
	switch {
	case !c.State.Running:
		return errors.New("cannot attach to a stopped container, start it first")
	case c.State.Paused:
		return errors.New("cannot attach to a paused container, unpause it first")
	case c.State.Restarting:
		return errors.New("cannot attach to a restarting container, wait until it is running")
	}
	stdin := !o.noStdin && c.Config.OpenStdin
	if err := cli.In.CheckTTY(stdin, c.Config.Tty); err != nil {
		return err
	}
	keys := cli.DetachKeys(o.detachKeys)
	exit := waitExit(ctx, cli.Err, cl, ref, "")
	if o.sigProxy {
		ctx = context.WithoutCancel(ctx)
		defer forwardSignals(ctx, cli, c.ID, c.Config.Tty).stop()
	}
	att, err := cl.ContainerAttach(ctx, ref, client.ContainerAttachOptions{
		Stream: true, Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: keys,
	})
	if err != nil {
		return err
	}
	defer att.Close()
	if c.Config.Tty && cli.Out.IsTerminal() {
		nudgeResize(ctx, cli, cl, ref)
		resizer(ctx, cli, resizeContainer(cl, ref))
	}
	s := newStreamer(cli, att.HijackedResponse, &container.Config{
		Tty: c.Config.Tty, AttachStdin: stdin, AttachStdout: true, AttachStderr: true,
	}, keys)
	if err := s.run(ctx); err != nil {
		return err
	}
	return exitStatus(<-exit)
}

// nudgeResize makes the program inside redraw: one that attaches again has the same size,
// for which no SIGWINCH would be sent.
func nudgeResize(ctx context.Context, cli *command.Cli, cl *client.Client, id string) {
	h, w := cli.Out.Size()
	if h > 0 && w > 0 {
		_ = resizeContainer(cl, id)(ctx, client.ContainerResizeOptions{Height: h + 1, Width: w + 1})
	}
}

type startOptions struct {
	attach, interactive       bool
	detachKeys                string
	checkpoint, checkpointDir string
}

func newStartCommand(cli *command.Cli) *cobra.Command {
	var o startOptions
	cmd := &cobra.Command{
		Use: "start [OPTIONS] CONTAINER [CONTAINER...]", Short: "Start one or more stopped containers",
		Args:        command.MinArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker container start, docker start"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runStart(cmd.Context(), cli, args, o)
		},
		ValidArgsFunction: completeSome(cli, true, 0, notRunning),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.attach, "attach", "a", false, "Attach STDOUT/STDERR and forward signals")
	fs.BoolVarP(&o.interactive, "interactive", "i", false, "Attach container's STDIN")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	fs.StringVar(&o.checkpoint, "checkpoint", "", "Restore from this checkpoint")
	fs.StringVar(&o.checkpointDir, "checkpoint-dir", "", "Use a custom checkpoint storage directory")
	return cmd
}

func runStart(ctx context.Context, cli *command.Cli, names []string, o startOptions) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	so := client.ContainerStartOptions{CheckpointID: o.checkpoint, CheckpointDir: o.checkpointDir}
	switch {
	case o.attach || o.interactive:
		if len(names) > 1 {
			return errors.New("you cannot start and attach multiple containers at once")
		}
		return startAttached(ctx, cli, cl, names[0], o, so)
	case o.checkpoint != "":
		if len(names) > 1 {
			return errors.New("you cannot restore multiple containers at once")
		}
		_, err := cl.ContainerStart(ctx, names[0], so)
		return err
	}
	var failed []string
	for _, n := range names {
		if _, err := cl.ContainerStart(ctx, n, so); err != nil {
			fmt.Fprintln(cli.Err, command.Text(err))
			failed = append(failed, n)
			continue
		}
		fmt.Fprintln(cli.Out, n)
	}
	if len(failed) > 0 {
		return fmt.Errorf("Error: failed to start containers: %s", joinComma(failed))
	}
	return nil
}

func joinComma(s []string) string {
	out := ""
	for i, v := range s {
		if i > 0 {
			out += ", "
		}
		out += v
	}
	return out
}

func startAttached(ctx context.Context, cli *command.Cli, cl *client.Client, ref string, o startOptions, so client.ContainerStartOptions) error {
	ins, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	c := ins.Container
	if c.Config == nil {
		return errors.New("daemon sent no configuration of " + ref)
	}
	ctx = context.WithoutCancel(ctx)
	signals := forwardSignals(ctx, cli, c.ID, c.Config.Tty)
	defer signals.stop()
	stdin := o.interactive && c.Config.OpenStdin
	keys := cli.DetachKeys(o.detachKeys)
	att, err := cl.ContainerAttach(ctx, c.ID, client.ContainerAttachOptions{
		Stream: true, Stdin: stdin, Stdout: true, Stderr: true, DetachKeys: keys,
	})
	if err != nil {
		return err
	}
	defer att.Close()
	s := newStreamer(cli, att.HijackedResponse, &container.Config{
		Tty: c.Config.Tty, AttachStdin: stdin, AttachStdout: true, AttachStderr: true,
	}, keys)
	streamCtx, endStream := context.WithCancel(ctx)
	defer endStream()
	streamed := make(chan error, 1)
	go func() { streamed <- s.run(streamCtx) }()
	exit := waitExit(ctx, cli.Err, cl, c.ID, waitCondition(c.HostConfig != nil && c.HostConfig.AutoRemove))
	signals.await()
	if _, err := cl.ContainerStart(ctx, c.ID, so); err != nil {
		endStream()
		_ = <-streamed // the start's own error is the one to tell
		if c.HostConfig != nil && c.HostConfig.AutoRemove && !errdefs.IsNotFound(err) {
			<-exit
		}
		return err
	}
	if c.Config.Tty && cli.Out.IsTerminal() {
		resizer(streamCtx, cli, resizeContainer(cl, c.ID))
	}
	if err := <-streamed; err != nil {
		if errors.Is(err, terminal.ErrDetached) {
			return nil
		}
		return err
	}
	return exitStatus(<-exit)
}
