package container

import (
	"context"
	"fmt"
	"strings"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/cli/opts"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type psOptions struct {
	all, latest, noTrunc, quiet, size bool
	sizeGiven                         bool // also as --size=false
	last                              int
	format                            string
	filter                            opts.Filter
}

func newPsCommand(cli *command.Cli) *cobra.Command {
	cmd := listCommand(cli, "ps [OPTIONS]")
	cmd.Annotations[command.AnnCategory] = "03"
	return cmd
}

func newLsCommand(cli *command.Cli) *cobra.Command {
	cmd := listCommand(cli, "ls [OPTIONS]")
	cmd.Aliases = []string{"list", "ps"}
	return cmd
}

func listCommand(cli *command.Cli, use string) *cobra.Command {
	var o psOptions
	cmd := &cobra.Command{
		Use: use, Short: "List containers", Args: command.NoArgs,
		Annotations: map[string]string{
			command.AnnAliases: "docker container ls, docker container list, docker container ps, docker ps",
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.sizeGiven = cmd.Flags().Changed("size")
			return runPs(cmd.Context(), cli, &o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only display container IDs")
	fs.BoolVarP(&o.size, "size", "s", false, "Display total file sizes")
	fs.BoolVarP(&o.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVarP(&o.latest, "latest", "l", false, "Show the latest created container (includes all states)")
	fs.IntVarP(&o.last, "last", "n", -1, "Show n last created containers (includes all states)")
	fs.StringVar(&o.format, "format", "", format.Help)
	fs.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
	return cmd
}

func runPs(ctx context.Context, cli *command.Cli, o *psOptions) error {
	if err := format.Check(o.format); err != nil {
		return fmt.Errorf("failed to parse template: %w", err)
	}
	if o.format != "" && o.format != format.IsTableKey && o.format != "json" {
		if err := format.TryRow(o.format, &Row{c: &container.Summary{}}); err != nil {
			return fmt.Errorf("failed to execute template: %w", err)
		}
	}
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	f := o.source(cli)
	lo := o.request(f)
	res, err := cl.ContainerList(ctx, lo)
	if err != nil {
		return err
	}
	switch {
	case o.quiet && format.IsTable(f):
		f = "{{.ID}}"
	case f == format.IsTableKey:
		f = "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
		if lo.Size {
			f += "\t{{.Size}}"
		}
	}
	rows := make([]*Row, 0, len(res.Items))
	for i := range res.Items {
		rows = append(rows, &Row{c: &res.Items[i], trunc: !o.noTrunc})
	}
	return format.Write(cli.Out, f, Titles(), rows)
}

// source is the format asked for: by flag, by config.json, else the table.
func (o *psOptions) source(cli *command.Cli) string {
	if o.format != "" {
		if o.quiet {
			fmt.Fprintln(cli.Err, "WARNING: Ignoring custom format, because both --format and --quiet are set.")
		}
		return o.format
	}
	if cfg := cli.Config().PsFormat; cfg != "" && !o.quiet {
		return cfg
	}
	return format.IsTableKey
}

// request is what the daemon is asked for a list in format f.
func (o *psOptions) request(f string) client.ContainerListOptions {
	lo := client.ContainerListOptions{All: o.all, Limit: o.last, Size: o.size, Filters: o.filter.All()}
	if o.latest && o.last == -1 {
		lo.Limit = 1
	}
	if !o.sizeGiven && !o.quiet && strings.Contains(f, ".Size") {
		lo.Size = true // it costs the daemon a walk, so it is asked for only where it is shown
	}
	return lo
}
