package container

import (
	"context"
	"os"
	"os/signal"

	"github.com/gantry/gantry/cli/command"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// caughtSignals are the signals of this process that a container gets in its place.
type caughtSignals struct {
	ch    chan os.Signal
	ready chan struct{} // closed when all are caught
	done  chan struct{}
	early []os.Signal // what came before there was a container
}

// catchSignals begins to keep the signals that this process gets. It returns at once, and SIGINT and SIGTERM are kept
// by then; the others are when await returns.
func catchSignals() *caughtSignals {
	c := &caughtSignals{ch: make(chan os.Signal, 128), ready: make(chan struct{}), done: make(chan struct{})}
	signal.Notify(c.ch, unix.SIGINT, unix.SIGTERM)
	go func() {
		// Go's runtime takes every signal by a round trip through a thread of its own, tens of microseconds
		// each: they are spent beside other work.
		signal.Notify(c.ch, caught()...)
		close(c.ready)
	}()
	return c
}

// await returns when all signals are caught: before the container starts.
func (c *caughtSignals) await() { <-c.ready }

// waiting keeps the signals while a container is made; those that end a process by themselves call giveUp. The
// function it returns ends that, and is called before forward and giveBack.
func (c *caughtSignals) waiting(giveUp func()) (end func()) {
	made, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-made:
				return
			case s := <-c.ch:
				c.early = append(c.early, s)
				if s == unix.SIGHUP || s == unix.SIGQUIT {
					giveUp()
				}
			}
		}
	}()
	return func() {
		close(made)
		<-ended
	}
}

// forward sends what was caught, and what comes, by kill. It returns at once. With a terminal, changes of its size are
// sent as such instead.
func (c *caughtSignals) forward(ctx context.Context, kill func(context.Context, string), tty bool) {
	pass := func(s os.Signal) {
		if name, ok := proxied(s); ok && (!tty || s != unix.SIGWINCH) {
			kill(ctx, name)
		}
	}
	go func() {
		for _, s := range c.early {
			pass(s)
		}
		for {
			select {
			case <-c.done:
				return
			case <-ctx.Done():
				return
			case s := <-c.ch:
				pass(s)
			}
		}
	}()
}

// stop ends it. The signals stay caught: giving them back takes as long as taking them, and the command is at its end.
func (c *caughtSignals) stop() { close(c.done) }

// giveBack makes the signals what they were, also those that came meanwhile: there is no container. SIGINT and SIGTERM
// have ended the command's context already.
func (c *caughtSignals) giveBack() {
	<-c.ready
	signal.Stop(c.ch)
	for {
		select {
		case s := <-c.ch:
			c.early = append(c.early, s)
			continue
		default:
		}
		break
	}
	for _, s := range c.early {
		if sig, ok := s.(unix.Signal); ok && sig != unix.SIGINT && sig != unix.SIGTERM && sig != unix.SIGPIPE {
			_ = unix.Kill(unix.Getpid(), sig)
		}
	}
}

// forwardSignals sends every signal this process gets to the container from now on. The caller stops it.
func forwardSignals(ctx context.Context, cli *command.Cli, id string, tty bool) *caughtSignals {
	c := catchSignals()
	c.forward(ctx, killer(cli, id), tty)
	return c
}

// killer sends signals to a container. One that is gone takes none; there is nothing to say about it.
func killer(cli *command.Cli, id string) func(context.Context, string) {
	return func(ctx context.Context, name string) {
		if cl, err := cli.Client(); err == nil {
			_, _ = cl.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: name})
		}
	}
}

// caught are the signals to ask for: those that are passed on, and SIGPIPE, so that a closed pipe is an error of
// writing and not the end of this process. Real-time signals are not passed on; Go ignores them.
func caught() []os.Signal {
	list := []os.Signal{unix.SIGPIPE}
	for sig := unix.Signal(1); sig < 32; sig++ {
		if _, ok := proxied(sig); ok && sig != unix.SIGKILL && sig != unix.SIGSTOP {
			list = append(list, sig)
		}
	}
	return list
}

// proxied names the signals that are passed on: not those about this process only
// (children, broken pipes, the scheduler's SIGURG, the size of its terminal).
func proxied(s os.Signal) (string, bool) {
	sig, ok := s.(unix.Signal)
	if !ok {
		return "", false
	}
	switch sig {
	case unix.SIGCHLD, unix.SIGPIPE, unix.SIGURG:
		return "", false
	}
	name := unix.SignalName(sig)
	if len(name) < 4 {
		return "", false
	}
	return name[3:], true
}
