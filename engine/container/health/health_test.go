package health

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"
)

func TestOf(t *testing.T) {
	of := func(h *container.HealthConfig, shell ...string) *Check {
		return Of(&container.Config{Healthcheck: h, Shell: shell})
	}
	for _, none := range [][]string{nil, {}, {"NONE"}, {"CMD"}, {"WHAT", "x"}} {
		if k := of(&container.HealthConfig{Test: none}); k != nil {
			t.Errorf("%v: %+v", none, k)
		}
	}
	if k := of(nil); k != nil {
		t.Errorf("%+v", k)
	}
	k := of(&container.HealthConfig{Test: []string{"CMD-SHELL", "true || false"}})
	if !slices.Equal(k.Command, []string{"/bin/sh", "-c", "true || false"}) {
		t.Errorf("%q", k.Command)
	}
	if k.Interval != 30*time.Second || k.Timeout != 30*time.Second || k.StartPeriod != 0 || k.StartInterval != 5*time.Second || k.Retries != 3 {
		t.Errorf("%+v", k)
	}
	if k = of(&container.HealthConfig{Test: []string{"CMD-SHELL", "x"}}, "bash", "-ec"); !slices.Equal(k.Command, []string{"bash", "-ec", "x"}) {
		t.Errorf("%q", k.Command)
	}
	if k = of(&container.HealthConfig{Test: []string{"CMD", "a", "b"}, Retries: 1, Interval: 1, Timeout: 2, StartPeriod: 3, StartInterval: 4}); !slices.Equal(k.Command, []string{"a", "b"}) ||
		k.Retries != 1 || k.Interval != 1 || k.Timeout != 2 || k.StartPeriod != 3 || k.StartInterval != 4 {
		t.Errorf("%+v", k)
	}
}

func TestRecord(t *testing.T) {
	started := time.Unix(1000, 0)
	k := &Check{Retries: 2, StartPeriod: 10 * time.Second}
	h := Begin(nil)
	for i, step := range []struct {
		after  int // seconds
		code   int
		status container.HealthStatus
		streak int
	}{
		{1, 1, container.Starting, 0}, // failures of the start period do not count
		{9, 1, container.Starting, 0},
		{11, 1, container.Starting, 1},
		{12, 0, container.Healthy, 0},
		{13, 1, container.Healthy, 1},
		{14, 0, container.Healthy, 0},
		{15, -1, container.Healthy, 1},
		{16, 2, container.Unhealthy, 2},
		{17, 1, container.Unhealthy, 3},
		{18, 0, container.Healthy, 0},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			before := *h
			at := started.Add(time.Duration(step.after) * time.Second)
			next := k.Record(h, container.HealthcheckResult{Start: at, End: at, ExitCode: step.code}, started)
			if h.Status != before.Status || len(h.Log) != len(before.Log) {
				t.Errorf("step %d changed its argument", i)
			}
			if h = next; h.Status != step.status || h.FailingStreak != step.streak {
				t.Errorf("step %d: %s %d", i, h.Status, h.FailingStreak)
			}
		})
	}
	if len(h.Log) != MaxLog || h.Log[0].Start.Sub(started) != 14*time.Second || h.Log[4].Start.Sub(started) != 18*time.Second {
		t.Errorf("log %d from %v", len(h.Log), h.Log[0].Start.Sub(started))
	}
	// Healthy once, the start period is over.
	h = k.Record(Begin(nil), container.HealthcheckResult{Start: started, ExitCode: 0}, started)
	if h = k.Record(h, container.HealthcheckResult{Start: started, ExitCode: 1}, started); h.FailingStreak != 1 || h.Status != container.Healthy {
		t.Errorf("%+v", h)
	}
	if e := End(h); e.Status != container.Unhealthy || len(e.Log) != 2 || h.Status != container.Healthy {
		t.Errorf("%+v", e)
	}
	if b := Begin(h); b.Status != container.Starting || b.FailingStreak != 0 || len(b.Log) != 2 {
		t.Errorf("%+v", b)
	}
}

func TestNext(t *testing.T) {
	started := time.Unix(1000, 0)
	sec := func(n int) time.Time { return started.Add(time.Duration(n) * time.Second) }
	k := &Check{Interval: 10 * time.Second, StartPeriod: 20 * time.Second, StartInterval: 2 * time.Second}
	probed := func(s container.HealthStatus, end int) *container.Health {
		return &container.Health{Status: s, Log: []*container.HealthcheckResult{{End: sec(end)}}}
	}
	for i, c := range []struct {
		h    *container.Health
		now  int
		want int
	}{
		{Begin(nil), 0, 2},
		{Begin(nil), 1, 1},
		{probed(container.Starting, 5), 5, 2},
		{probed(container.Starting, 21), 21, 10},
		{probed(container.Healthy, 5), 5, 10},
		{probed(container.Healthy, 5), 12, 3},
		{probed(container.Healthy, 5), 100, 0},  // another daemon's, long ago
		{probed(container.Starting, -50), 0, 2}, // of the run before
		{probed(container.Healthy, 50), 30, 10}, // the clock was set back
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if got := k.Next(c.h, started, sec(c.now)); got != time.Duration(c.want)*time.Second {
				t.Errorf("%d: %v", i, got)
			}
		})
	}
}

func TestWords(t *testing.T) {
	for want, h := range map[string]*container.Health{
		"": nil, "health: starting": Begin(nil), "healthy": {Status: container.Healthy}, "unhealthy": {Status: container.Unhealthy},
	} {
		t.Run(want, func(t *testing.T) {
			if got := Words(h); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}
