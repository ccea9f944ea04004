package image

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestKeyLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var k keyLock
		unlock, err := k.tryLock("a")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := k.tryLock("a"); !errors.Is(err, errBusy) {
			t.Errorf("taken: %v", err)
		}
		other, err := k.tryLock("b")
		if err != nil {
			t.Fatal(err)
		}
		other()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := k.lock(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("waited: %v", err)
		}
		got := make(chan func())
		go func() {
			u, err := k.lock(t.Context(), "a")
			if err != nil {
				t.Error(err)
			}
			got <- u
		}()
		synctest.Wait()
		unlock()
		(<-got)()
		if len(k.m) != 0 {
			t.Errorf("kept: %v", k.m)
		}
	})
}

func TestFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flights
		runs := 0
		gate := make(chan struct{})
		work := func(ctx context.Context, p Progress) error {
			runs++
			p.Update("x", "Downloading", 1, 2)
			select {
			case <-gate:
				p.Update("", "done", 0, 0)
				return errors.New("result")
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		var first, second recorder
		errs := make(chan error, 3)
		ctx, cancel := context.WithCancel(t.Context())
		go func() { errs <- f.do(ctx, "k", &first, work) }()
		synctest.Wait()
		go func() { errs <- f.do(t.Context(), "k", &second, work) }()
		synctest.Wait()
		cancel() // the first leaves, the work goes on for the second
		if err := <-errs; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		close(gate)
		if err := <-errs; err == nil || err.Error() != "result" {
			t.Error(err)
		}
		if runs != 1 || !second.has("x: Downloading") || !second.has("done") || first.has("done") {
			t.Errorf("%d runs, %v, %v", runs, first.lines, second.lines)
		}
		gate = make(chan struct{})
		ctx, cancel = context.WithCancel(t.Context())
		go func() { errs <- f.do(ctx, "k", &first, work) }()
		synctest.Wait()
		cancel() // nobody wants it any more
		<-errs
		synctest.Wait()
		if len(f.m) != 0 || runs != 2 {
			t.Errorf("%d under way, %d runs", len(f.m), runs)
		}
	})
}

func TestParseTime(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for v, want := range map[string]time.Time{
		"10m": now.Add(-10 * time.Minute), "1700000000": time.Unix(1700000000, 0), "2025-01-01T00:00:00Z": time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC),
	} {
		t.Run(v, func(t *testing.T) {
			if got, err := parseTime(v, now); err != nil || !got.Equal(want) {
				t.Errorf("%s: %v, %v", v, got, err)
			}
		})
	}
	if _, err := parseTime("soon", now); err == nil {
		t.Error("no time")
	}
}
