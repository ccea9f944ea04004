package ports

import (
	"fmt"
	"net/netip"
	"strconv"

	"github.com/moby/moby/api/types/network"
)

// Mapping is one published port, or Count of them in a row: from an address and port of the
// host to a container's port. It is what the table of taken ports has, what is written down
// of a running container, what the firewall makes its rules of, what the userland proxy
// forwards by, and what a plugin says that it published.
type Mapping struct {
	Proto  string     `json:"proto"` // "tcp", "udp" or "sctp"
	HostIP netip.Addr `json:"host_ip"`
	// HostPort is 0 where the port is open on the container's own address (gateway mode
	// routed). HostIP then only tells the family.
	HostPort      uint16 `json:"host_port"`
	ContainerPort uint16 `json:"port"`
	// Count above 1 means as many ports in a row, on both sides.
	Count uint16 `json:"count,omitempty"`

	// Where it leads follows from the endpoint, so it is not written down: ContainerIP is the
	// container's address of HostIP's family (the proxy's may be of the other), invalid where
	// it has none; Interface is the host's that the container is behind.
	ContainerIP netip.Addr `json:"-"`
	Interface   string     `json:"-"`
	// Gate tells that a row's first host port has a socket of the daemon, which forwards what
	// the kernel cannot: all of it where ContainerIP is invalid, else what comes by ::1 and
	// link-local addresses.
	Gate bool `json:"-"`
}

// Place is where on the host a mapping is: comparable, one mapping each.
type Place struct {
	proto string
	ip    netip.Addr
	port  uint16
}

// Place is the mapping's, by its first port.
func (m Mapping) Place() Place { return Place{m.Proto, m.HostIP, m.HostPort} }

// NamePrefix starts every Mapping.Name.
const NamePrefix = "port/"

// Name is the key of the mapping's socket in a store of descriptors.
func (m Mapping) Name() string {
	return fmt.Sprintf(NamePrefix+"%s/%s/%d", m.Proto, m.HostIP, m.HostPort)
}

// Row tells that it is of several ports.
func (m Mapping) Row() bool { return m.Count > 1 }

// last is the highest host port.
func (m Mapping) last() uint16 { return m.HostPort + max(m.Count, 1) - 1 }

// Same tells mappings of the same place on the host.
func Same(m Mapping) func(Mapping) bool {
	return func(o Mapping) bool { return m.Place() == o.Place() }
}

// Target is where what comes to a host port of the mapping goes; false: nowhere.
func (m Mapping) Target(hostPort uint16) (netip.AddrPort, bool) {
	if !m.Row() {
		return netip.AddrPortFrom(m.ContainerIP, m.ContainerPort), true
	}
	n := int(hostPort) - int(m.HostPort)
	if n < 0 || n >= int(m.Count) {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(m.ContainerIP, m.ContainerPort+uint16(n)), true
}

// Answers tells whether the mapping is what a request got on a host address. open tells
// whether ports that are open on the container's own address count.
func (m Mapping) Answers(r PortRequest, on netip.Addr, open bool) bool {
	return (m.HostPort != 0 || open) && m.Proto == r.Proto && m.ContainerPort == r.ContainerPort && m.Count == r.Count &&
		m.HostIP == on && (r.First == 0 || m.HostPort == 0 || r.First <= m.HostPort && m.HostPort <= r.Last)
}

// Shown is what the API shows of ports: mappings as taken, and exposed and wanted ports
// without one.
func Shown(exposed network.PortSet, wanted network.PortMap, taken []Mapping) network.PortMap {
	out := network.PortMap{}
	for p := range exposed {
		out[p] = nil
	}
	for p := range wanted {
		out[p] = nil
	}
	for _, m := range taken {
		m.Show(out)
	}
	return out
}

// Show adds a mapping to what the API shows; out may be nil.
func (m Mapping) Show(out network.PortMap) {
	for i := range max(m.Count, 1) {
		port, ok := network.PortFrom(m.ContainerPort+i, network.IPProtocol(m.Proto))
		if ok && m.HostPort != 0 && out != nil {
			out[port] = append(out[port], network.PortBinding{HostIP: m.HostIP, HostPort: strconv.Itoa(int(m.HostPort + i))})
		}
	}
}
