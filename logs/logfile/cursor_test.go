package logfile

import (
	"bytes"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/gantry/gantry/logs"
)

// lines is a format of plain lines.
type lines struct{}

func (lines) MaxLine() int                       { return 100 }
func (lines) Append(dst []byte, e *Entry) []byte { return append(dst, e.Line...) }
func (lines) Reset()                             {}
func (lines) Split(buf []byte, final bool) (gap, size int) {
	return 0, bytes.IndexByte(buf, '\n') + 1
}

func (lines) Decode(entry []byte, rec *logs.Record) error {
	*rec = logs.Record{Line: entry}
	return nil
}

func (lines) Tail(io.ReaderAt, int64, int) (start int64, found int, err error) { return 0, 0, nil }

func (lines) Mend(_ io.ReaderAt, size int64) (keep int64, fix []byte, err error) {
	return size, nil, nil
}

// failing is a file whose disk fails.
type failing struct{ n int }

func (f *failing) Read(p []byte) (int, error) {
	if f.n++; f.n > 1 {
		return 0, &os.PathError{Op: "read", Path: "log", Err: errors.New("input/output error")}
	}
	return copy(p, "line 0\n"), nil
}

func TestReadErrorIsTold(t *testing.T) {
	for name, src := range map[string]io.Reader{"plain file": &failing{}, "compressed file": tornReader{&failing{}}} {
		t.Run(name, func(t *testing.T) {
			c := &Cursor{in: input{src: src}, format: lines{}, cur: part{f: os.Stdin}}
			var pe *os.PathError
			if r, err := c.Next(t.Context()); err != nil || string(r.Line) != "line 0\n" {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := c.Next(t.Context()); !errors.As(err, &pe) {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}
