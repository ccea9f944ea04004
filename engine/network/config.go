package network

import (
	"log/slog"
	"net/netip"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/endpoint"
	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/gantry/gantry/engine/network/fdstore"
	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/host"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/publish"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/gantry/gantry/engine/network/store"
)

// What containers and their networks tell each other; see engine/network/sandbox.
type (
	// SandboxRequest asks for the network side of one container start.
	SandboxRequest = sandbox.Request
	// Sandbox is what a container start takes away.
	Sandbox = sandbox.Sandbox
	// Record is the durable part of a sandbox.
	Record = sandbox.Record
	// EndpointRecord is the durable part of one endpoint.
	EndpointRecord = sandbox.Endpoint
	// HostLine is one line of an /etc/hosts.
	HostLine = etcfiles.HostLine
	// FDStore holds descriptors beyond the daemon's life (the shim).
	FDStore = fdstore.Store
	// Description is what a network's driver says of itself.
	Description = driver.Description
	// Pool is a range that subnets of new networks are cut from (default-address-pools).
	Pool = ipam.Pool
)

// Drivers are the kinds of networks that there are, and who manages addresses.
type Drivers struct {
	// Networks is the table of drivers.
	Networks driver.Table
	// Predefined are the drivers of the predefined networks, by the networks' names. That of
	// NameBridge is a driver.DefaultMaker, and the one of networks for which nobody names any.
	Predefined map[string]string
	// IPAM manages the addresses of networks that name a driver for it which is not ours.
	IPAM ipam.Driver
}

// Names of the predefined networks.
const (
	NameBridge = store.NameBridge
	NameHost   = store.NameHost
	NameNone   = store.NameNone
)

// NoBridge as Config.Bridge means that there is no default network.
const NoBridge = "none"

// Config is what the daemon's settings say about networks. The zero value plus
// DataRoot is Docker's default behaviour, except the booleans: see DefaultConfig.
type Config struct {
	// DataRoot is the daemon's: networks are one JSON record each in DataRoot/networks.
	DataRoot string
	// Bridge names an existing bridge for the default network ("" is docker0, made
	// when missing; "none" disables the default network).
	Bridge string
	// BIP is the default bridge's own address with its prefix ("172.17.0.1/16").
	BIP netip.Prefix
	// BIP6 is the same for IPv6.
	BIP6 netip.Prefix
	// FixedCIDR and FixedCIDR6 narrow where containers' addresses come from.
	FixedCIDR, FixedCIDR6 netip.Prefix
	// DefaultGateway and DefaultGateway6 are given to containers of the default
	// bridge instead of the bridge's own address.
	DefaultGateway, DefaultGateway6 netip.Addr
	// MTU of the default bridge and the default for others; 0 is 1500.
	MTU int
	// ICC lets containers of the default bridge talk to each other.
	ICC bool
	// IPMasq hides containers of the default bridge behind the host's addresses.
	IPMasq bool
	// IPForward lets the daemon switch on the kernel's forwarding when it is off.
	IPForward bool
	// ForwardNoDrop leaves foreign forwarded traffic alone when the daemon switched
	// forwarding on itself (ip-forward-no-drop).
	ForwardNoDrop bool
	// Firewall applies the nftables table ("iptables": true in daemon.json).
	Firewall bool
	// Firewall6 applies its IPv6 half ("ip6tables": true).
	Firewall6 bool
	// IPv6 gives the default bridge IPv6.
	IPv6 bool
	// UserlandProxy forwards in the daemon what the kernel cannot: ::1 and IPv6
	// clients of a container that has IPv4 only.
	UserlandProxy bool
	// AllowDirectRouting lets other hosts reach containers' own addresses.
	AllowDirectRouting bool
	// DefaultBindIP is the host address ports are published on when none is named;
	// invalid is all addresses.
	DefaultBindIP netip.Addr
	// HostGatewayIPs are what "host-gateway" means in --add-host; empty: the address
	// of the default bridge.
	HostGatewayIPs []netip.Addr
	// DNS, DNSSearch and DNSOptions are the daemon-wide settings of containers' resolvers.
	DNS        []netip.Addr
	DNSSearch  []string
	DNSOptions []string
	// AddressPools are where new networks' subnets come from; nil is Docker's defaults.
	AddressPools []ipam.Pool
	// NetworkOptions are driver options that new networks get where the user says nothing,
	// by driver (default-network-opts).
	NetworkOptions map[string]map[string]string
	// AcceptMark and AcceptMask, when the mask is not 0, let packets with this firewall mark
	// into all bridge networks (bridge-accept-fwmark).
	AcceptMark, AcceptMask uint32
	// ResolvConf is the host's resolver configuration; "" is /etc/resolv.conf (or
	// systemd-resolved's own when that names only its stub).
	ResolvConf string
	// FDStore may be nil: descriptors then live only in this process.
	FDStore FDStore
	// Drivers are the networks' drivers. All of it must be set.
	Drivers Drivers
	// Log may be nil.
	Log *slog.Logger
}

// DefaultConfig is Docker's configuration of networks for a data-root; Drivers are not in it.
func DefaultConfig(dataRoot string) Config {
	return Config{DataRoot: dataRoot, ICC: true, IPMasq: true, IPForward: true, Firewall: true, Firewall6: true, UserlandProxy: true}
}

// host is the part that is about the machine; dir is where it remembers what it changed.
func (c *Config) host(dir string) host.Settings {
	return host.Settings{
		Firewall: c.Firewall, Firewall6: c.Firewall6, Dir: dir, IPForward: c.IPForward, ForwardNoDrop: c.ForwardNoDrop,
		Rules: firewall.Settings{DirectRouting: c.AllowDirectRouting, Mark: c.AcceptMark, Mask: c.AcceptMask},
		Log:   c.Log,
	}
}

// endpoints is the part that is about containers on networks.
func (c *Config) endpoints() endpoint.Config {
	return endpoint.Config{
		NoDefault: c.Bridge == NoBridge, ICC: c.ICC, HostGatewayIPs: c.HostGatewayIPs,
		DNS: c.DNS, DNSSearch: c.DNSSearch, DNSOptions: c.DNSOptions, ResolvConf: c.ResolvConf,
		Publish: publish.Config{
			UserlandProxy: c.UserlandProxy, Firewall: c.Firewall, Firewall6: c.Firewall6, BindIP: c.DefaultBindIP,
			FDStore: c.FDStore, Log: c.Log,
		},
		FDStore: c.FDStore, Log: c.Log,
	}
}
