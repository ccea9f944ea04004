// Package store keeps the networks: one JSON record each on disk, and in memory the names,
// subnets and addresses that are in use.
package store

import (
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/subnets"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// Config is what a Store needs to choose subnets.
type Config struct {
	DataRoot string
	// Pools are where new networks' subnets come from; nil is Docker's defaults.
	Pools []ipam.Pool
	// Bridges are the interfaces whose routes are our networks'.
	Bridges func() map[int]bool
	// Conn works in the host's network namespace and stays the caller's.
	Conn *rtnl.Conn
	// Log must be set.
	Log *slog.Logger
}

// Store is the table of networks. Safe for concurrent use.
type Store struct {
	disk disk

	mu      sync.Mutex
	nets    map[string]*Network // by ID
	names   map[string]string   // name → ID
	subnets *subnets.Chooser
}

// Open makes a store with nothing in memory; Load reads what is on disk.
func Open(cfg Config) (*Store, error) {
	s := &Store{nets: map[string]*Network{}, names: map[string]string{}}
	var err error
	if s.disk, err = openDisk(cfg.DataRoot); err != nil {
		return nil, err
	}
	s.subnets, err = subnets.New(cfg.Pools, cfg.Bridges, s.ownerOf, cfg.Conn, cfg.Log, cfg.DataRoot)
	return s, err
}

// Load reads all networks of the disk, as they were saved; none of them is in the table yet. One
// that cannot be read, or is of a newer schema, is an error: starting without a network would
// give its addresses to others.
func (s *Store) Load(drivers driver.Set) ([]*Network, error) {
	recs, err := s.disk.load()
	if err != nil {
		return nil, err
	}
	var out []*Network
	for _, r := range recs {
		n := NewNetwork(r.Network, drivers)
		n.Pooled, n.PoolIDs = r.Pooled, r.PoolIDs
		out = append(out, n)
	}
	return out, nil
}

// Save writes a network's record.
func (s *Store) Save(n *Network) error {
	return s.disk.save(record{Network: n.Network, Pooled: n.Pooled, PoolIDs: n.PoolIDs})
}

// Enter puts a network that was made before into the table, as its record says, and makes
// its address spaces. When these cannot be made, the network is in the table all the same.
func (s *Store) Enter(n *Network) error {
	var err error
	if !n.ConfigOnly {
		err = n.makeSpaces()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.enter(n)
	return err
}

// enter puts a network with its subnets into the table. s.mu is held.
func (s *Store) enter(n *Network) {
	n.settle()
	s.nets[n.ID] = n
	s.names[n.Name] = n.ID
	for _, p := range n.claims() {
		s.subnets.Enter(p)
	}
}

// NameFree fails with class Conflict when a network has the name.
func (s *Store) NameFree(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nameFree(name)
}

func (s *Store) nameFree(name string) error {
	if _, ok := s.names[name]; ok {
		return errclass.Conflict("network with name %s already exists", name)
	}
	return nil
}

// Reserve gives a new network the subnets that it lacks and puts it into the table, closed to
// containers until Admit; Drop takes it out. Errors: Conflict for a name that is taken,
// NotFound when its configuration network has gone, what the driver refuses, and as
// subnets.Chooser.Plan.
func (s *Store) Reserve(n *Network) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.nameFree(n.Name); err != nil {
		return err
	}
	if from := n.ConfigFrom.Network; from != "" {
		if c, err := s.find(from); err != nil || !c.ConfigOnly {
			return NoConfig(from)
		}
	}
	if !n.ConfigOnly {
		n.settle()
		if err := n.Driver.Check(n.view, s.others(n)); err != nil {
			return err
		}
	}
	if err := s.choose(n); err != nil {
		return err
	}
	n.closed = true
	n.Publishing = nil
	s.enter(n)
	return nil
}

// NoConfig is the error of a configuration network that is not there.
func NoConfig(name string) error {
	return errclass.NotFound("configuration network %q does not exist", name)
}

// Admit opens a network to containers that Reserve or Retire closed.
func (s *Store) Admit(n *Network) { n.setClosed(false) }

func (n *Network) setClosed(on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = on
}

// choose gives a network the subnets that it lacks. s.mu is held.
func (s *Store) choose(n *Network) (err error) {
	if n.ConfigOnly {
		return nil
	}
	if n.IPAM.Driver == ipam.DriverNull {
		return subnets.Null(&n.Network, n.Facts.HostAddress)
	}
	if n.IPAMPlugin() {
		if err := n.makeSpaces(); err != nil {
			return err
		}
		for _, p := range n.claims() {
			if err := s.subnets.Free(p); err != nil {
				return err
			}
		}
		return nil
	}
	if n.Pooled, err = s.subnets.Plan(&n.Network, n.Facts.NeedsGateway); err != nil {
		return err
	}
	return n.makeSpaces()
}

// EnterDefault puts the default bridge network into the table: its subnets are what the
// configuration says now, whatever its record said. The host's own addresses in them need not
// be the gateway.
func (s *Store) EnterDefault(n *Network, want subnets.Default) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	conf, own, err := s.subnets.Default(want)
	if err != nil {
		return err
	}
	n.IPAM = network.IPAM{Driver: ipam.DriverDefault, Config: conf}
	n.Default = true
	if err := subnets.CheckTaken(conf); err != nil {
		return err
	}
	if err := n.makeSpaces(); err != nil {
		return err
	}
	for i, sp := range n.spaces {
		sp.host = own[i].Addr()
		if !sp.gateway.IsValid() {
			sp.gateway = sp.host
		}
		if err := sp.Take(sp.host); err != nil && sp.host != conf[i].Gateway {
			return errclass.Forbidden("failed to allocate gateway (%s): %w", sp.host, err)
		}
	}
	s.enter(n)
	return nil
}

// Retire closes a network to containers, for its end; Admit takes that back. Errors:
// NotFound, Forbidden for predefined networks, while containers use it, and for a
// configuration network that another one is made from.
func (s *Store) Retire(ref string) (*Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.find(ref)
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return nil, errclass.NotFound("network %s not found", ref)
	case Predefined(n.Name):
		return nil, errclass.Forbidden("%s is a pre-defined network and cannot be removed", n.Name)
	case len(n.users) > 0:
		return nil, errclass.Forbidden("error while removing network: network %s has active endpoints (%s)", n.Name, n.userList())
	}
	for _, other := range s.nets {
		if n.ConfigOnly && other.ConfigFrom.Network == n.Name {
			return nil, errclass.Forbidden("configuration network %q is in use", n.Name)
		}
	}
	n.closed = true
	return n, nil
}

// Forget removes a network's record; one that is not there is no error.
func (s *Store) Forget(n *Network) error { return s.disk.remove(n.ID) }

// Drop takes a network out of the table.
func (s *Store) Drop(n *Network) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nets, n.ID)
	if s.names[n.Name] == n.ID {
		delete(s.names, n.Name)
	}
	for _, p := range n.claims() {
		s.subnets.Leave(p)
	}
}

// Others are the networks that use the same of the host as n does, as their drivers see them.
func (s *Store) Others(n *Network) []driver.Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.others(n)
}

// others compares what was computed once: a thousand networks must not cost every create and
// remove a thousand copies. s.mu is held.
func (s *Store) others(n *Network) []driver.Network {
	var out []driver.Network
	for _, o := range s.nets {
		if o != n && n.resource != "" && o.resource == n.resource && !o.ConfigOnly {
			out = append(out, o.view)
		}
	}
	return out
}

// ownerOf names the network that has a range of addresses, "" where none has. s.mu is held.
func (s *Store) ownerOf(p netip.Prefix) string {
	for _, n := range s.nets {
		if slices.ContainsFunc(n.claims(), p.Overlaps) {
			return n.Name
		}
	}
	return ""
}

// All are the networks of now, in no order.
func (s *Store) All() []*Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]*Network, 0, len(s.nets))
	for _, n := range s.nets {
		out = append(out, n)
	}
	return out
}

// ByID is the network of an ID, nil without.
func (s *Store) ByID(id string) *Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nets[id]
}

// DefaultBridge is the default bridge network, nil without.
func (s *Store) DefaultBridge() *Network {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nets[s.names[NameBridge]]
}

// Find resolves a name, an ID or an unambiguous prefix of an ID. Errors are of class
// NotFound, or Invalid when the prefix fits several.
func (s *Store) Find(ref string) (*Network, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.find(ref)
}

// find is Find with s.mu held.
func (s *Store) find(ref string) (*Network, error) {
	if n, ok := s.nets[ref]; ok {
		return n, nil
	}
	if nid, ok := s.names[ref]; ok {
		return s.nets[nid], nil
	}
	var found *Network
	if ref != "" {
		for nid, n := range s.nets {
			if strings.HasPrefix(nid, ref) {
				if found != nil {
					return nil, errclass.Invalid("network %s is ambiguous (%d matches found on ID prefix)", ref, 2)
				}
				found = n
			}
		}
	}
	if found == nil {
		return nil, errclass.NotFound("network %s not found", ref)
	}
	return found, nil
}
