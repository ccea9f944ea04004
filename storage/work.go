package storage

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/quiet"
	"github.com/opencontainers/go-digest"
)

const (
	// workLease prefixes the leases that hold what work under way has stored so far.
	// They outlive the work when that fails, so that the next attempt goes on from
	// there, until they expire.
	workLease   = "gantry/pull/"
	workExpires = 24 * time.Hour
)

// Work gives ctx, which becomes one of this package (Context) under which the libraries log
// nothing, a lease for everything
// that is stored with it. done ends it: what shall stay must be referred to by then.
// With keep the lease of work that failed is left to expire instead, so that another
// attempt finds what this one got, unless the disk is full. done is called once.
func (s *Store) Work(ctx context.Context) (_ context.Context, done func(err error, keep bool), err error) {
	ctx = quiet.Context(Context(ctx))
	l, err := s.Leases.Create(ctx, leases.WithExpiration(workExpires), func(l *leases.Lease) error {
		l.ID = workLease + id.New()
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("leasing storage: %w", err)
	}
	return leases.WithLease(ctx, l.ID), func(err error, keep bool) {
		if keep && err != nil && !IsFull(err) {
			return
		}
		ctx := context.WithoutCancel(ctx)
		_ = s.Leases.Delete(ctx, l)
		switch {
		case IsFull(err):
			_ = s.CollectNow(ctx) // whoever tries next shall find the space
		case err != nil:
			s.Collect()
		}
	}, nil
}

// HoldBlob makes the lease of ctx, if it has one, hold a blob, which need not be there.
func (s *Store) HoldBlob(ctx context.Context, d digest.Digest) error {
	return s.hold(ctx, leases.Resource{ID: d.String(), Type: "content"})
}

// HoldChain makes the lease of ctx, if it has one, hold a chain of unpacked layers,
// which need not be there.
func (s *Store) HoldChain(ctx context.Context, chain digest.Digest) error {
	return s.hold(ctx, leases.Resource{ID: chain.String(), Type: "snapshots/" + s.about.Name})
}

func (s *Store) hold(ctx context.Context, r leases.Resource) error {
	lease, ok := leases.FromContext(ctx)
	if !ok {
		return nil
	}
	return s.Leases.AddResource(ctx, leases.Lease{ID: lease}, r)
}

// IsFull reports whether the disk, or somebody's share of it, was full.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
