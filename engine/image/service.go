package image

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/engine/image/remote"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/storage"
	"github.com/moby/moby/api/types/events"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// dangling prefixes the database names of images that have no name of their own; as a
// reference it is not valid, so nobody can give it to an image.
const dangling = "<none>@"

// Config is what the daemon's configuration says about images and registries.
type Config struct {
	// InsecureRegistries are "host", "host:port" or CIDR; their certificates are not
	// verified and plain HTTP is tried. Loopback addresses always count as such.
	InsecureRegistries []string
	// Mirrors are base URLs by registry host ("docker.io"), asked before it.
	Mirrors map[string][]string
	// CertsDir holds <host>/{*.crt,*.cert,*.key}; "" is /etc/docker/certs.d.
	CertsDir string
	// MaxConcurrentDownloads bounds the layers fetched at a time, MaxAttempts the
	// tries for one; 0 is 3 and 5.
	MaxConcurrentDownloads int
	MaxAttempts            int
	// UserAgent is sent to registries.
	UserAgent string
	// Platform is what images are chosen for; nil is the host's.
	Platform *ocispec.Platform
}

// Use is one container that uses an image.
type Use struct {
	ContainerID string
	Running     bool
}

// Service is the images of one daemon. Safe for concurrent use.
type Service struct {
	// InUse tells which containers use an image; nil means none. Set before first use.
	InUse func(imageID digest.Digest) []Use

	store    *storage.Store
	bus      *event.Bus
	platform ocispec.Platform
	live     atomic.Pointer[settings]

	mu    sync.RWMutex
	names map[string]images.Image // by database name; what the database has
	cache *cache[cacheKey, Image]
	facts *cache[digest.Digest, facts]

	change sync.Mutex // held while names are read and changed by it
	pulls  flights
	blobs  keyLock // one transfer per blob
}

// New makes the service over an open store, which stays the caller's to close. It
// reads all names, and removes what a crash left of unfinished work.
func New(store *storage.Store, cfg Config, bus *event.Bus) (*Service, error) {
	s := &Service{store: store, bus: bus, platform: platforms.DefaultSpec()}
	s.cache, s.facts = newCache[cacheKey, Image](256), newCache[digest.Digest, facts](4096)
	if cfg.Platform != nil {
		s.platform = platforms.Normalize(*cfg.Platform)
	}
	s.Reconfigure(cfg)
	list, err := store.Images.List(storage.Context(context.Background()))
	if err != nil {
		return nil, fmt.Errorf("reading image names: %w", err)
	}
	s.names = make(map[string]images.Image, len(list))
	for _, i := range list {
		s.names[i.Name] = i
	}
	if err := s.cleanUp(); err != nil {
		return nil, err
	}
	return s, nil
}

// settings are what Reconfigure may change. They are replaced as a whole and never
// written to: work that is under way goes on with those it began with.
type settings struct {
	remote   *remote.Client
	slots    chan struct{} // downloads at a time
	attempts int
}

// Reconfigure takes over what a new configuration says about registries and downloads;
// its platform is not looked at. Pulls under way go on as they began.
func (s *Service) Reconfigure(cfg Config) {
	if cfg.MaxConcurrentDownloads <= 0 {
		cfg.MaxConcurrentDownloads = 3
	}
	if cfg.MaxAttempts <= 0 {
		cfg.MaxAttempts = 5
	}
	if cfg.CertsDir == "" {
		cfg.CertsDir = "/etc/docker/certs.d"
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "gantry"
	}
	s.live.Store(&settings{
		remote: remote.New(remote.Options{
			Insecure: cfg.InsecureRegistries, Mirrors: cfg.Mirrors, CertsDir: cfg.CertsDir, UserAgent: cfg.UserAgent,
		}),
		slots: make(chan struct{}, cfg.MaxConcurrentDownloads), attempts: cfg.MaxAttempts,
	})
}

// setName makes name point to target. What it pointed to before, and now has no name,
// becomes a dangling image. It returns the target before, if any.
func (s *Service) setName(ctx context.Context, name string, target ocispec.Descriptor) (*ocispec.Descriptor, error) {
	s.change.Lock()
	defer s.change.Unlock()
	return s.setNameLocked(ctx, name, target)
}

func (s *Service) setNameLocked(ctx context.Context, name string, target ocispec.Descriptor) (*ocispec.Descriptor, error) {
	s.mu.RLock()
	old, had := s.names[name]
	s.mu.RUnlock()
	if had && old.Target.Digest == target.Digest {
		return &old.Target, nil
	}
	if had && len(s.namesOf(old.Target.Digest)) == 1 && !strings.HasPrefix(name, dangling) {
		if err := s.putName(ctx, dangling+string(old.Target.Digest), old.Target); err != nil {
			return nil, err
		}
	}
	if err := s.putName(ctx, name, target); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(name, dangling) {
		if err := s.deleteName(ctx, dangling+string(target.Digest)); err != nil {
			return nil, err
		}
	}
	if had {
		return &old.Target, nil
	}
	return nil, nil
}

func (s *Service) putName(ctx context.Context, name string, target ocispec.Descriptor) error {
	ctx = storage.Context(ctx)
	// The database keeps what identifies the target; annotations of an index entry and
	// such are not the image's.
	target = ocispec.Descriptor{MediaType: target.MediaType, Digest: target.Digest, Size: target.Size}
	img, err := s.store.Images.Create(ctx, images.Image{Name: name, Target: target})
	if errdefs.IsAlreadyExists(err) {
		img, err = s.store.Images.Update(ctx, images.Image{Name: name, Target: target}, "target")
	}
	if err != nil {
		return fmt.Errorf("storing image name: %w", err)
	}
	s.mu.Lock()
	s.names[name] = img
	s.mu.Unlock()
	s.cache.clear()
	return nil
}

// deleteName forgets a name; none is no error.
func (s *Service) deleteName(ctx context.Context, name string) error {
	s.mu.RLock()
	_, had := s.names[name]
	s.mu.RUnlock()
	if !had {
		return nil
	}
	if err := s.store.Images.Delete(storage.Context(ctx), name); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("removing image name: %w", err)
	}
	s.mu.Lock()
	delete(s.names, name)
	s.mu.Unlock()
	s.cache.clear()
	return nil
}

// namesOf returns the database names that point to a target, sorted.
func (s *Service) namesOf(target digest.Digest) []string {
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

// familiar turns a database name into what people see; "" for dangling ones.
func familiar(name string) string {
	if strings.HasPrefix(name, dangling) {
		return ""
	}
	ref, err := reference.ParseNormalizedNamed(name)
	if err != nil {
		return name
	}
	return reference.FamiliarString(ref)
}

func (s *Service) emit(action events.Action, id, name string) {
	if s.bus == nil {
		return
	}
	attrs := map[string]string{}
	if name != "" {
		attrs["name"] = name
	}
	s.bus.Emit(events.ImageEventType, action, id, attrs)
}

func (s *Service) uses(id digest.Digest) []Use {
	if s.InUse == nil {
		return nil
	}
	return s.InUse(id)
}

// newest is the later of two times.
func newest(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
