package system

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	units "github.com/docker/go-units"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/container"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/cli/image"
	"github.com/gantry/gantry/cli/volume"
	"github.com/moby/moby/api/types/build"
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
	if verbose {
		return writeVerbose(cli.Out, du, f)
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

// CacheRow is a record of the build cache. Its methods are the fields of --format.
type CacheRow struct {
	r     *build.CacheRecord
	trunc bool
}

func cacheTitles() format.Header {
	return format.Header{
		"ID": "CACHE ID", "Parent": "PARENT", "CacheType": "CACHE TYPE", "Size": "SIZE", "CreatedSince": "CREATED",
		"LastUsedSince": "LAST USED", "UsageCount": "USAGE", "InUse": "IN USE", "Shared": "SHARED", "Description": "DESCRIPTION",
	}
}

// MarshalJSON is the row as --format json shows it.
func (r *CacheRow) MarshalJSON() ([]byte, error) { return format.MarshalRow(r) }

// ID is the record's ID, with a star while it is in use.
func (r *CacheRow) ID() string {
	id := r.r.ID
	if r.trunc {
		id = format.ShortID(id)
	}
	if r.r.InUse {
		id += "*"
	}
	return id
}

// Parent are the records below.
func (r *CacheRow) Parent() string {
	p := strings.Join(r.r.Parents, ", ")
	if r.trunc {
		return format.ShortID(p)
	}
	return p
}

// CacheType is the kind of record.
func (r *CacheRow) CacheType() string { return r.r.Type }

// Description says what made the record.
func (r *CacheRow) Description() string { return r.r.Description }

// Size is the space used.
func (r *CacheRow) Size() string { return units.HumanSizeWithPrecision(float64(r.r.Size), 3) }

// CreatedAt is the time of creation.
func (r *CacheRow) CreatedAt() string { return r.r.CreatedAt.String() }

// CreatedSince is the age.
func (r *CacheRow) CreatedSince() string { return age(r.r.CreatedAt) }

// LastUsedAt is the time of the last use, if there was one.
func (r *CacheRow) LastUsedAt() string {
	if r.r.LastUsedAt == nil {
		return ""
	}
	return r.r.LastUsedAt.String()
}

// LastUsedSince is the time since the last use, if there was one.
func (r *CacheRow) LastUsedSince() string {
	if r.r.LastUsedAt == nil {
		return ""
	}
	return age(*r.r.LastUsedAt)
}

// UsageCount is the number of uses.
func (r *CacheRow) UsageCount() string { return fmt.Sprint(r.r.UsageCount) }

// InUse says whether something uses the record now.
func (r *CacheRow) InUse() string { return format.Bool(r.r.InUse) }

// Shared says whether images share the record.
func (r *CacheRow) Shared() string { return format.Bool(r.r.Shared) }

func age(t time.Time) string { return units.HumanDuration(time.Now().UTC().Sub(t)) + " ago" }

// usage is what -v shows: every object by itself. Its fields are those of templates.
type usage struct {
	Images     []*image.Row
	Containers []*container.Row
	Volumes    []*volume.Row
	BuildCache []*CacheRow
}

func newUsage(du client.DiskUsageResult, trunc bool) usage {
	u := usage{Images: []*image.Row{}, Containers: []*container.Row{}, Volumes: []*volume.Row{}, BuildCache: []*CacheRow{}}
	for i := range du.Images.Items {
		u.Images = append(u.Images, image.NewRow(&du.Images.Items[i], trunc))
	}
	for i := range du.Containers.Items {
		c := &du.Containers.Items[i]
		c.SizeRootFs = 0 // the image's share is counted above
		u.Containers = append(u.Containers, container.NewRow(c, trunc))
	}
	for i := range du.Volumes.Items {
		u.Volumes = append(u.Volumes, volume.NewRow(&du.Volumes.Items[i]))
	}
	records := du.BuildCache.Items
	slices.SortFunc(records, func(a, b build.CacheRecord) int {
		at := func(r build.CacheRecord) time.Time {
			if r.LastUsedAt == nil {
				return time.Time{}
			}
			return *r.LastUsedAt
		}
		return cmp.Or(at(a).Compare(at(b)), cmp.Compare(a.ID, b.ID))
	})
	for i := range records {
		u.BuildCache = append(u.BuildCache, &CacheRow{r: &records[i], trunc: trunc})
	}
	return u
}

// writeVerbose writes the four tables, or the template f once for all of them.
func writeVerbose(w io.Writer, du client.DiskUsageResult, f string) error {
	if f == "json" {
		f = "{{json .}}"
	}
	if f != "" && f != format.IsTableKey {
		t, err := format.Template("", strings.TrimSpace(strings.TrimPrefix(f, format.IsTableKey)))
		if err != nil {
			return err
		}
		return t.Execute(w, newUsage(du, format.IsTable(f)))
	}
	u := newUsage(du, true)
	fmt.Fprint(w, "Images space usage:\n\n")
	if err := format.Write(w, "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{.CreatedSince}}\t{{.Size}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.Containers}}", image.Titles(), u.Images); err != nil {
		return err
	}
	fmt.Fprint(w, "\nContainers space usage:\n\n")
	if err := format.Write(w, "table {{.ID}}\t{{.Image}}\t{{.Command}}\t{{.LocalVolumes}}\t{{.Size}}\t{{.RunningFor}}\t{{.Status}}\t{{.Names}}", container.Titles(), u.Containers); err != nil {
		return err
	}
	fmt.Fprint(w, "\nLocal Volumes space usage:\n\n")
	if err := format.Write(w, "table {{.Name}}\t{{.Links}}\t{{.Size}}", volume.Titles(), u.Volumes); err != nil {
		return err
	}
	fmt.Fprintf(w, "\nBuild cache usage: %s\n\n", units.HumanSize(float64(du.BuildCache.TotalSize)))
	return format.Write(w, "table {{.ID}}\t{{.CacheType}}\t{{.Size}}\t{{.CreatedSince}}\t{{.LastUsedSince}}\t{{.UsageCount}}\t{{.Shared}}", cacheTitles(), u.BuildCache)
}
