package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	units "github.com/docker/go-units"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/cli/opts"
	"github.com/gantry/gantry/cli/progress"
	imagetypes "github.com/moby/moby/api/types/image"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

func newTagCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "tag SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", Short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE",
		Args:        command.ExactArgs(2),
		Annotations: map[string]string{command.AnnAliases: "docker image tag, docker tag"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			_, err = cl.ImageTag(cmd.Context(), client.ImageTagOptions{Source: args[0], Target: args[1]})
			return err
		},
		ValidArgsFunction: CompleteAny(cli),
	}
}

func newRmiCommand(cli *command.Cli) *cobra.Command {
	return removeCommand(cli, "rmi [OPTIONS] IMAGE [IMAGE...]")
}

func newRmCommand(cli *command.Cli) *cobra.Command {
	cmd := removeCommand(cli, "rm [OPTIONS] IMAGE [IMAGE...]")
	cmd.Aliases = []string{"rmi", "remove"}
	return cmd
}

func removeCommand(cli *command.Cli, use string) *cobra.Command {
	var force, noPrune bool
	var platforms []string
	cmd := &cobra.Command{
		Use: use, Short: "Remove one or more images", Args: command.MinArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker image rm, docker image remove, docker rmi"},
		RunE: func(cmd *cobra.Command, args []string) error {
			o := client.ImageRemoveOptions{Force: force, PruneChildren: !noPrune}
			var err error
			if o.Platforms, err = parsePlatforms(platforms); err != nil {
				return err
			}
			return runRemove(cmd.Context(), cli, args, o)
		},
		ValidArgsFunction: CompleteAny(cli),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&force, "force", "f", false, "Force removal of the image")
	fs.BoolVar(&noPrune, "no-prune", false, "Do not delete untagged parents")
	fs.StringSliceVar(&platforms, "platform", nil, `Remove only the given platform variant. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

func runRemove(ctx context.Context, cli *command.Cli, names []string, o client.ImageRemoveOptions) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	var errs []error
	fatal := false
	for _, n := range names {
		res, err := cl.ImageRemove(ctx, n, o)
		if err != nil {
			if !errdefs.IsNotFound(err) {
				fatal = true
			}
			errs = append(errs, errors.New(command.Text(err)))
			continue
		}
		for _, d := range res.Items {
			if d.Deleted != "" {
				fmt.Fprintln(cli.Out, "Deleted:", d.Deleted)
			} else {
				fmt.Fprintln(cli.Out, "Untagged:", d.Untagged)
			}
		}
	}
	err = errors.Join(errs...)
	if err != nil && o.Force && !fatal {
		fmt.Fprintln(cli.Err, err)
		return nil
	}
	return err
}

func newPushCommand(cli *command.Cli) *cobra.Command {
	var all, quiet bool
	var platform string
	cmd := &cobra.Command{
		Use: "push [OPTIONS] NAME[:TAG]", Short: "Upload an image to a registry", Args: command.ExactArgs(1),
		Annotations: map[string]string{command.AnnCategory: "06", command.AnnAliases: "docker image push, docker push"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPush(cmd.Context(), cli, args[0], all, quiet, platform)
		},
		ValidArgsFunction: CompleteOne(cli),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&all, "all-tags", "a", false, "Push all tags of an image to the repository")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress verbose output")
	fs.Bool("disable-content-trust", true, "Skip image signing")
	fs.StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Push a platform-specific manifest as a single-platform image to the registry.\n"+
		"Image index won't be pushed, meaning that other manifests, including attestations won't be preserved.\n"+
		"'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
	return cmd
}

const onePlatform = `
 Info -> Using --platform pushes only the specified platform manifest of a multi-platform image index.
         Other components, like attestations, will not be included.
         To push the complete multi-platform image, remove the --platform flag.
         
`

func runPush(ctx context.Context, cli *command.Cli, name string, all, quiet bool, platform string) error {
	var o client.ImagePushOptions
	if platform != "" {
		p, err := ParsePlatform(platform)
		if err != nil {
			fmt.Fprintf(cli.Err, "Invalid platform %s", platform)
			return err
		}
		fmt.Fprint(cli.Out, onePlatform)
		o.Platform = p
	}
	named, err := reference.ParseNormalizedNamed(name)
	switch {
	case err != nil:
		return err
	case all && !reference.IsNameOnly(named):
		return errors.New("tag can't be used with --all-tags/-a")
	case !all && reference.IsNameOnly(named):
		named = reference.TagNameOnly(named)
		if t, ok := named.(reference.Tagged); ok && !quiet {
			fmt.Fprintf(cli.Out, "Using default tag: %s\n", t.Tag())
		}
	}
	o.All, o.RegistryAuth = all, auth(ctx, cli, name)
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	resp, err := cl.ImagePush(ctx, reference.FamiliarString(named), o)
	if err != nil {
		return err
	}
	defer resp.Close()
	if quiet {
		if err := progress.Drain(resp); err != nil {
			return err
		}
		fmt.Fprintln(cli.Out, named.String())
		return nil
	}
	return progress.Display(ctx, resp, cli.Out, nil)
}

func newLoadCommand(cli *command.Cli) *cobra.Command {
	var input string
	var platforms []string
	var quiet bool
	cmd := &cobra.Command{
		Use: "load [OPTIONS]", Short: "Load an image from a tar archive or STDIN", Args: command.NoArgs,
		Annotations: map[string]string{command.AnnAliases: "docker image load, docker load"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runLoad(cmd.Context(), cli, input, quiet, platforms)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.StringVarP(&input, "input", "i", "", "Read from tar archive file, instead of STDIN")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Suppress the load output")
	fs.StringSliceVar(&platforms, "platform", nil, `Load only the given platform(s). Formatted as a comma-separated list of "os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8").`)
	return cmd
}

func runLoad(ctx context.Context, cli *command.Cli, input string, quiet bool, platforms []string) error {
	var in io.Reader = cli.In
	if input == "" {
		if cli.In.IsTerminal() {
			return errors.New("requested load from stdin, but stdin is empty")
		}
	} else {
		f, err := os.Open(input)
		if err != nil {
			return err
		}
		defer f.Close()
		in = f
	}
	var lo []client.ImageLoadOption
	if quiet || !cli.Out.IsTerminal() {
		lo = append(lo, client.ImageLoadWithQuiet(true))
	}
	if ps, err := parsePlatforms(platforms); err != nil {
		return fmt.Errorf("invalid platform: %w", err)
	} else if len(ps) > 0 {
		lo = append(lo, client.ImageLoadWithPlatforms(ps...))
	}
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	resp, err := cl.ImageLoad(ctx, in, lo...)
	if err != nil {
		return err
	}
	defer resp.Close()
	return progress.Display(ctx, resp, cli.Out, nil)
}

func newSaveCommand(cli *command.Cli) *cobra.Command {
	var output string
	var platforms []string
	cmd := &cobra.Command{
		Use: "save [OPTIONS] IMAGE [IMAGE...]", Short: "Save one or more images to a tar archive (streamed to STDOUT by default)",
		Args:        command.MinArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker image save, docker save"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSave(cmd.Context(), cli, args, output, platforms)
		},
		ValidArgsFunction: CompleteAny(cli),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	cmd.Flags().StringSliceVar(&platforms, "platform", nil, `Save only the given platform(s). Formatted as a comma-separated list of "os[/arch[/variant]]" (e.g., "linux/amd64,linux/arm64/v8")`)
	return cmd
}

func runSave(ctx context.Context, cli *command.Cli, names []string, output string, platforms []string) error {
	var so []client.ImageSaveOption
	if ps, err := parsePlatforms(platforms); err != nil {
		return fmt.Errorf("invalid platform: %w", err)
	} else if len(ps) > 0 {
		so = append(so, client.ImageSaveWithPlatforms(ps...))
	}
	if output == "" && cli.Out.IsTerminal() {
		return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	if output != "" {
		if err := command.CheckOutput(output); err != nil {
			return fmt.Errorf("failed to save image: %w", err)
		}
	}
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	body, err := cl.ImageSave(ctx, names, so...)
	if err != nil {
		return err
	}
	defer body.Close()
	if output == "" {
		_, err = io.Copy(cli.Out, body)
		return err
	}
	return command.WriteFile(output, body)
}

func newInspectCommand(cli *command.Cli) *cobra.Command {
	var f, platform string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] IMAGE [IMAGE...]", Short: "Display detailed information on one or more images",
		Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			get, err := Getter(cmd.Context(), cli, platform)
			if err != nil {
				return err
			}
			return format.Inspect(cli.Out, args, f, get)
		},
		ValidArgsFunction: CompleteAny(cli),
	}
	cmd.Flags().StringVarP(&f, "format", "f", "", format.HelpSingle)
	cmd.Flags().StringVar(&platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Inspect a specific platform of the multi-platform image.\n"+
		"If the image or the server is not multi-platform capable, the command will error out if the platform does not match.\n"+
		"'os[/arch[/variant]]': Explicit platform (eg. linux/amd64)")
	return cmd
}

// Getter looks images up for inspect.
func Getter(ctx context.Context, cli *command.Cli, platform string) (format.Get, error) {
	var p *ocispec.Platform
	if platform != "" {
		var err error
		if p, err = ParsePlatform(platform); err != nil {
			return nil, err
		}
	}
	return func(ref string) (any, []byte, error) {
		cl, err := cli.Client()
		if err != nil {
			return nil, nil, err
		}
		var raw bytes.Buffer
		io := []client.ImageInspectOption{client.ImageInspectWithRawResponse(&raw)}
		if p != nil {
			io = append(io, client.ImageInspectWithPlatform(p))
		}
		r, err := cl.ImageInspect(ctx, ref, io...)
		if err != nil {
			return nil, nil, err
		}
		return r.InspectResponse, raw.Bytes(), nil
	}, nil
}

func newPruneCommand(cli *command.Cli) *cobra.Command {
	var all, force bool
	var filter opts.Filter
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove unused images", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				q := "WARNING! This will remove all dangling images."
				if all {
					q = "WARNING! This will remove all images without at least one container associated to them."
				}
				yes, err := cli.Confirm(cmd.Context(), q+"\nAre you sure you want to continue?")
				if err != nil {
					return err
				}
				if !yes {
					return nil
				}
			}
			filter.Add("dangling", fmt.Sprint(!all))
			return runPrune(cmd.Context(), cli, filter.All())
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "Remove all unused images, not just dangling ones")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

func runPrune(ctx context.Context, cli *command.Cli, filters map[string]map[string]bool) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	r, err := cl.ImagePrune(ctx, client.ImagePruneOptions{Filters: filters})
	if err != nil {
		return err
	}
	if len(r.Report.ImagesDeleted) > 0 {
		fmt.Fprintln(cli.Out, "Deleted Images:")
		for _, d := range r.Report.ImagesDeleted {
			if d.Untagged != "" {
				fmt.Fprintln(cli.Out, "untagged:", d.Untagged)
			} else {
				fmt.Fprintln(cli.Out, "deleted:", d.Deleted)
			}
		}
		fmt.Fprintln(cli.Out)
	}
	fmt.Fprintln(cli.Out, "Total reclaimed space:", units.HumanSize(float64(r.Report.SpaceReclaimed)))
	return nil
}

func newHistoryCommand(cli *command.Cli) *cobra.Command {
	var human, quiet, noTrunc bool
	var f, platform string
	cmd := &cobra.Command{
		Use: "history [OPTIONS] IMAGE", Short: "Show the history of an image", Args: command.ExactArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker image history, docker history"},
		RunE: func(cmd *cobra.Command, args []string) error {
			var ho []client.ImageHistoryOption
			if platform != "" {
				p, err := ParsePlatform(platform)
				if err != nil {
					return fmt.Errorf("invalid platform: %w", err)
				}
				ho = append(ho, client.ImageHistoryWithPlatform(*p))
			}
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			r, err := cl.ImageHistory(cmd.Context(), args[0], ho...)
			if err != nil {
				return err
			}
			switch {
			case quiet && (f == "" || f == format.IsTableKey):
				f = "{{.ID}}"
			case f == "" || f == format.IsTableKey:
				f = "table {{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}"
			}
			if !human {
				f = strings.ReplaceAll(f, "{{.CreatedSince}}", "{{.CreatedAt}}")
			}
			var rows []*HistoryRow
			for i := range r.Items {
				rows = append(rows, &HistoryRow{h: &r.Items[i], human: human, trunc: !noTrunc})
			}
			return format.Write(cli.Out, f, format.Header{
				"ID": "IMAGE", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT",
				"CreatedBy": "CREATED BY", "Size": "SIZE", "Comment": "COMMENT",
			}, rows)
		},
		ValidArgsFunction: CompleteOne(cli),
	}
	fs := cmd.Flags()
	fs.BoolVarP(&human, "human", "H", true, "Print sizes and dates in human readable format")
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only show image IDs")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Don't truncate output")
	fs.StringVar(&f, "format", "", format.Help)
	fs.StringVar(&platform, "platform", "", `Show history for the given platform. Formatted as "os[/arch[/variant]]" (e.g., "linux/amd64")`)
	return cmd
}

// HistoryRow is a step of an image's history.
type HistoryRow struct {
	h            *imagetypes.HistoryResponseItem
	human, trunc bool
}

// MarshalJSON is the row as --format json shows it.
func (r *HistoryRow) MarshalJSON() ([]byte, error) { return format.MarshalRow(r) }

// ID is the image after the step, where there is one.
func (r *HistoryRow) ID() string {
	if r.trunc {
		return format.ShortID(r.h.ID)
	}
	return r.h.ID
}

// CreatedAt is the time of the step.
func (r *HistoryRow) CreatedAt() string { return time.Unix(r.h.Created, 0).Format(time.RFC3339) }

// CreatedSince is the age of the step.
func (r *HistoryRow) CreatedSince() string {
	if !r.human {
		return r.CreatedAt()
	}
	if r.h.Created <= time.Time.Unix(time.Time{}) {
		return "N/A"
	}
	return units.HumanDuration(time.Now().UTC().Sub(time.Unix(r.h.Created, 0))) + " ago"
}

// CreatedBy is the command of the step.
func (r *HistoryRow) CreatedBy() string {
	s := strings.ReplaceAll(r.h.CreatedBy, "\t", " ")
	if r.trunc {
		return format.Ellipsis(s, 45)
	}
	return s
}

// Size is what the step added.
func (r *HistoryRow) Size() string {
	if r.human {
		return units.HumanSizeWithPrecision(float64(r.h.Size), 3)
	}
	return fmt.Sprint(r.h.Size)
}

// Comment is what the maker said about the step.
func (r *HistoryRow) Comment() string { return r.h.Comment }

// runTree lists images with their platforms.
func runTree(ctx context.Context, cli *command.Cli, o *listOptions) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	res, err := cl.ImageList(ctx, client.ImageListOptions{All: o.all, Filters: o.filter.All(), Manifests: true})
	if err != nil {
		return err
	}
	var rows []*treeRow
	for _, s := range res.Items {
		names := append([]string(nil), s.RepoTags...)
		sort.Strings(names)
		if len(names) == 0 {
			names = []string{"<untagged>"}
		}
		for _, n := range names {
			rows = append(rows, &treeRow{n, format.ShortID(s.ID), units.HumanSizeWithPrecision(float64(s.Size), 3)})
		}
		for i, m := range s.Manifests {
			if m.ImageData == nil {
				continue
			}
			mark := "├─ "
			if i == len(s.Manifests)-1 {
				mark = "└─ "
			}
			p := m.ImageData.Platform
			text := p.OS + "/" + p.Architecture
			if p.Variant != "" {
				text += "/" + p.Variant
			}
			rows = append(rows, &treeRow{mark + text, format.ShortID(m.ID), units.HumanSizeWithPrecision(float64(m.Size.Total), 3)})
		}
	}
	return format.Write(cli.Out, "table {{.Name}}\t{{.ID}}\t{{.Size}}",
		format.Header{"Name": "IMAGE", "ID": "ID", "Size": "DISK USAGE"}, rows)
}

type treeRow struct{ name, id, size string }

// Name is a tag or a platform.
func (r *treeRow) Name() string { return r.name }

// ID is the digest, shortened.
func (r *treeRow) ID() string { return r.id }

// Size is the space used on disk.
func (r *treeRow) Size() string { return r.size }
