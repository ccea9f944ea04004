package local

import (
	"bytes"
	"context"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/logfile"
)

var at = time.Unix(1700000000, 123456789)

// The bytes of a record are those of Docker's driver: a length, the fields in their order, the
// length again.
func TestBytes(t *testing.T) {
	for _, c := range []struct {
		name  string
		entry logfile.Entry
		attrs []byte
		want  string
	}{
		{
			"a line",
			logfile.Entry{Line: []byte("hi\n"), Time: at},
			nil,
			"00000016" + "0a06" + hex.EncodeToString([]byte("stdout")) + "10959a97ece39fe7cb17" + "1a02" + hex.EncodeToString([]byte("hi")) + "00000016",
		},
		{"an empty line of stderr", logfile.Entry{Line: []byte("\n"), Stream: logs.Stderr, Time: at}, nil, "00000012" + "0a06" + hex.EncodeToString([]byte("stderr")) + "10959a97ece39fe7cb17" + "00000012"},
		{
			"a part",
			logfile.Entry{Line: []byte("hi"), Time: at, ID: "ab", Ordinal: 1},
			nil,
			"00000020" + "0a06" + hex.EncodeToString([]byte("stdout")) + "10959a97ece39fe7cb17" + "1a02" + hex.EncodeToString([]byte("hi")) + "2001" + "2a06" + "12026162" + "1801" + "00000020",
		},
		{
			"the last part",
			logfile.Entry{Line: []byte("hi\n"), Time: at, ID: "ab", Ordinal: 2, Last: true},
			nil,
			"00000022" + "0a06" + hex.EncodeToString([]byte("stdout")) + "10959a97ece39fe7cb17" + "1a02" + hex.EncodeToString([]byte("hi")) + "2001" + "2a08" + "0801" + "12026162" + "1802" + "00000022",
		},
		{
			"attributes",
			logfile.Entry{Line: []byte("\n"), Time: at},
			appendAttr(nil, "k", "v"),
			"0000001a" + "0a06" + hex.EncodeToString([]byte("stdout")) + "10959a97ece39fe7cb17" + "3206" + "0a016b" + "120176" + "0000001a",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := &format{attrs: c.attrs}
			got := f.Append(nil, &c.entry)
			if hex.EncodeToString(got) != c.want {
				t.Errorf("%x, want %s", got, c.want)
			}
			var rec logs.Record
			want := string(c.entry.Line)
			if err := f.Decode(got, &rec); err != nil || string(rec.Line) != want || rec.Stream != c.entry.Stream || !rec.Time.Equal(at) {
				t.Errorf("read back: %+v %v", rec, err)
			}
		})
	}
}

// Docker's own reader refuses records above a million bytes.
func TestRecordsStayReadableByDocker(t *testing.T) {
	place := logs.Place{Dir: t.TempDir(), ID: "x"}
	w, err := Driver{}.OpenWriter(&logs.Config{Path: Driver{}.Path(place), MaxSize: -1}, t.Logf)
	if err != nil {
		t.Fatal(err)
	}
	w.Write(logs.Stdout, append(bytes.Repeat([]byte("x"), 3<<20), '\n'), at)
	w.Close()
	data, err := os.ReadFile(Driver{}.Path(place))
	if err != nil {
		t.Fatal(err)
	}
	f, n := &format{}, 0
	for len(data) > 0 {
		gap, size := f.Split(data, true)
		if gap != 0 || size == 0 || size > 1_000_000 {
			t.Fatalf("record %d: %d, %d", n, gap, size)
		}
		data = data[size:]
		n++
	}
	if n != 4 {
		t.Errorf("%d records", n)
	}
}

// FuzzSplit: whatever stands in a file, Split goes on, stays within it, and finds what is whole.
func FuzzSplit(f *testing.F) {
	one := (&format{}).Append(nil, &logfile.Entry{Line: []byte("hi\n"), Time: at})
	part := (&format{attrs: appendAttr(nil, "k", "v")}).Append(nil, &logfile.Entry{Line: []byte("hi"), Time: at, ID: "ab", Ordinal: 1})
	f.Add(one)
	f.Add(append(one[:len(one)-3:len(one)-3], part...))
	f.Add(append(make([]byte, 100), one...))
	f.Add([]byte("\x00\x00\x00\x08\x0a\x06stdout\x00\x00\x00\x08"))
	f.Fuzz(func(t *testing.T, in []byte) {
		const end = "the end"
		last := (&format{}).Append(nil, &logfile.Entry{Line: []byte(end + "\n"), Time: at})
		buf := append(bytes.Clone(in), last...)
		found := ""
		fm := &format{}
		for len(buf) > 0 {
			gap, size := fm.Split(buf, true)
			if gap < 0 || size < 0 || gap+size > len(buf) || gap+size == 0 {
				t.Fatalf("%d, %d of %d", gap, size, len(buf))
			}
			if size > 0 {
				var rec logs.Record
				if fm.Decode(buf[gap:gap+size], &rec) == nil {
					found = string(rec.Line)
				}
			}
			buf = buf[gap+size:]
		}
		if found != end+"\n" && !bytes.Contains(in, []byte(opening)) {
			t.Errorf("the record behind the garbage was not found, but %q", found)
		}
		// Not final it asks for more, or drops what cannot be.
		gap, size := fm.Split(in, false)
		if gap+size > len(in) {
			t.Errorf("%d, %d of %d", gap, size, len(in))
		}
		_, found2, err := fm.Tail(bytes.NewReader(in), int64(len(in)), 3)
		if err != nil || found2 > 3 {
			t.Errorf("tail: %d %v", found2, err)
		}
		keep, _, err := fm.Mend(bytes.NewReader(in), int64(len(in)))
		if err != nil || keep > int64(len(in)) {
			t.Errorf("mend: %d %v", keep, err)
		}
	})
}

func BenchmarkWrite(b *testing.B) {
	w, err := Driver{}.OpenWriter(&logs.Config{Path: filepath.Join(b.TempDir(), "log"), MaxSize: 10 << 20, MaxFiles: 3}, b.Logf)
	if err != nil {
		b.Fatal(err)
	}
	defer w.Close()
	data := []byte(strings.Repeat("a line of a log as they usually are, of eighty characters or something near\n", 800))
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		w.Write(logs.Stdout, data, time.Now())
	}
}

func BenchmarkRead100k(b *testing.B) {
	place := logs.Place{Dir: b.TempDir(), ID: "x"}
	w, err := Driver{}.OpenWriter(&logs.Config{Path: Driver{}.Path(place), MaxSize: -1}, b.Logf)
	if err != nil {
		b.Fatal(err)
	}
	for range 100_000 {
		w.Write(logs.Stdout, []byte("line 12345\n"), at)
	}
	w.Close()
	for b.Loop() {
		c, err := Driver{}.OpenCursor(place, logs.Query{Tail: -1})
		if err != nil {
			b.Fatal(err)
		}
		n := 0
		err = logs.Copy(context.Background(), c, nil, func(*logs.Record) error { n++; return nil }, func() error { return nil })
		c.Close()
		if err != nil || n != 100_000 {
			b.Fatal(n, err)
		}
	}
}
