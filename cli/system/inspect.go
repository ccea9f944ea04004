package system

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/container"
	"github.com/gantry/gantry/cli/format"
	"github.com/gantry/gantry/cli/image"
	"github.com/gantry/gantry/cli/network"
	"github.com/gantry/gantry/cli/volume"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

func newInspectCommand(cli *command.Cli) *cobra.Command {
	var f, typ string
	var size bool
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] NAME|ID [NAME|ID...]", Short: "Return low-level information on Docker objects",
		Args: command.MinArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("type") && typ == "" {
				return errors.New(`type is empty: must be one of "config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume"`)
			}
			get, err := finder(cmd.Context(), cli, typ, size)
			if err != nil {
				return err
			}
			return format.Inspect(cli.Out, args, f, get)
		},
		ValidArgsFunction: container.Complete(cli, true, 0),
	}
	cmd.Flags().StringVarP(&f, "format", "f", "", format.HelpSingle)
	cmd.Flags().StringVar(&typ, "type", "", "Only inspect objects of the given type")
	cmd.Flags().BoolVarP(&size, "size", "s", false, "Display total file sizes if the type is container")
	return cmd
}

// finder looks an object up as each kind in turn, or as the kind asked for.
func finder(ctx context.Context, cli *command.Cli, typ string, size bool) (format.Get, error) {
	img, err := image.Getter(ctx, cli, "")
	if err != nil {
		return nil, err
	}
	kinds := []struct {
		name string
		get  format.Get
	}{
		{"container", container.Getter(ctx, cli, size)},
		{"image", img},
		{"network", network.Getter(ctx, cli, false)},
		{"volume", volume.Getter(ctx, cli)},
	}
	if typ != "" {
		for _, k := range kinds {
			if k.name == typ {
				return k.get, nil
			}
		}
		switch typ {
		case "config", "node", "plugin", "secret", "service", "task":
			return nil, fmt.Errorf("inspecting objects of type %q is not implemented", typ)
		}
		return nil, fmt.Errorf("unknown type: %q: must be one of %q, %q, %q, %q, %q, %q, %q, %q, %q, %q", typ,
			"config", "container", "image", "network", "node", "plugin", "secret", "service", "task", "volume")
	}
	return func(ref string) (any, []byte, error) {
		for _, k := range kinds {
			v, raw, err := k.get(ref)
			if err == nil {
				if size && k.name != "container" {
					fmt.Fprintf(cli.Err, "WARNING: --size ignored for %s\n", k.name+"s")
				}
				return v, raw, nil
			}
			if !errdefs.IsNotFound(err) && !errdefs.IsNotImplemented(err) {
				return nil, nil, err
			}
		}
		return nil, nil, fmt.Errorf("Error: No such object: %s", ref)
	}, nil
}

func newDialStdioCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "dial-stdio", Short: "Proxy the stdio stream to the daemon connection. Should not be invoked manually.",
		Args: command.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return runDialStdio(cmd.Context(), cli)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func runDialStdio(ctx context.Context, cli *command.Cli) error {
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	conn, err := cl.Dialer()(ctx)
	if err != nil {
		return fmt.Errorf("failed to open the raw stream connection: %w", err)
	}
	defer conn.Close()
	toDaemon, toStdout := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, cli.In)
		if cw, ok := conn.(client.CloseWriter); ok {
			_ = cw.CloseWrite()
		}
		toDaemon <- err
	}()
	go func() {
		_, err := io.Copy(cli.Out, conn)
		toStdout <- err
	}()
	select {
	case err = <-toDaemon:
		if err == nil {
			err = <-toStdout
		}
	case err = <-toStdout:
	}
	return err
}

// prompt asks for one line on the terminal; secret input is not shown.
func prompt(cli *command.Cli, question string, secret bool) (string, error) {
	fmt.Fprint(cli.Out, question)
	if secret {
		restore, err := cli.In.NoEcho()
		if err != nil {
			return "", err
		}
		defer fmt.Fprintln(cli.Out)
		defer restore()
	}
	s, err := cli.ReadLine()
	return strings.TrimSpace(s), err
}

// readSecret is standard input whole, without the last newline.
func readSecret(r io.Reader) (string, error) {
	b, err := io.ReadAll(io.LimitReader(bufio.NewReader(r), 1<<20))
	if err != nil {
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(string(b), "\n"), "\r"), nil
}
