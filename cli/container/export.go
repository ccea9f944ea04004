package container

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/gantry/gantry/cli/command"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newExportCommand(cli *command.Cli) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "export [OPTIONS] CONTAINER", Short: "Export a container's filesystem as a tar archive",
		Args:        command.ExactArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker container export, docker export"},
		RunE: func(cmd *cobra.Command, args []string) error {
			return runExport(cmd.Context(), cli, args[0], output)
		},
		ValidArgsFunction: complete(cli, true, 1),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "Write to a file, instead of STDOUT")
	return cmd
}

func runExport(ctx context.Context, cli *command.Cli, name, output string) error {
	if output == "" && cli.Out.IsTerminal() {
		return errors.New("cowardly refusing to save to a terminal. Use the -o flag or redirect")
	}
	if output != "" {
		if err := command.CheckOutput(output); err != nil {
			return fmt.Errorf("failed to export container: %w", err)
		}
	}
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	body, err := cl.ContainerExport(ctx, name, client.ContainerExportOptions{})
	if err != nil {
		return err
	}
	defer body.Close()
	if output != "" {
		return command.WriteFile(output, body)
	}
	_, err = io.Copy(cli.Out, body)
	return err
}

func newDiffCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "diff CONTAINER", Short: "Inspect changes to files or directories on a container's filesystem",
		Args:        command.ExactArgs(1),
		Annotations: map[string]string{command.AnnAliases: "docker container diff, docker diff"},
		RunE: func(cmd *cobra.Command, args []string) error {
			cl, err := cli.Client()
			if err != nil {
				return err
			}
			r, err := cl.ContainerDiff(cmd.Context(), args[0], client.ContainerDiffOptions{})
			if err != nil {
				return err
			}
			for _, c := range r.Changes {
				fmt.Fprintln(cli.Out, c.Kind.String(), c.Path)
			}
			return nil
		},
		ValidArgsFunction: complete(cli, false, 1),
	}
}
