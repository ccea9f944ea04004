// Package driver is the seam of network drivers: a driver implements one kind of network, such
// as bridge, macvlan, ipvlan, host, null, a plugin's, or overlay in a swarm. The engine passes the
// table of drivers to network.New. Drivers differ by their Description, so nothing compares
// their names.
package driver

import (
	"context"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/network"
)

// Driver makes one kind of network. Implementations are safe for concurrent use; calls
// come without locks of the service held, but for Check. The service never calls for one
// endpoint, or for one network's Start and Stop, twice at a time. Nothing is to be closed: what a
// driver makes on the host stays when the daemon ends. Every driver passes drivertest.Run, and
// networktest.Run if containers get interfaces of it.
type Driver interface {
	// Describe returns the facts that hold for all networks of the driver, always the same.
	Describe() Description
	// Check validates a network's options, and refuses a network that cannot exist beside others:
	// those with the same Resource, n not among them. It is pure. Errors: Invalid, Forbidden.
	Check(n Network, others []Network) error
	// Resource names the thing of the host that a network uses and that others may use, too,
	// also those of another driver ("parent eth0"); "" is none. It is called for invalid networks, too.
	Resource(n Network) string
	// Start makes what the network needs before containers join, and leaves nothing when
	// it fails. again tells that the network is an old one and the daemon was restarted:
	// what is there already is kept. Errors: Invalid for an interface that is not there,
	// NotImplemented for what the kernel lacks, NotFound for a plugin that is away.
	Start(ctx context.Context, n Network, again bool) error
	// Stop removes what Start made, unless one of the others uses it too. What is gone
	// already is no error: it may be called again.
	Stop(ctx context.Context, n Network, others []Network) error
	// ProvidesGateway reports whether the network can give containers a default route in one
	// address family. It is pure.
	ProvidesGateway(n Network, v6 bool) bool
	// Join prepares an endpoint and returns how its interface is made. Leave undoes it.
	Join(ctx context.Context, n Network, e Endpoint) (Interface, error)
	// Adopt takes over an endpoint of a running container that an earlier daemon joined.
	// It makes nothing.
	Adopt(n Network, e Endpoint)
	// Leave gives up an endpoint; one that is unknown is no error. The interface is away
	// already, or back in the host's namespace under its old name when it was moved.
	Leave(ctx context.Context, n Network, e Endpoint) error
}

// Description is what a driver says of itself.
type Description struct {
	// Scope is where its networks are: ScopeLocal or ScopeSwarm.
	Scope string
	// HasInterfaces tells that containers get an interface; without it they get no address
	// and no names on the network either.
	HasInterfaces bool
	// HostNamespace tells that containers are in the host's own network namespace.
	HostNamespace bool
	// Predefined tells that the engine makes its one network, and nobody another.
	Predefined bool
	// NeedsGateway tells that every subnet has a gateway: one is chosen where the user names
	// none. Without it the gateway is somebody whom only the user can name.
	NeedsGateway bool
	// HostAddress tells that the host itself has an address in the subnets. They are then the
	// host's whoever manages them, and there is no network without.
	HostAddress bool
	// Unaddressed tells that a network may be without IPv4 and IPv6.
	Unaddressed bool
	// Defaults are options of new networks where neither the user nor the daemon's
	// configuration says anything.
	Defaults map[string]string
}

// The scopes of networks.
const (
	ScopeLocal = "local"
	ScopeSwarm = "swarm"
)

// None tells that containers on such a network have no network but their loopback.
func (d Description) None() bool { return !d.HasInterfaces && !d.HostNamespace }

// New makes a driver that works on a host; the host outlives it.
type New func(Host) Driver

// HostPublisher is a driver of networks behind the host's own addresses: the engine
// publishes their containers' ports by the host's firewall.
type HostPublisher interface {
	// Publishing says how. It asks nobody; Check has accepted the network.
	Publishing(n Network) Publishing
}

// LinkOwner is a driver whose Start makes pairs of interfaces on the host.
type LinkOwner interface {
	// Links names them, for one network, whether they are there or not: other interfaces of
	// ours that no container has are removed when the daemon starts.
	Links(n Network) []string
}

// DefaultMaker is a driver that can make the default network.
type DefaultMaker interface {
	// Default is the interface of the default network on the host and its options, as the
	// daemon's configuration says.
	Default() (iface string, options map[string]string)
	// RemoveDefault removes what an earlier daemon made for it, where there is to be none
	// now. What is gone, or is somebody else's, is no error.
	RemoveDefault() error
}

// Publishing is how ports of a network's containers are published on the host.
type Publishing struct {
	// Interface is the host's interface that the containers are behind.
	Interface string
	// BindIP is where ports are published when the user names no address; invalid: the
	// daemon's choice.
	BindIP       netip.Addr
	Mode4, Mode6 GatewayMode
	// Internal networks have no way out: nothing is opened on the containers' own addresses.
	Internal bool
}

// Mode is the gateway mode of one family.
func (p Publishing) Mode(v6 bool) GatewayMode {
	if v6 {
		return p.Mode6
	}
	return p.Mode4
}

// GatewayMode is how a network's containers are reached from outside
// (com.docker.network.bridge.gateway_mode_ipv4/6).
type GatewayMode string

// The modes. The empty mode is ModeNAT.
const (
	ModeNAT            GatewayMode = "nat"
	ModeNATUnprotected GatewayMode = "nat-unprotected"
	ModeRouted         GatewayMode = "routed"
	ModeIsolated       GatewayMode = "isolated"
)

// Translates tells whether ports are published on the host's addresses.
func (m GatewayMode) Translates() bool {
	return m == "" || m == ModeNAT || m == ModeNATUnprotected
}

// Publisher is a driver that publishes ports itself. Calls are as the driver's others; they
// come when the interface is up.
type Publisher interface {
	// Publish is called when an endpoint has become its container's way out. It returns what
	// is published where, to be shown. Unpublish ends what it began, also when it fails.
	Publish(ctx context.Context, n Network, e Endpoint) ([]ports.Mapping, error)
	// Unpublish is called when it is the way out no more; an endpoint that is unknown is no
	// error.
	Unpublish(ctx context.Context, n Network, e Endpoint) error
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
	Gateway netip.Addr // that containers route through; invalid: none
	// Host is the host's own address, where the driver's networks have one
	// (Description.HostAddress): the gateway, unless the user named another.
	Host netip.Addr
	Aux  map[string]netip.Addr
}

// Endpoint is one container on one network.
type Endpoint struct {
	ID, ContainerID string
	// IPv4 and IPv6 carry the subnet's length; invalid where the network has no such
	// addresses.
	IPv4, IPv6 netip.Prefix
	MAC        net.HardwareAddr
	// HostIf is the host's end of its interface; empty before Join, and without one.
	HostIf string
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
	// MTU of both ends, in bytes; 0 is the kernel's choice.
	MTU int
	// Bridge is the index of the bridge that it is a port of.
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
