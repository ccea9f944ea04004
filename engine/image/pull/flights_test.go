package pull

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"

	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/test/testregistry"
)

func TestFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var f flights
		runs := 0
		gate := make(chan struct{})
		work := func(ctx context.Context, p progress.Sink) error {
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
		var first, second testregistry.Recorder
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
		if runs != 1 || !second.Has("x: Downloading") || !second.Has("done") || first.Has("done") {
			t.Errorf("%d runs, %v, %v", runs, first.Lines, second.Lines)
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
