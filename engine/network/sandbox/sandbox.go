// Package sandbox holds the plain data that containers and networks exchange: the request of a
// start, its result, and the record that a later daemon restores it from.
package sandbox

import (
	"net/netip"
	"os"

	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/moby/moby/api/types/network"
)

// Request asks for the network side of one container start. Network modes
// "host", "none" and "container:…" are decided by the caller for host and
// container: (no sandbox); "none" is a sandbox without endpoints.
type Request struct {
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
	// LinkedTo are the IDs of those containers: where icc is off this one may reach the
	// ports that they expose.
	LinkedTo []string
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
