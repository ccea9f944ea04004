package store

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"sync"

	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/gantry/gantry/engine/network/validate"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/id"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// Names of the predefined networks.
const (
	NameBridge = "bridge"
	NameHost   = "host"
	NameNone   = "none"
)

// Predefined tells that the engine itself makes the network of a name.
func Predefined(name string) bool {
	return name == NameBridge || name == NameHost || name == NameNone
}

// Network is one network in memory: what the API knows of it, its driver, and who is on it
// with which addresses. What is exported does not change once the network is in a Store.
type Network struct {
	network.Network
	// Default tells that it is the default bridge network: containers are not found by name.
	Default bool
	Driver  driver.Driver
	Facts   driver.Description
	// Publishing is how the host publishes ports of its containers; nil: it does not.
	Publishing *driver.Publishing
	// Zone has the names that are served on it; nil where none are: default bridge, host, none.
	Zone *dns.Zone
	// Pooled are the subnets that came from the pools; PoolIDs are what an IPAM plugin calls
	// the subnets, in their order.
	Pooled  []netip.Prefix
	PoolIDs []string

	view     driver.Network
	resource string // of the host, that other networks may want

	mu     sync.Mutex
	spaces []*space
	// users are the containers' endpoints by container ID.
	users map[string]*sandbox.Endpoint
	// closed is set while the network is made and taken down: nothing may join.
	closed bool
}

// space is one subnet of a network.
type space struct {
	*ipam.Space
	gateway netip.Addr // what containers route through; invalid: none
	host    netip.Addr // the host's own address
}

// NewNetwork is a network that is in no Store yet: its subnets may still be chosen.
func NewNetwork(n network.Network, drivers driver.Set) *Network {
	d := drivers.Get(n.Driver)
	return &Network{Network: n, Driver: d, Facts: d.Describe(), users: map[string]*sandbox.Endpoint{}}
}

// settle computes what follows from the network's record, its subnets too.
func (n *Network) settle() {
	n.view = driver.Network{
		ID: n.ID, Name: n.Name, Driver: n.Network.Driver, Options: n.Options,
		Internal: n.Internal, IPv4: n.EnableIPv4, IPv6: n.EnableIPv6,
	}
	for i, c := range n.IPAM.Config {
		s := driver.Subnet{Prefix: c.Subnet, Gateway: c.Gateway, Aux: c.AuxAddress}
		if n.Facts.HostAddress && i < len(n.spaces) {
			s.Host = n.spaces[i].host
		}
		n.view.Subnets = append(n.view.Subnets, s)
	}
	n.resource = n.Driver.Resource(n.view)
	if p, ok := n.Driver.(driver.HostPublisher); ok && n.Publishing == nil {
		how := p.Publishing(n.view)
		n.Publishing = &how
	}
	if n.Zone == nil && !n.Default && n.Facts.HasInterfaces && !n.ConfigOnly {
		n.Zone = dns.NewZone(n.Name)
	}
}

// View is the network as its driver sees it.
func (n *Network) View() driver.Network { return n.view }

// IPAMPlugin tells whether a plugin manages the network's addresses.
func (n *Network) IPAMPlugin() bool {
	d := n.IPAM.Driver
	return d != "" && d != ipam.DriverDefault && d != ipam.DriverNull && !n.ConfigOnly && n.Facts.HasInterfaces
}

// Pools are the network's subnets as its IPAM plugin knows them.
func (n *Network) Pools() ipam.Pools {
	return ipam.Pools{
		Driver: n.IPAM.Driver, Options: n.IPAM.Options, Config: n.IPAM.Config, IDs: n.PoolIDs,
		IPv4: n.EnableIPv4, IPv6: n.EnableIPv6,
	}
}

// makeSpaces makes the address spaces that the network's IPAM configuration says. Where
// it says one address twice the first one has it: a new network's is checked before.
func (n *Network) makeSpaces() error {
	n.spaces = nil
	if n.IPAM.Driver == ipam.DriverNull {
		return nil
	}
	for _, c := range n.IPAM.Config {
		sp, err := ipam.NewSpace(c.Subnet, c.IPRange)
		if err != nil {
			return err
		}
		s := &space{Space: sp, gateway: c.Gateway, host: c.Gateway}
		if c.Gateway.IsValid() {
			_ = sp.Take(c.Gateway)
		}
		for _, aux := range c.AuxAddress {
			_ = sp.Take(aux)
		}
		n.spaces = append(n.spaces, s)
	}
	return nil
}

// claims are the ranges of the host that the network takes: what a plugin manages is
// the plugin's, unless the host is on it.
func (n *Network) claims() []netip.Prefix {
	if n.IPAMPlugin() && !n.Facts.HostAddress {
		return nil
	}
	var out []netip.Prefix
	for _, sp := range n.spaces {
		out = append(out, sp.Subnet())
	}
	return out
}

// Gateway is what an endpoint routes through: the driver's word, else the network's.
// Invalid: nothing.
func (n *Network) Gateway(e *sandbox.Endpoint, v6 bool) netip.Addr {
	own, addr := e.GW4, e.IPv4.Addr()
	if v6 {
		own, addr = e.GW6, e.IPv6.Addr()
	}
	if own.IsValid() {
		return own
	}
	// A network may have several subnets of one family, each with its gateway.
	for _, sp := range n.spaces {
		if sp.Subnet().Contains(addr) {
			return sp.gateway
		}
	}
	return own
}

// ProvidesGateway tells whether an endpoint on this network gives a default route.
func (n *Network) ProvidesGateway(e *sandbox.Endpoint, v6 bool) bool {
	addr := e.IPv4
	if v6 {
		addr = e.IPv6
	}
	return addr.IsValid() && (e.Direct || n.Gateway(e, v6).IsValid()) && n.Driver.ProvidesGateway(n.view, v6)
}

// HostAddrs are the host's own addresses on the network.
func (n *Network) HostAddrs() []netip.Addr {
	var out []netip.Addr
	for _, sp := range n.spaces {
		if sp.host.IsValid() {
			out = append(out, sp.host)
		}
	}
	return out
}

// Subnets are what requested addresses are validated by; nil for networks where no address may
// be requested.
func (n *Network) Subnets() *validate.Subnets {
	if n == nil || n.Default || Predefined(n.Name) || n.ConfigOnly {
		return nil
	}
	return &validate.Subnets{Config: n.IPAM.Config, Pooled: n.Pooled}
}

// Join puts a container's endpoint on the network, with the addresses that are requested or the
// next free ones; of a network whose addresses a plugin manages they come later, from there.
// Leave takes it off. Nothing is taken when it fails. Errors: NotFound while the network is
// taken down, Forbidden on configuration networks and for addresses that are in use, Invalid
// for addresses of no subnet.
func (n *Network) Join(containerID string, e *sandbox.Endpoint, want network.EndpointIPAMConfig) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return errclass.NotFound("network %s not found", n.Name)
	case n.ConfigOnly:
		return errclass.Forbidden("cannot create endpoint on configuration-only network")
	}
	if n.Facts.HasInterfaces && !n.IPAMPlugin() {
		var err error
		if e.IPv4, err = n.take(false, want.IPv4Address); err != nil {
			e.IPv4 = netip.Prefix{}
			return err
		}
		if e.IPv6, err = n.take(true, want.IPv6Address); err != nil {
			e.IPv6 = netip.Prefix{}
			n.release(e)
			return err
		}
	}
	n.users[containerID] = e
	return nil
}

// Open tells why nothing may join the network; nil: it may.
func (n *Network) Open() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	switch {
	case n.closed:
		return errclass.NotFound("network %s not found", n.Name)
	case n.ConfigOnly:
		return errclass.Forbidden("cannot create endpoint on configuration-only network")
	}
	return nil
}

// take takes an address of one family: the requested one, or the next free. n.mu is held.
func (n *Network) take(v6 bool, want netip.Addr) (netip.Prefix, error) {
	if want.IsValid() {
		for _, sp := range n.spaces {
			if sp.Subnet().Contains(want) {
				return netip.PrefixFrom(want, sp.Subnet().Bits()), sp.Take(want)
			}
		}
		return netip.Prefix{}, errclass.Invalid("no configured subnet or ip-range contain the IP address %s", want)
	}
	for _, sp := range n.spaces {
		if sp.Subnet().Addr().Is6() == v6 {
			a, err := sp.Next()
			return netip.PrefixFrom(a, sp.Subnet().Bits()), err
		}
	}
	return netip.Prefix{}, nil
}

// release gives an endpoint's addresses back. n.mu is held.
func (n *Network) release(e *sandbox.Endpoint) {
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		for _, sp := range n.spaces {
			if p.IsValid() && sp.Subnet().Contains(p.Addr()) {
				sp.Release(p.Addr())
			}
		}
	}
}

// Adopt takes back what a running container has on the network. An address that another one
// has is an error, which changes nothing: the container has it, too.
func (n *Network) Adopt(containerID string, e *sandbox.Endpoint) (errs []error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		for _, sp := range n.spaces {
			if p.IsValid() && sp.Subnet().Contains(p.Addr()) {
				if err := sp.Take(p.Addr()); err != nil {
					errs = append(errs, err)
				}
			}
		}
	}
	n.users[containerID] = e
	return errs
}

// Announce makes an endpoint's names known on the network.
func (n *Network) Announce(e *sandbox.Endpoint) {
	if n.Zone != nil {
		n.Zone.Set(e.ID, e.DNSNames, e.IPv4.Addr(), e.IPv6.Addr())
	}
}

// Leave takes an endpoint off the network, with its names; its addresses are free again.
func (n *Network) Leave(containerID string, e *sandbox.Endpoint) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.release(e)
	if n.users[containerID] == e {
		delete(n.users, containerID)
	}
	if n.Zone != nil {
		n.Zone.Remove(e.ID)
	}
}

// User is what others may know of an endpoint on a network while its container changes it.
type User struct {
	EndpointID, Name, MAC string
	IPv4, IPv6            netip.Prefix
}

// Edit runs do, which changes the names and addresses of an endpoint that is on the network:
// whoever lists them meanwhile sees them before or afterwards.
func (n *Network) Edit(do func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	do()
}

// User is a container's endpoint on the network, nil without. It is its container's: others
// look at Users.
func (n *Network) User(containerID string) *sandbox.Endpoint {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.users[containerID]
}

// Users are all endpoints on the network, by container ID.
func (n *Network) Users() map[string]User {
	n.mu.Lock()
	defer n.mu.Unlock()
	out := make(map[string]User, len(n.users))
	for id, e := range n.users {
		out[id] = User{e.ID, e.Name, e.MAC, e.IPv4, e.IPv6}
	}
	return out
}

// Used tells whether containers are on the network.
func (n *Network) Used() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.users) > 0
}

// Status tells how much of its addresses a network uses. Of those that a plugin hands out
// nobody here knows.
func (n *Network) Status() *network.Status {
	out := &network.Status{}
	if n.IPAMPlugin() {
		return out
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, sp := range n.spaces {
		if out.IPAM.Subnets == nil {
			out.IPAM.Subnets = network.SubnetStatuses{}
		}
		out.IPAM.Subnets[sp.Subnet()] = network.SubnetStatus{IPsInUse: uint64(sp.Used()), DynamicIPsAvailable: sp.Free()}
	}
	return out
}

// userList names who is on the network, in an error's words. n.mu is held.
func (n *Network) userList() string {
	out := ""
	for _, cid := range slices.Sorted(maps.Keys(n.users)) {
		if out != "" {
			out += ", "
		}
		out += "name:" + strconv.Quote(n.users[cid].Name) + " id:" + strconv.Quote(id.Short(n.users[cid].ID))
	}
	return out
}

// Emit publishes an event of the network; bus may be nil.
func (n *Network) Emit(bus *event.Bus, action events.Action, attrs map[string]string) {
	if bus == nil {
		return
	}
	a := map[string]string{"name": n.Name, "type": n.Network.Driver}
	maps.Copy(a, attrs)
	bus.Emit(events.NetworkEventType, action, n.ID, a)
}

// Start has the driver make what the network needs in the kernel before containers join.
func (n *Network) Start(ctx context.Context, again bool) error {
	return n.Driver.Start(ctx, n.view, again)
}
