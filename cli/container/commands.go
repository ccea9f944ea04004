// Package container is `docker container` and its short forms.
package container

import (
	"github.com/gantry/gantry/cli/command"
	"github.com/spf13/cobra"
)

// Verb makes one command. Nothing is built before it is called.
type Verb = func(*command.Cli) *cobra.Command

// Verbs are the commands which exist at the top level too, by their name there.
func Verbs() map[string]Verb {
	return map[string]Verb{
		"attach": newAttachCommand, "create": newCreateCommand, "diff": newDiffCommand, "exec": newExecCommand, "export": newExportCommand,
		"kill": newKillCommand, "logs": newLogsCommand, "pause": newPauseCommand,
		"port": newPortCommand, "ps": newPsCommand, "rename": newRenameCommand,
		"restart": newRestartCommand, "rm": newRmCommand, "run": newRunCommand,
		"start": newStartCommand, "stop": newStopCommand, "top": newTopCommand,
		"unpause": newUnpauseCommand, "wait": newWaitCommand,
	}
}

// NewCommand makes `docker container`.
func NewCommand(cli *command.Cli) *cobra.Command {
	cs := []*cobra.Command{newLsCommand(cli), newInspectCommand(cli), newPruneCommand(cli)}
	for name, v := range Verbs() {
		if name != "ps" {
			c := v(cli)
			delete(c.Annotations, command.AnnCategory)
			cs = append(cs, c)
		}
	}
	return command.Group("container", "Manage containers", cs...)
}
