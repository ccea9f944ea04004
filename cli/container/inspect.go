package container

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sort"
	"strconv"
	"strings"

	units "github.com/docker/go-units"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/cli/opts"
	"github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newInspectCommand(cli *command.Cli) *cobra.Command {
	var f string
	var size bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] CONTAINER [CONTAINER...]", Short: "Display detailed information on one or more containers",
		Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return format.Inspect(cli.Out, args, f, Getter(cmd.Context(), cli, size))
		},
		ValidArgsFunction: complete(cli, true, 0),
	}
	cmd.Flags().StringVarP(&f, "format", "f", "", format.HelpSingle)
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes")
	return cmd
}

// Getter looks containers up for inspect.
func Getter(ctx context.Context, cli *command.Cli, size bool) format.Get {
	return func(ref string) (any, []byte, error) {
		cl, err := cli.Client()
		if err != nil {
			return nil, nil, err
		}
		r, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{Size: size})
		if err != nil {
			return nil, nil, err
		}
		return r.Container, r.Raw, nil
	}
}

func newPruneCommand(cli *command.Cli) *cobra.Command {
	var force bool
	var filter opts.Filter
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove all stopped containers", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				yes, err := cli.Confirm(cmd.Context(), "WARNING! This will remove all stopped containers.\nAre you sure you want to continue?")
				if err != nil {
					return err
				}
				if !yes {
					return nil
				}
			}
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			r, err := cl.ContainerPrune(cmd.Context(), client.ContainerPruneOptions{Filters: filter.All()})
			if err != nil {
				return err
			}
			if len(r.Report.ContainersDeleted) > 0 {
				fmt.Fprintln(cli.Out, "Deleted Containers:")
				for _, id := range r.Report.ContainersDeleted {
					fmt.Fprintln(cli.Out, id)
				}
				fmt.Fprintln(cli.Out)
			}
			fmt.Fprintln(cli.Out, "Total reclaimed space:", units.HumanSize(float64(r.Report.SpaceReclaimed)))
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

func newPortCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "port CONTAINER [PRIVATE_PORT[/PROTO]]", Short: "List port mappings or a specific mapping for the container",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) >= 1 && len(args) <= 2 {
				return nil
			}
			return command.RangeError(cmd, 1, 2)
		},
		Annotations: map[string]string{command.AnnAliases: "docker container port, docker port"},
		RunE: func(cmd *cobra.Command, args []string) error {
			port := ""
			if len(args) > 1 {
				port = args[1]
			}
			return runPort(cmd.Context(), cli, args[0], port)
		},
		ValidArgsFunction: complete(cli, false, 1),
	}
}

func runPort(ctx context.Context, cli *command.Cli, ref, want string) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	r, err := cl.ContainerInspect(ctx, ref, client.ContainerInspectOptions{})
	if err != nil {
		return err
	}
	ports := network.PortMap{}
	if r.Container.NetworkSettings != nil {
		ports = r.Container.NetworkSettings.Ports
	}
	var out []string
	if want != "" {
		num, proto, has := strings.Cut(want, "/")
		if !has || proto == "" {
			proto = "tcp"
		}
		if _, err := strconv.ParseUint(num, 10, 16); err != nil {
			return fmt.Errorf("Error: invalid port (%s): %w", num, errors.Unwrap(err))
		}
		p, err := network.ParsePort(num + "/" + proto)
		if err != nil {
			return err
		}
		binds, ok := ports[p]
		if !ok || len(binds) == 0 {
			return fmt.Errorf("Error: No public port '%s' published for %s", want, ref)
		}
		for _, b := range binds {
			out = append(out, net.JoinHostPort(b.HostIP.String(), b.HostPort))
		}
		sort.Strings(out)
	} else {
		for p, binds := range ports {
			for _, b := range binds {
				out = append(out, fmt.Sprintf("%s -> %s", p, net.JoinHostPort(b.HostIP.String(), b.HostPort)))
			}
		}
		sort.Slice(out, func(i, j int) bool { return naturalLess(out[i], out[j]) })
	}
	if len(out) > 0 {
		fmt.Fprintln(cli.Out, strings.Join(out, "\n"))
	}
	return nil
}

// naturalLess orders runs of digits by their number.
func naturalLess(a, b string) bool {
	for a != "" && b != "" {
		da, db := digits(a), digits(b)
		if da > 0 && db > 0 {
			na, _ := strconv.ParseUint(a[:da], 10, 64)
			nb, _ := strconv.ParseUint(b[:db], 10, 64)
			if na != nb {
				return na < nb
			}
			a, b = a[da:], b[db:]
			continue
		}
		if a[0] != b[0] {
			return a[0] < b[0]
		}
		a, b = a[1:], b[1:]
	}
	return len(a) < len(b)
}

func digits(s string) int {
	n := 0
	for n < len(s) && n < 18 && s[n] >= '0' && s[n] <= '9' {
		n++
	}
	return n
}
