// Package ocicli is the runc-compatible command line of gantry-runtime: what
// containerd, podman, CRI-O or a person calls to make and handle containers from
// OCI bundles. The work is done by package oci; here are options, the state kept
// between calls, output formats and error reports, all as runc has them, because
// programs read them.
package ocicli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantry/gantry/internal/version"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/oci/checkpoint/criu"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// program is the name in messages.
const program = "gantry-runtime"

// defaultRoot holds the state of containers; below XDG_RUNTIME_DIR for ordinary users.
const defaultRoot = "/run/gantry-runtime"

// errHelp asks for the usage text; its status is 0.
var errHelp = errors.New("help requested")

// usage is an error in how the command was called.
type usage struct{ error }

func usageError(format string, a ...any) error { return usage{fmt.Errorf(format, a...)} }

// exitError ends the program with a status of somebody else's: no message.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// failure is an error that the program ends with another status than 1 for.
type failure struct {
	error
	status int
}

func (f failure) Unwrap() error { return f.error }

// app is one call of the program.
type app struct {
	ctx      context.Context
	store    store
	systemd  bool
	criu     string
	log      *logger
	out, err io.Writer
	in       *os.File
}

// command is one of the commands.
type command struct {
	name, args, help string
	min, max         int // number of arguments; max -1: any
	// setup declares options and returns what runs with the arguments.
	setup func(a *app, f *flags) func(args []string) error
}

func commands() []command {
	return []command{
		{"create", "ID", "create a container from a bundle", 1, 1, setupCreate},
		{"start", "ID", "run the program of a created container", 1, 1, setupStart},
		{"run", "ID", "create and start a container", 1, 1, setupRun},
		{"state", "ID", "print the state of a container", 1, 1, setupState},
		{"kill", "ID [SIGNAL]", "send a signal to a container's first process (default: SIGTERM)", 1, 2, setupKill},
		{"delete", "ID", "delete what a container left", 1, 1, setupDelete},
		{"exec", "ID COMMAND [ARG...]", "run a further process in a container", 1, -1, setupExec},
		{"ps", "ID [PS OPTION...]", "list the processes in a container", 1, -1, setupPs},
		{"list", "", "list the containers", 0, 0, setupList},
		{"pause", "ID", "freeze the processes of a container", 1, 1, setupFreeze(oci.Pause, specs.StateRunning, specs.StateCreated)},
		{"resume", "ID", "thaw the processes of a container", 1, 1, setupFreeze(oci.Resume, statusPaused)},
		{"update", "ID", "change the limits of a container", 1, 1, setupUpdate},
		{"events", "ID", "print usage and out-of-memory events of a container", 1, 1, setupEvents},
		{"spec", "", "write a specification to begin with", 0, 0, setupSpec},
		{"features", "", "print what this runtime can do", 0, 0, setupFeatures},
		{"checkpoint", "ID", "save a running container (needs CRIU)", 1, 1, setupCheckpoint},
		{"restore", "ID", "restore a saved container (needs CRIU)", 1, 1, setupRestore},
	}
}

// Main runs the program with the arguments after its name and returns the status
// to exit with: 1 for errors, a container's own status for those run in the
// foreground.
func Main(args []string) int {
	if len(args) == 2 && args[0] == criu.LauncherArg1 {
		return criu.RunLauncher(args[1])
	}
	a := &app{ctx: context.Background(), out: os.Stdout, err: os.Stderr, in: os.Stdin}
	err := a.run(args)
	a.log.close()
	var code exitError
	var f failure
	switch {
	case err == nil:
		return 0
	case errors.As(err, &code):
		return int(code)
	case errors.As(err, &f):
		return f.status
	}
	return 1
}

func (a *app) run(args []string) error {
	f, g := globalFlags()
	args, err := f.parse(args)
	if err != nil {
		return a.misused(err, help(f))
	}
	switch {
	case g.version || len(args) > 0 && args[0] == "version":
		fmt.Fprintf(a.out, "%s version %s\ncommit: %s\nspec: %s\n", program, version.Version, version.Commit, specs.Version)
		return nil
	case len(args) == 0 || args[0] == "help":
		fmt.Fprint(a.out, help(f))
		return nil
	}
	if a.log, err = newLogger(a.err, g.log, g.logFormat); err != nil {
		fmt.Fprintln(a.err, err)
		return err
	}
	a.systemd, a.criu = g.systemd, g.criu
	if a.store.root, err = filepath.Abs(g.root); err != nil {
		return a.fail(err)
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return a.command(&c, args[1:])
		}
	}
	const noSuchCommand = 3 // runc's
	return a.fail(failure{fmt.Errorf("No help topic for '%s'", args[0]), noSuchCommand})
}

func (a *app) command(c *command, args []string) error {
	f := new(flags)
	do := c.setup(a, f)
	text := fmt.Sprintf("Usage: %s %s [OPTIONS] %s\n\n%s\n\nOptions:\n%s", program, c.name, c.args, c.help, f.usage())
	args, err := f.parse(args)
	if err != nil {
		return a.misused(err, text)
	}
	if len(args) < c.min || c.max >= 0 && len(args) > c.max {
		want := fmt.Sprintf("exactly %d", c.min)
		if c.max != c.min {
			want = fmt.Sprintf("a minimum of %d", c.min)
		}
		if len(args) > c.max && c.max > c.min {
			want = fmt.Sprintf("a maximum of %d", c.max)
		}
		return a.misused(usageError("%s: %q requires %s argument(s)", program, c.name, want), text)
	}
	if err := do(args); err != nil {
		var u usage
		var f failure
		if errors.As(err, &u) && !errors.As(err, &f) {
			return a.misused(err, text)
		}
		return a.fail(err)
	}
	return nil
}

// misused reports a wrong call with the usage text.
func (a *app) misused(err error, text string) error {
	if errors.Is(err, errHelp) {
		fmt.Fprint(a.out, text)
		return nil
	}
	fmt.Fprintf(a.out, "Incorrect Usage.\n\n%s\n", text)
	if a.log == nil {
		fmt.Fprintln(a.err, err)
		return err
	}
	return a.fail(err)
}

// fail reports err where the caller looks for it.
func (a *app) fail(err error) error {
	var code exitError
	if !errors.As(err, &code) {
		a.log.failure(err)
	}
	return err
}

type globals struct {
	root, log, logFormat, criu string
	systemd, version           bool
}

func globalFlags() (*flags, *globals) {
	g := &globals{root: defaultRoot}
	if d := os.Getenv("XDG_RUNTIME_DIR"); d != "" && unprivileged() {
		g.root = filepath.Join(d, program)
	}
	f := &flags{stopAtArg: true}
	f.str(&g.root, "root", "DIR", "where the state of containers is kept (default: "+g.root+")")
	f.str(&g.log, "log", "FILE", "where errors and warnings are appended (default: standard error)")
	f.str(&g.logFormat, "log-format", "FORMAT", "text or json (default: text)")
	f.ignored("debug", "", "accepted: there are no debug messages")
	f.boolean(&g.systemd, "systemd-cgroup", "let systemd make cgroups: cgroupsPath is slice:prefix:name")
	f.ignored("rootless", "MODE", "accepted: found out by itself")
	f.str(&g.criu, "criu", "PATH", "the criu program (default: criu of PATH)")
	f.boolean(&g.version, "version,v", "print the version")
	return f, g
}

// unprivileged tells an ordinary user, also where a user namespace makes him root of
// his own (podman, rootlesskit). As with runc, USER=root says that he is at home there.
func unprivileged() bool {
	if os.Geteuid() != 0 {
		return true
	}
	b, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && strings.Join(strings.Fields(string(b)), " ") != "0 0 4294967295" && os.Getenv("USER") != "root"
}

func help(f *flags) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage: %s [OPTIONS] COMMAND\n\nCommands:\n", program)
	for _, c := range commands() {
		fmt.Fprintf(&b, "  %-10s %s\n", c.name, c.help)
	}
	fmt.Fprintf(&b, "  %-10s %s\n\nOptions:\n%s", "shim", "hold the containers of a daemon (started by dockerd)", f.usage())
	return b.String()
}
