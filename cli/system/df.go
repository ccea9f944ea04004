package system

import (
	"context"
	"fmt"

	units "github.com/docker/go-units"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newDfCommand(cli *command.Cli) *cobra.Command {
	var f string
	var verbose bool
	cmd := &cobra.Command{
		Use: "df [OPTIONS]", Short: "Show docker disk usage", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDf(cmd.Context(), cli, f, verbose)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Show detailed information on space usage")
	cmd.Flags().StringVar(&f, "format", "", format.Help)
	return cmd
}

// DfRow is the sum of a kind of objects.
type DfRow struct {
	kind                             string
	total, active, size, reclaimable int64
}

// MarshalJSON is the row as --format json shows it.
func (r *DfRow) MarshalJSON() ([]byte, error) { return format.MarshalRow(r) }

// Type is the kind of object.
func (r *DfRow) Type() string { return r.kind }

// TotalCount is the number of objects.
func (r *DfRow) TotalCount() string { return fmt.Sprint(r.total) }

// Active is the number of objects in use.
func (r *DfRow) Active() string { return fmt.Sprint(r.active) }

// Size is the space used.
func (r *DfRow) Size() string { return units.HumanSize(float64(r.size)) }

// Reclaimable is the space a prune would give back.
func (r *DfRow) Reclaimable() string {
	s := units.HumanSize(float64(r.reclaimable))
	if r.size > 0 && r.kind != "Build Cache" {
		return fmt.Sprintf("%s (%v%%)", s, r.reclaimable*100/r.size)
	}
	return s
}

func runDf(ctx context.Context, cli *command.Cli, f string, verbose bool) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	du, err := cl.DiskUsage(ctx, client.DiskUsageOptions{
		Containers: true, Images: true, BuildCache: true, Volumes: true, Verbose: verbose,
	})
	if err != nil {
		return err
	}
	if verbose && f == "" {
		return writeVerbose(cli, du)
	}
	if f == "" || f == format.IsTableKey {
		f = "table {{.Type}}\t{{.TotalCount}}\t{{.Active}}\t{{.Size}}\t{{.Reclaimable}}"
	}
	rows := []*DfRow{
		{"Images", du.Images.TotalCount, du.Images.ActiveCount, du.Images.TotalSize, du.Images.Reclaimable},
		{"Containers", du.Containers.TotalCount, du.Containers.ActiveCount, du.Containers.TotalSize, du.Containers.Reclaimable},
		{"Local Volumes", du.Volumes.TotalCount, du.Volumes.ActiveCount, du.Volumes.TotalSize, du.Volumes.Reclaimable},
		{"Build Cache", du.BuildCache.TotalCount, du.BuildCache.ActiveCount, du.BuildCache.TotalSize, du.BuildCache.Reclaimable},
	}
	return format.Write(cli.Out, f, format.Header{
		"Type": "TYPE", "TotalCount": "TOTAL", "Active": "ACTIVE", "Size": "SIZE", "Reclaimable": "RECLAIMABLE",
	}, rows)
}

type dfItem struct{ a, b, c, d string }

// Name is the first column.
func (r *dfItem) Name() string { return r.a }

// ID is the second column.
func (r *dfItem) ID() string { return r.b }

// Use is the third column.
func (r *dfItem) Use() string { return r.c }

// Size is the last column.
func (r *dfItem) Size() string { return r.d }

func writeVerbose(cli *command.Cli, du client.DiskUsageResult) error {
	section := func(title, name, id, use string, rows []*dfItem) error {
		fmt.Fprintf(cli.Out, "%s:\n\n", title)
		err := format.Write(cli.Out, "table {{.Name}}\t{{.ID}}\t{{.Use}}\t{{.Size}}",
			format.Header{"Name": name, "ID": id, "Use": use, "Size": "SIZE"}, rows)
		fmt.Fprintln(cli.Out)
		return err
	}
	size := func(n int64) string { return units.HumanSizeWithPrecision(float64(n), 3) }
	var rows []*dfItem
	for _, i := range du.Images.Items {
		name := "<none>"
		if len(i.RepoTags) > 0 {
			name = i.RepoTags[0]
		}
		rows = append(rows, &dfItem{name, format.ShortID(i.ID), fmt.Sprint(i.Containers), size(i.Size)})
	}
	if err := section("Images space usage", "IMAGE", "IMAGE ID", "CONTAINERS", rows); err != nil {
		return err
	}
	rows = nil
	for _, c := range du.Containers.Items {
		rows = append(rows, &dfItem{c.Image, format.ShortID(c.ID), c.Status, size(c.SizeRw)})
	}
	if err := section("Containers space usage", "IMAGE", "CONTAINER ID", "STATUS", rows); err != nil {
		return err
	}
	rows = nil
	for _, v := range du.Volumes.Items {
		links, n := "N/A", "N/A"
		if v.UsageData != nil {
			links, n = fmt.Sprint(v.UsageData.RefCount), size(v.UsageData.Size)
		}
		rows = append(rows, &dfItem{v.Name, v.Driver, links, n})
	}
	return section("Local Volumes space usage", "VOLUME NAME", "DRIVER", "LINKS", rows)
}
