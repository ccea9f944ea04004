package container

import (
	"context"
	"os"
	"os/signal"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// forwardSignals sends every signal this process gets to the container. It returns at
// once; stop ends it. With a terminal, changes of its size are sent as such instead.
func forwardSignals(ctx context.Context, cl *client.Client, id string, tty bool) (stop func()) {
	ch := make(chan os.Signal, 128)
	signal.Notify(ch)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-ctx.Done():
				return
			case s := <-ch:
				name, ok := proxied(s)
				if !ok || (tty && s == unix.SIGWINCH) {
					continue
				}
				// A container that is gone takes no signals; nothing to say about it.
				_, _ = cl.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: name})
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(done)
	}
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
