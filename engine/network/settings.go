package network

import (
	"github.com/gantry/gantry/engine/network/checks"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/network"
)

// CheckEndpoint tells whether a container may ask for these settings on a network. The
// network may not be there yet: then only what it need not be asked for is checked.
// Errors are of class Invalid, in Docker's words.
func (s *Service) CheckEndpoint(ref string, es *network.EndpointSettings) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, _ := s.find(ref)
	if err := checks.CheckEndpoint(n.subnets(), ref, es); err != nil {
		return errclass.Invalid("invalid config for network %s: %w", ref, err)
	}
	return nil
}

// subnets are what wished addresses are judged by; nil where they cannot be.
func (n *netw) subnets() *checks.Subnets {
	if n == nil || n.isDefault() || isPredefined(n.net.Name) || n.net.ConfigOnly {
		return nil
	}
	return &checks.Subnets{Config: n.net.IPAM.Config, Pooled: n.pooled}
}
