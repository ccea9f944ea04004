// Package validate validates requests about networks and endpoints. It does not look at the
// networks that exist.
package validate

import (
	"errors"
	"net/netip"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// The options of endpoints that are looked at here, in Docker's words.
const (
	OptMAC     = "com.docker.network.endpoint.macaddress"
	OptSysctls = "com.docker.network.endpoint.sysctls"
)

// Subnets are a network's, for requested addresses: those in Pooled nobody chose.
type Subnets struct {
	Config []network.IPAMConfig
	Pooled []netip.Prefix
}

// CheckEndpoint checks and normalises an endpoint's settings on the network of a name; n is
// nil where requested addresses cannot be judged by the subnets. All that is wrong is told at
// once. Errors are of class Invalid.
func CheckEndpoint(n *Subnets, name string, es *network.EndpointSettings) error {
	if es == nil {
		return nil
	}
	ipc := es.IPAMConfig
	if ipc == nil {
		ipc = &network.EndpointIPAMConfig{}
	}
	var p problems
	if !container.NetworkMode(name).IsUserDefined() {
		p.userDefinedOnly(es, ipc)
	}
	p.addresses(ipc)
	for i, a := range ipc.LinkLocalIPs {
		ipc.LinkLocalIPs[i] = a.Unmap()
	}
	ipc.IPv4Address = ipc.IPv4Address.Unmap()
	if n != nil {
		for _, a := range []netip.Addr{ipc.IPv4Address, ipc.IPv6Address} {
			if err := n.check(a); err != nil {
				p = append(p, err)
			}
		}
	}
	p.sysctls(es.DriverOpts[OptSysctls])
	if len(p) == 0 {
		return nil
	}
	return errclass.Invalid("invalid endpoint settings:\n%w", listed(p))
}

// problems are what is wrong with an endpoint's settings, in Docker's order.
type problems []error

func (p *problems) add(format string, args ...any) {
	*p = append(*p, errclass.Invalid(format, args...))
}

// userDefinedOnly finds settings that predefined networks do not have.
func (p *problems) userDefinedOnly(es *network.EndpointSettings, ipc *network.EndpointIPAMConfig) {
	if ipc.IPv4Address.IsValid() || ipc.IPv6Address.IsValid() {
		p.add("user specified IP address is supported on user defined networks only")
	}
	if len(es.Aliases) > 0 {
		p.add("network-scoped alias is supported only for containers in user defined networks")
	}
}

// addresses finds requested addresses that no interface can have.
func (p *problems) addresses(ipc *network.EndpointIPAMConfig) {
	if a := ipc.IPv4Address; a.IsValid() && (!a.Unmap().Is4() || a.IsUnspecified()) {
		p.add("invalid IPv4 address: %s", a)
	}
	if a := ipc.IPv6Address; a.IsValid() && (!a.Is6() || a.Is4In6() || a.IsUnspecified() || a.Zone() != "") {
		p.add("invalid IPv6 address: %s", a)
	}
	for _, a := range ipc.LinkLocalIPs {
		if !a.IsValid() || a.IsUnspecified() || a.Zone() != "" {
			p.add("invalid link-local IP address: %s", a)
		}
	}
}

// sysctls finds settings of the interface, separated by commas, that are not of one.
func (p *problems) sysctls(list string) {
	for sysctl := range strings.SplitSeq(list, ",") {
		parts := strings.SplitN(strings.TrimSpace(sysctl), ".", 5)
		if sysctl != "" && (len(parts) != 5 || !slices.Contains([]string{"ipv4", "ipv6", "mpls"}, parts[1]) || !strings.EqualFold(parts[3], "IFNAME")) {
			p.add("unrecognised network interface sysctl '%s'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'", sysctl)
		}
	}
}

// check tells whether somebody may choose this address: only from a subnet that somebody
// chose, for another may be elsewhere when the network is made again.
func (n *Subnets) check(a netip.Addr) error {
	if !a.IsValid() {
		return nil
	}
	chosen := false
	for _, c := range n.Config {
		if c.Subnet.Addr().Is4() != a.Is4() || slices.Contains(n.Pooled, c.Subnet) {
			continue
		}
		if chosen = true; c.Subnet.Contains(a) {
			return nil
		}
	}
	if chosen {
		return errclass.Invalid("no configured subnet or ip-range contain the IP address %s", a)
	}
	return errclass.Invalid("user specified IP address is supported only when connecting to networks with user configured subnets")
}

// listed joins errors as Docker lists them: one as it is, several with a mark each.
func listed(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	var out []string
	for _, err := range errs {
		out = append(out, "* "+strings.ReplaceAll(err.Error(), "\n", "\n\t"))
	}
	return errors.New(strings.Join(out, "\n"))
}

// NoIPv6 tells whether a container switches IPv6 off for itself by its sysctls: then no file
// says that it has it.
func NoIPv6(sysctls map[string]string) bool { return sysctls["net.ipv6.conf.all.disable_ipv6"] == "1" }
