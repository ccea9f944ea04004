// Package contexts is `docker context`: the commands that read contexts and choose one.
package contexts

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sort"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/config"
	"github.com/gantry/gantry/cli/format"
	"github.com/spf13/cobra"
)

// NewCommand makes `docker context`.
func NewCommand(cli *command.Cli) *cobra.Command {
	return command.Group("context", "Manage contexts",
		newLsCommand(cli), newShowCommand(cli), newUseCommand(cli), newInspectCommand(cli))
}

func complete(cli *command.Cli) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		list, err := config.ListContexts(cli.ConfigDir())
		if err != nil {
			return nil, cobra.ShellCompDirectiveError
		}
		out := []string{config.DefaultContext}
		for _, c := range list {
			out = append(out, c.Name)
		}
		for i, name := range out {
			if name == cli.ContextName() {
				out[i] += "\tcurrent" // what the shell shows beside it
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}

func newShowCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the name of the current context", Args: command.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			fmt.Fprintln(cli.Out, cli.ContextName())
			return nil
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func newUseCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "use CONTEXT", Short: "Set the current docker context", Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name := args[0]
			if name != config.DefaultContext {
				if _, err := config.LoadContext(cli.ConfigDir(), name); err != nil {
					return err
				}
			}
			cfg := cli.Config()
			current := name
			if name == config.DefaultContext {
				current = ""
			}
			if cfg.CurrentContext != current {
				cfg.CurrentContext = current
				if err := cfg.Save(); err != nil {
					return err
				}
			}
			fmt.Fprintln(cli.Out, name)
			fmt.Fprintf(cli.Err, "Current context is now %q\n", name)
			if name != config.DefaultContext && os.Getenv("DOCKER_HOST") != "" {
				fmt.Fprintf(cli.Err, "Warning: DOCKER_HOST environment variable overrides the active context. To use %q, either set the global --context flag, or unset DOCKER_HOST environment variable.\n", name)
			}
			return nil
		},
		ValidArgsFunction: complete(cli),
	}
}

func newLsCommand(cli *command.Cli) *cobra.Command {
	var f string
	var quiet bool
	cmd := &cobra.Command{
		Use: "ls [OPTIONS]", Aliases: []string{"list"}, Short: "List contexts", Args: command.NoArgs,
		Annotations: map[string]string{command.AnnAliases: "docker context ls, docker context list"},
		RunE: func(*cobra.Command, []string) error {
			return runLs(cli, f, quiet)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().StringVar(&f, "format", "", format.Help)
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "Only show context names")
	return cmd
}

func runLs(cli *command.Cli, f string, quiet bool) error {
	list, err := config.ListContexts(cli.ConfigDir())
	if err != nil {
		return err
	}
	current := cli.ContextName()
	found := current == config.DefaultContext
	rows := []*Row{{
		name: config.DefaultContext, current: found, host: cli.DefaultEndpointHost(),
		desc: "Current DOCKER_HOST based configuration",
	}}
	for _, c := range list {
		r := &Row{name: c.Name, current: c.Name == current, desc: c.Description(), host: c.Endpoints["docker"].Host}
		found = found || r.current
		rows = append(rows, r)
	}
	if !found {
		_, err := config.LoadContext(cli.ConfigDir(), current)
		rows = append(rows, &Row{name: current, current: true, err: fmt.Sprint(err)})
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].name < rows[j].name })
	switch {
	case quiet && (f == "" || f == format.IsTableKey):
		f = "{{.Name}}"
	case f == "" || f == format.IsTableKey:
		f = "table {{.Name}}{{if .Current}} *{{end}}\t{{.Description}}\t{{.DockerEndpoint}}\t{{.Error}}"
	}
	h := format.Header{"Name": "NAME", "Description": "DESCRIPTION", "DockerEndpoint": "DOCKER ENDPOINT", "Error": "ERROR"}
	if err := format.Write(cli.Out, f, h, rows); err != nil {
		return err
	}
	if os.Getenv("DOCKER_HOST") != "" {
		fmt.Fprint(cli.Err, "Warning: DOCKER_HOST environment variable overrides the active context. To use a context, either set the global --context flag, or unset DOCKER_HOST environment variable.\n")
	}
	return nil
}

// Row is a context in lists. Its methods are the fields of --format.
type Row struct { //nolint:errname // no error: its method Error is a column
	name, desc, host, err string
	current               bool
}

// MarshalJSON is the row as --format json shows it.
func (r *Row) MarshalJSON() ([]byte, error) { return format.MarshalRow(r) }

// Name is the name.
func (r *Row) Name() string { return r.name }

// Current says whether the context is in force.
func (r *Row) Current() bool { return r.current }

// Description is what the user wrote.
func (r *Row) Description() string { return r.desc }

// DockerEndpoint is the address of the daemon.
func (r *Row) DockerEndpoint() string { return r.host }

// Error says why the context cannot be used.
func (r *Row) Error() string { return format.Ellipsis(r.err, 45) }

func newInspectCommand(cli *command.Cli) *cobra.Command {
	var f string
	cmd := &cobra.Command{
		Use: "inspect [OPTIONS] [CONTEXT] [CONTEXT...]", Short: "Display detailed information on one or more contexts",
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				args = []string{cli.ContextName()}
			}
			return format.Inspect(cli.Out, args, f, func(ref string) (any, []byte, error) { return get(cli, ref) })
		},
		ValidArgsFunction: complete(cli),
	}
	cmd.Flags().StringVarP(&f, "format", "f", "", format.HelpSingle)
	return cmd
}

type inspected struct {
	Name        string
	Metadata    map[string]any
	Endpoints   map[string]config.Endpoint
	TLSMaterial map[string][]string
	Storage     storage
}

type storage struct{ MetadataPath, TLSPath string }

func get(cli *command.Cli, name string) (any, []byte, error) {
	v := inspected{Name: name, Metadata: map[string]any{}, TLSMaterial: map[string][]string{}}
	if name == config.DefaultContext {
		v.Endpoints = map[string]config.Endpoint{"docker": {Host: cli.DefaultEndpointHost()}}
		v.Storage = storage{"<IN MEMORY>", "<IN MEMORY>"}
	} else {
		c, err := config.LoadContext(cli.ConfigDir(), name)
		if err != nil {
			return nil, nil, err
		}
		v.Endpoints, v.Storage = c.Endpoints, storage{c.MetaPath(), c.TLSPath()}
		if c.Metadata != nil {
			v.Metadata = c.Metadata
		}
		for _, n := range []string{"ca.pem", "cert.pem", "key.pem"} {
			if c.TLSFile(n) != "" {
				v.TLSMaterial["docker"] = append(v.TLSMaterial["docker"], n)
			}
		}
	}
	raw, err := json.Marshal(v)
	return v, raw, errors.Join(err)
}
