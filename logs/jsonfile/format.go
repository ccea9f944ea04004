package jsonfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"time"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/logfile"
)

// maxEntry bounds one line of a file in bytes: a line of output with every byte escaped
// (\u00XX), and its attributes. Longer ones are passed over.
const maxEntry = 6*logs.MaxLine + 1<<20

// format is one JSON object a line.
type format struct {
	attrs json.RawMessage

	// The end of the entry before: all lines of one Write have the same.
	tail   []byte
	stream logs.Stream
	at     time.Time

	dec     decoder
	scanned int  // bytes of an unfinished line that hold no newline
	over    bool // inside a line that is too long
}

// MaxLine implements logfile.Format.
func (*format) MaxLine() int { return logs.MaxLine }

// Append implements logfile.Format.
func (f *format) Append(dst []byte, e *logfile.Entry) []byte {
	if len(f.tail) == 0 || f.stream != e.Stream || f.at != e.Time {
		f.tail = appendTail(f.tail[:0], e.Stream.String(), f.attrs, e.Time)
		f.stream, f.at = e.Stream, e.Time
	}
	dst = append(dst, head...)
	dst = appendText(dst, e.Line)
	return append(dst, f.tail...)
}

// Split implements logfile.Format. Zeros before a line are what a truncated file or a crash of
// the machine leaves.
func (f *format) Split(buf []byte, final bool) (gap, size int) {
	if f.over {
		i := bytes.IndexByte(buf, '\n')
		if i < 0 {
			return len(buf), 0
		}
		f.over, gap = false, i+1
	}
	for gap < len(buf) && buf[gap] == 0 {
		gap++
	}
	line := buf[gap:]
	i := bytes.IndexByte(line[min(f.scanned, len(line)):], '\n')
	switch {
	case i >= 0:
		size = min(f.scanned, len(line)) + i + 1
		f.scanned = 0
	case final:
		f.scanned, size = 0, len(line) // it counts if it is whole
	case len(line) > maxEntry:
		f.scanned, f.over, gap = 0, true, len(buf)
	default:
		f.scanned = len(line)
	}
	return gap, size
}

// Reset implements logfile.Format.
func (f *format) Reset() { f.scanned, f.over = 0, false }

// Decode implements logfile.Format.
func (f *format) Decode(entry []byte, rec *logs.Record) error {
	line := bytes.TrimSuffix(entry, []byte{'\n'})
	if len(line) == 0 || len(line) > maxEntry {
		return errFormat
	}
	return f.dec.decode(line, rec)
}

// Tail implements logfile.Format: it counts lines from the end.
func (*format) Tail(f io.ReaderAt, end int64, n int) (start int64, found int, err error) {
	buf := make([]byte, 64<<10)
	for pos := end; pos > 0; {
		size := min(pos, int64(len(buf)))
		pos -= size
		b := buf[:size]
		if _, err := f.ReadAt(b, pos); err != nil && !errors.Is(err, io.EOF) {
			return 0, 0, err
		}
		if pos+size == end { // the last newline ends the last line, it starts none
			if b = bytes.TrimSuffix(b, []byte{'\n'}); len(b) == 0 && size == 1 {
				continue
			}
		}
		for i := bytes.LastIndexByte(b, '\n'); i >= 0; i = bytes.LastIndexByte(b, '\n') {
			if found++; found == n {
				return pos + int64(i) + 1, n, nil
			}
			b = b[:i]
		}
	}
	if end > 0 {
		found++ // the first line has no newline before it
	}
	return 0, found, nil
}

// Mend implements logfile.Format: an unfinished line is ended.
func (*format) Mend(f io.ReaderAt, size int64) (keep int64, fix []byte, err error) {
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil || last[0] == '\n' {
		return size, nil, nil //nolint:nilerr // what cannot be read is left as it is
	}
	return size, []byte{'\n'}, nil
}
