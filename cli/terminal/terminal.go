// Package terminal knows the terminal that a command runs on: whether a stream is one, raw
// mode and the way back from it, its size, and changes of the size.
package terminal

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"sync"

	"github.com/moby/term"
	"golang.org/x/sys/unix"
)

// In is the input stream of a command.
type In struct {
	r   io.ReadCloser
	fd  uintptr
	tty bool
}

// NewIn wraps r; whether it is a terminal is asked once, here.
func NewIn(r io.ReadCloser) *In {
	fd, tty := term.GetFdInfo(r)
	return &In{r: r, fd: fd, tty: tty}
}

// Read reads from the stream below.
func (i *In) Read(p []byte) (int, error) { return i.r.Read(p) }

// Close closes the stream below.
func (i *In) Close() error { return i.r.Close() }

// IsTerminal says whether the stream is a terminal.
func (i *In) IsTerminal() bool { return i.tty }

// CheckTTY refuses a terminal session on an input which is none.
func (i *In) CheckTTY(attachStdin, tty bool) error {
	if tty && attachStdin && !i.tty {
		return errors.New("the input device is not a TTY")
	}
	return nil
}

// SetRaw puts a terminal into raw mode and returns what undoes it, which may be called
// more than once and from any goroutine. On anything but a terminal it does nothing.
func (i *In) SetRaw() (restore func(), err error) {
	if !i.tty || os.Getenv("NORAW") != "" {
		return func() {}, nil
	}
	state, err := term.SetRawTerminal(i.fd)
	if err != nil {
		return func() {}, err
	}
	var once sync.Once
	return func() { once.Do(func() { _ = term.RestoreTerminal(i.fd, state) }) }, nil
}

// Out is an output stream of a command.
type Out struct {
	w   io.Writer
	fd  uintptr
	tty bool
}

// NewOut wraps w; whether it is a terminal is asked once, here.
func NewOut(w io.Writer) *Out {
	fd, tty := term.GetFdInfo(w)
	return &Out{w: w, fd: fd, tty: tty}
}

// Write writes to the stream below.
func (o *Out) Write(p []byte) (int, error) { return o.w.Write(p) }

// IsTerminal says whether the stream is a terminal.
func (o *Out) IsTerminal() bool { return o.tty }

// FD is the descriptor of the terminal; meaningless when the stream is none.
func (o *Out) FD() uintptr { return o.fd }

// Size is height and width in cells, 0, 0 when the stream is no terminal.
func (o *Out) Size() (height, width uint) {
	if !o.tty {
		return 0, 0
	}
	ws, err := term.GetWinsize(o.fd)
	if err != nil || ws == nil {
		return 0, 0
	}
	return uint(ws.Height), uint(ws.Width)
}

// StdinWidth is the width help texts are wrapped to: that of the terminal on standard
// input, else 80.
func StdinWidth() int {
	if ws, err := term.GetWinsize(0); err == nil && ws.Width > 0 {
		return int(ws.Width)
	}
	return 80
}

// WatchSize calls changed for each SIGWINCH until ctx ends. It returns at once.
func WatchSize(ctx context.Context, changed func()) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGWINCH)
	go func() {
		defer signal.Stop(ch)
		for {
			select {
			case <-ctx.Done():
				return
			case <-ch:
				changed()
			}
		}
	}()
}

// ParseDetachKeys turns the text form of --detach-keys ("ctrl-p,ctrl-q") into the bytes
// to wait for.
func ParseDetachKeys(keys string) ([]byte, error) {
	if keys == "" {
		return []byte{16, 17}, nil
	}
	return term.ToBytes(keys)
}

// ErrDetached is what a reader of NewEscapeReader answers when the keys were typed. Its
// text is printed by attach and exec.
var ErrDetached = errors.New("read escape sequence")

type escapeReader struct{ r io.Reader }

func (e escapeReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if _, ok := err.(term.EscapeError); ok { //nolint:errorlint // the proxy returns it bare
		return n, ErrDetached
	}
	return n, err
}

// NewEscapeReader reads from r and ends with ErrDetached where keys appear.
func NewEscapeReader(r io.Reader, keys []byte) io.Reader {
	return escapeReader{term.NewEscapeProxy(r, keys)}
}

// Stream is the writer below, for libraries that look for a terminal themselves.
func (o *Out) Stream() io.Writer { return o.w }

// NoEcho hides what is typed until restore is called.
func (i *In) NoEcho() (restore func(), err error) {
	if !i.tty {
		return func() {}, nil
	}
	state, err := term.SaveState(i.fd)
	if err != nil {
		return func() {}, err
	}
	if err := term.DisableEcho(i.fd, state); err != nil {
		return func() {}, err
	}
	return func() { _ = term.RestoreTerminal(i.fd, state) }, nil
}
