package container

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/container/run"
	"github.com/gantry/gantry/cli/image"
	"github.com/gantry/gantry/cli/terminal"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

type runOptions struct {
	creation
	detach     bool
	sigProxy   bool
	detachKeys string
	signals    *caughtSignals // nil: they are not the container's
}

func newRunCommand(cli *command.Cli) *cobra.Command {
	var o runOptions
	cmd := &cobra.Command{
		Use: "run [OPTIONS] IMAGE [COMMAND] [ARG...]", Short: "Create and run a new container from an image",
		Args: command.MinArgs(1),
		Annotations: map[string]string{
			command.AnnCategory: "01", command.AnnAliases: "docker container run, docker run",
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if o.sigProxy && !o.detach {
				o.signals = catchSignals()
				defer o.signals.stop()
			}
			res, err := o.parse(cli, args, "run")
			if err != nil {
				return err
			}
			return runContainer(cmd.Context(), cli, &o, res)
		},
		ValidArgsFunction: image.CompleteOne(cli),
	}
	fs := cmd.Flags()
	o.register(fs)
	fs.Lookup("pull").Usage = `Pull image before running ("always", "missing", "never")`
	fs.BoolVarP(&o.detach, "detach", "d", false, "Run container in background and print container ID")
	fs.BoolVar(&o.sigProxy, "sig-proxy", true, "Proxy received signals to the process")
	fs.StringVar(&o.detachKeys, "detach-keys", "", "Override the key sequence for detaching a container")
	completeFlags(cli, cmd)
	return cmd
}

// fail125 is an error before the container ran.
func fail125(err error, name string) error {
	return command.ExitError{Code: 125, Text: command.WithHelp(err, name).Error(), Err: err}
}

// startError is the exit code of a container that was not made or did not start, told by
// the words of the error as Docker's client does: 127 the program is not there, 126 it cannot be executed, else 125.
func startError(err error) error {
	s := strings.TrimPrefix(command.Text(err), "Error response from daemon: ")
	code := 125
	switch {
	case containsAny(s, "executable file not found", "no such file or directory", "system cannot find the file specified"):
		code = 127
	case containsAny(s, "permission denied", "is a directory", unix.EACCES.Error(), unix.EISDIR.Error()):
		code = 126
	}
	return command.ExitError{Code: code, Text: command.WithHelp(err, "run").Error(), Err: err}
}

func containsAny(s string, subs ...string) bool {
	s = strings.ToLower(s)
	for _, sub := range subs {
		if strings.Contains(s, sub) {
			return true
		}
	}
	return false
}

func runContainer(ctx context.Context, cli *command.Cli, o *runOptions, res *run.Result) error {
	cfg := res.Config
	if !o.detach {
		if err := cli.In.CheckTTY(cfg.AttachStdin, cfg.Tty); err != nil {
			return err
		}
	} else {
		if o.flags.HasAttach() {
			return errors.New("conflicting options: cannot specify both --attach and --detach")
		}
		cfg.AttachStdin, cfg.AttachStdout, cfg.AttachStderr, cfg.StdinOnce = false, false, false, false
	}
	if handled, err := o.direct(ctx, cli, res); handled {
		return err
	}
	if o.signals != nil {
		o.signals.giveBack() // until there is a container
	}
	id, err := o.create(ctx, cli, res)
	if err != nil {
		return startError(err)
	}
	cl, err := cli.Client()
	if err != nil {
		return fail125(err, "run")
	}
	if o.signals != nil {
		// From here on signals are the container's, and end nothing by themselves.
		ctx = context.WithoutCancel(ctx)
		o.signals = forwardSignals(ctx, cli, id, cfg.Tty)
		defer o.signals.stop()
	}
	if !cfg.AttachStdout && !cfg.AttachStderr && !cfg.AttachStdin {
		return runDetached(ctx, cli, cl, id)
	}
	return o.runAttached(ctx, cli, cl, id, res)
}

func runDetached(ctx context.Context, cli *command.Cli, cl *client.Client, id string) error {
	_, err := cl.ContainerStart(ctx, id, client.ContainerStartOptions{})
	// The container is there even when it did not start.
	fmt.Fprintln(cli.Out, id)
	if err != nil {
		return startError(err)
	}
	return nil
}

func (o *runOptions) runAttached(ctx context.Context, cli *command.Cli, cl *client.Client, id string, res *run.Result) error {
	cfg := res.Config
	keys := cli.DetachKeys(o.detachKeys)
	att, err := cl.ContainerAttach(ctx, id, client.ContainerAttachOptions{
		Stream: true, Stdin: cfg.AttachStdin, Stdout: cfg.AttachStdout, Stderr: cfg.AttachStderr, DetachKeys: keys,
	})
	if err != nil {
		return err
	}
	defer att.Close()
	s := newStreamer(cli, att.HijackedResponse, cfg, keys)
	streamCtx, endStream := context.WithCancel(ctx)
	defer endStream()
	streamed := make(chan error, 1)
	go func() { streamed <- s.run(streamCtx) }()

	exit := waitExit(context.WithoutCancel(ctx), cli.Err, cl, id, waitCondition(res.Host.AutoRemove))
	if o.signals != nil {
		o.signals.await()
	}
	if _, err := cl.ContainerStart(ctx, id, client.ContainerStartOptions{}); err != nil {
		endStream()
		_ = <-streamed // the start's own error is the one to tell
		if res.Host.AutoRemove {
			<-exit
		}
		return startError(err)
	}
	if (cfg.AttachStdin || cfg.AttachStdout || cfg.AttachStderr) && cfg.Tty && cli.Out.IsTerminal() {
		resizer(streamCtx, cli, resizeContainer(cl, id))
	}
	if err := <-streamed; err != nil {
		if errors.Is(err, terminal.ErrDetached) {
			return nil
		}
		if ctx.Err() != nil || notWritten(err) {
			return err
		}
	}
	return exitStatus(<-exit)
}

func newStreamer(cli *command.Cli, h client.HijackedResponse, cfg *container.Config, keys string) *streamer {
	s := &streamer{cli: cli, conn: h, tty: cfg.Tty, keys: keys}
	if cfg.AttachStdin {
		s.in = cli.In
	}
	if cfg.AttachStdout {
		s.out = cli.Out
	}
	if cfg.AttachStderr {
		s.err = cli.Err
		if cfg.Tty {
			s.err = cli.Out
		}
	}
	return s
}

func waitCondition(autoRemove bool) container.WaitCondition {
	if autoRemove {
		return container.WaitConditionRemoved
	}
	return container.WaitConditionNextExit
}

// waitExit asks for the end of the container before it starts; the channel gets the exit
// code, 125 when the daemon could not tell it.
func waitExit(ctx context.Context, stderr io.Writer, cl *client.Client, id string, cond container.WaitCondition) <-chan int {
	ch := make(chan int, 1)
	// The first wait stands when this returns; the caller may start the container then.
	w := cl.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: cond})
	go func() {
		var err error
		for try := range waitTries {
			select {
			case r := <-w.Result:
				if r.Error != nil {
					fmt.Fprintln(stderr, "Error waiting for container:", r.Error.Message)
					ch <- 125
					return
				}
				ch <- int(r.StatusCode)
				return
			case err = <-w.Error:
			}
			if !lostConnection(err) || ctx.Err() != nil {
				break
			}
			// The daemon died under us; the container did not. What it missed meanwhile it
			// learns from its shim, so the same question gets its answer from the next one.
			if cond == container.WaitConditionNextExit {
				cond = container.WaitConditionNotRunning
			}
			time.Sleep(time.Duration(try) * waitPause)
			w = cl.ContainerWait(ctx, id, client.ContainerWaitOptions{Condition: cond})
		}
		fmt.Fprintln(stderr, "error waiting for container:", err)
		ch <- 125
	}()
	return ch
}

const (
	// waitTries bounds how often a wait is put again after the daemon went away.
	waitTries = 8
	// waitPause grows by itself with every try.
	waitPause = 200 * time.Millisecond
)

// lostConnection tells a connection that broke, or could not be made, from an answer
// of the daemon.
func lostConnection(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &op) || client.IsErrConnectionFailed(err)
}

func exitStatus(code int) error {
	if code == 0 {
		return nil
	}
	return command.ExitError{Code: code}
}
