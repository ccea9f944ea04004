package command_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/gantry/gantry/cli/command"
	"github.com/spf13/cobra"
)

func newCli(t *testing.T, stdin string) (*command.Cli, *bytes.Buffer, *bytes.Buffer) {
	t.Helper()
	for _, k := range []string{
		"DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION", "DOCKER_CUSTOM_HEADERS",
	} {
		t.Setenv(k, "")
	}
	t.Setenv("DOCKER_CONFIG", t.TempDir())
	var out, errw bytes.Buffer
	return command.New(io.NopCloser(strings.NewReader(stdin)), &out, &errw), &out, &errw
}

func TestParseHost(t *testing.T) {
	for _, c := range []struct {
		host string
		tls  bool
		want string // an error begins with "!"
	}{
		{"", false, "unix:///var/run/docker.sock"},
		{"", true, "tcp://localhost:2376"},
		{"unix://", false, "unix:///var/run/docker.sock"},
		{"unix:///a/b", false, "unix:///a/b"},
		{" unix:///a/b ", false, "unix:///a/b"},
		{"tcp://", false, "tcp://localhost:2375"},
		{"tcp://h", false, "tcp://h:2375"},
		{"tcp://h", true, "tcp://h:2376"},
		{"tcp://h:1", true, "tcp://h:1"},
		{"tcp://:1/p", false, "tcp://localhost:1/p"},
		{"tcp://[::1]:5", false, "tcp://[::1]:5"},
		{"tcp://[::1]", false, "tcp://[::1]:2375"},
		{"h:1", false, "tcp://h:1"},
		{"ssh://u@h", false, "ssh://u@h"},
		{"fd://", false, "fd://"},
		{"tcp://[::1", false, "!invalid bind address format: tcp://[::1"},
		{"tcp://a:b:c", false, "!invalid bind address format: tcp://a:b:c"},
		{"gopher://x", false, "!invalid bind address format: gopher://x"},
	} {
		t.Run(c.host, func(t *testing.T) {
			got, err := command.ParseHost(c.tls, c.host)
			if err != nil {
				got = "!" + err.Error()
			}
			if got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// Which of flag, environment and config.json says where the daemon is.
func TestEndpoint(t *testing.T) {
	for _, c := range []struct {
		name    string
		globals command.Globals
		env     map[string]string
		want    command.Endpoint
		err     string
	}{
		{"nothing said", command.Globals{}, nil, command.Endpoint{Host: "unix:///var/run/docker.sock", SkipCheck: true}, ""},
		{"environment", command.Globals{}, map[string]string{"DOCKER_HOST": "unix:///e"}, command.Endpoint{Host: "unix:///e", SkipCheck: true}, ""},
		{"flag over environment", command.Globals{Hosts: []string{"unix:///f"}}, map[string]string{"DOCKER_HOST": "unix:///e"}, command.Endpoint{Host: "unix:///f", SkipCheck: true}, ""},
		{"two flags", command.Globals{Hosts: []string{"a", "b"}}, nil, command.Endpoint{}, "Failed to initialize: unable to resolve docker endpoint: Specify only one -H"},
		{"host and context", command.Globals{Hosts: []string{"a"}, Context: "b"}, nil, command.Endpoint{}, "conflicting options: cannot specify both --host and --context"},
		{"TLS", command.Globals{Hosts: []string{"h"}, TLS: true, TLSSet: true}, nil, command.Endpoint{Host: "tcp://h:2376", TLS: true, SkipCheck: true, Cert: "DIR/cert.pem", Key: "DIR/key.pem"}, ""},
		{"verified TLS", command.Globals{Hosts: []string{"h"}, TLSVerify: true, TLSSet: true}, nil, command.Endpoint{Host: "tcp://h:2376", TLS: true, CA: "DIR/ca.pem", Cert: "DIR/cert.pem", Key: "DIR/key.pem"}, ""},
		{"TLS by environment", command.Globals{}, map[string]string{"DOCKER_HOST": "h", "DOCKER_TLS_VERIFY": "1"}, command.Endpoint{Host: "tcp://h:2376", TLS: true, CA: "DIR/ca.pem", Cert: "DIR/cert.pem", Key: "DIR/key.pem"}, ""},
		{"files by flag", command.Globals{Hosts: []string{"h"}, TLSVerify: true, TLSSet: true, TLSCA: "/ca", TLSCert: "/cert", TLSKey: "/key"}, nil, command.Endpoint{Host: "tcp://h:2376", TLS: true, CA: "/ca", Cert: "/cert", Key: "/key"}, ""},
		{"TLS off by flag", command.Globals{Hosts: []string{"h"}, TLSSet: true}, map[string]string{"DOCKER_TLS": "1"}, command.Endpoint{Host: "tcp://h:2375", SkipCheck: true}, ""},
		{"bad address", command.Globals{Hosts: []string{"gopher://x"}}, nil, command.Endpoint{}, "Failed to initialize: unable to resolve docker endpoint: invalid bind address format: gopher://x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cli, _, _ := newCli(t, "")
			dir := cli.ConfigDir()
			for _, f := range []string{"ca.pem", "cert.pem", "key.pem"} {
				if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for k, v := range c.env {
				t.Setenv(k, v)
			}
			cli.Globals = c.globals
			got, err := cli.Endpoint()
			if err != nil || c.err != "" {
				if fmt.Sprint(err) != c.err {
					t.Errorf("error %v, want %q", err, c.err)
				}
				return
			}
			for _, p := range []*string{&got.CA, &got.Cert, &got.Key} {
				*p = strings.Replace(*p, dir, "DIR", 1)
			}
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
		})
	}
}

func TestContextName(t *testing.T) {
	for _, c := range []struct {
		name, flag, hostFlag, hostEnv, contextEnv, config, want string
	}{
		{name: "nothing said", want: "default"},
		{name: "flag", flag: "f", hostEnv: "h", contextEnv: "e", config: "c", want: "f"},
		{name: "host flag", hostFlag: "h", contextEnv: "e", config: "c", want: "default"},
		{name: "DOCKER_HOST", hostEnv: "h", contextEnv: "e", config: "c", want: "default"},
		{name: "DOCKER_CONTEXT", contextEnv: "e", config: "c", want: "e"},
		{name: "config.json", config: "c", want: "c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cli, _, _ := newCli(t, "")
			t.Setenv("DOCKER_HOST", c.hostEnv)
			t.Setenv("DOCKER_CONTEXT", c.contextEnv)
			cli.Globals.Context = c.flag
			if c.hostFlag != "" {
				cli.Globals.Hosts = []string{c.hostFlag}
			}
			if err := os.WriteFile(filepath.Join(cli.ConfigDir(), "config.json"), []byte(`{"currentContext":"`+c.config+`"}`), 0o600); err != nil {
				t.Fatal(err)
			}
			if got := cli.ContextName(); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

// A config.json that cannot be read is warned of once and counts as empty.
func TestBrokenConfig(t *testing.T) {
	cli, _, errw := newCli(t, "")
	p := filepath.Join(cli.ConfigDir(), "config.json")
	if err := os.WriteFile(p, []byte(`{"psFormat":"x",`), 0o600); err != nil {
		t.Fatal(err)
	}
	if f := cli.Config(); f.PsFormat != "" {
		t.Errorf("half a file is used: %q", f.PsFormat)
	}
	cli.Config()
	if got, want := errw.String(), "WARNING: Error loading config file: "+p+": unexpected end of JSON input\n"; got != want {
		t.Errorf("warned %q, want %q", got, want)
	}
}

func TestConfirm(t *testing.T) {
	for _, c := range []struct {
		in   string
		want bool
	}{
		{"y\n", true},
		{"Y\r\n", true},
		{" y \n", true},
		{"y", true},
		{"yes\n", false},
		{"n\n", false},
		{"\n", false},
		{"", false},
	} {
		t.Run(c.in, func(t *testing.T) {
			cli, out, _ := newCli(t, c.in)
			got, err := cli.Confirm(t.Context(), "Sure?")
			if err != nil || got != c.want {
				t.Errorf("%t, %v", got, err)
			}
			if out.String() != "Sure? [y/N] " {
				t.Errorf("asked %q", out.String())
			}
		})
	}
	t.Run("ended by the user", func(t *testing.T) {
		newCli(t, "")
		r, w := io.Pipe() // nobody answers
		defer w.Close()
		cli := command.New(r, io.Discard, io.Discard)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if yes, err := cli.Confirm(ctx, "Sure?"); yes || !errors.Is(err, context.Canceled) {
			t.Errorf("%t, %v", yes, err)
		}
	})
}

// Lines are read one at a time; what follows stays for who reads next.
func TestReadLine(t *testing.T) {
	cli, _, _ := newCli(t, "one\r\ntwo\nrest")
	for _, want := range []string{"one", "two"} {
		if got, err := cli.ReadLine(); err != nil || got != want {
			t.Errorf("%q, %v; want %q", got, err, want)
		}
	}
	if rest, _ := io.ReadAll(cli.In); string(rest) != "rest" {
		t.Errorf("the rest is %q", rest)
	}
	cli, _, _ = newCli(t, strings.Repeat("x", 1<<20))
	if _, err := cli.ReadLine(); err == nil {
		t.Error("a line without end is read")
	}
}

func TestDetachKeys(t *testing.T) {
	cli, _, _ := newCli(t, "")
	if err := os.WriteFile(filepath.Join(cli.ConfigDir(), "config.json"), []byte(`{"detachKeys":"ctrl-c"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := cli.DetachKeys(""); got != "ctrl-c" {
		t.Error(got)
	}
	if got := cli.DetachKeys("ctrl-d"); got != "ctrl-d" {
		t.Error(got)
	}
}

func TestHelp(t *testing.T) {
	root := &cobra.Command{Use: "docker [OPTIONS] COMMAND", Short: "root"}
	verb := &cobra.Command{
		Use: "do [OPTIONS] THING", Short: "Do a thing", Long: "Do a thing.\nAt length.", DisableFlagsInUseLine: true,
		Annotations: map[string]string{command.AnnAliases: "docker noun do, docker do"}, Run: func(*cobra.Command, []string) {},
	}
	verb.Flags().StringP("name", "n", "x", "A name")
	root.AddCommand(command.Group("noun", "Manage nouns", verb))
	for _, c := range []struct{ args, want string }{
		{"noun", "Usage:  docker noun COMMAND\n\nManage nouns\n\nCommands:\n  do          Do a thing\n\nRun 'docker noun COMMAND --help' for more information on a command.\n"},
		{"noun do", "Usage:  docker noun do [OPTIONS] THING\n\nDo a thing.\nAt length.\n\nAliases:\n  docker noun do, docker do\n\nOptions:\n  -n, --name string   A name (default \"x\")\n"},
	} {
		t.Run(c.args, func(t *testing.T) {
			cmd, _, err := root.Find(strings.Fields(c.args))
			if err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			command.Help(cmd, &out)
			if out.String() != c.want {
				t.Errorf("%q, want\n%q", out.String(), c.want)
			}
		})
	}
}
