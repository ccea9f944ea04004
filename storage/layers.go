package storage

import (
	"context"
	"os"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/storage/driver"
	"github.com/gantry/gantry/storage/rootview"
)

// Layer is where one container writes, as data; its root is that above the directories
// of its lease.
type Layer = driver.Layer

// LayerUsage is what a writable layer takes.
type LayerUsage = driver.Usage

// Layers are the writable layers of containers, as the storage driver keeps them: each
// above the image its container has leased. Safe for concurrent use on different ids.
type Layers struct{ store *Store }

// Create makes the layer of a container, above what it holds of an image; without a hold
// it is an empty root. The error is of class AlreadyExists when there is one.
func (l *Layers) Create(container string) (Layer, error) {
	ctx := context.Background()
	lower, err := l.store.lowerOf(ctx, container)
	if err != nil {
		return Layer{}, err
	}
	return l.store.driver.Create(ctx, container, lower)
}

// Get returns the layer of a container; the error is of class NotFound without one,
// FailedPrecondition when another storage driver made it.
func (l *Layers) Get(container string) (Layer, error) { return l.store.driver.Layer(container) }

// View opens the root file system of a container as it is at this moment, as a directory (O_PATH)
// that is mounted nowhere and has nothing mounted on it: volumes, /proc and the like show as the
// empty directories and files that they cover. rootview.OpenIn looks names up in it. The caller
// closes it, and then it is gone.
//
// running is the mount namespace of a container that runs or is paused, and stays the caller's;
// the view is its own mount then, and shows what it writes. nil is a container that does not
// run; the view is made of its layer. One that starts nevertheless while a
// ReadOnly view is open does no harm: what it writes shows, or does not. A ReadWrite view is
// the only one who has the layer mounted: the caller keeps the container from starting, and from
// having a second one.
//
// Any number of views may be open at a time; View is safe for concurrent use. A view outlives
// the end of its container; when the layer is removed, its files vanish from it. Errors are of
// class NotFound without a layer, FailedPrecondition when another storage driver made it or
// running is no namespace of its own.
func (l *Layers) View(ctx context.Context, container string, running *os.File, a rootview.Access) (*os.File, error) {
	if running != nil {
		return rootview.Running(running, a)
	}
	lower, err := l.store.lowerOf(ctx, container)
	if err != nil {
		return nil, err
	}
	return l.store.driver.View(container, lower, a)
}

// Remove deletes the layer of a container; none is no error. From the first step on
// the layer is gone for Get and List, and a crash after it only leaves work for the
// next start.
func (l *Layers) Remove(container string) error { return l.store.driver.Remove(container) }

// Usage measures what the container has written. Errors as Get's.
func (l *Layers) Usage(ctx context.Context, container string) (LayerUsage, error) {
	lower, err := l.store.lowerOf(ctx, container)
	if err != nil {
		return LayerUsage{}, err
	}
	return l.store.driver.Usage(ctx, container, lower)
}

// List returns the containers that have a layer.
func (l *Layers) List() ([]string, error) { return l.store.driver.List() }

// lowerOf returns the directories below a container's layer; none without a hold.
func (s *Store) lowerOf(ctx context.Context, container string) ([]string, error) {
	s.chains.mu.Lock()
	defer s.chains.mu.Unlock()
	h, err := s.heldBy(container)
	if errdefs.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if h.Driver != s.about.Name {
		return nil, nil // the driver will say so
	}
	return s.lowerLocked(ctx, h.Chain)
}
