package logs

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// slowWriter takes a second for each call, and shows a flush as a bar.
type slowWriter struct {
	mu  sync.Mutex
	out [2]strings.Builder
	end bool
}

func (w *slowWriter) add(s Stream, text string) {
	time.Sleep(time.Second)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out[s].WriteString(text)
}

func (w *slowWriter) Write(s Stream, p []byte, _ time.Time) { w.add(s, string(p)) }
func (w *slowWriter) Flush(s Stream, _ time.Time)           { w.add(s, "|") }
func (w *slowWriter) Close() error                          { w.end = true; return nil }

func TestNonBlocking(t *testing.T) {
	for _, c := range []struct {
		name   string
		limit  int64
		writes []string
		want   string
	}{
		{"all fits", 100, []string{"one\n", "two\n", "thr", "ee\n"}, "one\ntwo\nthree\n"},
		{"what does not fit goes", 10, []string{"one\n", "two\n", "three\n", "4\n"}, "one\ntwo\n4\n"},
		{"whole lines as far as they fit", 12, []string{"one\n", "two\nthree\n", "four\n"}, "one\ntwo\n"},
		{"a line is not cut and joined", 13, []string{"one\n", "two\nthr", "ee\nfour\n", "5\n"}, "one\ntwo\nthr|5\n"},
		{"what was taken of a line stands alone", 10, []string{"one\ntw", "o and more", " of it\n", "3\n"}, "one\ntw|3\n"},
		{"a line that ends where it is dropped", 10, []string{"one\ntw", "oooooo\n", "3\n"}, "one\ntw|3\n"},
		{"larger than the limit", 2, []string{"a long line\n", "gone\n"}, "a long line\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := &slowWriter{}
				r := NonBlocking(w, c.limit)
				before := time.Now()
				for _, s := range c.writes {
					r.Write(Stderr, []byte(s), before)
				}
				if took := time.Since(before); took > 0 {
					t.Errorf("writing waited %s", took)
				}
				if err := r.Close(); err != nil || !w.end {
					t.Errorf("close: %v, %t", err, w.end)
				}
				r.Write(Stderr, []byte("late\n"), before)
				r.Flush(Stderr, before)
				if got := w.out[Stderr].String(); got != c.want {
					t.Errorf("%q, want %q", got, c.want)
				}
			})
		})
	}
}

// When the file is fast again, output is taken again.
func TestNonBlockingRecovers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &slowWriter{}
		r := NonBlocking(w, 8)
		var want strings.Builder
		for i := range 20 {
			l := fmt.Sprintf("line%02d\n", i)
			r.Write(Stdout, []byte(l), time.Now())
			if i%2 == 0 {
				want.WriteString(l)
			} else {
				time.Sleep(3 * time.Second)
			}
		}
		r.Close()
		if got := w.out[Stdout].String(); got != want.String() {
			t.Errorf("%q", got)
		}
	})
}

func TestTag(t *testing.T) {
	s := Subject{ID: "0123456789abcdef", Name: "web"}
	for tag, want := range map[string]string{"": "", "}}": "}}", "a {{.ID}}": "a 0123456789ab", "{{ .Name }}{{.Name}}": "webweb", "{.Name}": "{.Name}"} {
		t.Run(tag, func(t *testing.T) {
			if got, err := ExpandTag(tag, s); got != want || err != nil {
				t.Errorf("%q: %q %v", tag, got, err)
			}
		})
	}
}
