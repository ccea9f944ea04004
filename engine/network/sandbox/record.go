package sandbox

import (
	"net/netip"
	"os"

	"github.com/gantry/gantry/engine/network/ports"
	"github.com/moby/moby/api/types/network"
)

// Record is the durable part of a sandbox: plain data, JSON, in the run.json of a running
// container.
type Record struct {
	ContainerID string     `json:"container"`
	Endpoints   []Endpoint `json:"endpoints,omitempty"`
	// DNS is set when the container has a resolver of ours at 127.0.0.11.
	DNS *DNS `json:"dns,omitempty"`
	// LinkedTo and Exposed are what links on the default bridge need to know, where icc is off.
	LinkedTo []string       `json:"linked_to,omitempty"`
	Exposed  []network.Port `json:"exposed,omitempty"`
	// NetNS opens the running container's network namespace, for Restore, which uses
	// it only for what the FD store lost. Optional.
	NetNS func() (*os.File, error) `json:"-"`
}

// DNS is what a container's resolver needs to know beside the networks.
type DNS struct {
	// Servers are asked instead of the host's.
	Servers []netip.Addr `json:"servers,omitempty"`
	// Ndots is set when the user chose ndots.
	Ndots bool `json:"ndots,omitempty"`
}

// Endpoint is one container's place on one network.
type Endpoint struct {
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
	// Programmed tells that the network's driver publishes ports for it.
	Programmed bool `json:"programmed,omitempty"`
	// Priority is its gateway priority: the higher goes first, then the network's name.
	Priority int             `json:"priority,omitempty"`
	Ports    []ports.Mapping `json:"ports,omitempty"`
	Aliases  []string        `json:"aliases,omitempty"`
	// DNSNames are what the container is called on the network.
	DNSNames []string `json:"dns_names,omitempty"`
	// Links are names that only this container knows, and whom they mean.
	Links map[string]string `json:"links,omitempty"`
}

// Target is the endpoint's address for packets of a family, else the one it has.
func (e *Endpoint) Target(v6 bool) netip.Addr {
	if v6 && e.IPv6.IsValid() || !e.IPv4.IsValid() {
		return e.IPv6.Addr()
	}
	return e.IPv4.Addr()
}
