// Package logfile writes a container's output as Docker's json-file log, byte for
// byte, with rotation. The shim is its only writer; `docker logs`, remote log
// drivers and log shippers are readers of the files.
package logfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
	"unicode/utf8"
)

// MaxLine is the longest line in bytes that stays whole; longer ones become
// several entries, of which only the last ends with a newline.
const MaxLine = 1 << 20

// keepBuffer is how much encoded text gathers before it is written, and the most
// that a pooled buffer keeps.
const keepBuffer = 256 << 10

// Stream is where output came from.
type Stream int

// The streams. A terminal's output is Stdout.
const (
	Stdout Stream = iota
	Stderr
)

func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Config of a log.
type Config struct {
	Path     string
	MaxSize  int64 // bytes; <= 0: never rotated
	MaxFiles int   // including the current one; < 1 is 1
	Compress bool  // gzip rotated files
	Attrs    json.RawMessage
	// Now is the clock; nil: time.Now.
	Now func() time.Time
	// Logf tells of files that cannot be written, once until it works again; nil: silent.
	Logf func(format string, a ...any)
}

// Writer writes one container's log. It is safe for concurrent use. Errors of the
// file never stop the container: they are told through Logf, and the lines are lost.
type Writer struct {
	cfg Config

	mu      sync.Mutex
	file    *os.File
	size    int64
	full    bool // to be rotated before the next line
	failing bool
	closed  bool
	partial [2][]byte
	packing chan struct{} // closed when the background compression ended; nil: none
}

// buffers hold encoded lines on their way to the file: a cache without meaning.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// Open opens or makes the log for appending. An unfinished last line, left by a
// crash of the machine, is ended first.
func Open(cfg Config) (*Writer, error) {
	cfg.MaxFiles = max(cfg.MaxFiles, 1)
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Logf == nil {
		cfg.Logf = func(string, ...any) {}
	}
	if len(cfg.Attrs) > 0 && !json.Valid(cfg.Attrs) {
		return nil, errors.New("log attributes are not JSON")
	}
	w := &Writer{cfg: cfg}
	if err := w.open(os.O_APPEND); err != nil {
		return nil, err
	}
	if w.size > 0 {
		var last [1]byte
		if _, err := w.file.ReadAt(last[:], w.size-1); err == nil && last[0] != '\n' {
			w.write([]byte{'\n'})
		}
	}
	return w, nil
}

func (w *Writer) open(flag int) error {
	f, err := os.OpenFile(w.cfg.Path, os.O_RDWR|os.O_CREATE|flag, 0o640)
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

// Write takes output as it comes: whole lines go to the file, in one write(2) as far
// as possible; the rest waits for its newline or Flush.
func (w *Writer) Write(s Stream, p []byte) {
	if len(p) == 0 {
		return
	}
	now := w.cfg.Now()
	bp := buffers.Get().(*[]byte)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	b := (*bp)[:0]
	for len(p) > 0 {
		n := bytes.IndexByte(p, '\n') + 1
		part := &w.partial[s]
		if n == 0 && len(*part)+len(p) < MaxLine {
			*part = append(*part, p...)
			break
		}
		split := n == 0 || len(*part)+n > MaxLine
		if split {
			n = min(len(p), MaxLine-len(*part))
		}
		line := p[:n]
		if len(*part) > 0 {
			*part = append(*part, line...)
			line = *part
		}
		var carry [utf8.UTFMax]byte
		kept := 0
		if split {
			kept = copy(carry[:], line[len(line)-cutRune(line):])
			line = line[:len(line)-kept]
		}
		b = w.line(b, line, s, now)
		if cap(*part) > 4<<10 {
			*part = nil
		}
		*part = append((*part)[:0], carry[:kept]...)
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

// line encodes one line behind b, and writes b when it is much or the file is full.
func (w *Writer) line(b, line []byte, s Stream, now time.Time) []byte {
	if w.full {
		w.write(b)
		b = b[:0]
		w.rotate()
	}
	b = AppendLine(b, line, s.String(), w.cfg.Attrs, now)
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
// reader never sees half a line.
func (w *Writer) write(b []byte) {
	if len(b) == 0 {
		return
	}
	if w.file == nil {
		if err := w.open(os.O_APPEND); err != nil {
			w.fail(err)
			return
		}
	}
	n, err := w.file.Write(b)
	if err != nil {
		if n > 0 && w.file.Truncate(w.size) != nil {
			w.size += int64(n)
		}
		w.fail(err)
		return
	}
	w.size += int64(n)
	if w.failing {
		w.failing = false
		w.cfg.Logf("log %s: written again", w.cfg.Path)
	}
}

func (w *Writer) fail(err error) {
	if !w.failing {
		w.failing = true
		w.cfg.Logf("log %s: output is lost: %v", w.cfg.Path, err)
	}
}

// Flush writes what waits of an unfinished line of s.
func (w *Writer) Flush(s Stream) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed || len(w.partial[s]) == 0 {
		return
	}
	w.write(w.line(nil, w.partial[s], s, w.cfg.Now()))
	w.partial[s] = nil
}

// Close flushes, and waits for a compression in the background.
func (w *Writer) Close() error {
	w.Flush(Stdout)
	w.Flush(Stderr)
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
