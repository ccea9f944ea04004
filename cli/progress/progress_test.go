package progress_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/gantry/gantry/cli/clitest"
	"github.com/gantry/gantry/cli/progress"
	"github.com/gantry/gantry/cli/terminal"
	"github.com/moby/moby/api/types/jsonstream"
)

const pull = `{"status":"Pulling from library/a","id":"latest"}
{"status":"Pulling fs layer","progressDetail":{},"id":"aaaa"}
{"status":"Downloading","progressDetail":{"current":100,"total":1000},"id":"aaaa"}
{"status":"Pull complete","progressDetail":{},"id":"aaaa"}
{"stream":"Loaded image: a\n"}
{"aux":{"ID":"sha256:1"}}
{"status":"Status: Downloaded newer image for a:latest"}
`

// Streams of messages: what is shown where there is no terminal, and the error at the end.
func TestStream(t *testing.T) {
	const shown = "latest: Pulling from library/a\naaaa: Pulling fs layer\naaaa: Pull complete\nLoaded image: a\n"
	for _, c := range []struct{ name, in, out, err string }{
		{"pull", pull, shown + "Status: Downloaded newer image for a:latest\n", ""},
		{"nothing", "", "", ""},
		{"an error", `{"status":"x"}` + "\n" + `{"errorDetail":{"message":"it broke"},"error":"it broke"}` + "\n" + `{"status":"not shown"}`, "x\n", "it broke"},
		{"cut off", `{"status":"x"}` + "\n" + `{"status":`, "x\n", "reading progress: unexpected EOF"},
		{"not JSON", "<html>", "", "reading progress: invalid character '<' looking for beginning of value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			err := progress.Display(context.Background(), strings.NewReader(c.in), terminal.NewOut(&out), nil)
			if got := errText(err); got != c.err {
				t.Errorf("error %q, want %q", got, c.err)
			}
			if out.String() != c.out {
				t.Errorf("showed %q, want %q", out.String(), c.out)
			}
			if got := errText(progress.Drain(strings.NewReader(c.in))); got != c.err {
				t.Errorf("Drain: error %q, want %q", got, c.err)
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

func TestAux(t *testing.T) {
	var got []string
	err := progress.Display(context.Background(), strings.NewReader(pull), terminal.NewOut(io.Discard), func(m jsonstream.Message) {
		got = append(got, string(*m.Aux))
	})
	if err != nil || len(got) != 1 || got[0] != `{"ID":"sha256:1"}` {
		t.Errorf("%q, %v", got, err)
	}
}

// A stream that the user ended is the user's doing, not an error of the daemon's.
func TestCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := progress.Display(ctx, io.MultiReader(strings.NewReader(`{"status":"x"}`), failing{}), terminal.NewOut(io.Discard), nil)
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, errors.New("use of closed network connection") }

// On a terminal a layer's line is drawn again in its place.
func TestTerminal(t *testing.T) {
	master, slave := clitest.PTY(t)
	if err := progress.Display(context.Background(), strings.NewReader(pull), terminal.NewOut(slave), nil); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	seen, _ := io.ReadAll(master) // a terminal without its other end answers EIO
	for _, want := range []string{"\x1b[1A", "\x1b[1B", "100B/1kB", "aaaa: Pull complete"} {
		if !strings.Contains(string(seen), want) {
			t.Errorf("%q is missing in %q", want, seen)
		}
	}
}
