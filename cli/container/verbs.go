package container

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// errQuiet says that a name did not work out, that the user knows, and that it is no failure.
var errQuiet = errors.New("said already")

// each runs do for every name, a few at a time, prints the names that worked in order and
// joins the errors.
func each(ctx context.Context, cli *command.Cli, names []string, do func(context.Context, *client.Client, string) error) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	results := make([]chan error, len(names))
	slots := make(chan struct{}, 50)
	// The first request negotiates the API version; after it the rest run side by side.
	for i, n := range names {
		results[i] = make(chan error, 1)
		if i == 0 {
			results[0] <- do(ctx, cl, n)
			continue
		}
		go func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			results[i] <- do(ctx, cl, n)
		}()
	}
	var errs []error
	for i, n := range names {
		if err := <-results[i]; errors.Is(err, errQuiet) {
			continue
		} else if err != nil {
			errs = append(errs, errors.New(command.Text(err)))
			continue
		}
		fmt.Fprintln(cli.Out, n)
	}
	return errors.Join(errs...)
}

func verb(cli *command.Cli, name, short string, opts string, all bool, do func(context.Context, *client.Client, string) error) *cobra.Command {
	return &cobra.Command{
		Use: name + opts + " CONTAINER [CONTAINER...]", Short: short, Args: command.MinArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker container " + name + ", docker " + name},
		RunE: func(cmd *cobra.Command, args []string) error {
			return each(cmd.Context(), cli, args, do)
		},
		ValidArgsFunction: complete(cli, all, 0),
	}
}

func newStopCommand(cli *command.Cli) *cobra.Command {
	var o client.ContainerStopOptions
	var timeout int
	var cmd *cobra.Command
	cmd = verb(cli, "stop", "Stop one or more running containers", " [OPTIONS]", false,
		func(ctx context.Context, cl *client.Client, n string) error {
			if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
				o.Timeout = &timeout
			}
			_, err := cl.ContainerStop(ctx, n, o)
			return err
		})
	stopFlags(cmd, &o.Signal, &timeout)
	return cmd
}

func newRestartCommand(cli *command.Cli) *cobra.Command {
	var o client.ContainerRestartOptions
	var timeout int
	var cmd *cobra.Command
	cmd = verb(cli, "restart", "Restart one or more containers", " [OPTIONS]", true,
		func(ctx context.Context, cl *client.Client, n string) error {
			if cmd.Flags().Changed("timeout") || cmd.Flags().Changed("time") {
				o.Timeout = &timeout
			}
			_, err := cl.ContainerRestart(ctx, n, o)
			return err
		})
	stopFlags(cmd, &o.Signal, &timeout)
	return cmd
}

func stopFlags(cmd *cobra.Command, signal *string, timeout *int) {
	fs := cmd.Flags()
	fs.StringVarP(signal, "signal", "s", "", "Signal to send to the container")
	fs.IntVarP(timeout, "timeout", "t", 0, "Seconds to wait before killing the container")
	fs.IntVar(timeout, "time", 0, "Seconds to wait before killing the container (deprecated: use --timeout)")
	_ = fs.MarkDeprecated("time", "use --timeout instead")
	completeSignal(cmd)
}

func completeSignal(cmd *cobra.Command) {
	_ = cmd.RegisterFlagCompletionFunc("signal", cobra.FixedCompletions(signals(), cobra.ShellCompDirectiveNoFileComp))
}

func newKillCommand(cli *command.Cli) *cobra.Command {
	var o client.ContainerKillOptions
	cmd := verb(cli, "kill", "Kill one or more running containers", " [OPTIONS]", false,
		func(ctx context.Context, cl *client.Client, n string) error {
			_, err := cl.ContainerKill(ctx, n, o)
			return err
		})
	cmd.Flags().StringVarP(&o.Signal, "signal", "s", "", "Signal to send to the container")
	completeSignal(cmd)
	return cmd
}

func newPauseCommand(cli *command.Cli) *cobra.Command {
	return verb(cli, "pause", "Pause all processes within one or more containers", "", false,
		func(ctx context.Context, cl *client.Client, n string) error {
			_, err := cl.ContainerPause(ctx, n, client.ContainerPauseOptions{})
			return err
		})
}

func newUnpauseCommand(cli *command.Cli) *cobra.Command {
	cmd := verb(cli, "unpause", "Unpause all processes within one or more containers", "", false,
		func(ctx context.Context, cl *client.Client, n string) error {
			_, err := cl.ContainerUnpause(ctx, n, client.ContainerUnpauseOptions{})
			return err
		})
	cmd.ValidArgsFunction = completeSome(cli, false, 0, func(c *container.Summary) bool { return c.State == container.StatePaused })
	return cmd
}

func newRmCommand(cli *command.Cli) *cobra.Command {
	var o client.ContainerRemoveOptions
	cmd := verb(cli, "rm", "Remove one or more containers", " [OPTIONS]", true,
		func(ctx context.Context, cl *client.Client, n string) error {
			n = strings.Trim(n, "/")
			if n == "" {
				return errors.New("container name cannot be empty")
			}
			_, err := cl.ContainerRemove(ctx, n, o)
			if o.Force && errdefs.IsNotFound(err) {
				fmt.Fprintln(cli.Err, command.Text(err))
				return errQuiet
			}
			return err
		})
	cmd.Aliases = []string{"remove"}
	cmd.ValidArgsFunction = completeSome(cli, true, 0, func(c *container.Summary) bool { return o.Force || notRunning(c) })
	cmd.Annotations[command.AnnAliases] = "docker container rm, docker container remove, docker rm"
	fs := cmd.Flags()
	fs.BoolVarP(&o.RemoveVolumes, "volumes", "v", false, "Remove anonymous volumes associated with the container")
	fs.BoolVarP(&o.RemoveLinks, "link", "l", false, "Remove the specified link")
	fs.BoolVarP(&o.Force, "force", "f", false, "Force the removal of a running container (uses SIGKILL)")
	return cmd
}

func newWaitCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "wait CONTAINER [CONTAINER...]", Short: "Block until one or more containers stop, then print their exit codes",
		Args:        command.MinArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker container wait, docker wait"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			var errs []error
			for _, n := range args {
				w := cl.ContainerWait(cmd.Context(), n, client.ContainerWaitOptions{})
				select {
				case r := <-w.Result:
					fmt.Fprintln(cli.Out, r.StatusCode)
				case err := <-w.Error:
					errs = append(errs, errors.New(command.Text(err)))
				}
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: complete(cli, false, 0),
	}
}

func newRenameCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "rename CONTAINER NEW_NAME", Short: "Rename a container", Args: command.ExactArgs(2),
		Annotations: map[string]string{command.AnnAliases: "docker container rename, docker rename"},
		RunE: func(cmd *cobra.Command, args []string) error {
			old, next := strings.TrimSpace(args[0]), strings.TrimSpace(args[1])
			if old == "" || next == "" {
				return errors.New("Error: Neither old nor new names may be empty")
			}
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			if _, err := cl.ContainerRename(cmd.Context(), old, client.ContainerRenameOptions{NewName: next}); err != nil {
				fmt.Fprintln(cli.Err, command.Text(err))
				return fmt.Errorf("Error: failed to rename container named %s", old)
			}
			return nil
		},
		ValidArgsFunction: complete(cli, true, 1),
	}
}

func newTopCommand(cli *command.Cli) *cobra.Command {
	cmd := &cobra.Command{
		Use: "top CONTAINER [ps OPTIONS]", Short: "Display the running processes of a container",
		Args:        command.MinArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker container top, docker top"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			r, err := cl.ContainerTop(cmd.Context(), args[0], client.ContainerTopOptions{Arguments: args[1:]})
			if err != nil {
				return err
			}
			w := format.NewTable(cli.Out, 20)
			fmt.Fprintln(w, strings.Join(r.Titles, "\t"))
			for _, p := range r.Processes {
				fmt.Fprintln(w, strings.Join(p, "\t"))
			}
			return w.Flush()
		},
		ValidArgsFunction: complete(cli, false, 1),
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}
