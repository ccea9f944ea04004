package container

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/gantry/gantry/cli/command"
	"github.com/gantry/gantry/cli/terminal"
	"github.com/moby/moby/api/pkg/stdcopy"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// streamer copies between the terminal and a hijacked connection.
type streamer struct {
	cli  *command.Cli
	in   io.Reader // nil: nothing is sent
	out  io.Writer // nil: output is thrown away
	err  io.Writer
	conn client.HijackedResponse
	tty  bool
	keys string
}

// run copies until the output ends, or the user typed the detach keys: then the error is
// terminal.ErrDetached. The terminal is in raw mode meanwhile.
func (s *streamer) run(ctx context.Context) error {
	restore := func() {}
	in := s.in
	if in != nil && s.tty {
		r, err := s.cli.In.SetRaw()
		if err != nil {
			return errors.New("unable to set IO streams as raw terminal: " + err.Error())
		}
		restore = r
		keys, err := terminal.ParseDetachKeys(s.keys)
		if err != nil {
			keys = []byte{16, 17}
			_, _ = io.WriteString(s.cli.Err, "invalid escape keys: "+err.Error()+"\n")
		}
		in = terminal.NewEscapeReader(in, keys)
	}
	defer restore()

	outDone := s.output(restore)
	inDone, detached := s.input(restore, in)
	select {
	case err := <-outDone:
		return err
	case <-inDone:
		// The input ended; what the other side still prints is waited for.
		if s.out != nil || s.err != nil {
			select {
			case err := <-outDone:
				return err
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	case err := <-detached:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *streamer) output(restore func()) <-chan error {
	done := make(chan error, 1)
	if s.out == nil && s.err == nil {
		return done
	}
	go func() {
		var err error
		if s.tty && s.out != nil {
			_, err = io.Copy(s.out, s.conn.Reader)
			restore()
		} else {
			_, err = stdcopy.StdCopy(orDiscard(s.out), orDiscard(s.err), s.conn.Reader)
		}
		if errors.Is(err, unix.ECONNRESET) {
			// The other side ended without reading all we sent: an end like any other. How
			// it came about the exit code tells.
			err = nil
		}
		done <- err
	}()
	return done
}

// notWritten tells that nobody takes our own output any more (`docker run ... | head -1`, a full disk). As with Docker's
// client that ends the command; of the container it says nothing. Other errors of streams are the connection's, and the
// container's exit code is still to come.
func notWritten(err error) bool {
	var p *fs.PathError
	return errors.As(err, &p)
}

func orDiscard(w io.Writer) io.Writer {
	if w == nil {
		return io.Discard
	}
	return w
}

func (s *streamer) input(restore func(), in io.Reader) (done <-chan struct{}, detached <-chan error) {
	d, det := make(chan struct{}), make(chan error, 1)
	go func() {
		if in != nil {
			_, err := io.Copy(s.conn.Conn, in)
			restore()
			if errors.Is(err, terminal.ErrDetached) {
				det <- err
				return
			}
		}
		_ = s.conn.CloseWrite()
		close(d)
	}()
	return d, det
}

// resizer sends the terminal's size now and after each change. A container that has not
// started yet answers the first with an error: it is tried again for a moment.
func resizer(ctx context.Context, cli *command.Cli, send func(context.Context, client.ContainerResizeOptions) error) {
	var mu sync.Mutex // the size is read and sent in one: the last request has the last size
	resize := func() error {
		mu.Lock()
		defer mu.Unlock()
		h, w := cli.Out.Size()
		if h == 0 && w == 0 {
			return nil
		}
		return send(ctx, client.ContainerResizeOptions{Height: h, Width: w})
	}
	// Before the first is read: a change in between would be missed.
	terminal.WatchSize(ctx, func() { _ = resize() })
	if err := resize(); err != nil {
		go func() {
			for i := range 10 {
				t := time.NewTimer(time.Duration(i+1) * 10 * time.Millisecond)
				select {
				case <-ctx.Done():
					t.Stop()
					return
				case <-t.C:
				}
				if resize() == nil {
					return
				}
			}
			_, _ = io.WriteString(cli.Err, "failed to resize tty, using default size\n")
		}()
	}
}

func resizeContainer(cl *client.Client, id string) func(context.Context, client.ContainerResizeOptions) error {
	return func(ctx context.Context, o client.ContainerResizeOptions) error {
		_, err := cl.ContainerResize(ctx, id, o)
		return err
	}
}
