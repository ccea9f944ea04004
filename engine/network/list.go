package network

import (
	"cmp"
	"context"
	"net"
	"slices"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/store"
	"github.com/gantry/gantry/engine/network/validate"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/moby/moby/api/types/network"
)

// List returns the networks that match f, by name. Filters: dangling, driver, id,
// label, name, scope, type. Errors are of class Invalid.
func (s *Service) List(_ context.Context, f filter.Args) ([]network.Summary, error) {
	if err := f.Check("dangling", "driver", "id", "label", "name", "scope", "type"); err != nil {
		return nil, err
	}
	for _, t := range f["type"] {
		if t != "custom" && t != "builtin" {
			return nil, errclass.Invalid("invalid filter: 'type'='%s'", t)
		}
	}
	var dangling *bool
	if len(f["dangling"]) > 0 {
		on, err := f.Bool("dangling", false)
		if err != nil {
			return nil, err
		}
		dangling = &on
	}
	out := []network.Summary{}
	for _, n := range s.nets.All() {
		builtin := store.Predefined(n.Name)
		ok := f.Any("driver", func(v string) bool { return v == n.Network.Driver }) &&
			f.Any("id", func(v string) bool { return validate.Match(v, n.ID) }) &&
			f.Any("name", func(v string) bool { return validate.Match(v, n.Name) }) &&
			f.Any("scope", func(v string) bool { return v == n.Scope }) &&
			f.Any("type", func(v string) bool { return (v == "builtin") == builtin }) &&
			f.Labels("label", n.Labels) &&
			(dangling == nil || *dangling == (!n.Used() && !builtin))
		if ok {
			out = append(out, network.Summary{Network: store.Public(n.Network)})
		}
	}
	slices.SortFunc(out, func(a, b network.Summary) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Inspect returns one network by name, ID or unambiguous prefix of an ID. Errors are
// of class NotFound, or Invalid when the prefix fits several.
func (s *Service) Inspect(_ context.Context, ref string) (network.Inspect, error) {
	n, err := s.nets.Find(ref)
	if err != nil {
		return network.Inspect{}, err
	}
	out := network.Inspect{Network: store.Public(n.Network), Containers: map[string]network.EndpointResource{}, Status: n.Status()}
	for cid, e := range n.Users() {
		mac, _ := net.ParseMAC(e.MAC)
		out.Containers[cid] = network.EndpointResource{
			Name: e.Name, EndpointID: e.EndpointID, MacAddress: network.HardwareAddr(mac),
			IPv4Address: e.IPv4, IPv6Address: e.IPv6,
		}
	}
	return out, nil
}

// Known tells a network's ID and name by any reference to it, and what its driver says of
// itself. Errors are as Inspect's.
func (s *Service) Known(ref string) (id, name string, facts Description, err error) {
	n, err := s.nets.Find(ref)
	if err != nil {
		return "", "", facts, err
	}
	return n.ID, n.Name, n.Facts, nil
}

// Drivers names the built-in drivers of local networks, sorted.
func (s *Service) Drivers() []string { return s.drivers.Names(driver.ScopeLocal) }
