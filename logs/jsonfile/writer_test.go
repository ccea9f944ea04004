package jsonfile

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/logs"
)

var update = flag.Bool("update", false, "write the golden files")

var epoch = time.Date(2026, 11, 21, 10, 0, 0, 123456789, time.UTC)

func fixed() time.Time { return epoch }

// Config of a log, for tests.
type Config struct {
	Path     string
	MaxSize  int64
	MaxFiles int
	Compress bool
	Attrs    json.RawMessage
	Now      func() time.Time
	Logf     func(string, ...any)
}

// Writer writes at the time of a clock.
type Writer struct {
	logs.Writer
	now func() time.Time
}

func (w *Writer) Write(s logs.Stream, p []byte) { w.Writer.Write(s, p, w.now()) }

func (w *Writer) Close() error {
	w.Flush(Stdout, w.now())
	w.Flush(Stderr, w.now())
	return w.Writer.Close()
}

const (
	Stdout  = logs.Stdout
	Stderr  = logs.Stderr
	MaxLine = logs.MaxLine
)

func open(t testing.TB, c Config) *Writer {
	t.Helper()
	if c.Now == nil {
		c.Now = fixed
	}
	if c.Logf == nil {
		c.Logf = t.Logf
	}
	w, err := Driver{}.OpenWriter(&logs.Config{Path: c.Path, MaxSize: c.MaxSize, MaxFiles: c.MaxFiles, Compress: c.Compress, Attrs: c.Attrs}, c.Logf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return &Writer{w, c.Now}
}

func readFile(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestGolden(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Config{Path: path, MaxFiles: 1})
	w.Write(Stdout, []byte("plain\ntwo "))
	w.Write(Stderr, []byte("error\n"))
	w.Write(Stdout, []byte("parts\n\n"))
	w.Write(Stdout, []byte("\x1b[1mtab\there\x00 \"quoted\" \\ <a&b> \r\n"))
	w.Write(Stdout, []byte("späß \u2028 \xff\xfe cut \xe2\x82\n"))
	w.Write(Stderr, []byte("unfinished"))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	w = open(t, Config{Path: path, MaxFiles: 1, Attrs: json.RawMessage(`{"tag":"x"}`), Now: func() time.Time {
		return time.Date(2026, 1, 2, 3, 4, 5, 120000000, time.FixedZone("", 3600))
	}})
	w.Write(Stdout, []byte("with attributes\n"))
	w.Close()
	got := readFile(t, path)
	golden := "testdata/golden.log"
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want := readFile(t, golden); got != want {
		t.Errorf("log is\n%swant\n%s", got, want)
	}
}

// texts decodes log entries and joins their texts.
func texts(t testing.TB, log string) (all string, entries int) {
	t.Helper()
	for l := range strings.Lines(log) {
		var v struct{ Log string }
		if err := json.Unmarshal([]byte(l), &v); err != nil {
			t.Fatalf("line %.100q: %v", l, err)
		}
		all += v.Log
		entries++
	}
	return all, entries
}

func TestLongLines(t *testing.T) {
	for _, c := range []struct{ size, step, entries int }{
		{MaxLine - 1, 4096, 1},
		{MaxLine, 1 << 16, 2}, // the newline comes by itself
		{MaxLine - 1, MaxLine * 2, 1},
		{3*MaxLine + 5, 1 << 16, 4},
		{3*MaxLine + 5, 8 * MaxLine, 4},
	} {
		t.Run(fmt.Sprint(c.size), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "log")
			w := open(t, Config{Path: path, MaxFiles: 1})
			text := strings.Repeat("x", c.size) + "\n"
			for i := 0; i < len(text); i += c.step {
				w.Write(Stdout, []byte(text[i:min(len(text), i+c.step)]))
			}
			w.Close()
			got, n := texts(t, readFile(t, path))
			if got != text || n != c.entries {
				t.Errorf("%+v: %d entries, %d of %d bytes", c, n, len(got), len(text))
			}
		})
	}
}

func TestSplitKeepsCharacters(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Config{Path: path, MaxFiles: 1})
	text := "a" + strings.Repeat("𝄞é", MaxLine/3) + "\n"
	for i := 0; i < len(text); i += 65536 {
		w.Write(Stdout, []byte(text[i:min(len(text), i+65536)]))
	}
	w.Close()
	if got, n := texts(t, readFile(t, path)); got != text || n != 3 {
		t.Errorf("%d entries, %d of %d bytes", n, len(got), len(text))
	}
}

func TestRotation(t *testing.T) {
	for _, compress := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "log")
		w := open(t, Config{Path: path, MaxSize: 1000, MaxFiles: 3, Compress: compress})
		var want string
		for i := range 100 {
			l := fmt.Sprintf("line %d\n", i)
			want += l
			w.Write(Stdout, []byte(l))
		}
		w.Close()
		var all string
		for _, name := range []string{path + ".2", path + ".1", path} {
			t.Run(name, func(t *testing.T) {
				var b string
				if compress && name != path {
					f, err := os.Open(name + ".gz")
					if err != nil {
						t.Fatal(err)
					}
					z, err := gzip.NewReader(f)
					if err != nil {
						t.Fatal(err)
					}
					data, err := io.ReadAll(z)
					f.Close()
					if err != nil {
						t.Fatal(err)
					}
					b = string(data)
				} else {
					b = readFile(t, name)
				}
				if len(b) > 1100 || len(b) < 20 {
					t.Errorf("%s has %d bytes", name, len(b))
				}
				s, _ := texts(t, b)
				all += s
			})
		}
		if !strings.HasSuffix(want, all) || len(all) < 150 {
			t.Errorf("compress %t: kept %q", compress, all)
		}
		files, _ := os.ReadDir(filepath.Dir(path))
		if len(files) != 3 {
			t.Errorf("compress %t: %d files", compress, len(files))
		}
	}
}

func TestOneFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	w := open(t, Config{Path: path, MaxSize: 500, MaxFiles: 1})
	for i := range 50 {
		w.Write(Stdout, fmt.Appendf(nil, "line %d\n", i))
	}
	w.Close()
	all, _ := texts(t, readFile(t, path))
	if !strings.HasSuffix(all, "line 49\n") || len(all) > 100 {
		t.Errorf("kept %q", all)
	}
}

func TestFullDisk(t *testing.T) {
	var said []string
	w := open(t, Config{Path: "/dev/full", MaxFiles: 1, Logf: func(f string, a ...any) { said = append(said, fmt.Sprintf(f, a...)) }})
	for range 5 {
		w.Write(Stdout, []byte("lost\n"))
	}
	if len(said) != 1 || !strings.Contains(said[0], "no space left") {
		t.Errorf("said %q", said)
	}
}

func TestTornTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	if err := os.WriteFile(path, []byte(`{"log":"cut`), 0o600); err != nil {
		t.Fatal(err)
	}
	w := open(t, Config{Path: path, MaxFiles: 1})
	w.Write(Stdout, []byte("next\n"))
	w.Close()
	if got := readFile(t, path); !strings.HasPrefix(got, "{\"log\":\"cut\n{\"log\":\"next\\n\"") {
		t.Errorf("log %q", got)
	}
}

func TestAppendTextAllocatesNothing(t *testing.T) {
	dst := make([]byte, 0, 4096)
	s := []byte("text \x00 <é\xff\u2028>\n")
	if n := testing.AllocsPerRun(100, func() { appendTail(appendText(append(dst[:0], head...), s), "stdout", nil, epoch) }); n != 0 {
		t.Errorf("%v allocations a line", n)
	}
}

func FuzzAppendText(f *testing.F) {
	for _, s := range []string{"", "a\n", "\x00\t\b\f\x7f\\\"", "<>&", "\xff\xe2\x82", "\u2028\u2029é𝄞\ufffd"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got := append(appendText([]byte{'"'}, in), '"')
		var back string
		if err := json.Unmarshal(got, &back); err != nil {
			t.Fatalf("%q: %v", got, err)
		}
		want, _ := json.Marshal(string(in))
		// The only difference from encoding/json: control characters in their long form.
		for c, long := range map[string]string{`\t`: `\u0009`, `\b`: `\u0008`, `\f`: `\u000c`} {
			want = replaceEscape(want, c, long)
		}
		if !bytes.Equal(got, want) {
			t.Fatalf("%q: %s, want %s", in, got, want)
		}
	})
}

// replaceEscape replaces an escape sequence, minding escaped backslashes.
func replaceEscape(b []byte, from, to string) []byte {
	var out []byte
	for i := 0; i < len(b); i++ {
		if b[i] != '\\' {
			out = append(out, b[i])
			continue
		}
		if string(b[i:i+2]) == from {
			out = append(out, to...)
		} else {
			out = append(out, b[i:i+2]...)
		}
		i++
	}
	return out
}

// FuzzWriter checks that however output is cut, every byte comes once and in order.
func FuzzWriter(f *testing.F) {
	f.Add([]byte("one\ntwo\nthree"), uint8(2), uint16(200))
	f.Add([]byte("\n\n\n"), uint8(1), uint16(0))
	f.Fuzz(func(t *testing.T, in []byte, step uint8, size uint16) {
		if step == 0 || len(in) > 1<<16 {
			return
		}
		path := filepath.Join(t.TempDir(), "log")
		w := open(t, Config{Path: path, MaxSize: int64(size), MaxFiles: 1000})
		for rest := in; len(rest) > 0; {
			n := min(int(step), len(rest))
			w.Write(Stdout, rest[:n])
			rest = rest[n:]
		}
		w.Close()
		var all string
		for i := 999; i >= 1; i-- {
			if b, err := os.ReadFile(fmt.Sprintf("%s.%d", path, i)); err == nil {
				s, _ := texts(t, string(b))
				all += s
			}
		}
		s, _ := texts(t, readFile(t, path))
		all += s
		if _, err := os.Stat(path + ".999"); err == nil {
			return // the oldest may be gone
		}
		// A character cut in two by the end of the input or a line is replaced bytewise.
		if want := strings.ToValidUTF8(string(in), "?"); !strings.Contains(want, "?") && all != string(in) {
			t.Fatalf("got %q, want %q", all, in)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	w := open(b, Config{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 10 << 20, MaxFiles: 3, Now: time.Now})
	data := bytes.Repeat([]byte("a line of a log as they usually are, of eighty characters or something near\n"), 800)
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		w.Write(Stdout, data)
	}
}
