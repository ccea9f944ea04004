// Package health decides about a container's health with pure functions: when the next probe is
// due, and how a probe's result changes the state. Watch runs the probes of one run.
package health

import (
	"slices"
	"time"

	"github.com/moby/moby/api/types/container"
)

// What is not configured, as with Docker.
const (
	defaultInterval      = 30 * time.Second
	defaultTimeout       = 30 * time.Second
	defaultStartInterval = 5 * time.Second
	defaultRetries       = 3
)

// MaxLog is how many results are kept, MaxOutput how many bytes of each one's output.
const (
	MaxLog    = 5
	MaxOutput = 4096
)

// Check is a container's health check with nothing left open.
type Check struct {
	Command       []string
	Interval      time.Duration
	Timeout       time.Duration
	StartPeriod   time.Duration
	StartInterval time.Duration
	Retries       int
}

// Of reads a container's configuration; nil when it asks for no check, or for an unknown kind.
func Of(c *container.Config) *Check {
	h := c.Healthcheck
	if h == nil || len(h.Test) < 2 {
		return nil
	}
	k := &Check{
		Interval: orDefault(h.Interval, defaultInterval), Timeout: orDefault(h.Timeout, defaultTimeout),
		StartPeriod: h.StartPeriod, StartInterval: orDefault(h.StartInterval, defaultStartInterval), Retries: h.Retries,
	}
	if k.Retries <= 0 {
		k.Retries = defaultRetries
	}
	switch h.Test[0] {
	case "CMD":
		k.Command = slices.Clone(h.Test[1:])
	case "CMD-SHELL":
		shell := c.Shell
		if len(shell) == 0 {
			shell = []string{"/bin/sh", "-c"}
		}
		k.Command = append(slices.Clone(shell), h.Test[1:]...)
	default:
		return nil
	}
	return k
}

func orDefault(d, otherwise time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return d
}

// Begin is the health of a run that has just started; old is that of the runs before (nil: none),
// whose results are still shown.
func Begin(old *container.Health) *container.Health {
	h := &container.Health{Status: container.Starting}
	if old != nil {
		h.Log = old.Log
	}
	return h
}

// End is the health of a run that is over. It is unhealthy, as with Docker, whatever it was.
func End(old *container.Health) *container.Health {
	h := *old
	h.Status = container.Unhealthy
	return &h
}

// Record is the health after a probe, of a run that started at the given time. It changes
// nothing that old points to.
func (k *Check) Record(old *container.Health, r container.HealthcheckResult, started time.Time) *container.Health {
	h := *old
	h.Log = append(slices.Clone(old.Log[max(0, len(old.Log)-MaxLog+1):]), &r)
	switch {
	case r.ExitCode == 0:
		h.Status, h.FailingStreak = container.Healthy, 0
	case h.Status == container.Starting && r.Start.Sub(started) < k.StartPeriod:
		// It may take its time.
	default:
		h.FailingStreak++
		if h.FailingStreak >= k.Retries {
			h.Status = container.Unhealthy
		}
	}
	return &h
}

// Next is how long it is from now until the next probe of a run that started at the given time.
// The results of earlier probes of the same run count also when another daemon made them.
func (k *Check) Next(h *container.Health, started, now time.Time) time.Duration {
	every := k.Interval
	if h.Status == container.Starting && now.Sub(started) < k.StartPeriod {
		every = k.StartInterval
	}
	since := started
	if n := len(h.Log); n > 0 && h.Log[n-1].End.After(started) {
		since = h.Log[n-1].End
	}
	return min(max(0, since.Add(every).Sub(now)), every)
}

// Words is the health as the status column of a list shows it; "" for none.
func Words(h *container.Health) string {
	switch {
	case h == nil:
		return ""
	case h.Status == container.Starting:
		return "health: starting"
	}
	return string(h.Status)
}
