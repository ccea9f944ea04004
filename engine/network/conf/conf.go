// Package conf is what the daemon's settings say about networks.
package conf

import (
	"log/slog"
	"net/netip"

	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/keep"
	"github.com/gantry/gantry/engine/plugin"
)

// NoBridge as Bridge means that there is no default network.
const NoBridge = "none"

// Config is what the daemon's settings say about networks. The zero value plus
// DataRoot is Docker's default behaviour, except the booleans: see Default.
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
	// Keeper may be nil: descriptors then live only in this process.
	Keeper keep.Keeper
	// Plugins are where drivers are looked for that are not ours; nil is Docker's
	// directories.
	Plugins plugin.Source
	// Log may be nil.
	Log *slog.Logger
}

// Default is Docker's configuration of networks for a data-root.
func Default(dataRoot string) Config {
	return Config{DataRoot: dataRoot, ICC: true, IPMasq: true, IPForward: true, Firewall: true, Firewall6: true, UserlandProxy: true}
}
