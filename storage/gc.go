package storage

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
)

// gcDelay is how long a wanted collection waits for further deletes, so that a prune
// of many images is collected once.
const gcDelay = 200 * time.Millisecond

// collector runs garbage collections beside the requests that want them, one at a time.
type collector struct {
	want chan struct{}
	quit chan struct{}
	done chan struct{}
	mu   sync.Mutex // held while collecting
}

func (c *collector) start(s *Store) {
	c.want, c.quit, c.done = make(chan struct{}, 1), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(c.done)
		// Directories of layers whose removal a crash cut off.
		if cl, ok := s.driver.Snapshots().(snapshots.Cleaner); ok {
			if err := cl.Cleanup(Context(context.Background())); err != nil && !errdefs.IsNotFound(err) {
				slog.Warn("cleaning up layers failed", "error", err)
			}
		}
		for {
			select {
			case <-c.quit:
				return
			case <-c.want:
			}
			select {
			case <-c.quit:
				return
			case <-time.After(gcDelay):
			}
			if err := s.CollectNow(context.Background()); err != nil {
				slog.Warn("garbage collection of images failed", "error", err)
			}
		}
	}()
}

func (c *collector) stop() {
	if c.quit == nil {
		return
	}
	close(c.quit)
	<-c.done
}

// Collect asks for a garbage collection soon. It does not block.
func (s *Store) Collect() {
	select {
	case s.gc.want <- struct{}{}:
	default:
	}
}

// CollectNow removes every blob, layer and ingest that no image name, lease or other
// object refers to, and their files. Writes to the database wait meanwhile.
func (s *Store) CollectNow(ctx context.Context) error {
	s.gc.mu.Lock()
	defer s.gc.mu.Unlock()
	if err := s.dropUnheld(ctx); err != nil {
		return err
	}
	_, err := s.db.GarbageCollect(Context(ctx))
	return err
}
