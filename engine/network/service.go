// Package network owns the networks of the daemon: it creates, lists and removes them. It is
// also the facade of containers' endpoints, which engine/network/endpoint implements. The engine
// passes the drivers in; each describes in its Description how it differs from others.
package network

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/endpoint"
	"github.com/gantry/gantry/engine/network/host"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/store"
	"github.com/gantry/gantry/engine/network/subnets"
	"github.com/gantry/gantry/engine/network/validate"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/id"
	"github.com/moby/moby/api/types/network"
)

// Service is the networks and the containers on them. Safe for concurrent use.
type Service struct {
	cfg       Config
	bus       *event.Bus
	log       *slog.Logger
	host      *host.Host
	drivers   driver.Set
	ipam      ipam.Driver
	nets      *store.Store
	endpoints *endpoint.Service
}

// New makes the service in the calling thread's network namespace: it loads the
// networks, makes the predefined ones and brings the default bridge up. The firewall
// is touched by Restore, which must be called once before Acquire, also when there is
// nothing to restore.
func New(cfg Config, bus *event.Bus) (_ *Service, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Service{cfg: cfg, bus: bus, log: cfg.Log, ipam: cfg.Drivers.IPAM}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.host, err = host.Open(cfg.host(store.Dir(cfg.DataRoot))); err != nil {
		return nil, err
	}
	s.drivers = cfg.Drivers.Networks.Open(s.host)
	s.nets, err = store.Open(store.Config{DataRoot: cfg.DataRoot, Pools: cfg.AddressPools, Bridges: s.host.Bridges, Conn: s.host.Conn(), Log: s.log})
	if err != nil {
		return nil, err
	}
	s.endpoints = endpoint.New(cfg.endpoints(), s.nets, s.host, s.ipam, bus)
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends the service's own work; networks, sandboxes and rules stay as they are.
// It may be called more than once.
func (s *Service) Close() error {
	if s.endpoints != nil {
		s.endpoints.Close()
	}
	if s.host == nil {
		return nil
	}
	return s.host.Close()
}

// load reads the records and makes the predefined networks.
func (s *Service) load() error {
	all, err := s.nets.Load(s.drivers)
	if err != nil {
		return err
	}
	byName := map[string]*store.Network{}
	for _, n := range all {
		byName[n.Name] = n
	}
	for _, name := range []string{NameHost, NameNone} {
		n := byName[name]
		if n == nil {
			n = s.predefined(name)
			if err := s.nets.Save(n); err != nil {
				return err
			}
		}
		if err := s.nets.Enter(n); err != nil {
			return err
		}
	}
	for _, n := range all {
		if store.Predefined(n.Name) {
			continue
		}
		err := s.nets.Enter(n)
		if err == nil && !n.ConfigOnly {
			err = n.Start(context.Background(), true)
		}
		if err != nil {
			// The network stays known: its containers may come back when it does.
			s.log.Error("bringing up a network", "network", n.Name, "error", err)
		}
	}
	return s.loadDefault(byName[NameBridge])
}

// predefined is a network that the engine makes, without addresses.
func (s *Service) predefined(name string) *store.Network {
	return store.NewNetwork(network.Network{
		Name: name, ID: id.New(), Created: time.Now(), Scope: driver.ScopeLocal, Driver: s.cfg.Drivers.Predefined[name],
		EnableIPv4: true, IPAM: network.IPAM{Driver: ipam.DriverDefault, Config: []network.IPAMConfig{}},
		Options: map[string]string{}, Labels: map[string]string{},
	}, s.drivers)
}

// loadDefault makes the default network as the configuration says now; its ID and age are the
// record's (old; nil: there was none).
func (s *Service) loadDefault(old *store.Network) error {
	n := s.predefined(NameBridge)
	d, ok := n.Driver.(driver.DefaultMaker)
	if !ok {
		return errclass.Internal("driver %q cannot make the default network", n.Network.Driver)
	}
	if s.cfg.Bridge == NoBridge {
		return d.RemoveDefault()
	}
	iface, options := d.Default()
	if err := driver.CheckIfName(iface); err != nil {
		return err
	}
	n.EnableIPv6, n.Options = s.cfg.IPv6, options
	if old != nil {
		n.ID, n.Created = old.ID, old.Created
	}
	err := s.nets.EnterDefault(n, subnets.Default{
		Bridge: iface, Ours: s.cfg.Bridge == "", IPv6: s.cfg.IPv6, BIP: s.cfg.BIP, BIP6: s.cfg.BIP6,
		FixedCIDR: s.cfg.FixedCIDR, FixedCIDR6: s.cfg.FixedCIDR6, Gateway: s.cfg.DefaultGateway, Gateway6: s.cfg.DefaultGateway6,
	})
	if err != nil {
		return err
	}
	if err := s.nets.Save(n); err != nil {
		return err
	}
	if err := n.Start(context.Background(), true); err != nil {
		return fmt.Errorf("error creating default %q network: %w", n.Name, err)
	}
	return nil
}

// Acquire makes the network side of a container; see endpoint.Service, as of the methods
// below.
func (s *Service) Acquire(ctx context.Context, r SandboxRequest) (*Sandbox, error) {
	return s.endpoints.Acquire(ctx, r)
}

// Release gives back what Acquire or Restore took for a container.
func (s *Service) Release(ctx context.Context, containerID string) error {
	return s.endpoints.Release(ctx, containerID)
}

// Restore takes over the sandboxes of running containers after a start of the daemon, and
// applies the firewall.
func (s *Service) Restore(ctx context.Context, records []Record) error {
	return s.endpoints.Restore(ctx, records)
}

// Connect gives a running container one more network.
func (s *Service) Connect(ctx context.Context, ns *os.File, r SandboxRequest) (*Sandbox, error) {
	return s.endpoints.Connect(ctx, ns, r)
}

// Disconnect takes a running container off a network and returns its whole new record.
func (s *Service) Disconnect(ctx context.Context, ns *os.File, containerID, ref string, keep func(Record)) (Record, error) {
	return s.endpoints.Disconnect(ctx, ns, containerID, ref, keep)
}

// SetLinks replaces the containers that a running one links to on the default bridge.
func (s *Service) SetLinks(containerID string, to []string) error {
	return s.endpoints.SetLinks(containerID, to)
}

// CheckEndpoint tells whether a container may ask for these settings on a network. The
// network may not be there yet: then only what it need not be asked for is checked.
// Errors are of class Invalid, in Docker's words.
func (s *Service) CheckEndpoint(ref string, es *network.EndpointSettings) error {
	n, _ := s.nets.Find(ref)
	if err := validate.CheckEndpoint(n.Subnets(), ref, es); err != nil {
		return errclass.Invalid("invalid config for network %s: %w", ref, err)
	}
	return nil
}
