package logtest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/gantry/gantry/logs"
)

func rotationUnderReader(f *fixture) {
	f.rotated(3, true)
	w := f.writer()
	f.write(w, 60)
	c := f.cursor(everything())
	r, err := c.Next(f.Context())
	if err != nil {
		f.Fatal(err)
	}
	got := string(r.Line)
	f.write(w, 500)
	got += f.rest(c)
	if n := f.consecutive("a reader whose files were rotated", got, f.last(got)); n < 20 {
		f.Errorf("%d lines", n)
	}
	// Snapshots while it goes on are of one piece.
	stop := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				w.Write(logs.Stdout, []byte(text(f.n+i)), at(f.n+i))
			}
		}
	}()
	for range 50 {
		got := f.read(everything())
		f.consecutive("a snapshot", got, f.last(got))
	}
	close(stop)
	<-done
}

// goingOn is a run that ends when its channel is closed.
type goingOn chan struct{}

func (g goingOn) Changed() <-chan struct{} { return g }

func (g goingOn) Ended() bool {
	select {
	case <-g:
		return true
	default:
		return false
	}
}

// follow reads what comes until the run ends.
func (f *fixture) follow(c logs.Cursor, run logs.Run) string {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), time.Minute)
	defer cancel()
	var b strings.Builder
	err := logs.Copy(ctx, c, run, func(r *logs.Record) error { b.Write(r.Line); return nil }, func() error { return nil })
	if err != nil {
		f.Fatalf("%v, after %d bytes", err, b.Len())
	}
	return b.String()
}

func following() logs.Query { return logs.Query{Tail: -1, Follow: true} }

func followRotation(f *fixture) {
	for _, compress := range []bool{false, true} {
		f.place.Dir = f.TempDir()
		f.cfg.Path, f.n = f.d.Path(f.place), 0
		f.rotated(200, compress)
		w := f.writer()
		f.write(w, 10)
		c, run := f.cursor(following()), make(goingOn)
		go func() {
			f.write(w, 2000)
			w.Close()
			close(run)
		}()
		f.want("followed", f.follow(c, run), texts(0, 2010))
	}
}

func followOneFile(f *fixture) {
	f.rotated(1, false)
	w := f.writer()
	f.write(w, 10)
	c := f.cursor(following())
	f.want("what is there", f.rest(c), texts(0, 10))
	for f.n < 1000 {
		f.write(w, 5)
		// A follower that keeps up misses nothing.
		f.want("what comes", f.rest(c), texts(f.n-5, f.n))
	}
	run := make(goingOn)
	go func() {
		f.write(w, 2000)
		w.Close()
		close(run)
	}()
	last := 999
	for l := range strings.Lines(f.follow(c, run)) {
		n := 0
		if _, err := fmt.Sscanf(l, "line %d\n", &n); err != nil || n <= last {
			f.Fatalf("after %d came %q", last, l)
		}
		last = n
	}
	if last != 2999 {
		f.Errorf("it ended with %d", last)
	}
}

func slowFollower(f *fixture) {
	for _, compress := range []bool{false, true} {
		f.place.Dir = f.TempDir()
		f.cfg.Path, f.n = f.d.Path(f.place), 0
		f.rotated(50, compress)
		w := f.writer()
		f.write(w, 15)
		c := f.cursor(following())
		f.want("what is there", f.rest(c), texts(0, 15))
		f.write(w, 300)
		w.Close()
		f.want("what was rotated and compressed meanwhile", f.rest(c), texts(15, 315))
	}
}

func followTruncate(f *fixture) {
	truncate := func() {
		if err := os.Truncate(f.cfg.Path, 0); err != nil {
			f.Fatal(err)
		}
	}
	w := f.writer()
	f.write(w, 10)
	c := f.cursor(following())
	f.want("what is there", f.rest(c), texts(0, 10))
	truncate()
	f.want("nothing", f.rest(c), "")
	f.write(w, 3)
	f.want("less than before", f.rest(c), texts(10, 13))
	truncate()
	f.write(w, 30)
	f.want("more than before, at once", f.rest(c), texts(13, 43))
	truncate()
	run := make(goingOn)
	go func() {
		f.write(w, 5)
		w.Close()
		close(run)
	}()
	f.want("to the end", f.follow(c, run), texts(43, 48))
}

func followEarly(f *fixture) {
	c, run := f.cursor(following()), make(goingOn)
	f.want("nothing", f.rest(c), "")
	go func() {
		w := f.writer()
		f.write(w, 5)
		w.Close()
		close(run)
	}()
	f.want("what came", f.follow(c, run), texts(0, 5))
}

func followUntil(f *fixture) {
	f.write(f.writer(), 5)
	q := following()
	q.Until = at(2)
	f.want("until the past", f.follow(f.cursor(q), make(goingOn)), texts(0, 3))
	ctx, cancel := context.WithCancel(f.Context())
	cancel()
	c := f.cursor(following())
	if err := c.Wait(ctx, nil); !errors.Is(err, context.Canceled) {
		f.Errorf("waiting: %v", err)
	}
	if _, err := c.Next(ctx); err != nil && !errors.Is(err, context.Canceled) {
		f.Errorf("reading: %v", err)
	}
}

func manyReaders(f *fixture) {
	f.rotated(200, true)
	w := f.writer()
	run := make(goingOn)
	results := make(chan string)
	const readers = 6
	for range readers {
		c := f.cursor(following())
		go func() {
			var b strings.Builder
			if err := logs.Copy(f.Context(), c, run, func(r *logs.Record) error { b.Write(r.Line); return nil }, func() error { return nil }); err != nil {
				f.Error(err)
			}
			results <- b.String()
		}()
	}
	f.write(w, 1000)
	w.Close()
	close(run)
	for range readers {
		f.want("one of many", <-results, texts(0, 1000))
	}
}
