package image

import (
	"context"

	"github.com/containerd/platforms"
	"github.com/gantry/gantry/distribution"
	"github.com/gantry/gantry/engine/image/archive"
	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/layers"
	"github.com/gantry/gantry/engine/image/names"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/storage"
	lru "github.com/hashicorp/golang-lru/v2"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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

// Service is the images of one daemon. Safe for concurrent use.
type Service struct {
	store    *storage.Store
	names    *names.Store
	docs     *document.Store
	layers   *layers.Unpacker
	puller   *pull.Puller
	archive  *archive.Service
	platform ocispec.Platform

	// What was read of images, so that creating a container reads no file and listing
	// images few. What is in here is shared and never changed.
	resolved *lru.Cache[resolvedKey, *resolved]
	facts    *lru.Cache[digest.Digest, *facts]
}

const (
	maxResolved = 256
	maxFacts    = 4096
)

// New makes the service over an open store, which stays the caller's to close. It
// reads all names, and removes what a crash left of unfinished work. bus may be nil.
func New(store *storage.Store, cfg Config, bus *event.Bus) (*Service, error) {
	s := &Service{store: store, docs: document.NewStore(store.Content), platform: platforms.DefaultSpec()}
	if cfg.Platform != nil {
		s.platform = platforms.Normalize(*cfg.Platform)
	}
	var err error
	if s.resolved, err = lru.New[resolvedKey, *resolved](maxResolved); err != nil {
		return nil, err
	}
	if s.facts, err = lru.New[digest.Digest, *facts](maxFacts); err != nil {
		return nil, err
	}
	if s.names, err = names.Open(store.Images, bus); err != nil {
		return nil, err
	}
	s.layers = layers.New(store, s.docs)
	s.puller = pull.New(store, s.docs, s.layers, s.names, s.platform, cfg.pulls())
	s.archive = archive.New(store, s.docs, s.layers, s.names, s.platform)
	// Downloads that a crash cut off are kept, by their leases, until they expire.
	if err := s.layers.RemoveUnfinished(context.Background()); err != nil {
		return nil, err
	}
	store.Collect()
	return s, nil
}

// pulls are the settings of package pull.
func (c Config) pulls() pull.Settings {
	if c.MaxConcurrentDownloads <= 0 {
		c.MaxConcurrentDownloads = 3
	}
	if c.MaxAttempts <= 0 {
		c.MaxAttempts = 5
	}
	if c.CertsDir == "" {
		c.CertsDir = "/etc/docker/certs.d"
	}
	if c.UserAgent == "" {
		c.UserAgent = "gantry"
	}
	return pull.Settings{
		Registries: distribution.New(distribution.Options{
			Insecure: c.InsecureRegistries, Mirrors: c.Mirrors, CertsDir: c.CertsDir, UserAgent: c.UserAgent,
		}),
		Concurrent: c.MaxConcurrentDownloads, Attempts: c.MaxAttempts,
	}
}

// Reconfigure takes over what a new configuration says about registries and downloads;
// its platform is not looked at. Pulls under way go on as they began.
func (s *Service) Reconfigure(cfg Config) { s.puller.Reconfigure(cfg.pulls()) }
