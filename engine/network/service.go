package network

import (
	"context"
	"log/slog"
	"sync"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/filter"
	"github.com/moby/moby/api/types/network"
)

// Service owns the host's networks. Safe for concurrent use.
type Service struct {
	cfg Config
	bus *event.Bus
	log *slog.Logger
	mu  sync.Mutex
}

// New makes the service and the default bridge. The firewall is touched by Restore,
// which must be called once before Acquire, also when there is nothing to restore.
func New(cfg Config, bus *event.Bus) (*Service, error) {
	log := cfg.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	return &Service{cfg: cfg, bus: bus, log: log}, nil
}

// Acquire makes the network side of a container: namespace, endpoints, ports. When it
// fails nothing is left. The caller owns Sandbox.NetNS.
func (s *Service) Acquire(ctx context.Context, r SandboxRequest) (*Sandbox, error) {
	return nil, errclass.NotImplemented("networks are not built yet")
}

// Release gives back what Acquire or Restore took for a container. Unknown
// containers are no error: it may be called again.
func (s *Service) Release(ctx context.Context, containerID string) error { return nil }

// Restore takes over the sandboxes of running containers after a start of the daemon
// and applies the firewall.
func (s *Service) Restore(ctx context.Context, records []Record) error { return nil }

// Close ends the service's own work; networks, sandboxes and rules stay as they are.
func (s *Service) Close() error { return nil }

// List returns the networks that match f, by name.
func (s *Service) List(ctx context.Context, f filter.Args) ([]network.Summary, error) {
	return nil, nil
}

// Inspect returns one network by name, ID or unambiguous prefix of an ID.
func (s *Service) Inspect(ctx context.Context, ref string) (network.Inspect, error) {
	return network.Inspect{}, errclass.NotFound("network %s not found", ref)
}
