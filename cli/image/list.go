package image

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/distribution/reference"
	units "github.com/docker/go-units"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/cli/opts"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type listOptions struct {
	quiet, all, noTrunc, digests, tree bool
	format                             string
	filter                             opts.Filter
}

func newImagesCommand(cli *command.Cli) *cobra.Command {
	cmd := listCommand(cli, "images [OPTIONS] [REPOSITORY[:TAG]]")
	cmd.Annotations[command.AnnCategory] = "07"
	return cmd
}

func newLsCommand(cli *command.Cli) *cobra.Command {
	cmd := listCommand(cli, "ls [OPTIONS] [REPOSITORY[:TAG]]")
	cmd.Aliases = []string{"list"}
	return cmd
}

func listCommand(cli *command.Cli, use string) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use: use, Short: "List images", Args: command.MaxArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker image ls, docker image list, docker images"},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				o.filter.Add("reference", args[0])
			}
			return runList(cmd.Context(), cli, &o)
		},
		ValidArgsFunction: CompleteOne(cli),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVarP(&o.all, "all", "a", false, "Show all images (default hides intermediate images)")
	fs.BoolVar(&o.noTrunc, "no-trunc", false, "Don't truncate output")
	fs.BoolVar(&o.digests, "digests", false, "Show digests")
	fs.StringVar(&o.format, "format", "", format.Help)
	fs.VarP(&o.filter, "filter", "f", "Filter output based on conditions provided")
	fs.BoolVar(&o.tree, "tree", false, "List multi-platform images as a tree (EXPERIMENTAL)")
	return cmd
}

func runList(ctx context.Context, cli *command.Cli, o *listOptions) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	if o.tree {
		return runTree(ctx, cli, o)
	}
	res, err := cl.ImageList(ctx, client.ImageListOptions{All: o.all, Filters: o.filter.All()})
	if err != nil {
		return err
	}
	f := o.format
	if f == "" {
		if cfg := cli.Config().ImagesFormat; cfg != "" && !o.quiet {
			f = cfg
		} else {
			f = format.IsTableKey
		}
	}
	switch {
	case o.quiet && f == format.IsTableKey:
		f = "{{.ID}}"
	case f == format.IsTableKey && o.digests:
		f = "table {{.Repository}}\t{{.Tag}}\t{{.Digest}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}"
	case f == format.IsTableKey:
		f = "table {{.Repository}}\t{{.Tag}}\t{{.ID}}\t{{if .CreatedSince }}{{.CreatedSince}}{{else}}N/A{{end}}\t{{.Size}}"
	}
	digests := o.digests || strings.Contains(f, "{{.Digest}}")
	var rows []*Row
	for i := range res.Items {
		rows = append(rows, rowsOf(&res.Items[i], digests, o.digests, !o.noTrunc)...)
	}
	return format.Write(cli.Out, f, Titles(), rows)
}

// rowsOf makes a row for each name of an image; with digests, one for each digest of a
// name. asked says that --digests was given, not only a template with digests in it.
func rowsOf(s *imagetypes.Summary, digests, asked, trunc bool) []*Row {
	type names struct{ tags, digests []string }
	repos := map[string]*names{}
	var keys []string // in the order of their first mention
	at := func(n string) *names {
		if repos[n] == nil {
			repos[n] = &names{}
			keys = append(keys, n)
		}
		return repos[n]
	}
	for _, t := range s.RepoTags {
		if ref, err := reference.ParseNormalizedNamed(t); err == nil {
			if nt, ok := ref.(reference.NamedTagged); ok {
				n := at(reference.FamiliarName(ref))
				n.tags = append(n.tags, nt.Tag())
			}
		}
	}
	for _, d := range s.RepoDigests {
		if ref, err := reference.ParseNormalizedNamed(d); err == nil {
			if c, ok := ref.(reference.Canonical); ok {
				n := at(reference.FamiliarName(ref))
				n.digests = append(n.digests, c.Digest().String())
			}
		}
	}
	row := func(repo, tag, digest string) *Row {
		return &Row{s: s, repo: repo, tag: tag, digest: digest, trunc: trunc}
	}
	var out []*Row
	const none = "<none>"
	for _, repo := range keys {
		n := repos[repo]
		tags, ds := n.tags, n.digests
		if len(tags) == 0 {
			tags = []string{none}
		}
		switch {
		case len(n.tags) == 0 && !asked:
			ds = []string{""} // a name that has digests only takes a row for each when they are asked for
		case !digests, len(ds) == 0:
			ds = []string{none}
		}
		for _, t := range tags {
			for _, d := range ds {
				out = append(out, row(repo, t, d))
			}
		}
	}
	if len(out) == 0 {
		out = append(out, row(none, none, none))
	}
	return out
}

// Row is an image in lists. Its methods are the fields of --format.
type Row struct {
	s                 *imagetypes.Summary
	repo, tag, digest string
	trunc             bool
}

// NewRow makes the row of an image under its first name, for other packages; trunc shortens
// its ID.
func NewRow(s *imagetypes.Summary, trunc bool) *Row {
	r := rowsOf(s, false, false, trunc)[0]
	r.digest = ""
	return r
}

// Titles are the titles of the fields of rows.
func Titles() format.Header {
	return format.Header{
		"ID": "IMAGE ID", "Repository": "REPOSITORY", "Tag": "TAG", "Digest": "DIGEST",
		"CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "Size": "SIZE", "Containers": "CONTAINERS",
		"VirtualSize": "SIZE", "SharedSize": "SHARED SIZE", "UniqueSize": "UNIQUE SIZE",
	}
}

// MarshalJSON is the row as --format json shows it.
func (r *Row) MarshalJSON() ([]byte, error) { return format.MarshalRow(r) }

// ID is the image's ID.
func (r *Row) ID() string {
	if r.trunc {
		return format.ShortID(r.s.ID)
	}
	return r.s.ID
}

// Repository is the name without tag.
func (r *Row) Repository() string { return r.repo }

// Tag is the tag.
func (r *Row) Tag() string { return r.tag }

// Digest is the digest of the manifest.
func (r *Row) Digest() string { return r.digest }

// CreatedSince is the age; empty when unknown.
func (r *Row) CreatedSince() string {
	t := time.Unix(r.s.Created, 0)
	if r.s.Created <= (time.Time{}).Unix() {
		return ""
	}
	return units.HumanDuration(time.Now().UTC().Sub(t)) + " ago"
}

// CreatedAt is the time of creation.
func (r *Row) CreatedAt() string { return time.Unix(r.s.Created, 0).String() }

// Size is the size of the image.
func (r *Row) Size() string { return units.HumanSizeWithPrecision(float64(r.s.Size), 3) }

// VirtualSize is another name of Size.
func (r *Row) VirtualSize() string { return units.HumanSize(float64(r.s.Size)) }

// Containers is the number of containers of the image.
func (r *Row) Containers() string { return countOrNA(r.s.Containers) }

// SharedSize is the size shared with other images.
func (r *Row) SharedSize() string {
	if r.s.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(r.s.SharedSize))
}

// UniqueSize is the size of what only this image has.
func (r *Row) UniqueSize() string {
	if r.s.Size == -1 || r.s.SharedSize == -1 {
		return "N/A"
	}
	return units.HumanSize(float64(r.s.Size - r.s.SharedSize))
}

func countOrNA(n int64) string {
	if n == -1 {
		return "N/A"
	}
	return fmt.Sprint(n)
}
