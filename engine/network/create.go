package network

import (
	"cmp"
	"context"
	"maps"
	"regexp"
	"slices"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/store"
	"github.com/gantry/gantry/engine/network/validate"
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
// an invalid configuration, NotFound for an unknown driver. Nothing is left when
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
	if err := s.nets.Save(n); err != nil {
		return network.CreateResponse{}, err
	}
	u.Add(func() error { return s.nets.Forget(n) })
	if !n.ConfigOnly {
		u.Add(func() error { return s.stop(context.WithoutCancel(ctx), n) })
		if err := n.Start(ctx, false); err != nil {
			return network.CreateResponse{}, err
		}
		if n.EnableIPv6 {
			if err := s.host.EnableForwarding(true); err != nil {
				return network.CreateResponse{}, err
			}
		}
	}
	u.Keep()
	s.nets.Admit(n)
	n.Emit(s.bus, events.ActionCreate, nil)
	return network.CreateResponse{ID: n.ID}, nil
}

// stop removes what Start made; what is gone already is no error.
func (s *Service) stop(ctx context.Context, n *store.Network) error {
	return n.Driver.Stop(ctx, n.View(), s.nets.Others(n))
}

var networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// plan checks a request and enters the network into the table, closed to containers
// until it is up. What must be undone is in u.
func (s *Service) plan(ctx context.Context, r network.CreateRequest, u *undo.List) (*store.Network, error) {
	if store.Predefined(r.Name) || r.Name == "default" {
		return nil, errclass.Forbidden("operation is not permitted on predefined %s network", r.Name)
	}
	if !networkName.MatchString(r.Name) {
		return nil, errclass.Invalid("invalid network name: only %q are allowed", networkName)
	}
	if r.Driver == "" {
		r.Driver = s.cfg.Drivers.Predefined[NameBridge]
	}
	if err := validate.CheckConfig(r); err != nil {
		return nil, err
	}
	if err := validate.Driver(r, s.drivers.Get(r.Driver).Describe()); err != nil {
		return nil, err
	}
	if err := s.nets.NameFree(r.Name); err != nil {
		return nil, err
	}
	n, err := s.draft(r)
	if err != nil {
		return nil, err
	}
	if n.IPAMPlugin() {
		if err := s.openPools(ctx, n, u); err != nil {
			return nil, err
		}
	}
	if err := s.nets.Reserve(n); err != nil {
		return nil, err
	}
	u.Add(func() error { s.nets.Drop(n); return nil })
	return n, nil
}

// openPools has a plugin give the network its subnets.
func (s *Service) openPools(ctx context.Context, n *store.Network, u *undo.List) error {
	p := n.Pools()
	p.IDs = nil
	if err := s.ipam.Open(ctx, &p); err != nil {
		return err
	}
	u.Add(func() error { return s.ipam.Close(context.WithoutCancel(ctx), p) })
	for _, c := range p.Config[min(len(n.IPAM.Config), len(p.Config)):] {
		n.Pooled = append(n.Pooled, c.Subnet)
	}
	n.IPAM.Config, n.PoolIDs = p.Config, p.IDs
	return nil
}

// configure gives a network what its configuration network says.
func configure(n *network.Network, from *store.Network) {
	c := store.Public(from.Network)
	n.ConfigFrom = network.ConfigReference{Network: c.Name}
	n.IPAM, n.Options, n.Labels, n.EnableIPv4, n.EnableIPv6 = c.IPAM, c.Options, c.Labels, c.EnableIPv4, c.EnableIPv6
}

// draft turns a request into a network, addresses as asked for.
func (s *Service) draft(r network.CreateRequest) (*store.Network, error) {
	n := network.Network{
		Name: r.Name, ID: id.New(), Created: time.Now(), Scope: driver.ScopeLocal, Driver: r.Driver,
		IPAM:     network.IPAM{Driver: ipam.DriverDefault, Options: map[string]string{}},
		Internal: r.Internal, Attachable: r.Attachable, ConfigOnly: r.ConfigOnly,
		Options: maps.Clone(r.Options), Labels: maps.Clone(r.Labels),
	}
	if r.IPAM != nil {
		n.IPAM.Driver = cmp.Or(r.IPAM.Driver, ipam.DriverDefault)
		n.IPAM.Config = slices.Clone(r.IPAM.Config)
		if r.IPAM.Options != nil {
			n.IPAM.Options = maps.Clone(r.IPAM.Options)
		}
	}
	if r.ConfigFrom != nil && r.ConfigFrom.Network != "" {
		from, err := s.nets.Find(r.ConfigFrom.Network)
		if err != nil || !from.ConfigOnly {
			return nil, store.NoConfig(r.ConfigFrom.Network)
		}
		configure(&n, from)
	}
	if n.ConfigOnly {
		n.Driver = s.cfg.Drivers.Predefined[NameNone] // it has none, as Docker's
	}
	facts := s.drivers.Get(n.Driver).Describe()
	for _, defaults := range []map[string]string{s.cfg.NetworkOptions[n.Driver], facts.Defaults} {
		if !n.ConfigOnly {
			n.Options = withDefaults(n.Options, defaults)
		}
	}
	if err := validate.Families(&n, r, facts); err != nil {
		return nil, err
	}
	if len(n.IPAM.Config) > maxSubnets {
		return nil, errclass.Invalid("more than %d subnets", maxSubnets)
	}
	return store.NewNetwork(n, s.drivers), nil
}

// withDefaults are options with those that nobody chose.
func withDefaults(options, defaults map[string]string) map[string]string {
	if len(defaults) == 0 {
		return options
	}
	out := maps.Clone(defaults)
	maps.Copy(out, options)
	return out
}

// Remove removes a network without containers. Errors: NotFound, Forbidden for
// predefined networks and while containers use it. Containers that join while it goes
// are refused.
func (s *Service) Remove(ctx context.Context, ref string) error {
	n, err := s.nets.Retire(ref)
	if err != nil {
		return err
	}
	if !n.ConfigOnly {
		if err := s.stop(ctx, n); err != nil {
			s.nets.Admit(n)
			return err
		}
		if n.IPAMPlugin() {
			if err := s.ipam.Close(ctx, n.Pools()); err != nil {
				s.log.Error("an IPAM plugin taking a network's subnets back", "network", n.Name, "error", err)
			}
		}
	}
	if err := s.nets.Forget(n); err != nil {
		return err
	}
	s.nets.Drop(n)
	n.Emit(s.bus, events.ActionDestroy, nil)
	return nil
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
		if until, err = validate.Until(v[0], time.Now()); err != nil {
			return network.PruneReport{}, err
		}
	}
	var names []string
	for _, n := range s.nets.All() {
		if store.Predefined(n.Name) || n.Used() || !f.Labels("label", n.Labels) || !until.IsZero() && !n.Created.Before(until) {
			continue
		}
		if err := ctx.Err(); err != nil {
			return network.PruneReport{NetworksDeleted: names}, err
		}
		err := s.Remove(ctx, n.ID)
		if errdefs.IsNotFound(err) {
			continue // somebody else removes it
		}
		if err != nil {
			s.log.Warn("pruning a network", "network", n.Name, "error", err)
			continue
		}
		names = append(names, n.Name)
	}
	slices.Sort(names)
	return network.PruneReport{NetworksDeleted: names}, nil
}
