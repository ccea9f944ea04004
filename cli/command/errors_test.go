package command

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
)

// What is said about a wrong number of arguments, to the letter as Docker's client says it.
func TestArgErrors(t *testing.T) {
	cmd := &cobra.Command{Use: "pull [OPTIONS] NAME", Run: func(*cobra.Command, []string) {}}
	root := &cobra.Command{Use: "docker"}
	root.AddCommand(cmd)
	const tail = "\n\nUsage:  docker pull [OPTIONS] NAME\n\n"
	for _, c := range []struct {
		name  string
		check cobra.PositionalArgs
		want  string
	}{
		{"one", ExactArgs(1), "docker: 'docker pull' requires 1 argument" + tail + "Run 'docker pull --help' for more information"},
		{"three", ExactArgs(3), "docker: 'docker pull' requires 3 arguments" + tail + "Run 'docker pull --help' for more information"},
		{"at least", MinArgs(3), "docker: 'docker pull' requires at least 3 arguments" + tail + "See 'docker pull --help' for more information"},
		{"at most", MaxArgs(1), "docker: 'docker pull' requires at most 1 argument" + tail + "Run 'docker pull --help' for more information"},
		{"none", NoArgs, "docker: 'docker pull' accepts no arguments" + tail + "Run 'docker pull --help' for more information"},
		{"range", func(cmd *cobra.Command, _ []string) error { return RangeError(cmd, 0, 1) }, "docker: 'docker pull' requires at least 0 and at most 1 argument" + tail + "Run 'docker pull --help' for more information"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.check(cmd, []string{"a", "b"}); err == nil || err.Error() != c.want {
				t.Errorf("%v\nwant %s", err, c.want)
			}
		})
	}
}

func TestExitCode(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want int
	}{
		{"any error", errors.New("x"), 1},
		{"a code", ExitError{Code: 125}, 125},
		{"a code inside", fmt.Errorf("x: %w", ExitError{Code: 64}), 64},
		{"no code", ExitError{Text: "x"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := ExitCode(c.err); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
	cause := errors.New("cause")
	if err := error(ExitError{Code: 2, Err: cause}); !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
}

// A daemon that is not there is told of in Docker's words; another error in its own.
func TestText(t *testing.T) {
	cl, err := client.New(client.WithHost("unix:///nonexistent/sock"))
	if err != nil {
		t.Fatal(err)
	}
	_, gone := cl.Info(context.Background(), client.InfoOptions{})
	for _, c := range []struct {
		name string
		err  error
		want string
	}{
		{"no daemon", gone, "Cannot connect to the Docker daemon at unix:///nonexistent/sock. Is the docker daemon running?"},
		{"another", errors.New("x"), "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := Text(c.err); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
	if got, want := WithHelp(errors.New("x"), "run").Error(), "docker: x\n\nRun 'docker run --help' for more information"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// What of an address ssh gets as arguments, and what never reaches it.
func TestSSHArgs(t *testing.T) {
	for _, c := range []struct{ host, want, err string }{
		{"ssh://h", "[-o ConnectTimeout=30 -T -- h docker system dial-stdio]", ""},
		{"ssh://u@h:22", "[-l u -p 22 -o ConnectTimeout=30 -T -- h docker system dial-stdio]", ""},
		{"ssh://h/", "[-o ConnectTimeout=30 -T -- h docker system dial-stdio]", ""},
		{"ssh://h/run/a'b.sock", `[-o ConnectTimeout=30 -T -- h docker --host=unix://'/run/a'\''b.sock' system dial-stdio]`, ""},
		{"ssh://-oProxyCommand=x", "[-o ConnectTimeout=30 -T -- -oProxyCommand=x docker system dial-stdio]", ""},
		{"ssh://u:p@h", "[]", "invalid SSH URL: plain-text password is not supported"},
		{"ssh://", "[]", "invalid SSH URL: no host specified"},
		{"ssh://h?x=y", "[]", "invalid SSH URL: query and fragment are not allowed"},
		{"ssh://h#x", "[]", "invalid SSH URL: query and fragment are not allowed"},
	} {
		t.Run(c.host, func(t *testing.T) {
			got, err := sshArgs(c.host)
			if fmt.Sprint(got) != c.want || fmt.Sprint(err) != c.err && (err != nil || c.err != "") {
				t.Errorf("%q, %v; want %s, %q", got, err, c.want, c.err)
			}
		})
	}
}
