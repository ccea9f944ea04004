package poll

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestWithin(t *testing.T) {
	for _, c := range []struct {
		name     string
		after    int // the call that says yes; 0 is never
		want     bool
		calls    int
		duration time.Duration
	}{
		{"at once", 1, true, 1, 0},
		{"later", 4, true, 4, 3 * pause},
		{"at the last moment", 22, true, 22, 21 * pause},
		{"never", 0, false, 22, 21 * pause},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls, begin := 0, time.Now()
				got := Within(20*pause, func() bool { calls++; return calls == c.after })
				if d := time.Since(begin); got != c.want || calls != c.calls || d != c.duration {
					t.Errorf("%t after %d calls and %v, want %t, %d and %v", got, calls, d, c.want, c.calls, c.duration)
				}
			})
		})
	}
}
