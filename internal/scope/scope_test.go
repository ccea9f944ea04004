package scope

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestCloseCancelsAndWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		var ended bool
		s.Go(func() {
			<-s.Context().Done()
			time.Sleep(time.Second)
			ended = true
		})
		if s.Closed() {
			t.Error("closed at once")
		}
		if err := s.Close(context.Background()); err != nil || !ended || !s.Closed() {
			t.Errorf("%v, ended %v, closed %v", err, ended, s.Closed())
		}
		if err := s.Close(context.Background()); err != nil {
			t.Errorf("again: %v", err)
		}
	})
}

func TestCloseGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		stuck := make(chan struct{})
		s.Go(func() { <-stuck })
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v", err)
		}
		close(stuck)
	})
}

func TestTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New()
		ctx, cancel := s.Timeout(time.Minute)
		defer cancel()
		if err := s.Close(context.Background()); err != nil || !errors.Is(ctx.Err(), context.Canceled) {
			t.Errorf("%v, %v", err, ctx.Err())
		}
	})
}
