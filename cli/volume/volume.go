// Package volume is `docker volume`.
package volume

import (
	"context"
	"errors"
	"fmt"
	"sort"
	"strings"

	"github.com/docker/go-units"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/cli/opts"
	volumetypes "github.com/moby/moby/api/types/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// NewCommand makes `docker volume`.
func NewCommand(cli *command.Cli) *cobra.Command {
	return command.Group("volume COMMAND", "Manage volumes",
		newCreateCommand(cli), newInspectCommand(cli), newLsCommand(cli), newRmCommand(cli), newPruneCommand(cli))
}

func complete(cli *command.Cli) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		cl, err := cli.Client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := cl.VolumeList(cmd.Context(), client.VolumeListOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, v := range list.Items {
			out = append(out, v.Name)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func newCreateCommand(cli *command.Cli) *cobra.Command {
	var o client.VolumeCreateOptions
	driverOpts, labels := opts.NewMap(nil), opts.NewList(opts.Label)
	cmd := &cobra.Command{
		Use: "create [OPTIONS] [VOLUME]", Short: "Create a volume", Args: command.MaxArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				o.Name = args[0]
			}
			o.DriverOpts, o.Labels = driverOpts.All(), opts.KVToMap(labels.All())
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			r, err := cl.VolumeCreate(cmd.Context(), o)
			if err != nil {
				return err
			}
			fmt.Fprintln(cli.Out, r.Volume.Name)
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.Driver, "driver", "d", "local", "Specify volume driver name")
	fs.VarP(driverOpts, "opt", "o", "Set driver specific options")
	fs.Var(labels, "label", "Set metadata for a volume")
	return cmd
}

func newInspectCommand(cli *command.Cli) *cobra.Command {
	var f string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] VOLUME [VOLUME...]", Short: "Display detailed information on one or more volumes",
		Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return format.Inspect(cli.Out, args, f, Getter(cmd.Context(), cli))
		},
		ValidArgsFunction: complete(cli),
	}
	cmd.Flags().StringVarP(&f, "format", "f", "", format.HelpSingle)
	return cmd
}

// Getter looks volumes up for inspect.
func Getter(ctx context.Context, cli *command.Cli) format.Get {
	return func(ref string) (any, []byte, error) {
		cl, err := cli.Client()
		if err != nil {
			return nil, nil, err
		}
		r, err := cl.VolumeInspect(ctx, ref, client.VolumeInspectOptions{})
		if err != nil {
			return nil, nil, err
		}
		return r.Volume, r.Raw, nil
	}
}

func newLsCommand(cli *command.Cli) *cobra.Command {
	var quiet bool
	var f string
	var filter opts.Filter
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List volumes", Args: command.NoArgs,
		Annotations: map[string]string{command.AnnAliases: "docker volume ls, docker volume list"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			r, err := cl.VolumeList(cmd.Context(), client.VolumeListOptions{Filters: filter.All()})
			if err != nil {
				return err
			}
			if f == "" {
				f = format.IsTableKey
				if cfg := cli.Config().VolumesFormat; cfg != "" && !quiet {
					f = cfg
				}
			}
			switch {
			case quiet && f == format.IsTableKey:
				f = "{{.Name}}"
			case f == format.IsTableKey:
				f = "table {{.Driver}}\t{{.Name}}"
			}
			sort.Slice(r.Items, func(i, j int) bool { return r.Items[i].Name < r.Items[j].Name })
			var rows []*Row
			for i := range r.Items {
				rows = append(rows, &Row{v: &r.Items[i]})
			}
			return format.Write(cli.Out, f, Titles(), rows)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display volume names")
	fs.StringVar(&f, "format", "", format.Help)
	fs.VarP(&filter, "filter", "f", `Provide filter values (e.g. "dangling=true")`)
	return cmd
}

// Row is a volume in lists. Its methods are the fields of --format.
type Row struct{ v *volumetypes.Volume }

// NewRow makes the row of a volume, for other packages.
func NewRow(v *volumetypes.Volume) *Row { return &Row{v: v} }

// Titles are the titles of the fields of rows.
func Titles() format.Header {
	return format.Header{
		"Name": "VOLUME NAME", "Driver": "DRIVER", "Scope": "SCOPE", "Mountpoint": "MOUNTPOINT", "Labels": "LABELS",
		"Links": "LINKS", "Size": "SIZE", "Group": "GROUP", "Availability": "AVAILABILITY", "Status": "STATUS",
	}
}

// unknown stands where the list does not say, and where only cluster volumes have something.
const unknown = "N/A"

// MarshalJSON is the row as --format json shows it.
func (r *Row) MarshalJSON() ([]byte, error) { return format.MarshalRow(r) }

// Name is the volume's name.
func (r *Row) Name() string { return r.v.Name }

// Driver is the volume's driver.
func (r *Row) Driver() string { return r.v.Driver }

// Scope is how far the volume reaches.
func (r *Row) Scope() string { return r.v.Scope }

// Mountpoint is the volume's directory on the host.
func (r *Row) Mountpoint() string { return r.v.Mountpoint }

// Labels are all labels, sorted.
func (r *Row) Labels() string {
	var out []string
	for k, v := range r.v.Labels {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

// Label is the value of one label.
func (r *Row) Label(name string) string { return r.v.Labels[name] }

// Links is how many containers use the volume.
func (r *Row) Links() string {
	if r.v.UsageData == nil {
		return unknown
	}
	return fmt.Sprint(r.v.UsageData.RefCount)
}

// Size is what the volume takes.
func (r *Row) Size() string {
	if r.v.UsageData == nil {
		return unknown
	}
	return units.HumanSize(float64(r.v.UsageData.Size))
}

// Group is the cluster volume's group.
func (r *Row) Group() string { return unknown }

// Availability is the cluster volume's availability.
func (r *Row) Availability() string { return unknown }

// Status is the cluster volume's status.
func (r *Row) Status() string { return unknown }

func newRmCommand(cli *command.Cli) *cobra.Command {
	var o client.VolumeRemoveOptions
	cmd := &cobra.Command{
		Use: "rm [OPTIONS] VOLUME [VOLUME...]", Aliases: []string{"remove"}, Short: "Remove one or more volumes",
		Long:        "Remove one or more volumes. You cannot remove a volume that is in use by a container.",
		Args:        command.MinArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker volume rm, docker volume remove"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			var errs []error
			for _, n := range args {
				if _, err := cl.VolumeRemove(cmd.Context(), n, o); err != nil {
					errs = append(errs, err)
					continue
				}
				fmt.Fprintln(cli.Out, n)
			}
			return errors.Join(errs...)
		},
		ValidArgsFunction: complete(cli),
	}
	cmd.Flags().BoolVarP(&o.Force, "force", "f", false, "Force the removal of one or more volumes")
	return cmd
}

func newPruneCommand(cli *command.Cli) *cobra.Command {
	var force, all bool
	var filter opts.Filter
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused local volumes", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				what := "anonymous local volumes"
				if all {
					what = "all local volumes"
				}
				yes, err := cli.Confirm(cmd.Context(), "WARNING! This will remove "+what+" not used by at least one container.\nAre you sure you want to continue?")
				if err != nil || !yes {
					return err
				}
			}
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			r, err := cl.VolumePrune(cmd.Context(), client.VolumePruneOptions{All: all, Filters: filter.All()})
			if err != nil {
				return err
			}
			if len(r.Report.VolumesDeleted) > 0 {
				fmt.Fprintln(cli.Out, "Deleted Volumes:")
				for _, n := range r.Report.VolumesDeleted {
					fmt.Fprintln(cli.Out, n)
				}
				fmt.Fprintln(cli.Out)
			}
			fmt.Fprintln(cli.Out, "Total reclaimed space:", units.HumanSize(float64(r.Report.SpaceReclaimed)))
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all", "a", false, "Remove all unused volumes, not just anonymous ones")
	fs.BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	fs.Var(&filter, "filter", `Provide filter values (e.g. "label=<label>")`)
	return cmd
}
