package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata/boltutil"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/opencontainers/go-digest"
	bolt "go.etcd.io/bbolt"
)

// errPrecondition is the class of what the host or another process stands in the way of.
var errPrecondition = errdefs.ErrFailedPrecondition

const (
	// chainLease prefixes the leases that hold a chain of layers for containers.
	chainLease = "gantry/chain/"
	// labelFlat makes a lease hold exactly what it names.
	labelFlat = "containerd.io/gc.flat"
)

// A container's hold on its image is two things. In the database one lease per chain
// of layers, taken when the first container of that chain is made and dropped by the
// garbage collector once no container needs it. And per container a symbolic link
// image/leases/<container ID> whose text is that lease's key, short enough to be kept
// in the inode: made by one atomic system call that changes metadata only. So neither
// create nor rm of a further container waits for a database transaction and its fsync;
// after kill -9 the link is there, because the kernel has it; after a power cut the
// journal keeps the order of metadata changes, so a container whose own record was
// synced later has its link too. All links are kept in memory as well, so that who uses
// an image is known without looking at the directory.
type chains struct {
	mu    sync.Mutex
	links map[string]string   // by container: the keys that the links name
	held  map[string]Hold     // by key: the leases in the database
	lower map[string][]string // chain ID → lower directories, topmost first
}

// Hold says what a container holds of its image.
type Hold struct {
	Driver  string          // the name of the storage driver that has unpacked the chain
	Chain   digest.Digest   // "" for an image without layers
	Blobs   []digest.Digest // target, manifest and configuration
	Created time.Time
}

// labelHold keeps a hold's text with its lease.
const labelHold = "gantry.hold"

// firstDriver is the driver of holds that name none.
const firstDriver = "overlayfs"

// text is the hold as its lease and key keep it. Holds of the first driver there was do not
// name it.
func (h Hold) text() string {
	t := string(h.Chain)
	if h.Driver != firstDriver {
		t = h.Driver + "," + t
	}
	for _, b := range h.Blobs {
		t += "," + string(b)
	}
	return t
}

// key names the hold; a link's text of this length takes no block on disk.
func (h Hold) key() string { return digest.FromString(h.text()).Encoded()[:40] }

func parseHold(text string) (Hold, error) {
	parts := strings.Split(text, ",")
	h := Hold{Driver: firstDriver}
	if name := parts[0]; len(parts) > 1 && name != "" && !strings.ContainsAny(name, ":./") {
		h.Driver, parts = name, parts[1:]
	}
	for i, p := range parts {
		d := digest.Digest(p)
		if i == 0 && p == "" {
			continue
		}
		if err := d.Validate(); err != nil {
			return h, fmt.Errorf("damaged lease %q: %w", text, err)
		}
		if i == 0 {
			h.Chain = d
		} else {
			h.Blobs = append(h.Blobs, d)
		}
	}
	return h, nil
}

// loadChains reads which chain leases the database has.
func (s *Store) loadChains() error {
	s.chains.held, s.chains.lower, s.chains.links = map[string]Hold{}, map[string][]string{}, map[string]string{}
	all, err := s.Leases.List(Context(context.Background()))
	if err != nil {
		return err
	}
	for _, l := range all {
		if key, ok := strings.CutPrefix(l.ID, chainLease); ok {
			h, err := parseHold(l.Labels[labelHold])
			if err != nil {
				return err
			}
			s.chains.held[key] = h
		}
	}
	return s.loadLinks()
}

// loadLinks reads which container holds what.
func (s *Store) loadLinks() error {
	dir := filepath.Join(s.root, "leases")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !id.Valid(e.Name()) {
			continue
		}
		key, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			return err
		}
		s.chains.links[e.Name()] = key
	}
	return nil
}

// Lease makes container hold h until Release. The error is of class NotFound when the
// layers are gone. Doing it again with the same hold changes nothing.
func (s *Store) Lease(ctx context.Context, container string, h Hold) ([]string, error) {
	if !id.Valid(container) {
		return nil, errclass.Invalid("invalid container ID: %q", container)
	}
	s.chains.mu.Lock()
	defer s.chains.mu.Unlock()
	h.Driver = s.about.Name
	key := h.key()
	if _, ok := s.chains.held[key]; !ok {
		if err := s.takeChain(Context(ctx), key, h); err != nil {
			return nil, err
		}
		// Until now nothing kept the layers: look again whether they are there.
		delete(s.chains.lower, string(h.Chain))
	}
	lower, err := s.lowerLocked(ctx, h.Chain)
	if err != nil {
		return nil, err
	}
	s.chains.held[key] = h
	if err := s.linkLocked(container, key); err != nil {
		return nil, fmt.Errorf("leasing image for container %s: %w", id.Short(container), err)
	}
	return lower, nil
}

// linkLocked makes the container's link name key.
func (s *Store) linkLocked(container, key string) error {
	if s.chains.links[container] == key {
		return nil
	}
	link := s.leasePath(container)
	err := os.Symlink(key, link)
	if errors.Is(err, os.ErrExist) {
		if err = os.Remove(link); err == nil {
			err = os.Symlink(key, link)
		}
	}
	if err == nil {
		s.chains.links[container] = key
	}
	return err
}

// takeChain makes the lease of a chain and its blobs in one transaction.
func (s *Store) takeChain(ctx context.Context, key string, h Hold) error {
	return s.db.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(ctx, tx)
		l, err := s.Leases.Create(ctx, func(l *leases.Lease) error {
			l.ID, l.Labels = chainLease+key, map[string]string{labelFlat: "1", labelHold: h.text()}
			return nil
		})
		if err != nil && !errdefs.IsAlreadyExists(err) {
			return err
		}
		l.ID = chainLease + key
		if h.Chain != "" {
			r := leases.Resource{ID: string(h.Chain), Type: "snapshots/" + h.Driver}
			if err := s.Leases.AddResource(ctx, l, r); err != nil {
				return err
			}
		}
		for _, b := range h.Blobs {
			if err := s.Leases.AddResource(ctx, l, leases.Resource{ID: string(b), Type: "content"}); err != nil {
				return err
			}
		}
		return nil
	})
}

// Release ends the container's hold; none is no error.
func (s *Store) Release(container string) error {
	if !id.Valid(container) {
		return errclass.Invalid("invalid container ID: %q", container)
	}
	s.chains.mu.Lock()
	defer s.chains.mu.Unlock()
	if err := os.Remove(s.leasePath(container)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("releasing image of container %s: %w", id.Short(container), err)
	}
	delete(s.chains.links, container)
	return nil
}

// LeaseOf returns what the container holds and the lower directories, topmost first.
// The error is of class NotFound when it holds nothing.
func (s *Store) LeaseOf(ctx context.Context, container string) (Hold, []string, error) {
	if !id.Valid(container) {
		return Hold{}, nil, errclass.Invalid("invalid container ID: %q", container)
	}
	s.chains.mu.Lock()
	defer s.chains.mu.Unlock()
	h, err := s.readHold(container)
	if err != nil {
		return h, nil, err
	}
	if h.Driver != s.about.Name {
		return h, nil, errclass.With(errPrecondition, fmt.Errorf("container %s was made with the storage driver %s, not with %s", id.Short(container), h.Driver, s.about.Name))
	}
	lower, err := s.lowerLocked(ctx, h.Chain)
	return h, lower, err
}

func (s *Store) readHold(container string) (Hold, error) {
	h, err := s.heldBy(container)
	if err != nil {
		return h, err
	}
	if fi, err := os.Lstat(s.leasePath(container)); err == nil {
		h.Created = fi.ModTime()
	}
	return h, nil
}

func (s *Store) heldBy(container string) (Hold, error) {
	key, ok := s.chains.links[container]
	if !ok {
		return Hold{}, errclass.NotFound("container %s holds no image", id.Short(container))
	}
	h, ok := s.chains.held[key]
	if !ok {
		return Hold{}, errclass.NotFound("the image of container %s is lost", id.Short(container))
	}
	return h, nil
}

// Users lists the containers that hold an image, by its target, in the order of their IDs.
func (s *Store) Users(target digest.Digest) []string {
	s.chains.mu.Lock()
	defer s.chains.mu.Unlock()
	var ids []string
	for c, key := range s.chains.links {
		if h, ok := s.chains.held[key]; ok && len(h.Blobs) > 0 && h.Blobs[0] == target {
			ids = append(ids, c)
		}
	}
	slices.Sort(ids)
	return ids
}

// LowerDirs returns the directories of a chain of layers, topmost first; one, with the
// whole tree, where the driver does not share layers. An image without layers has one
// empty directory. The error is of class NotFound when the
// chain is not there. Only a leased chain's directories stay.
func (s *Store) LowerDirs(ctx context.Context, chain digest.Digest) ([]string, error) {
	s.chains.mu.Lock()
	defer s.chains.mu.Unlock()
	return s.lowerLocked(ctx, chain)
}

func (s *Store) lowerLocked(ctx context.Context, chain digest.Digest) ([]string, error) {
	if chain == "" {
		return []string{filepath.Join(s.root, "empty")}, nil
	}
	if dirs, ok := s.chains.lower[string(chain)]; ok {
		return dirs, nil
	}
	var dirs []string
	for key := string(chain); key != ""; {
		info, err := s.Snapshots.Stat(Context(ctx), key)
		if err != nil {
			return nil, fmt.Errorf("layers of image: %w", err)
		}
		dir := info.Labels[s.about.DirLabel]
		if dir == "" {
			return nil, errclass.Internal("layer %s has no directory", key)
		}
		dirs = append(dirs, dir)
		if !s.about.Shares {
			break // it holds all below it
		}
		key = info.Parent
	}
	s.chains.lower[string(chain)] = dirs
	return dirs, nil
}

// dropUnheld deletes the chain leases that no container's link names, and forgets the
// cached directories, which the collection that follows may remove.
func (s *Store) dropUnheld(ctx context.Context) error {
	s.chains.mu.Lock()
	defer s.chains.mu.Unlock()
	needed := map[string]struct{}{}
	for _, key := range s.chains.links {
		needed[key] = struct{}{}
	}
	var drop []string
	for l := range s.chains.held {
		if _, ok := needed[l]; !ok {
			drop = append(drop, l)
		}
	}
	s.chains.lower = map[string][]string{}
	if len(drop) == 0 {
		return nil
	}
	err := s.db.Update(func(tx *bolt.Tx) error {
		ctx := boltutil.WithTransaction(Context(ctx), tx)
		for _, l := range drop {
			if err := s.Leases.Delete(ctx, leases.Lease{ID: chainLease + l}); err != nil && !errdefs.IsNotFound(err) {
				return err
			}
		}
		return nil
	})
	if err == nil {
		for _, l := range drop {
			delete(s.chains.held, l)
		}
	}
	return err
}

func (s *Store) leasePath(container string) string {
	return filepath.Join(s.root, "leases", container)
}
