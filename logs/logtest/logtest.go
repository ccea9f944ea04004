// Package logtest is the suite that every log driver passes.
package logtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/logs"
)

// dayZero is when the first record of a test is written; each further one is a second later.
func dayZero() time.Time { return time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC) }

// Run holds a driver to the seam. factory makes one; it is called once for each test.
func Run(t *testing.T, factory func(t *testing.T) logs.Driver) {
	t.Run("description", func(t *testing.T) { description(t, factory(t)) })
	if factory(t).Describe().Discards {
		t.Run("discards", func(t *testing.T) { discards(t, factory(t)) })
		return
	}
	for _, test := range []struct {
		name string
		run  func(*fixture)
	}{
		{"nothing is there", nothing},
		{"order, streams, times and attributes", order},
		{"lines in pieces", pieces},
		{"long lines", longLines},
		{"zeros in a line", zerosInLine},
		{"zeros before a record", zerosBeforeRecord},
		{"a torn last record", torn},
		{"rotation keeps the newest", rotation},
		{"tail", tail},
		{"since and until", sinceUntil},
		{"rotation under a reader", rotationUnderReader},
		{"follow over rotation", followRotation},
		{"follow with one file", followOneFile},
		{"a slow follower", slowFollower},
		{"follow over truncate", followTruncate},
		{"follow what is not there yet", followEarly},
		{"until ends a follower", followUntil},
		{"many readers", manyReaders},
		{"bounded memory", boundedMemory},
		{"close", closing},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(newFixture(t, factory(t))) })
	}
}

func description(t *testing.T, d logs.Driver) {
	desc := d.Describe()
	if desc.Name == "" || !slices.IsSorted(desc.Options) || slices.Contains(desc.Options, "mode") || slices.Contains(desc.Options, "max-buffer-size") {
		t.Errorf("%+v", desc)
	}
	p := logs.Place{Dir: t.TempDir(), ID: "c0ffee"}
	if desc.Discards {
		return
	}
	if !strings.HasPrefix(d.Path(p), p.Dir+"/") {
		t.Errorf("path %q is not below %q", d.Path(p), p.Dir)
	}
	c, err := d.Configure(p, nil)
	if err != nil || c == nil || c.MaxSize <= 0 || c.MaxFiles < 1 {
		t.Errorf("without options: %+v %v", c, err)
	}
	if _, err := d.Configure(p, map[string]string{"no-such-option": "x"}); !errdefs.IsInvalidArgument(err) || !strings.Contains(err.Error(), "unknown log opt 'no-such-option'") {
		t.Errorf("unknown option: %v", err)
	}
	if entries, err := os.ReadDir(p.Dir); err != nil || len(entries) > 0 {
		t.Errorf("Configure made %v, %v", entries, err)
	}
}

func discards(t *testing.T, d logs.Driver) {
	p := logs.Place{Dir: t.TempDir(), ID: "c0ffee"}
	if c, err := d.Configure(p, map[string]string{"any": "thing"}); c != nil || err != nil || d.Path(p) != "" {
		t.Errorf("%+v %v %q", c, err, d.Path(p))
	}
	if _, err := d.OpenCursor(p, logs.Query{Tail: -1}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("reading: %v", err)
	}
}

// fixture is one log.
type fixture struct {
	*testing.T
	d     logs.Driver
	place logs.Place
	cfg   *logs.Config
	n     int // lines written with the helper
}

func newFixture(t *testing.T, d logs.Driver) *fixture {
	f := &fixture{T: t, d: d, place: logs.Place{Dir: t.TempDir(), ID: "c0ffee"}}
	c, err := d.Configure(f.place, nil)
	if err != nil {
		t.Fatal(err)
	}
	c.Path, c.MaxSize = d.Path(f.place), -1
	f.cfg = c
	return f
}

func (f *fixture) writer() logs.Writer {
	f.Helper()
	w, err := f.d.OpenWriter(f.cfg, f.Logf)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { w.Close() })
	return w
}

func (f *fixture) cursor(q logs.Query) logs.Cursor {
	f.Helper()
	c, err := f.d.OpenCursor(f.place, q)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { c.Close() })
	return c
}

func at(i int) time.Time     { return dayZero().Add(time.Duration(i) * time.Second) }
func text(i int) string      { return fmt.Sprintf("line %d\n", i) }
func everything() logs.Query { return logs.Query{Tail: -1} }

// write writes so many numbered lines, each at its second.
func (f *fixture) write(w logs.Writer, lines int) {
	for range lines {
		w.Write(logs.Stream(f.n%2), []byte(text(f.n)), at(f.n))
		f.n++
	}
}

// rest is what a cursor has for now.
func (f *fixture) rest(c logs.Cursor) string {
	f.Helper()
	var b strings.Builder
	for {
		r, err := c.Next(f.Context())
		if errors.Is(err, io.EOF) {
			return b.String()
		}
		if err != nil {
			f.Fatal(err)
		}
		b.Write(r.Line)
	}
}

func (f *fixture) read(q logs.Query) string {
	f.Helper()
	c := f.cursor(q)
	defer c.Close()
	return f.rest(c)
}

func texts(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(text(i))
	}
	return b.String()
}

func (f *fixture) want(what, got, want string) {
	f.Helper()
	if got != want {
		f.Errorf("%s: %d bytes, want %d\n%.300q\nwant\n%.300q", what, len(got), len(want), got, want)
	}
}

// want a run of consecutive lines that ends with a number, and tell how many there are.
func (f *fixture) consecutive(what, got string, last int) int {
	f.Helper()
	lines := strings.Split(strings.TrimSuffix(got, "\n"), "\n")
	first := last - len(lines) + 1
	for i, l := range lines {
		if l != fmt.Sprintf("line %d", first+i) {
			f.Fatalf("%s: at %d of %d stands %q; the last one is to be %d", what, i, len(lines), l, last)
		}
	}
	return len(lines)
}

// last is the number of the last line.
func (f *fixture) last(got string) (n int) {
	f.Helper()
	i := strings.LastIndex(strings.TrimSuffix(got, "\n"), "\n")
	if _, err := fmt.Sscanf(got[i+1:], "line %d", &n); err != nil {
		f.Fatalf("%v: %.200q", err, got)
	}
	return n
}

func nothing(f *fixture) {
	f.want("a log that is not there", f.read(everything()), "")
	f.writer().Close()
	f.want("an empty log", f.read(everything()), "")
	f.want("its tail", f.read(logs.Query{Tail: 3}), "")
}

func order(f *fixture) {
	f.cfg.Attrs = []byte(`{"a":"b","tag":"x"}`)
	w := f.writer()
	f.write(w, 10)
	c := f.cursor(everything())
	for i := range 10 {
		r, err := c.Next(f.Context())
		if err != nil {
			f.Fatal(err)
		}
		if string(r.Line) != text(i) || r.Stream != logs.Stream(i%2) || !r.Time.Equal(at(i)) || len(r.Attrs) != 2 || r.Attrs["a"] != "b" || r.Attrs["tag"] != "x" {
			f.Errorf("%d: %+v", i, r)
		}
	}
	if _, err := c.Next(f.Context()); !errors.Is(err, io.EOF) {
		f.Error(err)
	}
}

func pieces(f *fixture) {
	w := f.writer()
	w.Write(logs.Stdout, []byte("one\ntw"), at(0))
	w.Write(logs.Stderr, []byte("three\n"), at(1))
	f.want("before its newline", f.read(everything()), "one\nthree\n")
	w.Write(logs.Stdout, []byte("o\n\n"), at(2))
	w.Write(logs.Stderr, []byte("no end"), at(3))
	w.Flush(logs.Stderr, at(4))
	w.Flush(logs.Stderr, at(5))
	f.want("flushed", f.read(everything()), "one\nthree\ntwo\n\nno end")
	w.Write(logs.Stderr, []byte(" and on"), at(6))
	w.Close()
	f.want("closed", f.read(everything()), "one\nthree\ntwo\n\nno end and on")
}

func longLines(f *fixture) {
	w := f.writer()
	var want strings.Builder
	for _, c := range []struct{ size, step int }{
		{logs.MaxLine - 1, 4096}, {logs.MaxLine, 64 << 10}, {3*logs.MaxLine + 5, 64 << 10}, {3*logs.MaxLine + 5, 8 * logs.MaxLine}, {3, 1},
	} {
		line := strings.Repeat("xyz0", c.size/4) + strings.Repeat("é", c.size%4) + "\n"
		for i := 0; i < len(line); i += c.step {
			w.Write(logs.Stdout, []byte(line[i:min(len(line), i+c.step)]), at(0))
		}
		want.WriteString(line)
	}
	w.Close()
	f.want("long lines", f.read(everything()), want.String())
	c := f.cursor(everything())
	ended := 0
	for {
		r, err := c.Next(f.Context())
		if err != nil {
			break
		}
		if len(r.Line) > logs.MaxLine {
			f.Errorf("a record of %d bytes", len(r.Line))
		}
		if strings.HasSuffix(string(r.Line), "\n") {
			ended++
		}
	}
	if ended != 5 {
		f.Errorf("%d records end with a newline", ended)
	}
}

func zerosInLine(f *fixture) {
	w := f.writer()
	const line = "a\x00b\x00\x00\t\x1b[0m \"quoted\" \\ <é> \u2028\r\n"
	w.Write(logs.Stdout, []byte(line+"\x00\n"), at(0))
	f.want("control characters", f.read(everything()), line+"\x00\n")
}

// spoil appends to the current file behind the writer's back.
func (f *fixture) spoil(garbage string) {
	f.Helper()
	file, err := os.OpenFile(f.cfg.Path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(garbage); err != nil {
		f.Fatal(err)
	}
}

func zerosBeforeRecord(f *fixture) {
	w := f.writer()
	f.write(w, 3)
	// The writer that had truncated a file without appending leaves a hole.
	f.spoil(strings.Repeat("\x00", 5000))
	f.write(w, 3)
	f.want("a hole", f.read(everything()), texts(0, 6))
	f.want("tail over it", f.read(logs.Query{Tail: 4}), texts(2, 6))
	w.Close()
	f.spoil(strings.Repeat("\x00", 3<<20))
	w = f.writer()
	f.write(w, 2)
	f.want("after a crash of the machine", f.read(everything()), texts(0, 8))
}

func torn(f *fixture) {
	w := f.writer()
	f.write(w, 4)
	before, err := os.Stat(f.cfg.Path)
	if err != nil {
		f.Fatal(err)
	}
	f.write(w, 1)
	w.Close()
	whole, err := os.ReadFile(f.cfg.Path)
	if err != nil {
		f.Fatal(err)
	}
	for size := before.Size() + 1; size < int64(len(whole)); size++ {
		if err := os.WriteFile(f.cfg.Path, whole[:size], 0o600); err != nil {
			f.Fatal(err)
		}
		if got := f.read(everything()); got != texts(0, 4) && got != texts(0, 5) {
			f.Fatalf("cut at %d: %q", size, got)
		}
		w := f.writer()
		w.Write(logs.Stdout, []byte("next\n"), at(9))
		w.Close()
		if got := strings.TrimPrefix(f.read(everything()), texts(0, 4)); got != "next\n" && got != text(4)+"next\n" {
			f.Fatalf("cut at %d and written on: %q", size, got)
		}
		if got := f.read(logs.Query{Tail: 1}); got != "next\n" {
			f.Fatalf("cut at %d and written on: tail %q", size, got)
		}
	}
}

// rotated makes the log one of small files.
func (f *fixture) rotated(files int, compress bool) {
	f.cfg.MaxSize, f.cfg.MaxFiles, f.cfg.Compress = 2000, files, compress
}

func rotation(f *fixture) {
	for _, compress := range []bool{false, true} {
		for _, files := range []int{1, 2, 3} {
			f.place.Dir = f.TempDir()
			f.cfg.Path, f.n = f.d.Path(f.place), 0
			f.rotated(files, compress)
			w := f.writer()
			f.write(w, 500)
			w.Close()
			n := f.consecutive("rotated", f.read(everything()), 499)
			if n < 10*(files-1) || n > 100*files {
				f.Errorf("%d files, compressed %t: %d lines kept", files, compress, n)
			}
			dir := f.cfg.Path[:strings.LastIndexByte(f.cfg.Path, '/')]
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != files {
				f.Errorf("%d files, compressed %t: %v %v", files, compress, entries, err)
			}
		}
	}
}

func tail(f *fixture) {
	for _, compress := range []bool{false, true} {
		f.place.Dir = f.TempDir()
		f.cfg.Path, f.n = f.d.Path(f.place), 0
		f.rotated(100, compress)
		w := f.writer()
		f.write(w, 300)
		w.Close()
		for _, n := range []int{0, 1, 2, 7, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 60, 150, 299, 300, 301, 5000} {
			f.want(fmt.Sprintf("tail %d", n), f.read(logs.Query{Tail: n}), texts(max(300-n, 0), 300))
		}
	}
}

func sinceUntil(f *fixture) {
	f.rotated(100, false)
	f.write(f.writer(), 100)
	f.want("since", f.read(logs.Query{Tail: -1, Since: at(40)}), texts(40, 100))
	f.want("until", f.read(logs.Query{Tail: -1, Until: at(40)}), texts(0, 41))
	f.want("both", f.read(logs.Query{Tail: -1, Since: at(40).Add(1), Until: at(50).Add(-1)}), texts(41, 50))
	f.want("since, of the tail", f.read(logs.Query{Tail: 10, Since: at(40)}), texts(90, 100))
	f.want("until, of the tail", f.read(logs.Query{Tail: 10, Until: at(40)}), "")
}

func boundedMemory(f *fixture) {
	w := f.writer()
	f.write(w, 3)
	f.spoil(strings.Repeat("what somebody else wrote ", 3<<20))
	f.spoil("\n")
	f.write(w, 3)
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := f.cursor(everything())
	got := f.rest(c)
	const most = 24 << 20
	held := int64(0)
	for range 5 { // what others free late is not the cursor's
		runtime.GC()
		runtime.ReadMemStats(&after)
		if held = int64(after.HeapAlloc) - int64(before.HeapAlloc); held <= most {
			break
		}
	}
	f.want("through 75 MiB of garbage", got, texts(0, 6))
	if held > most {
		f.Errorf("a cursor holds %d MiB", held>>20)
	}
	f.want("tail", f.read(logs.Query{Tail: 3}), texts(3, 6))
	runtime.KeepAlive(c)
}

func closing(f *fixture) {
	w := f.writer()
	f.write(w, 1)
	for range 2 {
		if err := w.Close(); err != nil {
			f.Error(err)
		}
	}
	w.Write(logs.Stdout, []byte("late\n"), at(1))
	w.Flush(logs.Stdout, at(1))
	c := f.cursor(following())
	f.want("after Close", f.rest(c), text(0))
	for range 2 {
		if err := c.Close(); err != nil {
			f.Error(err)
		}
	}
}
