package command

import (
	"errors"
	"fmt"
	"os"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// ExitError ends the program with Code. Text, when not empty, goes to standard error.
type ExitError struct {
	Code int
	Text string
	Err  error
}

// Error implements error.
func (e ExitError) Error() string { return e.Text }

// Unwrap answers the cause.
func (e ExitError) Unwrap() error { return e.Err }

// Text is how err reads to the user. The client library's words for a missing socket are
// replaced by those Docker 28 prints.
func Text(err error) string {
	if err != nil && client.IsErrConnectionFailed(err) {
		var op interface{ Unwrap() error }
		if errors.Is(err, os.ErrNotExist) && errors.As(err, &op) {
			if host := socketOf(err.Error()); host != "" {
				return "Cannot connect to the Docker daemon at " + host + ". Is the docker daemon running?"
			}
		}
	}
	return err.Error()
}

func socketOf(msg string) string {
	var host string
	const lead = "failed to connect to the docker API at "
	if len(msg) > len(lead) && msg[:len(lead)] == lead {
		for i := len(lead); i < len(msg); i++ {
			if msg[i] == ';' {
				host = msg[len(lead):i]
				break
			}
		}
	}
	return host
}

// WithHelp adds the pointer to the command's help that run and create print after errors.
func WithHelp(err error, name string) error {
	return fmt.Errorf("docker: %s\n\nRun 'docker %s --help' for more information", Text(err), name)
}

// ExitCode is what the program ends with on err: what err says, 128+n after signal n
// ended it, else 1.
func ExitCode(err error) int {
	var ee ExitError
	if errors.As(err, &ee) && ee.Code != 0 {
		return ee.Code
	}
	return 1
}

// SignalError says that a signal ended a command early.
type SignalError struct{ Signal unix.Signal }

// Error implements error.
func (e SignalError) Error() string { return e.Signal.String() }

// FlagError decorates an error of flag parsing with usage; exit code 125 as Docker's.
func FlagError(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return ExitError{Code: 125, Text: fmt.Sprintf("%s\n\nUsage:  %s\n\nRun '%s --help' for more information", err, useLine(cmd), cmd.CommandPath())}
}

// NoArgs refuses arguments.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if cmd.HasSubCommands() {
		return fmt.Errorf("docker: unknown command: %s %s\n\nUsage:  %s\n\nRun '%s --help' for more information",
			cmd.CommandPath(), args[0], useLine(cmd), cmd.CommandPath())
	}
	return argsError(cmd, "accepts no arguments", "Run")
}

// MinArgs asks for n arguments or more.
func MinArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= n {
			return nil
		}
		return argsError(cmd, fmt.Sprintf("requires at least %d argument%s", n, plural(n)), "See")
	}
}

// MaxArgs allows n arguments at most.
func MaxArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return argsError(cmd, fmt.Sprintf("requires at most %d argument%s", n, plural(n)), "Run")
	}
}

// ExactArgs asks for n arguments.
func ExactArgs(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == n {
			return nil
		}
		return argsError(cmd, fmt.Sprintf("requires %d argument%s", n, plural(n)), "Run")
	}
}

func argsError(cmd *cobra.Command, what, verb string) error {
	return fmt.Errorf("docker: '%s' %s\n\nUsage:  %s\n\n%s '%s --help' for more information",
		cmd.CommandPath(), what, useLine(cmd), verb, cmd.CommandPath())
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// RangeError says that a command takes lo to hi arguments.
func RangeError(cmd *cobra.Command, lo, hi int) error {
	return argsError(cmd, fmt.Sprintf("requires at least %d and at most %d argument%s", lo, hi, plural(hi)), "Run")
}
