package fsm

import (
	"errors"
	"slices"
	"testing"
	"time"
)

func run(s State, evs ...Event) (State, []Effect) {
	var all []Effect
	for _, ev := range evs {
		var out []Effect
		s, out = Step(s, ev)
		all = append(all, out...)
	}
	return s, all
}

func answers(es []Effect) map[Ticket]error {
	m := map[Ticket]error{}
	for _, e := range es {
		if a, ok := e.(Answer); ok {
			m[a.T] = a.Err
		}
	}
	return m
}

func told(es []Effect) []string {
	var s []string
	for _, e := range es {
		if t, ok := e.(Tell); ok {
			s = append(s, t.What)
		}
	}
	return s
}

func TestLife(t *testing.T) {
	s, out := run(State{}, Start{1}, Started{1}, Wait{2, NextExit}, Stop{3, 15, time.Second},
		HasExited{1, Exit{Code: 143}}, TornDown{1})
	if s.Phase != Exited || !s.ManualStop {
		t.Errorf("phase %v, manual %v", s.Phase, s.ManualStop)
	}
	if got, want := told(out), []string{"start", "kill", "die", "stop"}; !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if a := answers(out); len(a) != 3 || a[1] != nil || a[2] != nil || a[3] != nil {
		t.Errorf("answers %v", a)
	}
	if s, out = run(s, Stop{4, 15, 0}); !errors.Is(answers(out)[4], ErrAlready) {
		t.Errorf("stop of a stopped container: %v", answers(out))
	}
	if _, out = run(s, Kill{T: 5, Signal: 9, Final: true}); !errors.Is(answers(out)[5], ErrNotRunning) {
		t.Errorf("kill of a stopped container: %v", answers(out))
	}
}

func TestBackOff(t *testing.T) {
	s := State{Policy: Policy{Mode: OnFailure, Max: 3}}
	s, _ = run(s, Start{1}, Started{1})
	var delays []time.Duration
	for i := range 5 {
		var out []Effect
		s, out = run(s, HasExited{s.Run, Exit{Code: 1, Ran: time.Duration(i/2) * 11 * time.Second}}, TornDown{s.Run})
		for _, e := range out {
			if tm, ok := e.(Timer); ok {
				delays = append(delays, tm.After)
			}
		}
		s, _ = run(s, Fired{s.Run, Backoff}, Started{s.Run + 1})
	}
	want := []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 100 * time.Millisecond}
	if !slices.Equal(delays, want) || s.Phase != Exited || s.Restarts != 3 {
		t.Errorf("delays %v, phase %v, restarts %d", delays, s.Phase, s.Restarts)
	}
}

func TestPolicies(t *testing.T) {
	stop, kill := Stop{9, 15, time.Second}, Kill{T: 9, Signal: 9, Final: true}
	for _, c := range []struct {
		name string
		mode Mode
		by   Event
		code int
		want Phase
		boot Phase
	}{
		{"no", No, nil, 1, Exited, Exited},
		{"always", Always, nil, 0, Restarting, Restarting},
		{"always stopped", Always, stop, 0, Exited, Starting},
		{"always killed", Always, kill, 137, Exited, Starting},
		{"unless-stopped", UnlessStopped, nil, 0, Restarting, Restarting},
		{"unless-stopped stopped", UnlessStopped, stop, 0, Exited, Exited},
		{"on-failure well", OnFailure, nil, 0, Exited, Exited},
		{"on-failure ill", OnFailure, nil, 3, Restarting, Restarting},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := run(State{Policy: Policy{Mode: c.mode}}, Start{1}, Started{1})
			if c.by != nil {
				s, _ = run(s, c.by)
			}
			s, _ = run(s, HasExited{1, Exit{Code: c.code}}, TornDown{1})
			if s.Phase != c.want {
				t.Errorf("%s: %v, want %v", c.name, s.Phase, c.want)
			}
			if s, _ = run(s, Boot{}); s.Phase != c.boot {
				t.Errorf("%s: after boot %v, want %v", c.name, s.Phase, c.boot)
			}
		})
	}
}

func TestFailedStart(t *testing.T) {
	boom := errors.New("boom")
	s, out := run(State{}, Wait{1, NextExit}, Start{2}, StartFailed{1, boom, 127})
	if s.Phase != Created || s.Last.Code != 127 || s.Error != "boom" {
		t.Errorf("%v %d %q", s.Phase, s.Last.Code, s.Error)
	}
	if a := answers(out); len(a) != 1 || !errors.Is(a[2], boom) {
		t.Errorf("answers %v", a)
	}
	s, out = run(State{AutoRemove: true}, Wait{1, OnRemoval}, Start{2}, StartFailed{1, boom, 127}, Deleted{})
	if a := answers(out); s.Phase != Removed || len(a) != 2 || a[1] != nil {
		t.Errorf("%v, answers %v", s.Phase, a)
	}
}

func TestForcedRemoval(t *testing.T) {
	s, out := run(State{}, Start{1}, Started{1}, Remove{2, false})
	if !errors.Is(answers(out)[2], ErrRunning) {
		t.Errorf("answers %v", answers(out))
	}
	s, out = run(s, Pause{3}, Froze{1, 3, nil}, Remove{4, true}, Thawed{1, 0, nil},
		HasExited{1, Exit{Code: 137}}, TornDown{1}, Remove{5, false}, Deleted{})
	a := answers(out)
	if s.Phase != Removed || a[4] != nil || !errors.Is(a[5], ErrRemoving) {
		t.Errorf("%v, answers %v", s.Phase, a)
	}
	if got, want := told(out), []string{"pause", "kill", "die", "destroy"}; !slices.Equal(got, want) {
		t.Errorf("told %v", got)
	}
}

func TestRestartRequest(t *testing.T) {
	s, out := run(State{AutoRemove: true}, Start{1}, Started{1}, Restart{2, 15, time.Second},
		HasExited{1, Exit{}}, TornDown{1}, Started{2})
	if s.Phase != Running || s.Run != 2 || len(answers(out)) != 2 {
		t.Errorf("%v run %d %v", s.Phase, s.Run, answers(out))
	}
	if _, out = run(s, HasExited{1, Exit{}}); len(out) != 0 {
		t.Errorf("a stale exit did something: %v", out)
	}
}

// What the restart policy makes of a container that does not run when the daemon comes up.
func TestBoot(t *testing.T) {
	for name, c := range map[string]struct {
		s     State
		again bool
	}{
		"no policy":               {State{Phase: Exited, Last: Exit{Code: 1}}, false},
		"never ran":               {State{Phase: Created, Policy: Policy{Mode: Always}}, false},
		"always":                  {State{Phase: Exited, Policy: Policy{Mode: Always}, ManualStop: true}, true},
		"unless stopped":          {State{Phase: Exited, Policy: Policy{Mode: UnlessStopped}}, true},
		"unless stopped, stopped": {State{Phase: Exited, Policy: Policy{Mode: UnlessStopped}, ManualStop: true}, false},
		"on failure, none":        {State{Phase: Exited, Policy: Policy{Mode: OnFailure}}, false},
		"on failure":              {State{Phase: Exited, Policy: Policy{Mode: OnFailure}, Last: Exit{Code: 3}, Restarts: 100}, true},
		"on failure, unknown":     {State{Phase: Exited, Policy: Policy{Mode: OnFailure, Max: 1}, Last: Exit{Code: 255, Unknown: true}}, true},
		"on failure, tries left":  {State{Phase: Exited, Policy: Policy{Mode: OnFailure, Max: 3}, Last: Exit{Code: 3}, Restarts: 2}, true},
		"on failure, none left":   {State{Phase: Exited, Policy: Policy{Mode: OnFailure, Max: 3}, Last: Exit{Code: 3}, Restarts: 3}, false},
		"on failure, stopped":     {State{Phase: Exited, Policy: Policy{Mode: OnFailure}, Last: Exit{Code: 143}, ManualStop: true}, false},
	} {
		t.Run(name, func(t *testing.T) {
			after, effects := Step(c.s, Boot{})
			if again := after.Phase == Starting && len(effects) == 1; again != c.again {
				t.Errorf("%s: %v %v", name, after.Phase, effects)
			}
		})
	}
}
