package terminal_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/gantry/gantry/cli/clitest"
	"github.com/gantry/gantry/cli/terminal"
	"golang.org/x/sys/unix"
)

func TestNoTerminal(t *testing.T) {
	var b bytes.Buffer
	in, out := terminal.NewIn(io.NopCloser(strings.NewReader("x"))), terminal.NewOut(&b)
	if in.IsTerminal() || out.IsTerminal() {
		t.Error("buffers are terminals")
	}
	if h, w := out.Size(); h != 0 || w != 0 {
		t.Errorf("size %d × %d", h, w)
	}
	for _, f := range []func() (func(), error){in.SetRaw, in.NoEcho} {
		restore, err := f()
		if err != nil {
			t.Fatal(err)
		}
		restore()
	}
	if _, err := out.Write([]byte("y")); err != nil || b.String() != "y" || out.Stream() != io.Writer(&b) {
		t.Error(b.String(), err)
	}
}

func TestCheckTTY(t *testing.T) {
	_, slave := clitest.PTY(t)
	for _, c := range []struct {
		name               string
		in                 io.ReadCloser
		attachStdin, asTTY bool
		want               string
	}{
		{"a terminal", slave, true, true, ""},
		{"a pipe with a terminal asked for", io.NopCloser(strings.NewReader("")), true, true, "the input device is not a TTY"},
		{"a pipe that is not sent", io.NopCloser(strings.NewReader("")), false, true, ""},
		{"a pipe without a terminal", io.NopCloser(strings.NewReader("")), true, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := terminal.NewIn(c.in).CheckTTY(c.attachStdin, c.asTTY)
			if got := errText(err); got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func lflag(t *testing.T, f *os.File) uint32 {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return s.Lflag
}

// The mode of a terminal comes back whatever happens in between, and however often it is
// asked to.
func TestModes(t *testing.T) {
	for _, c := range []struct {
		name  string
		set   func(*terminal.In) (func(), error)
		gone  uint32 // flags that are off meanwhile
		stays uint32
		noRaw string
	}{
		{name: "raw", set: (*terminal.In).SetRaw, gone: unix.ECHO | unix.ICANON | unix.ISIG},
		{name: "no echo", set: (*terminal.In).NoEcho, gone: unix.ECHO, stays: unix.ICANON},
		{name: "NORAW", set: (*terminal.In).SetRaw, stays: unix.ECHO | unix.ICANON | unix.ISIG, noRaw: "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Setenv("NORAW", c.noRaw)
			_, slave := clitest.PTY(t)
			in := terminal.NewIn(slave)
			if !in.IsTerminal() {
				t.Fatal("no terminal")
			}
			before := lflag(t, slave)
			restore, err := c.set(in)
			if err != nil {
				t.Fatal(err)
			}
			if got := lflag(t, slave); got&c.gone != 0 || got&c.stays != c.stays {
				t.Errorf("flags %#x of %#x", got, before)
			}
			restore()
			restore()
			if got := lflag(t, slave); got != before {
				t.Errorf("flags %#x afterwards, were %#x", got, before)
			}
		})
	}
}

func TestSize(t *testing.T) {
	master, slave := clitest.PTY(t)
	out := terminal.NewOut(slave)
	if h, w := out.Size(); h != 24 || w != 80 {
		t.Errorf("size %d × %d", h, w)
	}
	if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 30, Col: 100}); err != nil {
		t.Fatal(err)
	}
	if h, w := out.Size(); h != 30 || w != 100 {
		t.Errorf("size %d × %d", h, w)
	}
	if out.FD() != slave.Fd() {
		t.Error("another descriptor")
	}
}

func TestWatchSize(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	changed := make(chan struct{}, 8)
	terminal.WatchSize(ctx, func() { changed <- struct{}{} })
	if err := unix.Kill(os.Getpid(), unix.SIGWINCH); err != nil {
		t.Fatal(err)
	}
	select {
	case <-changed:
	case <-time.After(10 * time.Second):
		t.Fatal("no news of a change")
	}
}

func TestParseDetachKeys(t *testing.T) {
	for _, c := range []struct {
		keys, err string
		want      []byte
	}{
		{"", "", []byte{16, 17}},
		{"ctrl-p,ctrl-q", "", []byte{16, 17}},
		{"a,ctrl-a,ctrl-@,ctrl-_", "", []byte{'a', 1, 0, 31}},
		{"ctrl-\\", "", []byte{28}},
		{"DEL", "", []byte{127}},
		{"ab", "Unknown character: 'ab'", nil},
		{"ctrl-ab", "Unknown character: 'ctrl-ab'", nil},
	} {
		t.Run(c.keys, func(t *testing.T) {
			got, err := terminal.ParseDetachKeys(c.keys)
			if errText(err) != c.err || !bytes.Equal(got, c.want) {
				t.Errorf("%v, %v; want %v, %q", got, err, c.want, c.err)
			}
		})
	}
}

// What is in front of the keys goes through; half of them followed by something else does
// too; the keys themselves do not.
func TestEscapeReader(t *testing.T) {
	for _, c := range []struct {
		name, in, out string
		err           error
	}{
		{"none", "abc", "abc", nil},
		{"at the end", "abc\x10\x11", "abc", terminal.ErrDetached},
		{"alone", "\x10\x11", "", terminal.ErrDetached},
		{"in the middle", "a\x10\x11b", "a", terminal.ErrDetached},
		{"half", "a\x10b", "a\x10b", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := io.ReadAll(terminal.NewEscapeReader(iotest.OneByteReader(strings.NewReader(c.in)), []byte{0x10, 0x11}))
			if string(out) != c.out || !errors.Is(err, c.err) {
				t.Errorf("%q, %v; want %q, %v", out, err, c.out, c.err)
			}
		})
	}
}
