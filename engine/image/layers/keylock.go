package layers

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
