package layers

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
