package command

import (
	"fmt"
	"io"
	"strings"

	"github.com/gantry/gantry/cli/terminal"
	"github.com/spf13/cobra"
)

// Annotations on commands which help texts read.
const (
	// AnnAliases lists other spellings of the command, comma separated, itself included.
	AnnAliases = "aliases"
	// AnnCategory "top" puts a command among the common ones; its value is the position.
	AnnCategory = "category-top"
	// AnnManagement marks a noun.
	AnnManagement = "management"
)

func useLine(cmd *cobra.Command) string {
	if cmd.HasSubCommands() {
		if !cmd.HasParent() {
			return cmd.Use + " [ARG...]"
		}
		if len(cmd.Commands()) > 0 {
			return cmd.Parent().CommandPath() + " " + cmd.Use
		}
	}
	return cmd.UseLine()
}

// Help prints the long help of a command.
func Help(cmd *cobra.Command, w io.Writer) {
	fmt.Fprintf(w, "Usage:  %s\n\n", helpUse(cmd))
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(w, "%s\n", strings.TrimSpace(text))
	body(cmd, w)
}

func helpUse(cmd *cobra.Command) string {
	if cmd.HasAvailableSubCommands() && cmd.HasParent() {
		return cmd.CommandPath() + " COMMAND"
	}
	if !cmd.HasParent() {
		return cmd.Use
	}
	return cmd.UseLine()
}

func body(cmd *cobra.Command, w io.Writer) {
	if a := cmd.Annotations[AnnAliases]; a != "" {
		fmt.Fprintf(w, "\nAliases:\n  %s\n", a)
	}
	if cmd.HasExample() {
		fmt.Fprintf(w, "\nExamples:\n%s\n", cmd.Example)
	}
	root := !cmd.HasParent()
	if !root && cmd.HasAvailableFlags() {
		section(w, "Options", flags(cmd))
	}
	if cmd.HasAvailableSubCommands() {
		groups(cmd, w)
	}
	if root {
		section(w, "Global Options", flags(cmd))
	}
	if cmd.HasAvailableSubCommands() {
		fmt.Fprintf(w, "\nRun '%s COMMAND --help' for more information on a command.\n", cmd.CommandPath())
	}
	if root {
		fmt.Fprint(w, "\nFor more help on how to use Docker, head to https://docs.docker.com/go/guides/\n")
	}
}

func section(w io.Writer, title, text string) {
	fmt.Fprintf(w, "\n%s:\n%s", title, strings.TrimRight(text, "\n")+"\n")
}

func flags(cmd *cobra.Command) string {
	return cmd.Flags().FlagUsagesWrapped(terminal.StdinWidth() - 1)
}

func groups(cmd *cobra.Command, w io.Writer) {
	var top, mgmt, rest []*cobra.Command
	pad := 10
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() {
			continue
		}
		if len(c.Name()) > pad {
			pad = len(c.Name())
		}
		switch {
		case c.Annotations[AnnCategory] != "":
			top = append(top, c)
		case c.Annotations[AnnManagement] != "":
			mgmt = append(mgmt, c)
		default:
			rest = append(rest, c)
		}
	}
	// Positions are two digits wide.
	for i := 1; i < len(top); i++ {
		for j := i; j > 0 && top[j].Annotations[AnnCategory] < top[j-1].Annotations[AnnCategory]; j-- {
			top[j], top[j-1] = top[j-1], top[j]
		}
	}
	list := func(title string, cs []*cobra.Command) {
		if len(cs) == 0 {
			return
		}
		fmt.Fprintf(w, "\n%s:\n", title)
		for _, c := range cs {
			fmt.Fprintf(w, "  %-*s  %s\n", pad, c.Name(), c.Short)
		}
	}
	list("Common Commands", top)
	list("Management Commands", mgmt)
	list("Commands", rest)
}

// Group makes a noun whose verbs are cs. Use is its name and what usage lines show behind it.
func Group(use, short string, cs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Args: NoArgs,
		Annotations: map[string]string{AnnManagement: "true"},
		RunE: func(cmd *cobra.Command, _ []string) error {
			Help(cmd, cmd.ErrOrStderr())
			return nil
		},
	}
	cmd.AddCommand(cs...)
	return cmd
}

// HasFlags is the word in usage lines of commands with options.
const HasFlags = "[OPTIONS]"
