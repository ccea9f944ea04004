package fsm

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// world plays the task: it holds the effects that were asked for and gives their
// results back in any order, stale ones too, and checks what must always hold.
type world struct {
	t       *testing.T
	r       *rand.Rand
	s       State
	ticket  Ticket
	open    map[Ticket]string // requests without an answer
	pending []Effect
	live    map[uint64]bool // runs that have a process
	ending  map[uint64]bool // runs that hold resources: from Run until TornDown or failure
	removed bool
	log     []string
}

func (w *world) failf(format string, a ...any) {
	w.t.Helper()
	for _, l := range w.log[max(0, len(w.log)-30):] {
		w.t.Log(l)
	}
	w.t.Fatalf(format, a...)
}

func (w *world) next(what string) Ticket {
	w.ticket++
	w.open[w.ticket] = what
	return w.ticket
}

func (w *world) feed(ev Event) {
	w.t.Helper()
	before := w.s
	shadow := fmt.Sprintf("%v", before)
	var out []Effect
	w.s, out = Step(before, ev)
	w.log = append(w.log, fmt.Sprintf("%v run %d: %T%+v → %v %v", before.Phase, before.Run, ev, ev, w.s.Phase, out))
	if shadow != fmt.Sprintf("%v", before) {
		w.failf("Step changed its argument")
	}
	for _, e := range out {
		w.take(e)
	}
	if w.removed && w.s.Phase != Removed {
		w.failf("left the phase removed")
	}
	if w.s.Phase == Removed {
		w.removed = true
		if len(w.ending) > 0 {
			w.failf("removed while runs hold resources: %v", w.ending)
		}
	}
}

func (w *world) take(e Effect) {
	switch e := e.(type) {
	case Answer:
		if _, ok := w.open[e.T]; !ok {
			w.failf("ticket %d answered twice or never given", e.T)
		}
		delete(w.open, e.T)
		return
	case Tell:
		return
	case Run:
		if len(w.ending) > 0 {
			w.failf("run %d starts while %v holds resources", e.Run, w.ending)
		}
		w.ending[e.Run] = true
	case Teardown:
		if !w.ending[e.Run] || w.live[e.Run] {
			w.failf("teardown of run %d: %v %v", e.Run, w.ending, w.live)
		}
	case Delete:
		if len(w.ending) > 0 {
			w.failf("deleted while %v holds resources", w.ending)
		}
	}
	w.pending = append(w.pending, e)
}

var errAny = errors.New("any")

func (w *world) maybe() error {
	if w.r.IntN(4) == 0 {
		return errAny
	}
	return nil
}

// resolve gives back the result of one pending effect.
func (w *world) resolve(i int) {
	e := w.pending[i]
	w.pending = append(w.pending[:i:i], w.pending[i+1:]...)
	switch e := e.(type) {
	case Run:
		if err := w.maybe(); err != nil {
			delete(w.ending, e.Run)
			w.feed(StartFailed{Run: e.Run, Err: err, Code: 127})
			return
		}
		w.live[e.Run] = true
		if w.r.IntN(3) == 0 {
			w.exit(e.Run) // the exit overtakes the answer
		}
		w.feed(Started(e))
	case Signal:
		w.feed(Signaled{Run: e.Run, T: e.T, Err: w.maybe()})
		if e.Signal == 9 {
			w.exit(e.Run)
		}
	case Freeze:
		w.feed(Froze{Run: e.Run, T: e.T, Err: w.maybe()})
	case Thaw:
		w.feed(Thawed{Run: e.Run, T: e.T, Err: w.maybe()})
	case Timer:
		w.feed(Fired{Run: e.Run, Kind: e.Kind})
	case Teardown:
		delete(w.ending, e.Run)
		w.feed(TornDown(e))
	case Delete:
		w.feed(Deleted{Err: w.maybe()})
	}
}

func (w *world) exit(run uint64) {
	if !w.live[run] {
		return
	}
	delete(w.live, run)
	ran := time.Duration(w.r.IntN(20)) * time.Second
	w.feed(HasExited{Run: run, Exit: Exit{Code: w.r.IntN(3), Ran: ran}})
}

// random does one of 25 things; six of them give back the result of a pending effect.
func (w *world) random() {
	tmo := time.Duration(w.r.IntN(3)-1) * time.Second
	switch n := w.r.IntN(25); {
	case n < 13:
		w.request(n, tmo)
	case n < 19:
		w.happen(n-13, tmo)
	case len(w.pending) > 0:
		w.resolve(w.r.IntN(len(w.pending)))
	}
}

// request is what somebody asks for.
func (w *world) request(n int, tmo time.Duration) {
	switch n {
	case 0, 1, 2:
		w.feed(Start{w.next("start")})
	case 3:
		w.feed(Stop{w.next("stop"), 15, tmo})
	case 4:
		w.feed(Kill{T: w.next("kill"), Signal: 9, Final: true})
	case 5:
		w.feed(Kill{T: w.next("kill"), Signal: 1, Cancel: w.r.IntN(2) == 0})
	case 6:
		w.feed(Restart{w.next("restart"), 15, tmo})
	case 7, 8:
		w.feed(Pause{w.next("pause")})
	case 9, 10:
		w.feed(Unpause{w.next("unpause")})
	case 11:
		if w.r.IntN(6) == 0 {
			w.feed(Remove{w.next("remove"), w.r.IntN(2) == 0})
		}
	case 12:
		w.feed(Wait{w.next("wait"), Condition(w.r.IntN(3))})
	}
}

// happen is what nobody asked for.
func (w *world) happen(n int, tmo time.Duration) {
	switch n {
	case 0:
		for t, what := range w.open {
			if what == "wait" {
				w.feed(CancelWait{t})
				break
			}
		}
	case 1:
		w.feed(ShimLost{})
		w.feed(ShimBack{Run: w.s.Run, Held: true})
	case 2:
		w.stale()
	case 3:
		for run := range w.live {
			w.exit(run)
		}
	case 4:
		if w.r.IntN(4) == 0 && w.s.Phase == Exited && len(w.pending) == 0 {
			w.feed(Boot{})
		}
	case 5:
		w.feed(Unhealthy{Run: w.s.Run - uint64(w.r.IntN(2)), Do: Remedy(w.r.IntN(3)), Signal: 15, Timeout: tmo})
	}
}

// stale is a result of a run that is over.
func (w *world) stale() {
	old := w.s.Run - uint64(1+w.r.IntN(2))
	if old < w.s.Run {
		w.feed([]Event{
			Started{old},
			StartFailed{Run: old, Err: errAny},
			HasExited{Run: old},
			TornDown{old},
			Froze{Run: old},
			Thawed{Run: old},
			Fired{old, Backoff},
			Signaled{Run: old},
		}[w.r.IntN(8)])
	}
}

// TestWalk plays random requests and results in any order. At the end everything is
// killed and removed: no request may be left without its answer.
func TestWalk(t *testing.T) {
	walks, steps := 1000, 150
	if testing.Short() {
		walks = 200
	}
	for seed := range walks {
		w := &world{
			t: t, r: rand.New(rand.NewPCG(uint64(seed), 7)), open: map[Ticket]string{},
			live: map[uint64]bool{}, ending: map[uint64]bool{},
		}
		w.s.Policy = Policy{Mode: Mode(w.r.IntN(4)), Max: w.r.IntN(3)}
		w.s.AutoRemove = w.s.Policy.Mode == No && w.r.IntN(3) == 0
		for range steps {
			w.random()
		}
		for i := 0; w.s.Phase != Removed; i++ {
			if i > 200 {
				w.failf("seed %d: does not come to an end in phase %v", seed, w.s.Phase)
			}
			if len(w.pending) == 0 {
				for run := range w.live {
					w.exit(run)
				}
				w.feed(Remove{w.next("remove"), true})
			}
			for len(w.pending) > 0 {
				w.resolve(0)
			}
		}
		for len(w.pending) > 0 {
			w.resolve(0)
		}
		if len(w.open) > 0 {
			w.failf("seed %d: without an answer: %v", seed, w.open)
		}
		if len(w.live)+len(w.ending) > 0 {
			w.failf("seed %d: left: %v %v", seed, w.live, w.ending)
		}
	}
}
