// Package network owns networks and endpoints: addresses, bridges, published ports
// and the firewall, over netlink only. Safe for concurrent use.
package network

import (
	"net/netip"
	"os"

	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/moby/moby/api/types/network"
)

// SandboxRequest asks for the network side of one container start. Network modes
// "host", "none" and "container:…" are decided by the caller for host and
// container: (no sandbox); "none" is a sandbox without endpoints.
type SandboxRequest struct {
	ContainerID string
	Name        string // without the slash
	Hostname    string
	Domainname  string
	// Endpoints by network name or ID; empty for "none".
	Endpoints map[string]*network.EndpointSettings
	// Ports to publish, and ports the image or user exposes (for -P and for display).
	Ports      network.PortMap
	Exposed    network.PortSet
	PublishAll bool
	DNS        []netip.Addr
	DNSSearch  []string
	DNSOptions []string
	// ExtraHosts are "name:address" lines, host-gateway not yet resolved.
	ExtraHosts []string
	Sysctls    map[string]string
	// Links are further lines for /etc/hosts: containers linked on the default bridge.
	Links []HostLine
}

// HostLine is one line of an /etc/hosts.
type HostLine = etcfiles.HostLine

// Sandbox is what a container start takes away: the namespace and what inspect shows.
type Sandbox struct {
	// NetNS is the prepared network namespace (loopback up, addresses and routes
	// set). The caller closes it once the container runs; the namespace then lives
	// by its processes. Nil after Restore.
	NetNS *os.File
	// Record is what the engine keeps in run.json to find the sandbox again.
	Record Record
	// Endpoints as inspect shows them, by network name.
	Endpoints map[string]*network.EndpointSettings
	// Ports as bound.
	Ports network.PortMap
	// ResolvConf and Hosts are the contents for /etc/resolv.conf and /etc/hosts.
	ResolvConf, Hosts []byte
}

// Record is the durable part of a sandbox: plain data, JSON.
type Record struct {
	ContainerID string           `json:"container"`
	Endpoints   []EndpointRecord `json:"endpoints,omitempty"`
	// DNS is set when the container has a resolver of ours at 127.0.0.11.
	DNS *DNSRecord `json:"dns,omitempty"`
	// NetNS opens the running container's network namespace, for Restore, which uses
	// it only for what the Keeper lost. Optional.
	NetNS func() (*os.File, error) `json:"-"`
}

// DNSRecord is what a container's resolver needs to know beside the networks.
type DNSRecord struct {
	// Servers are asked instead of the host's.
	Servers []netip.Addr `json:"servers,omitempty"`
	// Ndots is set when the user chose ndots.
	Ndots bool `json:"ndots,omitempty"`
}

// EndpointRecord is one container's place on one network.
type EndpointRecord struct {
	ID        string       `json:"id"`
	NetworkID string       `json:"network"`
	Name      string       `json:"name"` // the container's
	IfName    string       `json:"if"`   // inside
	HostIf    string       `json:"host_if"`
	IPv4      netip.Prefix `json:"ip4"`
	IPv6      netip.Prefix `json:"ip6"`
	MAC       string       `json:"mac"`
	// SrcIf is the name on the host of an interface that was moved into the container.
	SrcIf string `json:"src_if,omitempty"`
	// GW4 and GW6 are gateways that the network's driver named; Direct is a default
	// route onto the interface.
	GW4    netip.Addr `json:"gw4,omitzero"`
	GW6    netip.Addr `json:"gw6,omitzero"`
	Direct bool       `json:"direct,omitempty"`
	// Priority is its gateway priority: the higher goes first, then the network's name.
	Priority int          `json:"priority,omitempty"`
	Ports    []PortRecord `json:"ports,omitempty"`
	Aliases  []string     `json:"aliases,omitempty"`
	// DNSNames are what the container is called on the network.
	DNSNames []string `json:"dns_names,omitempty"`
	// Links are names that only this container knows, and whom they mean.
	Links map[string]string `json:"links,omitempty"`
}

// PortRecord is one published port, or Count of them in a row. HostPort is 0 where the
// port is open on the container's own address (gateway mode routed).
type PortRecord struct {
	Proto         string     `json:"proto"`
	HostIP        netip.Addr `json:"host_ip"`
	HostPort      uint16     `json:"host_port"`
	ContainerPort uint16     `json:"port"`
	Count         uint16     `json:"count,omitempty"`
}
