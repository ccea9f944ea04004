// Package remote implements network and IPAM drivers by plugins of Docker's legacy protocol
// (github.com/moby/moby, libnetwork/docs/remote.md).
package remote

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/plugin"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
)

// Driver calls the plugin of each network's driver name. It implements driver.Driver and
// keeps nothing in memory.
type Driver struct {
	plugins plugin.Source
	host    driver.Host
}

// New makes the constructor of a driver that finds its plugins in p.
func New(p plugin.Source) driver.New {
	return func(h driver.Host) driver.Driver { return &Driver{plugins: p, host: h} }
}

// Describe implements driver.Driver.
func (d *Driver) Describe() driver.Description {
	return driver.Description{Scope: driver.ScopeLocal, HasInterfaces: true, NeedsGateway: true}
}

// Resource implements driver.Driver: what a plugin uses is its own to know.
func (d *Driver) Resource(driver.Network) string { return "" }

func (d *Driver) call(ctx context.Context, name, method string, in, out any) error {
	c, err := d.plugins.Find(name)
	if err != nil {
		return err
	}
	return c.Call(ctx, "NetworkDriver."+method, in, out)
}

// Check implements driver.Driver: the plugin checks its options itself.
func (d *Driver) Check(driver.Network, []driver.Network) error { return nil }

// ipamData is one subnet as plugins know it.
type ipamData struct {
	AddressSpace string
	Pool         string
	Gateway      string            `json:",omitempty"`
	AuxAddresses map[string]string `json:",omitempty"`
}

type createNetwork struct {
	NetworkID          string
	Options            map[string]any
	IPv4Data, IPv6Data []ipamData
}

func newCreate(n driver.Network) createNetwork {
	generic := map[string]string{}
	for k, v := range n.Options {
		generic[k] = v
	}
	r := createNetwork{NetworkID: n.ID, Options: map[string]any{
		"com.docker.network.generic":     generic,
		"com.docker.network.enable_ipv4": n.IPv4,
		"com.docker.network.enable_ipv6": n.IPv6,
	}, IPv4Data: []ipamData{}, IPv6Data: []ipamData{}}
	if n.Internal {
		r.Options["com.docker.network.internal"] = true
	}
	for _, s := range n.Subnets {
		x := ipamData{AddressSpace: "LocalDefault", Pool: s.Prefix.String()}
		if s.Gateway.IsValid() {
			x.Gateway = netip.PrefixFrom(s.Gateway, s.Prefix.Bits()).String()
		}
		for name, a := range s.Aux {
			if x.AuxAddresses == nil {
				x.AuxAddresses = map[string]string{}
			}
			x.AuxAddresses[name] = netip.PrefixFrom(a, s.Prefix.Bits()).String()
		}
		if s.Prefix.Addr().Is4() {
			r.IPv4Data = append(r.IPv4Data, x)
		} else {
			r.IPv6Data = append(r.IPv6Data, x)
		}
	}
	return r
}

// Start implements driver.Driver. After a restart of the daemon the plugin is not asked:
// it has its own memory, and may be a container that is not up yet.
func (d *Driver) Start(ctx context.Context, n driver.Network, again bool) error {
	if again {
		return nil
	}
	c, err := d.plugins.Find(n.Driver)
	if err != nil {
		return err
	}
	if err := c.Activate(ctx, "NetworkDriver"); err != nil {
		return err
	}
	var can struct{ Scope, ConnectivityScope string }
	if err := c.Call(ctx, "NetworkDriver.GetCapabilities", nil, &can); err != nil {
		return err
	}
	switch can.Scope {
	case "local":
	case "global":
		return errclass.Unavailable("network driver %s has global scope: This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.", n.Driver)
	default:
		return fmt.Errorf("invalid capability: expecting 'local' or 'global', got %s", can.Scope)
	}
	return c.Call(ctx, "NetworkDriver.CreateNetwork", newCreate(n), nil)
}

// Stop implements driver.Driver.
func (d *Driver) Stop(ctx context.Context, n driver.Network, _ []driver.Network) error {
	err := d.call(ctx, n.Driver, "DeleteNetwork", map[string]string{"NetworkID": n.ID}, nil)
	if errdefs.IsNotFound(err) {
		// A plugin that was uninstalled must not hold its networks for ever.
		return nil
	}
	return err
}

// ProvidesGateway implements driver.Driver.
func (d *Driver) ProvidesGateway(n driver.Network, _ bool) bool { return !n.Internal }

// iface is an endpoint's interface as plugins know it.
type iface struct{ Address, AddressIPv6, MacAddress string }

type joined struct {
	InterfaceName         struct{ SrcName, DstPrefix string }
	Gateway, GatewayIPv6  string
	StaticRoutes          []staticRoute
	DisableGatewayService bool
}

type staticRoute struct {
	Destination string
	RouteType   int // 0: by NextHop, 1: onto the interface
	NextHop     string
}

// maxRoutes bounds what one endpoint gets.
const maxRoutes = 256

// Join implements driver.Driver: CreateEndpoint and Join.
func (d *Driver) Join(ctx context.Context, n driver.Network, e driver.Endpoint) (_ driver.Interface, err error) {
	ask := iface{}
	if e.IPv4.IsValid() {
		ask.Address = e.IPv4.String()
	}
	if e.IPv6.IsValid() {
		ask.AddressIPv6 = e.IPv6.String()
	}
	if e.MACChosen {
		ask.MacAddress = e.MAC.String()
	}
	opts := portOptions(e)
	for k, v := range e.Options {
		opts[k] = v
	}
	var made struct{ Interface *iface }
	err = d.call(ctx, n.Driver, "CreateEndpoint", map[string]any{"NetworkID": n.ID, "EndpointID": e.ID, "Interface": ask, "Options": opts}, &made)
	if err != nil {
		return driver.Interface{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Leave(context.WithoutCancel(ctx), n, e))
		}
	}()
	var i driver.Interface
	if made.Interface != nil {
		if i, err = chosen(ask, *made.Interface); err != nil {
			return i, err
		}
	}
	var j joined
	err = d.call(ctx, n.Driver, "Join", map[string]any{
		"NetworkID": n.ID, "EndpointID": e.ID,
		"SandboxKey": "/var/run/docker/netns/" + id.Short(e.ContainerID), "Options": opts,
	}, &j)
	if err != nil {
		return i, err
	}
	if err := apply(&i, j); err != nil {
		return i, err
	}
	if i.MAC == nil && !e.MACChosen {
		l, err := d.host.LinkByName(i.Move)
		if err != nil {
			return i, err
		}
		i.MAC = l.MAC
	}
	return i, nil
}

// chosen is what the plugin chose itself; it may not change what was said to it.
func chosen(ask, got iface) (i driver.Interface, err error) {
	for _, f := range []struct {
		what, asked, got string
		to               *netip.Prefix
	}{{"address", ask.Address, got.Address, &i.IPv4}, {"address", ask.AddressIPv6, got.AddressIPv6, &i.IPv6}} {
		if f.got == "" || f.got == f.asked {
			continue
		}
		if f.asked != "" {
			return i, fmt.Errorf("driver modified interface %s: endpoint interface IP present (%s). Cannot be modified with %s", f.what, f.asked, f.got)
		}
		if *f.to, err = netip.ParsePrefix(f.got); err != nil {
			return i, fmt.Errorf("driver's interface address: %w", err)
		}
	}
	if got.MacAddress != "" && got.MacAddress != ask.MacAddress {
		if ask.MacAddress != "" {
			return i, fmt.Errorf("driver modified interface MAC address: endpoint interface MAC address present (%s). Cannot be modified with %s", ask.MacAddress, got.MacAddress)
		}
		if i.MAC, err = net.ParseMAC(got.MacAddress); err != nil || len(i.MAC) != 6 {
			return i, fmt.Errorf("driver's interface MAC address %q cannot be", got.MacAddress)
		}
	}
	return i, nil
}

// apply checks what a plugin answered to Join.
func apply(i *driver.Interface, j joined) (err error) {
	if j.InterfaceName.SrcName == "" {
		return errclass.NotImplemented("the network's driver gave no interface to move into the container")
	}
	if err := driver.CheckIfName(j.InterfaceName.SrcName); err != nil {
		return err
	}
	i.Move, i.Prefix = j.InterfaceName.SrcName, j.InterfaceName.DstPrefix
	if i.Prefix != "" {
		if err := driver.CheckIfName(i.Prefix + "0"); err != nil {
			return err
		}
	}
	for _, g := range []struct {
		name, s string
		to      *netip.Addr
	}{{"Gateway", j.Gateway, &i.Gateway4}, {"GatewayIPv6", j.GatewayIPv6, &i.Gateway6}} {
		if g.s == "" {
			continue
		}
		if *g.to, err = netip.ParseAddr(g.s); err != nil || g.to.Zone() != "" {
			return fmt.Errorf("unable to parse %s %q", g.name, g.s)
		}
	}
	if len(j.StaticRoutes) > maxRoutes {
		return fmt.Errorf("more than %d static routes", maxRoutes)
	}
	for _, s := range j.StaticRoutes {
		r := driver.Route{}
		if r.To, err = netip.ParsePrefix(s.Destination); err != nil {
			return fmt.Errorf("static route: %w", err)
		}
		if s.RouteType == 0 || s.NextHop != "" {
			if r.Via, err = netip.ParseAddr(s.NextHop); err != nil || r.Via.Zone() != "" {
				return fmt.Errorf("failed to parse nexthop IP %s", s.NextHop)
			}
		}
		i.Routes = append(i.Routes, r)
	}
	return nil
}

// Adopt implements driver.Driver: the plugin has its own memory.
func (d *Driver) Adopt(driver.Network, driver.Endpoint) {}

// Leave implements driver.Driver: Leave and DeleteEndpoint.
func (d *Driver) Leave(ctx context.Context, n driver.Network, e driver.Endpoint) error {
	r := map[string]string{"NetworkID": n.ID, "EndpointID": e.ID}
	return errors.Join(d.call(ctx, n.Driver, "Leave", r, nil), d.call(ctx, n.Driver, "DeleteEndpoint", r, nil))
}
