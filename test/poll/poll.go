// Package poll waits, in tests, for what another process or the kernel does. Use
// testing/synctest or a channel for what happens inside the test's own process.
package poll

import (
	"testing"
	"time"
)

// Limit is how long Until waits: far longer than anything takes on a machine that is busy.
const Limit = 20 * time.Second

const (
	pause    = 5 * time.Millisecond
	maxPause = 200 * time.Millisecond
)

// Within asks ok until it says yes, and answers whether it did in time. It is asked once at
// the least, and once more at the end. What takes long to ask is asked less often, so that
// at most half of a processor is spent on asking.
func Within(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); ; {
		begin := time.Now()
		if ok() {
			return true
		}
		if begin.After(end) {
			return false
		}
		time.Sleep(min(max(pause, time.Since(begin)), maxPause))
	}
}

// Until is Within the Limit; the test ends where it does not come about.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !Within(Limit, ok) {
		t.Fatalf("not within %v: %s", Limit, what)
	}
}
