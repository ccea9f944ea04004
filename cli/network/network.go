// Package network is `docker network`.
package network

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sort"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/container"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/cli/opts"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// NewCommand makes `docker network`.
func NewCommand(cli *command.Cli) *cobra.Command {
	return command.Group("network", "Manage networks",
		newLsCommand(cli), newCreateCommand(cli), newRmCommand(cli), newInspectCommand(cli),
		newConnectCommand(cli), newDisconnectCommand(cli), newPruneCommand(cli))
}

func complete(cli *command.Cli) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		cl, err := cli.Client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := cl.NetworkList(cmd.Context(), client.NetworkListOptions{})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, n := range list.Items {
			out = append(out, n.Name)
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func newLsCommand(cli *command.Cli) *cobra.Command {
	var quiet, noTrunc bool
	var f string
	var filter opts.Filter
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List networks", Args: command.NoArgs,
		Annotations: map[string]string{command.AnnAliases: "docker network ls, docker network list"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			r, err := cl.NetworkList(cmd.Context(), client.NetworkListOptions{Filters: filter.All()})
			if err != nil {
				return err
			}
			if f == "" {
				f = format.IsTableKey
				if cfg := cli.Config().NetworksFormat; cfg != "" && !quiet {
					f = cfg
				}
			}
			switch {
			case quiet && f == format.IsTableKey:
				f = "{{.ID}}"
			case f == format.IsTableKey:
				f = "table {{.ID}}\t{{.Name}}\t{{.Driver}}\t{{.Scope}}"
			}
			sort.Slice(r.Items, func(i, j int) bool { return r.Items[i].Name < r.Items[j].Name })
			var rows []*Row
			for i := range r.Items {
				rows = append(rows, &Row{n: &r.Items[i], trunc: !noTrunc})
			}
			return format.Write(cli.Out, f, format.Header{
				"ID": "NETWORK ID", "Name": "NAME", "Driver": "DRIVER", "Scope": "SCOPE", "IPv4": "IPV4",
				"IPv6": "IPV6", "Internal": "INTERNAL", "Labels": "LABELS", "CreatedAt": "CREATED AT",
			}, rows)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	fs.BoolVarP(&quiet, "quiet", "q", false, "Only display network IDs")
	fs.BoolVar(&noTrunc, "no-trunc", false, "Do not truncate the output")
	fs.StringVar(&f, "format", "", format.Help)
	fs.VarP(&filter, "filter", "f", `Provide filter values (e.g. "driver=bridge")`)
	return cmd
}

// Row is a network in lists. Its methods are the fields of --format.
type Row struct {
	n     *networktypes.Summary
	trunc bool
}

// MarshalJSON is the row as --format json shows it.
func (r *Row) MarshalJSON() ([]byte, error) { return format.MarshalRow(r) }

// ID is the network's ID.
func (r *Row) ID() string {
	if r.trunc {
		return format.ShortID(r.n.ID)
	}
	return r.n.ID
}

// Name is the network's name.
func (r *Row) Name() string { return r.n.Name }

// Driver is the network's driver.
func (r *Row) Driver() string { return r.n.Driver }

// Scope is how far the network reaches.
func (r *Row) Scope() string { return r.n.Scope }

// IPv4 says whether the network has IPv4.
func (r *Row) IPv4() string { return format.Bool(r.n.EnableIPv4) }

// IPv6 says whether the network has IPv6.
func (r *Row) IPv6() string { return format.Bool(r.n.EnableIPv6) }

// Internal says whether the network has no way out.
func (r *Row) Internal() string { return format.Bool(r.n.Internal) }

// Labels are all labels, sorted.
func (r *Row) Labels() string {
	var out []string
	for k, v := range r.n.Labels {
		out = append(out, k+"="+v)
	}
	sort.Strings(out)
	return strings.Join(out, ",")
}

// Label is the value of one label.
func (r *Row) Label(name string) string { return r.n.Labels[name] }

// CreatedAt is the time of creation.
func (r *Row) CreatedAt() string { return r.n.Created.String() }

func newInspectCommand(cli *command.Cli) *cobra.Command {
	var f string
	var verbose bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NETWORK [NETWORK...]", Short: "Display detailed information on one or more networks",
		Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return format.Inspect(cli.Out, args, f, Getter(cmd.Context(), cli, verbose))
		},
		ValidArgsFunction: complete(cli),
	}
	cmd.Flags().StringVarP(&f, "format", "f", "", format.HelpSingle)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "Verbose output for diagnostics")
	return cmd
}

// Getter looks networks up for inspect.
func Getter(ctx context.Context, cli *command.Cli, verbose bool) format.Get {
	return func(ref string) (any, []byte, error) {
		cl, err := cli.Client()
		if err != nil {
			return nil, nil, err
		}
		r, err := cl.NetworkInspect(ctx, ref, client.NetworkInspectOptions{Verbose: verbose})
		if err != nil {
			return nil, nil, err
		}
		return r.Network, r.Raw, nil
	}
}

func newRmCommand(cli *command.Cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "rm NETWORK [NETWORK...]", Aliases: []string{"remove"}, Short: "Remove one or more networks",
		Args:        command.MinArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker network rm, docker network remove"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			code := 0
			for _, n := range args {
				_, err := cl.NetworkRemove(cmd.Context(), n, client.NetworkRemoveOptions{})
				if err != nil {
					if force && errdefs.IsNotFound(err) {
						continue
					}
					fmt.Fprintln(cli.Err, command.Text(err))
					code = 1
					continue
				}
				fmt.Fprintln(cli.Out, n)
			}
			if code != 0 {
				return command.ExitError{Code: code}
			}
			return nil
		},
		ValidArgsFunction: complete(cli),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not error if the network does not exist")
	return cmd
}

func newDisconnectCommand(cli *command.Cli) *cobra.Command {
	var force bool
	cmd := &cobra.Command{
		Use: "disconnect [OPTIONS] NETWORK CONTAINER", Short: "Disconnect a container from a network", Args: command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			_, err = cl.NetworkDisconnect(cmd.Context(), args[0], client.NetworkDisconnectOptions{Container: args[1], Force: force})
			return err
		},
		ValidArgsFunction: networkThenContainer(cli),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Force the container to disconnect from a network")
	return cmd
}

func networkThenContainer(cli *command.Cli) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(cmd *cobra.Command, args []string, s string) ([]string, cobra.ShellCompDirective) {
		if len(args) == 0 {
			return complete(cli)(cmd, args, s)
		}
		return container.Complete(cli, true, 2)(cmd, args, s)
	}
}

func newPruneCommand(cli *command.Cli) *cobra.Command {
	var force bool
	var filter opts.Filter
	cmd := &cobra.Command{
		Use: "prune [OPTIONS]", Short: "Remove all unused networks", Args: command.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !force {
				yes, err := cli.Confirm(cmd.Context(), "WARNING! This will remove all custom networks not used by at least one container.\nAre you sure you want to continue?")
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
			r, err := cl.NetworkPrune(cmd.Context(), client.NetworkPruneOptions{Filters: filter.All()})
			if err != nil {
				return err
			}
			if len(r.Report.NetworksDeleted) > 0 {
				fmt.Fprintln(cli.Out, "Deleted Networks:")
				for _, n := range r.Report.NetworksDeleted {
					fmt.Fprintln(cli.Out, n)
				}
				fmt.Fprintln(cli.Out)
			}
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "Do not prompt for confirmation")
	cmd.Flags().Var(&filter, "filter", `Provide filter values (e.g. "until=<timestamp>")`)
	return cmd
}

func newConnectCommand(cli *command.Cli) *cobra.Command {
	var ip, ip6 string
	var aliases, driverOpts, linkLocal []string
	var gw int
	links := opts.NewList(nil)
	cmd := &cobra.Command{
		Use: "connect [OPTIONS] NETWORK CONTAINER", Short: "Connect a container to a network", Args: command.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			ep := &networktypes.EndpointSettings{Links: links.All(), Aliases: aliases, GwPriority: gw}
			ep.IPAMConfig = &networktypes.EndpointIPAMConfig{}
			var err error
			if ep.IPAMConfig.IPv4Address, err = addr(ip); err != nil {
				return err
			}
			if ep.IPAMConfig.IPv6Address, err = addr(ip6); err != nil {
				return err
			}
			for _, l := range linkLocal {
				a, err := addr(l)
				if err != nil {
					return err
				}
				ep.IPAMConfig.LinkLocalIPs = append(ep.IPAMConfig.LinkLocalIPs, a)
			}
			for _, o := range driverOpts {
				k, v, ok := strings.Cut(o, "=")
				if !ok || k == "" {
					return errors.New("invalid key/value pair format in driver options")
				}
				if ep.DriverOpts == nil {
					ep.DriverOpts = map[string]string{}
				}
				ep.DriverOpts[strings.TrimSpace(k)] = strings.TrimSpace(v)
			}
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			_, err = cl.NetworkConnect(cmd.Context(), args[0], client.NetworkConnectOptions{Container: args[1], EndpointConfig: ep})
			return err
		},
		ValidArgsFunction: networkThenContainer(cli),
	}
	fs := cmd.Flags()
	fs.StringVar(&ip, "ip", "", `IPv4 address (e.g., "172.30.100.104")`)
	fs.StringVar(&ip6, "ip6", "", `IPv6 address (e.g., "2001:db8::33")`)
	fs.Var(links, "link", "Add link to another container")
	fs.StringSliceVar(&aliases, "alias", nil, "Add network-scoped alias for the container")
	fs.StringSliceVar(&linkLocal, "link-local-ip", nil, "Add a link-local address for the container")
	fs.StringSliceVar(&driverOpts, "driver-opt", nil, "driver options for the network")
	fs.IntVar(&gw, "gw-priority", 0, "Highest gw-priority provides the default gateway. Accepts positive and negative values.")
	return cmd
}

func addr(s string) (netip.Addr, error) {
	if s == "" {
		return netip.Addr{}, nil
	}
	a, err := netip.ParseAddr(s)
	if err != nil {
		return a, fmt.Errorf("invalid IP address: %s", s)
	}
	return a, nil
}
