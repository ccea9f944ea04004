package image

import (
	"github.com/gantry/gantry/cli/command"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// Completer is a cobra completion function.
type Completer = func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective)

func names(cli *command.Cli, cmd *cobra.Command) ([]string, cobra.ShellCompDirective) {
	cl, err := cli.Client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	list, err := cl.ImageList(cmd.Context(), client.ImageListOptions{})
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var out []string
	for _, i := range list.Items {
		out = append(out, i.RepoTags...)
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// CompleteOne completes an image as the first argument.
func CompleteOne(cli *command.Cli) Completer {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return names(cli, cmd)
	}
}

// CompleteAny completes images at every position.
func CompleteAny(cli *command.Cli) Completer {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return names(cli, cmd)
	}
}
