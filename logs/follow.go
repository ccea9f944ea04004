package logs

import (
	"context"
	"errors"
	"io"
)

// Run is what a follower asks of the run whose output it follows.
type Run interface {
	// Ended tells that nothing more will be written.
	Ended() bool
	// Changed returns a channel that is closed when Ended may have changed.
	Changed() <-chan struct{}
}

// Copy hands every record of c to emit and calls flush whenever there is nothing more for now.
// It returns when all is read; with a run (for a cursor that follows) when that has ended and
// all is read, or when ctx ends. Errors are those of c, emit, flush and ctx. c stays open.
func Copy(ctx context.Context, c Cursor, run Run, emit func(*Record) error, flush func() error) error {
	for {
		var changed <-chan struct{}
		ended := true
		if run != nil {
			// Asked before reading: what was written before the end is then read.
			changed, ended = run.Changed(), run.Ended()
		}
		if err := drain(ctx, c, emit); err != nil {
			return err
		}
		if err := flush(); err != nil || ended {
			return err
		}
		if err := c.Wait(ctx, changed); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func drain(ctx context.Context, c Cursor, emit func(*Record) error) error {
	for {
		r, err := c.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := emit(r); err != nil {
			return err
		}
	}
}
