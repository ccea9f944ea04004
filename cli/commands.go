package cli

import (
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/container"
	"github.com/gantry/gantry/cli/contexts"
	"github.com/gantry/gantry/cli/image"
	"github.com/gantry/gantry/cli/network"
	"github.com/gantry/gantry/cli/system"
	"github.com/gantry/gantry/cli/volume"
	"github.com/spf13/cobra"
)

// tree are all commands at the top level by name. A command is built when it is run; all
// of them only for help, completion and unknown names.
func tree() map[string]container.Verb {
	t := map[string]container.Verb{
		"container": container.NewCommand, "image": image.NewCommand,
		"network": network.NewCommand, "volume": volume.NewCommand, "system": system.NewCommand, "context": contexts.NewCommand,
	}
	for _, m := range []map[string]container.Verb{container.Verbs(), image.Verbs(), system.Verbs()} {
		for k, v := range m {
			t[k] = v
		}
	}
	return t
}

func addCommands(cli *command.Cli, root *cobra.Command, rest []string) {
	t := tree()
	if len(rest) > 0 {
		if v, ok := t[rest[0]]; ok {
			root.AddCommand(plain(v(cli)))
			return
		}
	}
	for _, v := range t {
		root.AddCommand(plain(v(cli)))
	}
	if len(rest) > 0 && (rest[0] == "completion" || rest[0] == "help") {
		root.CompletionOptions.DisableDefaultCmd = false
		root.CompletionOptions.HiddenDefaultCmd = true
	}
}

// plain turns off what cobra adds to texts by itself.
func plain(cmd *cobra.Command) *cobra.Command {
	cmd.DisableFlagsInUseLine = true
	if cmd.Annotations == nil {
		cmd.Annotations = map[string]string{}
	}
	for _, c := range cmd.Commands() {
		plain(c)
	}
	return cmd
}
