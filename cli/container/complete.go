package container

import (
	"strings"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/image"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// complete completes container names; all also those not running. At most `most` names are
// completed, 0 is any number.
func complete(cli *command.Cli, all bool, most int) image.Completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most > 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		cl, err := cli.Client()
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		list, err := cl.ContainerList(cmd.Context(), client.ContainerListOptions{All: all})
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		var out []string
		for _, c := range list.Items {
			for _, n := range c.Names {
				out = append(out, strings.TrimPrefix(n, "/"))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

// Complete completes names of all containers, for other packages.
func Complete(cli *command.Cli, all bool, most int) image.Completer { return complete(cli, all, most) }

// completeFlags adds completions for values of the flags of run and create.
func completeFlags(cli *command.Cli, cmd *cobra.Command) {
	fixed := func(flag string, vals ...string) {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(vals, cobra.ShellCompDirectiveNoFileComp))
	}
	fixed("attach", "stderr", "stdin", "stdout")
	fixed("cgroupns", "host", "private")
	fixed("pull", "always", "missing", "never")
	fixed("restart", "always", "no", "on-failure", "unless-stopped")
	fixed("security-opt", "apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined")
	fixed("userns", "host")
	fixed("uts", "host")
	fixed("pid", "container:", "host")
	fixed("ipc", "container:", "host", "none", "private", "shareable")
	_ = cmd.RegisterFlagCompletionFunc("volumes-from", complete(cli, true, 0))
	_ = cmd.RegisterFlagCompletionFunc("network", func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
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
	})
}
