package container

import (
	"context"
	"os"
	"os/signal"

	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// forwarding sends the signals that this process gets to a container.
type forwarding struct {
	ch    chan os.Signal
	ready chan struct{} // closed when all signals are the container's
	done  chan struct{}
}

// forwardSignals sends every signal this process gets to the container. It returns at once, and SIGINT and SIGTERM
// do not end this process any more; the other signals follow when await returns. With a terminal, changes of its size
// are sent as such instead.
func forwardSignals(ctx context.Context, cl *client.Client, id string, tty bool) *forwarding {
	f := &forwarding{ch: make(chan os.Signal, 128), ready: make(chan struct{}), done: make(chan struct{})}
	signal.Notify(f.ch, unix.SIGINT, unix.SIGTERM)
	go func() {
		// Go's runtime takes every signal by a round trip through a thread of its own, tens of microseconds
		// each: they are spent while the engine works.
		signal.Notify(f.ch, caught()...)
		close(f.ready)
	}()
	go func() {
		for {
			select {
			case <-f.done:
				return
			case <-ctx.Done():
				return
			case s := <-f.ch:
				name, ok := proxied(s)
				if !ok || (tty && s == unix.SIGWINCH) {
					continue
				}
				// A container that is gone takes no signals; nothing to say about it.
				_, _ = cl.ContainerKill(ctx, id, client.ContainerKillOptions{Signal: name})
			}
		}
	}()
	return f
}

// await returns when all signals are the container's: before it starts.
func (f *forwarding) await() { <-f.ready }

// stop ends it. Giving the signals back takes as long as taking them, and the command is about to end: nobody waits
// for that.
func (f *forwarding) stop() {
	close(f.done)
	go func() {
		<-f.ready
		signal.Stop(f.ch)
	}()
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
