// Package system is `docker system` and the commands that belong to no noun: version, info,
// events, inspect, login, logout and completion.
package system

import (
	"github.com/gantry/gantry/cli/command"
	"github.com/spf13/cobra"
)

// Verbs are the commands which exist at the top level, by their name there.
func Verbs() map[string]func(*command.Cli) *cobra.Command {
	return map[string]func(*command.Cli) *cobra.Command{
		"version": newVersionCommand, "info": newInfoCommand, "events": newEventsCommand,
		"inspect": newInspectCommand, "login": newLoginCommand, "logout": newLogoutCommand,
	}
}

// NewCommand makes `docker system`.
func NewCommand(cli *command.Cli) *cobra.Command {
	info := newInfoCommand(cli)
	delete(info.Annotations, command.AnnCategory)
	return command.Group("system", "Manage Docker",
		newDfCommand(cli), newEventsCommand(cli), info, newDialStdioCommand(cli))
}
