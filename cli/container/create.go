package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/container/run"
	"github.com/gantry/gantry/cli/image"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// creation is what run and create share.
type creation struct {
	flags    *run.Flags
	name     string
	platform string
	pull     string
	quiet    bool
}

func (c *creation) register(fs *pflag.FlagSet) {
	c.flags = run.Register(fs)
	c.flags.APISocketVar()
	fs.StringVar(&c.name, "name", "", "Assign a name to the container")
	fs.StringVar(&c.platform, "platform", os.Getenv("DOCKER_DEFAULT_PLATFORM"), "Set platform if server is multi-platform capable")
	fs.StringVar(&c.pull, "pull", "missing", "")
	fs.BoolVarP(&c.quiet, "quiet", "q", false, "Suppress the pull output")
	fs.Bool("disable-content-trust", true, "Skip image verification")
}

func newCreateCommand(cli *command.Cli) *cobra.Command {
	var c creation
	cmd := &cobra.Command{
		Use: "create [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create a new container",
		Args:        command.MinArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker container create, docker create"},
		RunE: func(cmd *cobra.Command, args []string) error {
			res, err := c.parse(cli, args, "create")
			if err != nil {
				return err
			}
			id, err := c.create(cmd.Context(), cli, res)
			if err != nil {
				return command.ExitError{Code: 1, Text: command.Text(err), Err: err}
			}
			fmt.Fprintln(cli.Out, id)
			return nil
		},
		ValidArgsFunction: image.CompleteOne(cli),
	}
	c.register(cmd.Flags())
	cmd.Flags().Lookup("pull").Usage = `Pull image before creating ("always", "missing", "never")`
	completeFlags(cli, cmd)
	return cmd
}

// parse checks the flags; a mistake ends with 125 and a pointer to the help.
func (c *creation) parse(cli *command.Cli, args []string, name string) (*run.Result, error) {
	fail := func(err error) (*run.Result, error) {
		return nil, command.ExitError{Code: 125, Text: command.WithHelp(err, name).Error(), Err: err}
	}
	switch c.pull {
	case "always", "missing", "never", "":
	default:
		return fail(fmt.Errorf("invalid pull option: '%s': must be one of %q, %q or %q", c.pull, "always", "missing", "never"))
	}
	res, err := c.flags.Parse(args)
	if err != nil {
		return fail(err)
	}
	ep, err := cli.Endpoint()
	if err != nil {
		return fail(err)
	}
	res.Config.Env = addProxies(res.Config.Env, cli.Config().ContainerProxy(ep.Host))
	return res, nil
}

// addProxies appends the proxies of config.json which the user did not set herself.
func addProxies(env []string, proxies map[string]string) []string {
	have := map[string]bool{}
	for _, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		have[k] = true
	}
	for _, k := range []string{
		"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy",
		"NO_PROXY", "no_proxy", "FTP_PROXY", "ftp_proxy", "ALL_PROXY", "all_proxy",
	} {
		if v, ok := proxies[k]; ok && !have[k] {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// cidFile keeps the ID of a container in a file that must not exist before. Without a
// container, Close removes it again.
type cidFile struct {
	path    string
	f       *os.File
	written bool
}

func newCIDFile(path string) (*cidFile, error) {
	if path == "" {
		return &cidFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if errors.Is(err, os.ErrExist) {
		return nil, errors.New("container ID file found, make sure the other container isn't running or delete " + path)
	}
	if err != nil {
		return nil, fmt.Errorf("failed to create the container ID file: %w", err)
	}
	return &cidFile{path: path, f: f}, nil
}

func (c *cidFile) write(id string) error {
	if c.f == nil {
		return nil
	}
	if _, err := io.WriteString(c.f, id); err != nil {
		return fmt.Errorf("failed to write the container ID (%s) to file: %w", id, err)
	}
	c.written = true
	return nil
}

func (c *cidFile) close() {
	if c.f == nil {
		return
	}
	c.f.Close()
	if !c.written {
		os.Remove(c.path)
	}
}

// create makes the container, pulling its image when asked or missing, and answers its ID.
func (c *creation) create(ctx context.Context, cli *command.Cli, res *run.Result) (string, error) {
	cid, err := newCIDFile(c.flags.CIDFile())
	if err != nil {
		return "", err
	}
	defer cid.close()
	cl, err := cli.Client()
	if err != nil {
		return "", err
	}
	if c.flags.APISocket() {
		if err := c.apiSocket(cli, res); err != nil {
			return "", err
		}
	}
	opts := client.ContainerCreateOptions{Config: res.Config, HostConfig: res.Host, NetworkingConfig: res.Networking, Name: c.name}
	if c.platform != "" {
		p, err := image.ParsePlatform(c.platform)
		if err != nil {
			return "", fmt.Errorf("error parsing specified platform: %w", err)
		}
		opts.Platform = p
	}
	ref, err := reference.ParseAnyReference(res.Config.Image)
	if err != nil {
		return "", err
	}
	named, isNamed := ref.(reference.Named)
	if isNamed {
		named = reference.TagNameOnly(named)
	}
	if c.pull == "always" {
		if err := c.pullImage(ctx, cli, res.Config.Image); err != nil {
			return "", err
		}
	}
	height, width := cli.Out.Size()
	res.Host.ConsoleSize = [2]uint{height, width}
	out, err := cl.ContainerCreate(ctx, opts)
	if err != nil && errdefs.IsNotFound(err) && isNamed && c.pull == "missing" {
		if !c.quiet {
			fmt.Fprintf(cli.Err, "Unable to find image '%s' locally\n", reference.FamiliarString(named))
		}
		if err := c.pullImage(ctx, cli, res.Config.Image); err != nil {
			return "", err
		}
		out, err = cl.ContainerCreate(ctx, opts)
	}
	if err != nil {
		return "", err
	}
	for _, w := range out.Warnings {
		fmt.Fprintln(cli.Err, "WARNING:", w)
	}
	return out.ID, cid.write(out.ID)
}

func (c *creation) pullImage(ctx context.Context, cli *command.Cli, ref string) error {
	return image.Pull(ctx, cli, ref, image.PullOptions{Platform: c.platform, Quiet: c.quiet, Out: cli.Err})
}

// apiSocket mounts the daemon's socket and says so to the client inside.
func (c *creation) apiSocket(cli *command.Cli, res *run.Result) error {
	ep, err := cli.Endpoint()
	if err != nil {
		return err
	}
	sock, ok := strings.CutPrefix(ep.Host, "unix://")
	if !ok {
		return errors.New("flag --use-api-socket can only be used with docker endpoint over unix domain socket")
	}
	res.Host.Binds = append(res.Host.Binds, sock+":/var/run/docker.sock")
	if len(cli.Config().Auths) > 0 || cli.Config().CredsStore != "" || len(cli.Config().CredHelpers) > 0 {
		return errors.New("--use-api-socket: handing credentials to the container is not implemented; use an empty DOCKER_CONFIG")
	}
	return nil
}
