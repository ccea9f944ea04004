package image

import (
	"context"
	"errors"
	"sync"
)

// keyLock is one lock per key, for as long as somebody wants it.
type keyLock struct {
	mu sync.Mutex
	m  map[string]*keyState
}

type keyState struct {
	sem  chan struct{}
	refs int
}

// lock waits for the key; unlock gives it back.
func (k *keyLock) lock(ctx context.Context, key string) (unlock func(), err error) {
	k.mu.Lock()
	if k.m == nil {
		k.m = map[string]*keyState{}
	}
	st := k.m[key]
	if st == nil {
		st = &keyState{sem: make(chan struct{}, 1)}
		k.m[key] = st
	}
	st.refs++
	k.mu.Unlock()
	drop := func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		if st.refs--; st.refs == 0 {
			delete(k.m, key)
		}
	}
	unlock = func() { <-st.sem; drop() }
	select {
	case st.sem <- struct{}{}:
		return unlock, nil
	default:
	}
	select {
	case st.sem <- struct{}{}:
		return unlock, nil
	case <-ctx.Done():
		drop()
		return nil, ctx.Err()
	}
}

// errBusy is what tryLock answers for a key that somebody has.
var errBusy = errors.New("in use")

// tryLock is lock without waiting.
func (k *keyLock) tryLock(key string) (unlock func(), err error) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	k.mu.Lock()
	st := k.m[key]
	busy := st != nil
	k.mu.Unlock()
	if busy {
		return nil, errBusy
	}
	return k.lock(ctx, key)
}

// flights shares work: who asks for what somebody is already doing watches that and
// gets its result. The work is cancelled when the last one who wanted it is gone.
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
	targets map[int]Progress
	next    int
}

type update struct {
	id, status     string
	current, total int64
}

// do runs work, or joins the one under way for key.
func (f *flights) do(ctx context.Context, key string, p Progress, work func(context.Context, Progress) error) error {
	f.mu.Lock()
	if f.m == nil {
		f.m = map[string]*flight{}
	}
	fl := f.m[key]
	if fl == nil {
		wctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
		fl = &flight{cancel: cancel, done: make(chan struct{}), last: map[string]update{}, targets: map[int]Progress{}}
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

func (fl *flight) join(p Progress) int {
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

// Update implements Progress for the work: everyone who watches gets it.
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

// Aux implements Progress.
func (fl *flight) Aux(v any) {
	fl.mu.Lock()
	defer fl.mu.Unlock()
	for _, p := range fl.targets {
		p.Aux(v)
	}
}
