package logfile

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/gantry/gantry/logs"
)

// keepBuffer is how much encoded text gathers before it is written, and the most
// that a pooled buffer keeps.
const keepBuffer = 256 << 10

// Writer writes one container's log. It is a logs.Writer.
type Writer struct {
	cfg    logs.Config
	format Format
	logf   func(format string, a ...any)

	mu      sync.Mutex
	file    *os.File
	size    int64
	full    bool // to be rotated before the next line
	failing bool
	closed  bool
	partial [2]partial
	entry   Entry         // scratch
	packing chan struct{} // closed when the background compression ended; nil: none
}

// partial is an unfinished line of one stream.
type partial struct {
	buf []byte
	id  string // of a line of which parts are in the file already
	n   int    // how many
}

// buffers hold encoded lines on their way to the file: a cache without meaning.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// OpenWriter opens or makes the log for appending, in a directory that is there. An unfinished
// last record, left by a crash of the machine, is ended first.
func OpenWriter(c *logs.Config, format Format, logf func(string, ...any)) (*Writer, error) {
	w := &Writer{cfg: *c, format: format, logf: logf}
	w.cfg.MaxFiles = max(c.MaxFiles, 1)
	if err := w.open(); err != nil {
		return nil, err
	}
	if w.size > 0 {
		if err := w.mend(); err != nil {
			w.file.Close()
			return nil, fmt.Errorf("open log: %w", err)
		}
	}
	return w, nil
}

func (w *Writer) mend() error {
	keep, fix, err := w.format.Mend(w.file, w.size)
	if err != nil {
		return err
	}
	if keep < w.size {
		if err := w.file.Truncate(keep); err != nil {
			return err
		}
		w.size = keep
	}
	w.write(fix)
	return nil
}

func (w *Writer) open() error {
	f, err := os.OpenFile(w.cfg.Path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		f.Close()
		return fmt.Errorf("open log: %w", err)
	}
	w.file, w.size = f, st.Size()
	w.full = w.cfg.MaxSize > 0 && w.size >= w.cfg.MaxSize
	return nil
}

// Write implements logs.Writer: whole lines go to the file, in one write(2) as far as possible.
func (w *Writer) Write(s logs.Stream, p []byte, at time.Time) {
	if len(p) == 0 {
		return
	}
	bp := buffers.Get().(*[]byte)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	b, limit := (*bp)[:0], w.format.MaxLine()
	part := &w.partial[s]
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		if n == 0 && len(part.buf)+len(p) < limit {
			part.buf = append(part.buf, p...)
			break
		}
		split := n == 0 || len(part.buf)+n > limit
		if split {
			n = min(len(p), limit-len(part.buf))
		}
		line := p[:n]
		if len(part.buf) > 0 {
			part.buf = append(part.buf, line...)
			line = part.buf
		}
		var carry [utf8.UTFMax]byte
		kept := 0
		if split {
			kept = copy(carry[:], line[len(line)-cutRune(line):])
			line = line[:len(line)-kept]
		}
		b = w.line(b, line, s, at, split)
		if cap(part.buf) > 4<<10 {
			part.buf = nil
		}
		part.buf = append(part.buf[:0], carry[:kept]...)
		p = p[n:]
	}
	w.write(b)
	if cap(b) <= keepBuffer {
		*bp = b
		buffers.Put(bp)
	}
}

// cutRune is how many bytes at b's end begin a character that goes on behind it.
func cutRune(b []byte) int {
	for n := 1; n < utf8.UTFMax && n < len(b); n++ {
		if c := b[len(b)-n]; utf8.RuneStart(c) {
			if c >= utf8.RuneSelf && !utf8.FullRune(b[len(b)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}

// lineID tells the parts of one line from those of others in the same file; nobody has to be
// unable to guess it.
func lineID() string {
	var b []byte
	for range 4 {
		b = binary.BigEndian.AppendUint64(b, rand.Uint64())
	}
	return hex.EncodeToString(b)
}

// line encodes one line, or with more a part of one, behind b, and writes b when it is much or
// the file is full.
func (w *Writer) line(b, line []byte, s logs.Stream, at time.Time, more bool) []byte {
	if w.full {
		w.write(b)
		b = b[:0]
		w.rotate()
	}
	w.entry = Entry{Line: line, Stream: s, Time: at}
	if part := &w.partial[s]; more || part.id != "" {
		if part.id == "" {
			part.id = lineID()
		}
		part.n++
		w.entry.ID, w.entry.Ordinal, w.entry.Last = part.id, part.n, !more
		if !more {
			part.id, part.n = "", 0
		}
	}
	b = w.format.Append(b, &w.entry)
	if w.cfg.MaxSize > 0 && w.size+int64(len(b)) >= w.cfg.MaxSize {
		w.full = true
	}
	if len(b) >= keepBuffer/2 {
		w.write(b)
		b = b[:0]
	}
	return b
}

// write appends b to the file or, when that fails, leaves the file as it was: a
// reader never sees half a record.
func (w *Writer) write(b []byte) {
	if len(b) == 0 {
		return
	}
	if w.file == nil {
		if err := w.open(); err != nil {
			w.fail(err)
			return
		}
	}
	n, err := w.file.Write(b)
	if err != nil {
		if n > 0 {
			w.takeBack(int64(n))
		}
		w.fail(err)
		return
	}
	w.size += int64(n)
	if w.failing {
		w.failing = false
		w.logf("log %s: written again", w.cfg.Path)
	}
}

// takeBack removes the last n bytes of the file. Its size is asked for: somebody may have
// truncated it, and setting the size we know of would fill it with zeros.
func (w *Writer) takeBack(n int64) {
	st, err := w.file.Stat()
	if err == nil && st.Size() >= n {
		err = w.file.Truncate(st.Size() - n)
	}
	if err != nil {
		w.size += n
	}
}

func (w *Writer) fail(err error) {
	if !w.failing {
		w.failing = true
		w.logf("log %s: output is lost: %v", w.cfg.Path, err)
	}
}

// Flush implements logs.Writer.
func (w *Writer) Flush(s logs.Stream, at time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if part := &w.partial[s]; !w.closed && len(part.buf) > 0 {
		w.write(w.line(nil, part.buf, s, at, true))
		*part = partial{}
	}
}

// Close implements logs.Writer.
func (w *Writer) Close() error {
	w.Flush(logs.Stdout, time.Now())
	w.Flush(logs.Stderr, time.Now())
	w.mu.Lock()
	if w.closed {
		w.mu.Unlock()
		return nil
	}
	w.closed = true
	packing := w.packing
	var err error
	if w.file != nil {
		err = w.file.Close()
		w.file = nil
	}
	w.mu.Unlock()
	if packing != nil {
		<-packing
	}
	return err
}
