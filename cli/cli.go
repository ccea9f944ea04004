// Package cli is the `docker` command: it parses the flags in front of the command, builds
// the command asked for and turns its outcome into output and an exit code.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/config"
	"github.com/gantry/gantry/internal/version"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

// Main runs one command line (without the program's name) on three streams and answers the
// exit code. It leaves nothing running.
func Main(args []string, in io.ReadCloser, out, errw io.Writer) int {
	ctx, stop := interruptible(context.Background(), errw)
	defer stop()
	err := execute(ctx, command.New(in, out, errw), args)
	if err == nil {
		return 0
	}
	var ee command.ExitError
	var sig command.SignalError
	if errors.As(context.Cause(ctx), &sig) && !errors.As(err, &ee) {
		return 128 + int(sig.Signal)
	}
	if text := command.Text(err); text != "" {
		fmt.Fprintln(errw, text)
	}
	return command.ExitCode(err)
}

// interruptible is a context which SIGINT and SIGTERM end, with a SignalError as the cause.
// A command that does not end by it is ended by the third signal.
func interruptible(parent context.Context, errw io.Writer) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, unix.SIGTERM, unix.SIGINT)
	done := make(chan struct{})
	go func() {
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			case s := <-ch:
				if us, ok := s.(unix.Signal); ok {
					cancel(command.SignalError{Signal: us})
				}
				if n == 3 {
					fmt.Fprintln(errw, "\ngot 3 SIGTERM/SIGINTs, forcefully exiting")
					os.Exit(1)
				}
			}
		}
	}()
	return ctx, func() {
		go signal.Stop(ch) // beside: it takes a round trip through a thread, and the process is about to end
		close(done)
		cancel(nil)
	}
}

func execute(ctx context.Context, cli *command.Cli, args []string) error {
	root := newRoot(cli)
	showVersion := false
	globals(root.Flags(), cli, &showVersion)
	rest, help, err := splitGlobals(cli, root, args)
	if err != nil {
		return err
	}
	if showVersion {
		fmt.Fprintf(cli.Out, "Docker version %s, build %s\n", version.Version, version.Commit)
		return nil
	}
	if help && len(rest) == 0 {
		rest = []string{"--help"}
	}
	if err := checkBuilt(rest); err != nil {
		return err
	}
	addCommands(cli, root, rest)
	root.SetArgs(rest)
	root.SetIn(cli.In)
	root.SetOut(cli.Out)
	root.SetErr(cli.Err)
	return root.ExecuteContext(ctx)
}

func newRoot(cli *command.Cli) *cobra.Command {
	root := &cobra.Command{
		Use: "docker [OPTIONS] COMMAND", Short: "A self-sufficient runtime for containers",
		SilenceUsage: true, SilenceErrors: true, TraverseChildren: true,
		DisableFlagsInUseLine: true,
		CompletionOptions:     cobra.CompletionOptions{DisableDefaultCmd: true},
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			return fmt.Errorf("docker: unknown command: docker %s\n\nRun 'docker --help' for more information", args[0])
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			command.Help(cmd, cli.Err)
			return nil
		},
	}
	root.SetHelpFunc(func(cmd *cobra.Command, _ []string) { command.Help(cmd, cli.Out) })
	root.SetUsageFunc(func(cmd *cobra.Command) error { command.Help(cmd, cli.Err); return nil })
	root.SetFlagErrorFunc(command.FlagError)
	root.SetHelpCommand(newHelpCommand(cli))
	root.PersistentFlags().BoolP("help", "h", false, "Print usage")
	_ = root.PersistentFlags().MarkShorthandDeprecated("help", "use --help")
	root.PersistentFlags().Lookup("help").Hidden = true
	return root
}

func newHelpCommand(cli *command.Cli) *cobra.Command {
	return &cobra.Command{
		Use: "help [command]", Short: "Help about the command", Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			c, rest, err := cmd.Root().Find(args)
			if c == nil || err != nil || len(rest) > 0 {
				return fmt.Errorf("unknown help topic: %v", strings.Join(args, " "))
			}
			command.Help(c, cli.Out)
			return nil
		},
	}
}

func globals(fs *pflag.FlagSet, cli *command.Cli, showVersion *bool) {
	g := &cli.Globals
	dir := config.Dir()
	fs.BoolVarP(showVersion, "version", "v", false, "Print version information and quit")
	fs.StringVar(&g.ConfigDir, "config", dir, "Location of client config files")
	fs.StringVarP(&g.Context, "context", "c", "", `Name of the context to use to connect to the daemon (overrides DOCKER_HOST env var and default context set with "docker context use")`)
	fs.BoolVarP(&g.Debug, "debug", "D", false, "Enable debug mode")
	fs.VarP(&hostList{&g.Hosts}, "host", "H", "Daemon socket to connect to")
	fs.StringVarP(&g.LogLevel, "log-level", "l", "info", `Set the logging level ("debug", "info", "warn", "error", "fatal")`)
	fs.BoolVar(&g.TLS, "tls", false, "Use TLS; implied by --tlsverify")
	fs.BoolVar(&g.TLSVerify, "tlsverify", os.Getenv("DOCKER_TLS_VERIFY") != "", "Use TLS and verify the remote")
	certs := os.Getenv("DOCKER_CERT_PATH")
	if certs == "" {
		certs = dir
	}
	fs.StringVar(&g.TLSCA, "tlscacert", filepath.Join(certs, "ca.pem"), "Trust certs signed only by this CA")
	fs.StringVar(&g.TLSCert, "tlscert", filepath.Join(certs, "cert.pem"), "Path to TLS certificate file")
	fs.StringVar(&g.TLSKey, "tlskey", filepath.Join(certs, "key.pem"), "Path to TLS key file")
}

// splitGlobals parses the flags in front of the command and answers what follows.
func splitGlobals(cli *command.Cli, root *cobra.Command, args []string) (rest []string, help bool, err error) {
	fs := pflag.NewFlagSet("docker", pflag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.Usage = func() {}
	fs.SetInterspersed(false)
	fs.AddFlagSet(root.Flags())
	fs.AddFlagSet(root.PersistentFlags())
	if err := fs.Parse(args); err != nil {
		return nil, false, command.ExitError{
			Code: 125, Err: err,
			Text: fmt.Sprintf("%s\n\nUsage:  docker [OPTIONS] COMMAND [ARG...]\n\nRun 'docker --help' for more information", err),
		}
	}
	for _, name := range []string{"tlscacert", "tlscert", "tlskey"} {
		if f := fs.Lookup(name); !f.Changed {
			// Found by the endpoint, where the file exists.
			_ = f.Value.Set("")
		}
	}
	cli.Globals.TLSSet = fs.Changed("tls") || fs.Changed("tlsverify")
	if !fs.Changed("config") {
		cli.Globals.ConfigDir = ""
	}
	help, _ = fs.GetBool("help")
	switch cli.Globals.LogLevel {
	case "debug", "info", "warn", "error", "fatal", "panic", "trace", "warning":
	default:
		return nil, false, command.ExitError{Code: 1, Text: "Unable to parse logging level: " + cli.Globals.LogLevel}
	}
	return fs.Args(), help, nil
}

type hostList struct{ v *[]string }

// Set implements pflag.Value.
func (h *hostList) Set(s string) error { *h.v = append(*h.v, s); return nil }

// Type implements pflag.Value.
func (h *hostList) Type() string { return "list" }

// String implements pflag.Value.
func (h *hostList) String() string { return "" }
