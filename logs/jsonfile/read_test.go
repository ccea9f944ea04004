package jsonfile

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/logfile"
)

var day = time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC)

func line(i int) string {
	return fmt.Sprintf(`{"log":"line %d\n","stream":"%s","time":"%s"}`+"\n", i,
		[]string{"stdout", "stderr"}[i%2], day.Add(time.Duration(i)*time.Second).Format(time.RFC3339Nano))
}

func lines(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		b.WriteString(line(i))
	}
	return b.String()
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if strings.HasSuffix(path, ".gz") {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write([]byte(text))
		z.Close()
		text = b.String()
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// Options say what to read, of which file.
type Options struct {
	Path         string
	Since, Until time.Time
	Tail         int
	Follow       bool
	Ended        func() bool
	Changed      func() <-chan struct{}
}

// run is the Ended and Changed of Options.
type run struct{ o Options }

func (r run) Ended() bool              { return r.o.Ended() }
func (r run) Changed() <-chan struct{} { return r.o.Changed() }

func Read(ctx context.Context, o Options, emit func(*logs.Record) error, flush func() error) error {
	c, err := logfile.OpenCursor(o.Path, &format{}, logs.Query{Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow})
	if err != nil {
		return err
	}
	defer c.Close()
	if o.Follow {
		return logs.Copy(ctx, c, run{o}, emit, flush)
	}
	return logs.Copy(ctx, c, nil, emit, flush)
}

func read(t testing.TB, o Options) string {
	t.Helper()
	var b strings.Builder
	err := Read(context.Background(), o, func(m *logs.Record) error { b.Write(m.Line); return nil }, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func texted(from, to int) string {
	var b strings.Builder
	for i := from; i < to; i++ {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	return b.String()
}

func TestRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "x.log")
	write(t, path+".2.gz", lines(0, 100))
	write(t, path+".1", lines(100, 200))
	write(t, path, lines(200, 250)+`{"log":"torn`)
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{Tail: -1}, texted(0, 250)},
		{Options{Tail: 0}, ""},
		{Options{Tail: 1}, ""}, // the torn line is the last one
		{Options{Tail: 11}, texted(240, 250)},
		{Options{Tail: 51}, texted(200, 250)},
		{Options{Tail: 61}, texted(190, 250)},
		{Options{Tail: 171}, texted(80, 250)},
		{Options{Tail: 9999}, texted(0, 250)},
		{Options{Tail: -1, Since: day.Add(240 * time.Second)}, texted(240, 250)},
		{Options{Tail: -1, Until: day.Add(9 * time.Second)}, texted(0, 10)},
	} {
		t.Run(c.want, func(t *testing.T) {
			c.o.Path = path
			if got := read(t, c.o); got != c.want {
				t.Errorf("%+v: %d bytes, want %d:\n%.200s", c.o, len(got), len(c.want), got)
			}
		})
	}
	if got := read(t, Options{Path: filepath.Join(dir, "none"), Tail: -1}); got != "" {
		t.Errorf("%q", got)
	}
}

// tail positions f before its last n lines.
func tail(f *os.File, n int) (int, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	start, found := st.Size(), 0
	if n > 0 {
		if start, found, err = (&format{}).Tail(f, st.Size(), n); err != nil {
			return 0, err
		}
	}
	_, err = f.Seek(start, io.SeekStart)
	return found, err
}

func TestSeekTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	for _, text := range []string{"", "\n", "a", "a\n", "a\nb", "a\nb\n", "\n\n\n", strings.Repeat("x", 70<<10) + "\n" + strings.Repeat("y", 64<<10) + "\n"} {
		t.Run(text, func(t *testing.T) {
			write(t, path, text)
			parts := strings.SplitAfter(text, "\n")
			if parts[len(parts)-1] == "" {
				parts = parts[:len(parts)-1]
			}
			for n := range 4 {
				f, err := os.Open(path)
				if err != nil {
					t.Fatal(err)
				}
				found, err := tail(f, n)
				rest, _ := os.ReadFile(path)
				pos, _ := f.Seek(0, 1)
				want := min(n, len(parts))
				if err != nil || found != want || string(rest[pos:]) != strings.Join(parts[len(parts)-want:], "") {
					t.Errorf("%.20q tail %d: found %d at %d, %v", text, n, found, pos, err)
				}
				f.Close()
			}
		})
	}
}

// TestFollow writes through rotations while a follower reads: nothing is missing,
// nothing twice, and it ends when the writer has.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	write(t, path, lines(0, 10))
	var mu sync.Mutex
	over := false
	changed := make(chan struct{})
	const n = 2000
	go func() {
		f, _ := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		for i := 10; i < n; i++ {
			l := line(i)
			f.WriteString(l[:i%len(l)]) // in two writes, so that lines are seen torn
			f.WriteString(l[i%len(l):])
			if i%500 == 0 {
				for k := 8; k > 0; k-- {
					os.Rename(fmt.Sprintf("%s.%d", path, k), fmt.Sprintf("%s.%d", path, k+1))
				}
				os.Rename(path, path+".1")
				f.Close()
				f, _ = os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			}
		}
		f.Close()
		mu.Lock()
		over = true
		mu.Unlock()
		close(changed)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	var b strings.Builder
	err := Read(ctx, Options{
		Path: path, Tail: 5, Follow: true,
		Ended:   func() bool { mu.Lock(); defer mu.Unlock(); return over },
		Changed: func() <-chan struct{} { return changed },
	}, func(m *logs.Record) error { b.Write(m.Line); return nil }, func() error { return nil })
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.TrimSpace(b.String()), "\n")
	first := 0
	fmt.Sscanf(got[0], "line %d", &first)
	for i, l := range got {
		if l != fmt.Sprintf("line %d", first+i) {
			t.Fatalf("after %q came %q", got[max(i-1, 0)], l)
		}
	}
	if last := got[len(got)-1]; last != fmt.Sprintf("line %d", n-1) {
		t.Errorf("ended with %q", last)
	}
}

func TestFollowCancelled(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	ctx, cancel := context.WithCancel(context.Background())
	flushed := 0
	err := Read(ctx, Options{
		Path: path, Tail: -1, Follow: true, Ended: func() bool { return false },
		Changed: func() <-chan struct{} { return nil },
	},
		func(*logs.Record) error { return nil }, func() error { flushed++; cancel(); return nil })
	if !errors.Is(err, context.Canceled) || flushed == 0 {
		t.Errorf("%v, flushed %d", err, flushed)
	}
}

func TestLongLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	write(t, path, `{"log":"`+strings.Repeat("x", maxEntry+100)+`","stream":"stdout","time":"2026-01-01T00:00:00Z"}`+"\n"+line(1))
	if got := read(t, Options{Path: path, Tail: -1}); got != "line 1\n" {
		t.Errorf("%.100q", got)
	}
}

func TestDecode(t *testing.T) {
	for _, c := range []struct{ in, out string }{
		{`{"log":"a\"\\\/\b\f\n\r\té😀\ud83d","stream":"stdout","time":"2026-01-01T00:00:00.5Z"}`, "a\"\\/\b\f\n\r\té😀\uFFFD"},
		{`{"log":"\u00e9\ud83d\ude00\u003c","stream":"stderr","time":"2026-01-01T00:00:00Z"}`, "é😀<"},
		{`{"time":"2026-01-01T00:00:00Z","stream":"stdout","log":"other order"}`, "other order"},
		{`{"log":"with attrs","stream":"stdout","attrs":{"a":"b"},"time":"2026-01-01T00:00:00Z"}`, "with attrs"},
	} {
		t.Run(c.in, func(t *testing.T) {
			var d decoder
			var m logs.Record
			err := d.decode([]byte(c.in), &m)
			if err != nil || string(m.Line) != c.out || m.Time.Year() != 2026 {
				t.Errorf("%s: %+v %v", c.in, m, err)
			}
		})
	}
}

func BenchmarkRead100k(b *testing.B) {
	path := filepath.Join(b.TempDir(), "x.log")
	write(b, path, lines(0, 100_000))
	for b.Loop() {
		n := 0
		if err := Read(context.Background(), Options{Path: path, Tail: -1}, func(*logs.Record) error { n++; return nil },
			func() error { return nil }); err != nil || n != 100_000 {
			b.Fatal(n, err)
		}
	}
}

// FuzzDecode holds the fast way against the slow one.
func FuzzDecode(f *testing.F) {
	f.Add([]byte(line(1)))
	f.Add([]byte(`{"log":"\u00e9\ud83d\ude00","stream":"stderr","time":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"log":"a","stream":"stdout","attrs":{"a":"b"},"time":"2026-01-01T00:00:00Z"}`))
	f.Add([]byte(`{"log":"torn`))
	f.Fuzz(func(t *testing.T, in []byte) {
		var d decoder
		var m logs.Record
		if !d.fast(in, &m) {
			return
		}
		var e entry
		if err := json.Unmarshal(in, &e); err != nil {
			return // the fast way forgives more; it must not misread what is right
		}
		if want := e.Log; string([]rune(string(m.Line))) != want || (m.Stream == logs.Stderr) != (e.Stream == "stderr") || !m.Time.Equal(e.Time) {
			t.Errorf("%q: %q, want %q", in, m.Line, want)
		}
	})
}

func TestTornFile(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "log")
	write(t, path, lines(50, 52))
	write(t, path+".1.gz", lines(0, 50))
	whole, err := os.ReadFile(path + ".1.gz")
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 5, len(whole) - 4} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if err := os.WriteFile(path+".1.gz", whole[:n], 0o600); err != nil {
				t.Fatal(err)
			}
			if got := read(t, Options{Path: path, Tail: -1}); !strings.HasSuffix(got, texted(50, 52)) {
				t.Errorf("cut at %d: %q", n, got)
			}
		})
	}
}

// FuzzSplit: whatever stands in a file, Split goes on and stays within it, and a line that comes
// in pieces is the same as in one.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(line(1)+line(2)), 7)
	f.Add([]byte("\x00\x00"+line(1)+`{"log":"torn`+line(2)), 3)
	f.Add([]byte("\n\n\x00\n"), 1)
	f.Fuzz(func(t *testing.T, in []byte, step int) {
		if step < 1 || len(in) > 1<<16 {
			return
		}
		entries := func(step int) (all []string) {
			fm, buf, rest := &format{}, []byte{}, in
			for {
				gap, size := fm.Split(buf, len(rest) == 0)
				if gap < 0 || size < 0 || gap+size > len(buf) {
					t.Fatalf("%d, %d of %d", gap, size, len(buf))
				}
				if size > 0 {
					var rec logs.Record
					_ = fm.Decode(buf[gap:gap+size], &rec)
					all = append(all, string(buf[gap:gap+size]))
				}
				buf = buf[gap+size:]
				if size > 0 {
					continue
				}
				if len(rest) == 0 {
					return all
				}
				n := min(step, len(rest))
				buf, rest = append(buf, rest[:n]...), rest[n:]
			}
		}
		if whole, pieces := entries(len(in)+1), entries(step); !slices.Equal(whole, pieces) {
			t.Errorf("%q in pieces of %d: %q, in one: %q", in, step, pieces, whole)
		}
	})
}

// A time that is read out of the minute before is the one that is read as a whole.
func TestTimes(t *testing.T) {
	var d decoder
	for _, s := range []string{
		"2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5Z", "2026-01-02T03:04:59.999999999Z", "2026-01-02T03:04:00.000000001Z", "2026-01-02T03:04:60Z",
		"2026-01-02T03:04:61.5Z", "2026-01-02T03:05:07.123Z", "2026-01-02T03:05:0Z", "2026-01-02T03:05:0.5Z", "2026-01-02T03:05:07.Z", "2026-01-02T03:05:07.1234567891Z",
		"2026-01-02T03:05:07.12x4Z", "2026-01-02T03:05:07+02:00", "2026-01-02T03:05:07,5Z", "2026-01-02T03:05:08Z", "2026-02-30T03:05:08Z", "", "Z", "2026-01-02T03:05:007Z",
	} {
		for range 2 {
			got, ok := d.time([]byte(s))
			want, err := time.Parse(time.RFC3339Nano, s)
			if ok != (err == nil) || ok && !got.Equal(want) {
				t.Errorf("%s: %s %t, want %s %v", s, got, ok, want, err)
			}
		}
	}
}
