package image

import (
	"github.com/gantry/gantry/cli/command"
	"github.com/spf13/cobra"
)

// Verbs are the commands which exist at the top level too, by their name there.
func Verbs() map[string]func(*command.Cli) *cobra.Command {
	return map[string]func(*command.Cli) *cobra.Command{
		"history": newHistoryCommand, "images": newImagesCommand, "load": newLoadCommand,
		"pull": newPullCommand, "push": newPushCommand, "rmi": newRmiCommand,
		"save": newSaveCommand, "tag": newTagCommand,
	}
}

// NewCommand makes `docker image`.
func NewCommand(cli *command.Cli) *cobra.Command {
	cs := []*cobra.Command{
		newLsCommand(cli), newInspectCommand(cli), newPruneCommand(cli), newRmCommand(cli),
		newHistoryCommand(cli), newLoadCommand(cli), newPullCommand(cli), newPushCommand(cli),
		newSaveCommand(cli), newTagCommand(cli),
	}
	for _, c := range cs {
		delete(c.Annotations, command.AnnCategory)
	}
	return command.Group("image", "Manage images", cs...)
}
