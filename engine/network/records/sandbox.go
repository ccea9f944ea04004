package records

import (
	"net/netip"
	"os"
	"strconv"

	"github.com/moby/moby/api/types/network"
)

// Sandbox is the durable part of a container's side: plain data, JSON.
type Sandbox struct {
	ContainerID string     `json:"container"`
	Endpoints   []Endpoint `json:"endpoints,omitempty"`
	// DNS is set when the container has a resolver of ours at 127.0.0.11.
	DNS *DNS `json:"dns,omitempty"`
	// LinkedTo and Exposed are what links on the default bridge need to know, where icc is off.
	LinkedTo []string       `json:"linked_to,omitempty"`
	Exposed  []network.Port `json:"exposed,omitempty"`
	// NetNS opens the running container's network namespace, for Restore, which uses
	// it only for what the Keeper lost. Optional.
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
	Priority int      `json:"priority,omitempty"`
	Ports    []Port   `json:"ports,omitempty"`
	Aliases  []string `json:"aliases,omitempty"`
	// DNSNames are what the container is called on the network.
	DNSNames []string `json:"dns_names,omitempty"`
	// Links are names that only this container knows, and whom they mean.
	Links map[string]string `json:"links,omitempty"`
}

// Port is one published port, or Count of them in a row. HostPort is 0 where the
// port is open on the container's own address (gateway mode routed).
type Port struct {
	Proto         string     `json:"proto"`
	HostIP        netip.Addr `json:"host_ip"`
	HostPort      uint16     `json:"host_port"`
	ContainerPort uint16     `json:"port"`
	Count         uint16     `json:"count,omitempty"`
}

// Shown is what inspect shows of ports: bindings as taken, and exposed and wanted ports
// without one.
func Shown(exposed network.PortSet, wanted network.PortMap, taken []Port) network.PortMap {
	out := network.PortMap{}
	for p := range exposed {
		out[p] = nil
	}
	for p := range wanted {
		out[p] = nil
	}
	for _, p := range taken {
		for i := range max(p.Count, 1) {
			port, ok := network.PortFrom(p.ContainerPort+i, network.IPProtocol(p.Proto))
			if ok && p.HostPort != 0 {
				out[port] = append(out[port], network.PortBinding{HostIP: p.HostIP, HostPort: strconv.Itoa(int(p.HostPort + i))})
			}
		}
	}
	return out
}
