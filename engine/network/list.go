package network

import (
	"cmp"
	"context"
	"slices"

	"github.com/gantry/gantry/engine/network/checks"
	"github.com/gantry/gantry/engine/network/records"
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
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []network.Summary{}
	for _, n := range s.nets {
		builtin := isPredefined(n.net.Name)
		ok := f.Any("driver", func(v string) bool { return v == n.net.Driver }) &&
			f.Any("id", func(v string) bool { return checks.Match(v, n.net.ID) }) &&
			f.Any("name", func(v string) bool { return checks.Match(v, n.net.Name) }) &&
			f.Any("scope", func(v string) bool { return v == n.net.Scope }) &&
			f.Any("type", func(v string) bool { return (v == "builtin") == builtin }) &&
			f.Labels("label", n.net.Labels) &&
			(dangling == nil || *dangling == (len(n.users) == 0 && !builtin))
		if ok {
			out = append(out, network.Summary{Network: records.Public(n.net)})
		}
	}
	slices.SortFunc(out, func(a, b network.Summary) int { return cmp.Compare(a.Name, b.Name) })
	return out, nil
}

// Inspect returns one network by name, ID or unambiguous prefix of an ID. Errors are
// of class NotFound, or Invalid when the prefix fits several.
func (s *Service) Inspect(_ context.Context, ref string) (network.Inspect, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(ref)
	if err != nil {
		return network.Inspect{}, err
	}
	out := network.Inspect{Network: records.Public(n.net), Containers: map[string]network.EndpointResource{}, Status: n.status()}
	for cid, e := range n.users {
		out.Containers[cid] = network.EndpointResource{
			Name: e.Name, EndpointID: e.ID, MacAddress: parseMAC(e.MAC),
			IPv4Address: e.IPv4, IPv6Address: e.IPv6,
		}
	}
	return out, nil
}

// status tells how much of its addresses a network uses. Of those that a plugin hands out
// nobody here knows.
func (n *netw) status() *network.Status {
	out := &network.Status{}
	if n.elsewhere() {
		return out
	}
	for _, sp := range n.spaces {
		if out.IPAM.Subnets == nil {
			out.IPAM.Subnets = network.SubnetStatuses{}
		}
		out.IPAM.Subnets[sp.Subnet()] = network.SubnetStatus{IPsInUse: uint64(sp.Used()), DynamicIPsAvailable: sp.Free()}
	}
	return out
}

// Known tells a network's ID, name and driver by any reference to it. Errors are as
// Inspect's.
func (s *Service) Known(ref string) (id, name, driver string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(ref)
	if err != nil {
		return "", "", "", err
	}
	return n.net.ID, n.net.Name, n.net.Driver, nil
}

func isPredefined(name string) bool {
	return name == NameBridge || name == NameHost || name == NameNone
}
