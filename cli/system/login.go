package system

import (
	"context"
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/config"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

type loginOptions struct {
	user, password string
	stdin          bool
}

func newLoginCommand(cli *command.Cli) *cobra.Command {
	var o loginOptions
	cmd := &cobra.Command{
		Use: "login [OPTIONS] [SERVER]", Short: "Authenticate to a registry",
		Long:        "Authenticate to a registry.\nDefaults to Docker Hub if no server is specified.",
		Args:        command.MaxArgs(1),
		Annotations: map[string]string{command.AnnCategory: "08"},
		RunE: func(cmd *cobra.Command, args []string) error {
			server := ""
			if len(args) > 0 {
				server = args[0]
			}
			if err := o.check(cli, cmd.Flags().Changed("password")); err != nil {
				return err
			}
			return runLogin(cmd.Context(), cli, server, &o)
		},
		ValidArgsFunction: servers(cli),
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.user, "username", "u", "", "Username")
	fs.StringVarP(&o.password, "password", "p", "", "Password or Personal Access Token (PAT)")
	fs.BoolVar(&o.stdin, "password-stdin", false, "Take the Password or Personal Access Token (PAT) from stdin")
	return cmd
}

func (o *loginOptions) check(cli *command.Cli, passwordSet bool) error {
	if passwordSet {
		if o.stdin {
			return errors.New("conflicting options: cannot specify both --password and --password-stdin")
		}
		fmt.Fprintln(cli.Err, "WARNING! Using --password via the CLI is insecure. Use --password-stdin.")
	}
	if !o.stdin {
		return nil
	}
	if o.user == "" {
		return errors.New("the --password-stdin option requires --username to be set")
	}
	p, err := readSecret(cli.In)
	o.password = p
	return err
}

// serverKey is the key of a server as typed, and its address for the daemon.
func serverKey(server string) string {
	if server == "" {
		return config.IndexServer
	}
	return config.ServerKey(config.Hostname(server))
}

func runLogin(ctx context.Context, cli *command.Cli, server string, o *loginOptions) error {
	key := serverKey(server)
	cfg := cli.Config()
	stored, err := cfg.Credentials(ctx, key)
	if err != nil {
		fmt.Fprintln(cli.Err, "WARNING:", err)
		stored = config.Auth{}
	}
	cl, err := cli.Client()
	if err != nil {
		return err
	}
	login := func(a config.Auth) (string, error) {
		r, err := cl.RegistryLogin(ctx, client.RegistryLoginOptions{
			Username: a.Username, Password: a.Password, ServerAddress: key, IdentityToken: a.IdentityToken,
		})
		if err != nil {
			return "", err
		}
		if t := r.Auth.IdentityToken; t != "" {
			a.Password, a.IdentityToken = "", t
		}
		if a == stored {
			return r.Auth.Status, nil // kept already
		}
		if cfg.Helper(key) == "" {
			fmt.Fprintf(cli.Err, "\nWARNING! Your credentials are stored unencrypted in '%s'.\nConfigure a credential helper to remove this warning. See\nhttps://docs.docker.com/go/credential-store/\n\n", cfg.Path())
		}
		if err := cfg.Store(ctx, key, a); err != nil {
			return "", fmt.Errorf("error saving credentials: %w", err)
		}
		return r.Auth.Status, nil
	}
	if o.user == "" && o.password == "" && (stored.Username != "" || stored.IdentityToken != "") {
		fmt.Fprint(cli.Err, "Authenticating with existing credentials...")
		if stored.Username != "" {
			fmt.Fprintf(cli.Err, " [Username: %s]", stored.Username)
		}
		fmt.Fprint(cli.Err, "\n\n Info -> To login with a different account, run 'docker logout' followed by 'docker login'\n\n\n")
		status, err := login(stored)
		if err == nil {
			fmt.Fprintln(cli.Out, status)
			return nil
		}
		if errdefs.IsUnauthorized(err) {
			fmt.Fprintln(cli.Err, "Stored credentials invalid or expired")
		} else {
			fmt.Fprintln(cli.Err, "Login did not succeed, error:", command.Text(err))
		}
	}
	a, err := askCredentials(cli, o, stored.Username)
	if err != nil {
		return err
	}
	status, err := login(a)
	if err != nil {
		return err
	}
	fmt.Fprintln(cli.Out, status)
	return nil
}

func askCredentials(cli *command.Cli, o *loginOptions, lastUser string) (config.Auth, error) {
	a := config.Auth{Username: o.user, Password: o.password}
	if (a.Username == "" || a.Password == "") && !cli.In.IsTerminal() {
		return a, errors.New("Error: Cannot perform an interactive login from a non TTY device")
	}
	if a.Username == "" {
		q := "Username: "
		if lastUser != "" {
			q = fmt.Sprintf("Username (%s): ", lastUser)
		}
		u, err := prompt(cli, q, false)
		if err != nil {
			return a, err
		}
		if u == "" {
			u = lastUser
		}
		if u == "" {
			return a, errors.New("Error: Non-null Username Required")
		}
		a.Username = u
	}
	if a.Password == "" {
		p, err := prompt(cli, "Password: ", true)
		if err != nil {
			return a, err
		}
		if p == "" {
			return a, errors.New("Error: Password Required")
		}
		a.Password = p
	}
	return a, nil
}

func newLogoutCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "logout [SERVER]", Short: "Log out from a registry",
		Long:        "Log out from a registry.\nIf no server is specified, the default is defined by the daemon.",
		Args:        command.MaxArgs(1),
		Annotations: map[string]string{command.AnnCategory: "09"},
		RunE: func(cmd *cobra.Command, args []string) error {
			server := ""
			if len(args) > 0 {
				server = args[0]
			}
			key := serverKey(server)
			shown := key
			if key != config.IndexServer {
				shown = config.Hostname(server)
			}
			fmt.Fprintf(cli.Out, "Removing login credentials for %s\n", shown)
			_, err := cli.Config().Erase(cmd.Context(), key)
			if err != nil {
				return fmt.Errorf("WARNING: could not erase credentials:\n%s: %w", key, err)
			}
			return nil
		},
		ValidArgsFunction: servers(cli),
	}
}

func servers(cli *command.Cli) func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		var out []string
		if len(args) == 0 {
			for k := range cli.Config().Auths {
				out = append(out, config.Hostname(k))
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
