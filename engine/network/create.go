package network

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/checks"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/records"
	"github.com/gantry/gantry/engine/network/subnets"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// maxSubnets bounds a network's IPAM configuration.
const maxSubnets = 256

// Create makes a user-defined network. Errors: Conflict when the name is taken,
// Forbidden for predefined names, overlapping subnets and exhausted pools, Invalid for
// a configuration that cannot be, NotFound for an unknown driver. Nothing is left when
// it fails.
func (s *Service) Create(ctx context.Context, r network.CreateRequest) (_ network.CreateResponse, err error) {
	var u undo.List
	defer func() {
		if uerr := u.Run(); uerr != nil {
			s.log.Error("undoing a failed network create", "network", r.Name, "error", uerr)
		}
	}()
	n, err := s.plan(ctx, r, &u)
	if err != nil {
		return network.CreateResponse{}, err
	}
	if err := s.store.Save(records.Record{Network: n.net, Pooled: n.pooled, PoolIDs: n.poolIDs}); err != nil {
		return network.CreateResponse{}, err
	}
	u.Add(func() error { return s.store.Remove(n.net.ID) })
	if !n.net.ConfigOnly {
		u.Add(func() error { return s.stopDriver(context.WithoutCancel(ctx), n) })
		if err := s.drivers.start(ctx, n, false); err != nil {
			return network.CreateResponse{}, err
		}
		if n.net.Driver == "bridge" {
			s.openLocalnet(n)
		}
		if n.net.EnableIPv6 {
			if err := s.forwarding(); err != nil {
				return network.CreateResponse{}, err
			}
		}
	}
	u.Keep()
	s.mu.Lock()
	n.removing = false
	s.mu.Unlock()
	emit(s.bus, events.ActionCreate, n, nil)
	return network.CreateResponse{ID: n.net.ID}, nil
}

var networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// plan checks a request and enters the network into the tables, closed to containers
// until it is up. What must be undone is in u.
func (s *Service) plan(ctx context.Context, r network.CreateRequest, u *undo.List) (*netw, error) {
	if isPredefined(r.Name) || r.Name == "default" {
		return nil, errclass.Forbidden("operation is not permitted on predefined %s network", r.Name)
	}
	if !networkName.MatchString(r.Name) {
		return nil, errclass.Invalid("invalid network name: only %q are allowed", networkName)
	}
	if r.Driver == "" {
		r.Driver = "bridge"
	}
	if err := checks.CheckConfig(r); err != nil {
		return nil, err
	}
	if err := checks.Driver(r); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := nameFree(s.names, r.Name); err != nil {
		return nil, err
	}
	n, err := s.draft(r)
	if err != nil {
		return nil, err
	}
	if n.elsewhere() {
		// Nobody waits for a plugin.
		s.mu.Unlock()
		err = s.drivers.openPools(ctx, n, u)
		s.mu.Lock()
		if err == nil {
			err = nameFree(s.names, r.Name)
		}
		if err != nil {
			return nil, err
		}
	}
	if err := s.checkDriverOptions(n); err != nil {
		return nil, err
	}
	if err := n.choose(s.subnets); err != nil {
		return nil, err
	}
	n.removing = true
	s.add(n)
	u.Add(func() error { s.drop(n); return nil })
	return n, nil
}

func nameFree(names map[string]string, name string) error {
	if _, ok := names[name]; ok {
		return errclass.Conflict("network with name %s already exists", name)
	}
	return nil
}

// choose gives a network the addresses that it lacks.
func (n *netw) choose(from *subnets.Chooser) (err error) {
	if n.net.ConfigOnly {
		return nil
	}
	if n.net.IPAM.Driver == ipam.DriverNull {
		return subnets.Null(&n.net)
	}
	if !n.elsewhere() {
		if n.pooled, err = from.Plan(&n.net); err != nil {
			return err
		}
	}
	if err := n.makeSpaces(); err != nil || !n.elsewhere() {
		return err
	}
	for _, p := range n.claims() {
		if err := from.Free(p); err != nil {
			return err
		}
	}
	return nil
}

// configure gives a network what its configuration network says.
func configure(n *network.Network, from *netw) {
	c := records.Public(from.net)
	n.ConfigFrom = network.ConfigReference{Network: c.Name}
	n.IPAM, n.Options, n.Labels, n.EnableIPv4, n.EnableIPv6 = c.IPAM, c.Options, c.Labels, c.EnableIPv4, c.EnableIPv6
}

// draft turns a request into a network's record, addresses as asked for. s.mu is held.
func (s *Service) draft(r network.CreateRequest) (*netw, error) {
	n := network.Network{
		Name: r.Name, ID: id.New(), Created: time.Now(), Scope: "local", Driver: r.Driver,
		IPAM:     network.IPAM{Driver: "default", Options: map[string]string{}},
		Internal: r.Internal, Attachable: r.Attachable, ConfigOnly: r.ConfigOnly,
		Options: maps.Clone(r.Options), Labels: maps.Clone(r.Labels),
	}
	if r.IPAM != nil {
		n.IPAM.Driver = cmp.Or(r.IPAM.Driver, "default")
		n.IPAM.Config = slices.Clone(r.IPAM.Config)
		if r.IPAM.Options != nil {
			n.IPAM.Options = maps.Clone(r.IPAM.Options)
		}
	}
	if r.ConfigFrom != nil && r.ConfigFrom.Network != "" {
		from, err := s.find(r.ConfigFrom.Network)
		if err != nil || !from.net.ConfigOnly || from.removing {
			return nil, errclass.NotFound("configuration network %q does not exist", r.ConfigFrom.Network)
		}
		configure(&n, from)
	}
	if n.ConfigOnly {
		n.Driver = "null" // it has none, as Docker's
	}
	for k, v := range s.cfg.NetworkOptions[n.Driver] {
		if _, said := n.Options[k]; !said && !n.ConfigOnly {
			n.Options = maps.Clone(n.Options)
			if n.Options == nil {
				n.Options = map[string]string{}
			}
			n.Options[k] = v
		}
	}
	if err := checks.Families(&n, r); err != nil {
		return nil, err
	}
	if len(n.IPAM.Config) > maxSubnets {
		return nil, errclass.Invalid("more than %d subnets", maxSubnets)
	}
	if s.cfg.MTU > 0 && n.Driver == "bridge" && n.Options[bridge.OptMTU] == "" && s.cfg.MTU != defaultMTU {
		if n.Options == nil {
			n.Options = map[string]string{}
		}
		n.Options[bridge.OptMTU] = strconv.Itoa(s.cfg.MTU)
	}
	return &netw{net: n, users: map[string]*endpoint{}}, nil
}

// drop takes a network out of the tables.
func (s *Service) drop(n *netw) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.nets, n.net.ID)
	if s.names[n.net.Name] == n.net.ID {
		delete(s.names, n.net.Name)
	}
	for _, p := range n.claims() {
		s.subnets.Leave(p)
	}
}

// Remove removes a network without containers. Errors: NotFound, Forbidden for
// predefined networks and while containers use it. Containers that join while it goes
// are refused.
func (s *Service) Remove(ctx context.Context, ref string) error {
	s.mu.Lock()
	n, err := s.find(ref)
	switch {
	case err != nil:
	case n.removing:
		err = errclass.NotFound("network %s not found", ref)
	case isPredefined(n.net.Name):
		err = errclass.Forbidden("%s is a pre-defined network and cannot be removed", n.net.Name)
	case len(n.users) > 0:
		err = errclass.Forbidden("error while removing network: network %s has active endpoints (%s)", n.net.Name, n.userList())
	default:
		for _, other := range s.nets {
			if n.net.ConfigOnly && other.net.ConfigFrom.Network == n.net.Name {
				err = errclass.Forbidden("configuration network %q is in use", n.net.Name)
			}
		}
	}
	if err != nil {
		s.mu.Unlock()
		return err
	}
	n.removing = true
	s.mu.Unlock()
	if !n.net.ConfigOnly {
		if err := s.stopDriver(ctx, n); err != nil {
			s.mu.Lock()
			n.removing = false
			s.mu.Unlock()
			return err
		}
		s.drivers.closePools(ctx, n)
	}
	if err := s.store.Remove(n.net.ID); err != nil {
		return err
	}
	s.drop(n)
	emit(s.bus, events.ActionDestroy, n, nil)
	return nil
}

func (n *netw) userList() string {
	out := ""
	for _, cid := range slices.Sorted(maps.Keys(n.users)) {
		if out != "" {
			out += ", "
		}
		out += "name:" + strconv.Quote(n.users[cid].Name) + " id:" + strconv.Quote(id.Short(n.users[cid].ID))
	}
	return out
}

// Prune removes all user-defined networks without containers that match f: label and
// until. Networks that cannot be removed are skipped and logged.
func (s *Service) Prune(ctx context.Context, f filter.Args) (network.PruneReport, error) {
	if err := f.Check("label", "label!", "until"); err != nil {
		return network.PruneReport{}, err
	}
	until := time.Time{}
	if v := f["until"]; len(v) > 1 {
		return network.PruneReport{}, errclass.Invalid("more than one until filter specified")
	} else if len(v) == 1 {
		var err error
		if until, err = checks.Until(v[0], time.Now()); err != nil {
			return network.PruneReport{}, err
		}
	}
	s.mu.Lock()
	var names, ids []string
	for _, n := range s.nets {
		if !isPredefined(n.net.Name) && len(n.users) == 0 && !n.removing && f.Labels("label", n.net.Labels) &&
			(until.IsZero() || n.net.Created.Before(until)) {
			ids = append(ids, n.net.ID)
		}
	}
	s.mu.Unlock()
	for _, nid := range ids {
		if err := ctx.Err(); err != nil {
			return network.PruneReport{NetworksDeleted: names}, err
		}
		s.mu.Lock()
		name := ""
		if n := s.nets[nid]; n != nil {
			name = n.net.Name
		}
		s.mu.Unlock()
		if err := s.Remove(ctx, nid); err != nil {
			s.log.Warn("pruning a network", "network", name, "error", err)
			continue
		}
		names = append(names, name)
	}
	slices.Sort(names)
	return network.PruneReport{NetworksDeleted: names}, nil
}
