package storage

import (
	"context"

	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	bolt "go.etcd.io/bbolt"
)

// View calls fn with a context in which all reads of Content, Snapshots and Images see
// one state of the metadata, for the price of one transaction, and with that state's
// number: a state that was changed has another one. What fn reads must go through
// its context, and it must not write: a second transaction would wait for a writer
// that waits for the first. Blobs themselves are files and no part of the state.
func (s *Store) View(ctx context.Context, fn func(ctx context.Context, state uint64) error) error {
	return s.bolt.View(func(tx *bolt.Tx) error {
		return fn(boltutil.WithTransaction(Context(ctx), tx), uint64(tx.ID()))
	})
}
