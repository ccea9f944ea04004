// Package storage keeps images and containers on disk: blobs in a content store; names, leases
// and labels in a bolt database (containerd's libraries, in this process); and, by a storage
// driver, the unpacked layers of images and the writable layers of containers. It knows nothing
// of registries or the API.
package storage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/metadata"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/containerd/containerd/v2/plugins/content/local"
	"github.com/containerd/log"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage/driver"
	bolt "go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

const (
	// Namespace is the one namespace of the metadata database that is used.
	Namespace = "gantry"
	// lockTimeout is how long Open waits for another process that has the databases open.
	lockTimeout = time.Second
)

// Store is the opened storage below one data-root. Safe for concurrent use.
type Store struct {
	root   string // <data-root>/image
	db     *metadata.DB
	bolt   *bolt.DB
	driver driver.Driver
	about  driver.Description // of the driver

	Content   content.Store
	Snapshots snapshots.Snapshotter
	Images    images.Store
	Leases    leases.Manager

	gc     collector
	chains chains

	closeOnce sync.Once
	closeErr  error
}

// Open opens, or makes, the storage below the data-root, with the driver that open opens.
// What another driver has unpacked stays there for it; images are unpacked again when
// they are used. Its error is of class FailedPrecondition when another process has the
// data-root open, or the file system lacks what the driver needs. The caller closes the
// Store.
func Open(dataRoot string, open driver.Open) (*Store, error) {
	root := filepath.Join(dataRoot, "image")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("opening image store: %w", err)
	}
	for _, d := range []string{"empty", "leases"} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o700); err != nil {
			return nil, fmt.Errorf("opening image store: %w", err)
		}
	}
	if err := os.Chmod(filepath.Join(root, "empty"), 0o755); err != nil {
		return nil, fmt.Errorf("opening image store: %w", err)
	}
	// The libraries log as they like; what goes wrong comes back as errors.
	_ = log.SetLevel("error")
	s := &Store{root: root}
	if err := s.open(dataRoot, open); err != nil {
		return nil, errors.Join(fmt.Errorf("opening image store %s: %w", root, err), s.Close())
	}
	s.gc.start(s)
	return s, nil
}

func (s *Store) open(dataRoot string, open driver.Open) error {
	blobs, err := local.NewStore(filepath.Join(s.root, "content"))
	if err != nil {
		return err
	}
	s.bolt, err = bolt.Open(filepath.Join(s.root, "meta.db"), 0o600, &bolt.Options{
		Timeout: lockTimeout, NoFreelistSync: true, FreelistType: bolt.FreelistMapType,
	})
	if errors.Is(err, bolterrors.ErrTimeout) {
		return errclass.With(errPrecondition, fmt.Errorf("another process has it open"))
	}
	if err != nil {
		return err
	}
	if s.driver, err = open(dataRoot); err != nil {
		return err
	}
	s.about = s.driver.Describe()
	s.db = metadata.NewDB(s.bolt, blobs, map[string]snapshots.Snapshotter{s.about.Name: s.driver.Snapshots()})
	if err := s.db.Init(Context(context.Background())); err != nil {
		return err
	}
	s.Content = s.db.ContentStore()
	s.Snapshots = s.db.Snapshotter(s.about.Name)
	s.Images = metadata.NewImageStore(s.db)
	s.Leases = metadata.NewLeaseManager(s.db)
	if err := s.loadChains(); err != nil {
		return err
	}
	return s.noteDriver()
}

// Context returns ctx as the stores of this package want it.
func Context(ctx context.Context) context.Context {
	return namespaces.WithNamespace(ctx, Namespace)
}

// Driver tells the facts of the storage driver.
func (s *Store) Driver() driver.Description { return s.about }

// Layers are the writable layers beside the image store.
func (s *Store) Layers() *Layers { return &Layers{s} }

// Root is the directory of the image store.
func (s *Store) Root() string { return s.root }

// Close waits for a running garbage collection and closes the databases. It may be
// called more than once; nothing may use the Store afterwards.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.gc.stop()
		var errs []error
		if s.driver != nil {
			errs = append(errs, s.driver.Close())
		}
		if s.bolt != nil {
			errs = append(errs, s.bolt.Close())
		}
		s.closeErr = errors.Join(errs...)
	})
	return s.closeErr
}
