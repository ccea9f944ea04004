// Package driver is the seam between the service of networks and what makes one kind of
// network: macvlan, ipvlan, plugins, and overlay when there is a swarm. The bridge driver
// is part of the service, because published ports and the firewall are made of bridges.
package driver

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// Driver makes one kind of network. Implementations are safe for concurrent use; calls
// come without locks of the service held, but for Check. The service never calls for one
// endpoint, or for one network's Start and Stop, twice at a time. Every driver passes
// networktest.Run.
type Driver interface {
	// Check refuses options that cannot be, and what goes with none of the other
	// networks (of all drivers, n not among them). It looks at nothing but its
	// arguments. Errors: Invalid, Forbidden.
	Check(n Network, others []Network) error
	// Start makes what the network needs before containers join, and leaves nothing when
	// it fails. again tells that the network is an old one and the daemon was restarted:
	// what is there already is kept. Errors: Invalid for an interface that is not there,
	// NotImplemented for what the kernel lacks, NotFound for a plugin that is away.
	Start(ctx context.Context, n Network, again bool) error
	// Stop removes what Start made, unless one of the others uses it too. What is gone
	// already is no error: it may be called again.
	Stop(ctx context.Context, n Network, others []Network) error
	// Out tells whether containers reach the world by this network in one address
	// family, so that it may be their default route. It asks nobody.
	Out(n Network, v6 bool) bool
	// Join says how the endpoint's interface is made. Leave ends what it began.
	Join(ctx context.Context, n Network, e Endpoint) (Interface, error)
	// Leave gives up an endpoint; one that is unknown is no error. The interface is away
	// already, or back in the host's namespace under its old name when it was moved.
	Leave(ctx context.Context, n Network, e Endpoint) error
}

// Publisher is a driver that publishes ports itself. Calls are as the driver's others; they
// come when the interface is up.
type Publisher interface {
	// Publish is called when an endpoint has become its container's way out. It returns what
	// is published where, to be shown. Unpublish ends what it began, also when it fails.
	Publish(ctx context.Context, n Network, e Endpoint) ([]Published, error)
	// Unpublish is called when it is the way out no more; an endpoint that is unknown is no
	// error.
	Unpublish(ctx context.Context, n Network, e Endpoint) error
}

// Published is one port as it was published.
type Published struct {
	Proto    string // "tcp", "udp" or "sctp"
	Port     uint16
	HostIP   netip.Addr
	HostPort uint16
}

// Network is what a driver sees of a network. Drivers change nothing in it.
type Network struct {
	ID, Name, Driver string
	// Options are the driver's (docker network create -o).
	Options    map[string]string
	Internal   bool
	IPv4, IPv6 bool
	Subnets    []Subnet
}

// Subnet is one address range of a network.
type Subnet struct {
	Prefix  netip.Prefix
	Gateway netip.Addr // invalid: none
	Aux     map[string]netip.Addr
}

// Endpoint is one container on one network.
type Endpoint struct {
	ID, ContainerID string
	// IPv4 and IPv6 carry the subnet's length; invalid where the network has no such
	// addresses.
	IPv4, IPv6 netip.Prefix
	MAC        net.HardwareAddr
	// MACChosen tells that the user asked for this address; else it was made from the
	// IP address.
	MACChosen bool
	// Options are the endpoint's (docker network connect --driver-opt).
	Options map[string]string
	// Ports are what the container wants published, Exposed what it exposes.
	Ports   network.PortMap
	Exposed network.PortSet
}

// Interface is how an endpoint's interface comes into the container: one of Port, Child
// and Move is set, or none of them where the network gives no interface.
type Interface struct {
	// Port is a veth pair, one end a bridge's port on the host.
	Port Port
	// Child makes the interface in the container's namespace.
	Child func(rtnl.Peer) *rtnl.Request
	// Move names an interface of the host that is moved there and renamed.
	Move string
	// Prefix of the name inside; "" is eth.
	Prefix string
	// IPv4, IPv6 and MAC are what the driver chose itself; invalid or nil leaves what
	// the service chose.
	IPv4, IPv6 netip.Prefix
	MAC        net.HardwareAddr
	// SharedMAC tells that the interface has its parent's address and takes no other.
	SharedMAC bool
	// Announce tells the neighbours who has the addresses now (gratuitous ARP).
	Announce bool
	// Gateway4 and Gateway6 are default routes instead of the network's own.
	Gateway4, Gateway6 netip.Addr
	// Direct is a default route onto the interface itself, without a gateway.
	Direct bool
	// Routes beside the default one.
	Routes []Route
}

// Port is the host's end of a veth pair.
type Port struct {
	HostIf string
	// Bridge is the index of the bridge it is plugged into.
	Bridge int
	// Isolated cuts it off from the bridge's other isolated ports.
	Isolated bool
	// Filtered tells that bridged packets pass the IP hooks (br_netfilter).
	Filtered bool
}

// Route leads to a destination by a next hop, or straight onto the interface.
type Route struct {
	To  netip.Prefix
	Via netip.Addr // invalid: onto the interface
}

// Bare is of the networks that have no interfaces: host and none.
type Bare struct{}

// Check implements Driver.
func (Bare) Check(Network, []Network) error { return nil }

// Start implements Driver.
func (Bare) Start(context.Context, Network, bool) error { return nil }

// Stop implements Driver.
func (Bare) Stop(context.Context, Network, []Network) error { return nil }

// Out implements Driver.
func (Bare) Out(Network, bool) bool { return false }

// Join implements Driver.
func (Bare) Join(context.Context, Network, Endpoint) (Interface, error) {
	return Interface{}, nil
}

// Leave implements Driver.
func (Bare) Leave(context.Context, Network, Endpoint) error { return nil }

// The options that drivers share, in Docker's words.
const (
	OptMTU      = "com.docker.network.driver.mtu"
	OptIfPrefix = "com.docker.network.container_iface_prefix"
)

// ParseMTU reads OptMTU's value; 0 is the daemon's choice. Errors are of class Invalid.
func ParseMTU(v string) (int, error) {
	mtu, err := strconv.Atoi(v)
	switch {
	case err != nil:
		return 0, errclass.Invalid("failed to parse %s value: %s (%v)", OptMTU, v, err)
	case mtu < 0 || mtu > 65535:
		return 0, errclass.Invalid("invalid MTU number: %d", mtu)
	}
	return mtu, nil
}

// CheckIfName refuses what the kernel refuses as an interface's name, and what would
// be another file below /proc/sys. Errors are of class Invalid.
func CheckIfName(s string) error {
	if s == "" || len(s) > 15 || s == "." || s == ".." || s == "all" || s == "default" ||
		strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == '"' || r > '~' }) {
		return errclass.Invalid("invalid interface name %q", s)
	}
	return nil
}
