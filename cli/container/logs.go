package container

import (
	"context"
	"io"

	"github.com/gantry/gantry/cli/command"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newLogsCommand(cli *command.Cli) *cobra.Command {
	var o client.ContainerLogsOptions
	cmd := &cobra.Command{
		Use: "logs [OPTIONS] CONTAINER", Short: "Fetch the logs of a container",
		Args:        command.ExactArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker container logs, docker logs"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runLogs(cmd.Context(), cli, args[0], o)
		},
		ValidArgsFunction: complete(cli, true, 1),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.Follow, "follow", "f", false, "Follow log output")
	fs.StringVar(&o.Since, "since", "", `Show logs since timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.StringVar(&o.Until, "until", "", `Show logs before a timestamp (e.g. "2013-01-02T13:23:37Z") or relative (e.g. "42m" for 42 minutes)`)
	fs.BoolVarP(&o.Timestamps, "timestamps", "t", false, "Show timestamps")
	fs.BoolVar(&o.Details, "details", false, "Show extra details provided to logs")
	fs.StringVarP(&o.Tail, "tail", "n", "all", "Number of lines to show from the end of the logs")
	return cmd
}

func runLogs(ctx context.Context, cli *command.Cli, ref string, o client.ContainerLogsOptions) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	c, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	o.ShowStdout, o.ShowStderr = true, true
	body, err := cl.ContainerLogs(ctx, c.Container.ID, o)
	if err != nil {
		return err
	}
	defer body.Close()
	if c.Container.Config != nil && c.Container.Config.Tty {
		_, err = io.Copy(cli.Out, body)
	} else {
		_, err = stdcopy.StdCopy(cli.Out, cli.Err, body)
	}
	return err
}
