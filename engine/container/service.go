package container

import (
	"context"
	"log/slog"
	"time"

	"github.com/opencontainers/go-digest"
)

// Config is what the daemon's settings say about containers.
type Config struct {
	DataRoot string // absolute; records, logs and volumes are below it
	ExecRoot string // absolute, on tmpfs; run records are below it
	// Runtimes are the names --runtime may give, besides DefaultRuntime.
	Runtimes       []string
	DefaultRuntime string // "" is "gantry"
	CgroupParent   string // "" is "/docker"
	// LogOpts are json-file's options where a container has none of its own.
	LogOpts map[string]string
	// LogDriver is the log driver where a container names none; "" is "json-file".
	LogDriver string
	// Init makes --init the default.
	Init            bool
	ShmSize         int64 // bytes, 0 is 64 MiB
	NoNewPrivileges bool
	// SeccompProfile is a profile's JSON, "unconfined", or "" for the built-in one.
	SeccompProfile string
	// ShutdownTimeout bounds how long stop waits when neither request nor container say; 0 is 10 s.
	StopTimeout time.Duration
	Log         *slog.Logger // nil: discarded
}

// Service owns all containers. Safe for concurrent use.
type Service struct {
	cfg  Config
	deps Deps
	log  *slog.Logger
}

// New makes the service; it touches nothing but its directories. Restore must be
// called once before anything else.
func New(cfg Config, deps Deps) (*Service, error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, deps: deps, log: log}, nil
}

// Restore reads all records, adopts what runs, finishes what ended meanwhile, takes
// back what was half done, and applies restart policies.
func (s *Service) Restore(ctx context.Context) error { return nil }

// Close ends the service's own goroutines; containers run on.
func (s *Service) Close(ctx context.Context) error { return nil }

// ImageInUse tells a container that uses the image (by the ID Inspect shows), and
// whether that one runs; "" when none does. A running one is preferred.
func (s *Service) ImageInUse(id digest.Digest) (shortID string, running bool) { return "", false }

// Counts tells how many containers run, are paused and are stopped, for /info.
func (s *Service) Counts() (running, paused, stopped int) { return 0, 0, 0 }
