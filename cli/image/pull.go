// Package image is `docker image` and its short forms.
package image

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"

	"github.com/distribution/reference"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/config"
	"github.com/gantry/gantry/cli/progress"
	"github.com/gantry/gantry/cli/terminal"
	"github.com/moby/moby/client"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/spf13/cobra"
)

// ParsePlatform parses os[/arch[/variant]].
func ParsePlatform(s string) (*ocispec.Platform, error) {
	parts := strings.Split(s, "/")
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
	for i, p := range parts {
		switch {
		case i == 0 && (p == "" || strings.Trim(p, letters) != ""):
			return nil, fmt.Errorf(`%q is an invalid OS component of %q: OSAndVersion specifier component must match "^([A-Za-z0-9_-]+)(?:\\(([A-Za-z0-9_.-]*)\\))?$": invalid argument`, p, s)
		case p == "" || strings.Trim(p, letters+".") != "":
			return nil, fmt.Errorf("%q is an invalid component of %q: platform specifier component must match \"^[A-Za-z0-9_.-]+$\": invalid argument", p, s)
		}
	}
	p := ocispec.Platform{OS: strings.ToLower(parts[0])}
	switch len(parts) {
	case 1:
		if arch, variant := normalize(p.OS, ""); knownArch(arch) {
			if arch == "arm" && variant == "v7" {
				variant = ""
			}
			return &ocispec.Platform{OS: runtime.GOOS, Architecture: arch, Variant: variant}, nil
		}
		if !knownOS(p.OS) {
			return nil, fmt.Errorf("%q: unknown operating system or architecture: invalid argument", s)
		}
		p.Architecture = runtime.GOARCH
	case 2:
		p.Architecture, p.Variant = normalize(parts[1], "")
		if p.Architecture == "arm" && p.Variant == "v7" {
			p.Variant = ""
		}
	case 3:
		p.Architecture, p.Variant = normalize(parts[1], parts[2])
		if p.Architecture == "arm64" && p.Variant == "" {
			p.Variant = "v8"
		}
	default:
		return nil, fmt.Errorf("%q: cannot parse platform specifier: invalid argument", s)
	}
	return &p, nil
}

// PullOptions says how to pull. Out gets the progress.
type PullOptions struct {
	Platform string
	All      bool
	Quiet    bool
	Out      *terminal.Out
}

// registryHost is the registry a reference names.
func registryHost(ref string) string {
	named, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		return ""
	}
	return reference.Domain(named)
}

// auth is the X-Registry-Auth of the registry ref names, and of no other. What cannot be
// read is no credential, with a warning.
func auth(ctx context.Context, cli *command.Cli, ref string) string {
	key := config.ServerKey(registryHost(ref))
	a, err := cli.Config().Credentials(ctx, key)
	if err != nil {
		fmt.Fprintln(cli.Err, "WARNING:", err)
		a = config.Auth{}
	}
	return config.EncodeAuth(key, a)
}

// Pull pulls ref, showing progress on o.Out.
func Pull(ctx context.Context, cli *command.Cli, ref string, o PullOptions) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	opts := client.ImagePullOptions{All: o.All, RegistryAuth: auth(ctx, cli, ref)}
	if o.Platform != "" {
		p, err := ParsePlatform(o.Platform)
		if err != nil {
			return err
		}
		opts.Platforms = []ocispec.Platform{*p}
	}
	resp, err := cl.ImagePull(ctx, ref, opts)
	if err != nil {
		return err
	}
	defer resp.Close()
	if o.Quiet {
		return progress.Drain(resp)
	}
	return progress.Display(ctx, resp, o.Out, nil)
}

func newPullCommand(cli *command.Cli) *cobra.Command {
	var o PullOptions
	cmd := &cobra.Command{
		Use: "pull [OPTIONS] NAME[:TAG|@DIGEST]", Short: "Download an image from a registry",
		Args: command.ExactArgs(1),
		Annotations: map[string]string{
			command.AnnCategory: "05", command.AnnAliases: "docker image pull, docker pull",
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Out = cli.Out
			return runPull(cmd.Context(), cli, args[0], o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&o.All, "all-tags", "a", false, "Download all tagged images in the repository")
	fs.BoolVarP(&o.Quiet, "quiet", "q", false, "Suppress verbose output")
	platformFlag(fs, &o.Platform, "Set platform if server is multi-platform capable")
	fs.Bool("disable-content-trust", true, "Skip image verification")
	return cmd
}

func runPull(ctx context.Context, cli *command.Cli, name string, o PullOptions) error {
	named, err := reference.ParseNormalizedNamed(name)
	switch {
	case err != nil:
		return err
	case o.All && !reference.IsNameOnly(named):
		return errors.New("tag can't be used with --all-tags/-a")
	case !o.All && reference.IsNameOnly(named):
		named = reference.TagNameOnly(named)
		if t, ok := named.(reference.Tagged); ok && !o.Quiet {
			fmt.Fprintf(cli.Out, "Using default tag: %s\n", t.Tag())
		}
	}
	if err := Pull(ctx, cli, reference.FamiliarString(named), o); err != nil {
		return err
	}
	fmt.Fprintln(cli.Out, named.String())
	return nil
}
