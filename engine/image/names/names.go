// Package names holds the names of images, in memory and in the database: which image a
// reference points to, and which image a user's reference means.
package names

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/storage"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dangling prefixes the database names of images that have no name of their own; as a
// reference it is not valid, so nobody can give it to an image.
const dangling = "<none>@"

// IsDangling reports whether a database name only stands for the lack of one.
func IsDangling(name string) bool { return strings.HasPrefix(name, dangling) }

// Dangling is the database name of an image that has no name of its own.
func Dangling(target digest.Digest) string { return dangling + string(target) }

// Store is the names of one daemon's images. Safe for concurrent use.
type Store struct {
	db  images.Store
	bus *event.Bus

	mu      sync.RWMutex
	names   map[string]images.Image // by database name; what the database has
	version atomic.Uint64           // of names

	change sync.Mutex // held while names are read and changed by it
}

// Open reads all names of a database, which stays the caller's. bus, which may be nil,
// gets the events of images.
func Open(db images.Store, bus *event.Bus) (*Store, error) {
	list, err := db.List(storage.Context(context.Background()))
	if err != nil {
		return nil, fmt.Errorf("reading image names: %w", err)
	}
	s := &Store{db: db, bus: bus, names: make(map[string]images.Image, len(list))}
	for _, i := range list {
		s.names[i.Name] = i
	}
	return s, nil
}

// Version is another one after every change.
func (s *Store) Version() uint64 { return s.version.Load() }

// Tx changes names while nobody else does. It is used inside Update only.
type Tx struct {
	s   *Store
	ctx context.Context
}

// Update calls fn while no name changes but by its transaction. What fn has changed stays
// changed when it fails.
func (s *Store) Update(ctx context.Context, fn func(tx Tx) error) error {
	s.change.Lock()
	defer s.change.Unlock()
	return fn(Tx{s, storage.Context(ctx)})
}

// Set makes name point to target. What it pointed to before, and now has no name,
// becomes a dangling image. It returns the target before, nil if there was none.
func (s *Store) Set(ctx context.Context, name string, target ocispec.Descriptor) (old *ocispec.Descriptor, err error) {
	err = s.Update(ctx, func(tx Tx) error {
		old, err = tx.Set(name, target)
		return err
	})
	return old, err
}

// Set is Store.Set.
func (tx Tx) Set(name string, target ocispec.Descriptor) (*ocispec.Descriptor, error) {
	s := tx.s
	s.mu.RLock()
	old, had := s.names[name]
	s.mu.RUnlock()
	if had && old.Target.Digest == target.Digest {
		return &old.Target, nil
	}
	if had && !IsDangling(name) && len(s.Of(old.Target.Digest)) == 1 {
		if err := tx.Put(Dangling(old.Target.Digest), old.Target); err != nil {
			return nil, err
		}
	}
	if err := tx.Put(name, target); err != nil {
		return nil, err
	}
	if !IsDangling(name) {
		if err := tx.Delete(Dangling(target.Digest)); err != nil {
			return nil, err
		}
	}
	if had {
		return &old.Target, nil
	}
	return nil, nil
}

// Put makes name point to target, and nothing else.
func (tx Tx) Put(name string, target ocispec.Descriptor) error {
	s := tx.s
	// The database keeps what identifies the target; annotations of an index entry and
	// such are not the image's.
	target = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	img, err := s.db.Create(tx.ctx, images.Image{Name: name, Target: target})
	if errdefs.IsAlreadyExists(err) {
		img, err = s.db.Update(tx.ctx, images.Image{Name: name, Target: target}, "target")
	}
	if err != nil {
		return fmt.Errorf("storing image name: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.names[name] = img
	s.version.Add(1)
	return nil
}

// Delete forgets a name; none is no error.
func (tx Tx) Delete(name string) error {
	s := tx.s
	s.mu.RLock()
	_, had := s.names[name]
	s.mu.RUnlock()
	if !had {
		return nil
	}
	if err := s.db.Delete(tx.ctx, name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("removing image name: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.names, name)
	s.version.Add(1)
	return nil
}

// Of returns the database names that point to a target, sorted.
func (s *Store) Of(target digest.Digest) []string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var names []string
	for n, i := range s.names {
		if i.Target.Digest == target {
			names = append(names, n)
		}
	}
	return reference.Sort(names)
}

// Tagged is a tag and what it points to.
type Tagged struct {
	Name   reference.NamedTagged
	Target ocispec.Descriptor
}

// Tags returns all tags of a repository (its full name), in no order.
func (s *Store) Tags(repo string) []Tagged {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var all []Tagged
	for n, i := range s.names {
		if IsDangling(n) {
			continue
		}
		r, err := reference.ParseNormalizedNamed(n)
		if err != nil || r.Name() != repo {
			continue
		}
		if t, ok := r.(reference.NamedTagged); ok {
			all = append(all, Tagged{t, i.Target})
		}
	}
	return all
}

// Familiar turns a database name into what people see; "" for dangling ones.
func Familiar(name string) string {
	if IsDangling(name) {
		return ""
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(ref)
}

// Emit tells what happened to an image; name is what people call it, "" for nothing.
func (s *Store) Emit(action events.Action, id, name string) {
	attrs := map[string]string{}
	if name != "" {
		attrs["name"] = name
	}
	s.EmitWith(action, id, attrs)
}

// EmitWith is Emit with attributes of the caller's choice.
func (s *Store) EmitWith(action events.Action, id string, attrs map[string]string) {
	if s.bus != nil {
		s.bus.Emit(events.ImageEventType, action, id, attrs)
	}
}
