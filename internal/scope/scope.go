// Package scope ties the goroutines of a service to the service's life: they carry a context
// that Close cancels, and Close waits for them.
package scope

import (
	"context"
	"sync"
	"time"
)

// Scope is the life of one service. Safe for concurrent use.
type Scope struct {
	ctx    context.Context
	cancel context.CancelFunc
	work   sync.WaitGroup
}

// New opens a scope. Close ends it.
func New() *Scope {
	ctx, cancel := context.WithCancel(context.Background())
	return &Scope{ctx: ctx, cancel: cancel}
}

// Context is cancelled by Close.
func (s *Scope) Context() context.Context { return s.ctx }

// Timeout is a context that ends after d, and with the scope. The caller calls cancel.
func (s *Scope) Timeout(d time.Duration) (ctx context.Context, cancel context.CancelFunc) {
	return context.WithTimeout(s.ctx, d)
}

// Closed reports whether Close was called.
func (s *Scope) Closed() bool { return s.ctx.Err() != nil }

// Go runs f in a goroutine that Close waits for. Once Close was called, only goroutines
// that Close still waits for may call it.
func (s *Scope) Go(f func()) { s.work.Go(f) }

// Close cancels the context and waits for the goroutines as long as ctx allows; then it
// returns ctx's error. It may be called again.
func (s *Scope) Close(ctx context.Context) error {
	s.cancel()
	ended := make(chan struct{})
	go func() { s.work.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
