package pull

import (
	"context"
	"sync"

	"github.com/gantry/gantry/engine/image/progress"
)

// flights shares work: a caller who asks for work that is under way gets its progress and
// its result. The work is cancelled when its last caller has gone.
type flights struct {
	mu sync.Mutex
	m  map[string]*flight
}

type flight struct {
	cancel context.CancelFunc
	done   chan struct{}
	err    error

	mu      sync.Mutex
	last    map[string]update // newest state by id, for those who come later
	order   []string
	targets map[int]progress.Sink
	next    int
}

type update struct {
	id, status     string
	current, total int64
}

// do runs work, or joins the one under way for key.
func (f *flights) do(ctx context.Context, key string, p progress.Sink, work func(context.Context, progress.Sink) error) error {
	f.mu.Lock()
	if f.m == nil {
		f.m = map[string]*flight{}
	}
	fl := f.m[key]
	if fl == nil {
		wctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		fl = &flight{cancel: cancel, done: make(chan struct{}), last: map[string]update{}, targets: map[int]progress.Sink{}}
		f.m[key] = fl
		go func() {
			fl.err = work(wctx, fl)
			f.mu.Lock()
			if f.m[key] == fl {
				delete(f.m, key)
			}
			f.mu.Unlock()
			cancel()
			close(fl.done)
		}()
	}
	n := fl.join(p)
	f.mu.Unlock()
	select {
	case <-fl.done:
		return fl.err
	case <-ctx.Done():
	}
	f.mu.Lock()
	if fl.leave(n) == 0 {
		// Nobody wants it: a newcomer starts afresh rather than share the cancellation.
		fl.cancel()
		if f.m[key] == fl {
			delete(f.m, key)
		}
	}
	f.mu.Unlock()
	return ctx.Err()
}

func (fl *flight) join(p progress.Sink) int {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, id := range fl.order {
		u := fl.last[id]
		p.Update(u.id, u.status, u.current, u.total)
	}
	fl.next++
	fl.targets[fl.next] = p
	return fl.next
}

func (fl *flight) leave(n int) int {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	delete(fl.targets, n)
	return len(fl.targets)
}

// Update implements progress.Sink for the work: everyone who watches gets it.
func (fl *flight) Update(id, status string, current, total int64) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	key := id
	if current == 0 && total == 0 && id == "" {
		key = "\x00" + status // lines of the whole do not replace each other
	}
	if _, ok := fl.last[key]; !ok {
		fl.order = append(fl.order, key)
	}
	fl.last[key] = update{id, status, current, total}
	for _, p := range fl.targets {
		p.Update(id, status, current, total)
	}
}

// Aux implements progress.Sink.
func (fl *flight) Aux(v any) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, p := range fl.targets {
		p.Aux(v)
	}
}
