package endpoint

import (
	"net/netip"
	"os"

	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/gantry/gantry/engine/network/publish"
	"github.com/gantry/gantry/engine/network/sandbox"
	"github.com/gantry/gantry/engine/network/validate"
	"github.com/gantry/gantry/internal/id"
	"github.com/moby/moby/api/types/network"
)

// describe makes what the caller gets to keep.
func (s *Service) describe(r sandbox.Request, joins []*joining) (*sandbox.Sandbox, error) {
	out := &sandbox.Sandbox{Record: sandbox.Record{ContainerID: r.ContainerID}, Endpoints: map[string]*network.EndpointSettings{}}
	var own []etcfiles.HostLine
	hostNet, hasIPv6 := false, false
	for _, j := range joins {
		out.Record.Endpoints = append(out.Record.Endpoints, j.Endpoint)
		out.Endpoints[j.n.Name] = settings(r, j)
		hostNet = hostNet || j.n.Facts.HostNamespace
		hasIPv6 = hasIPv6 || j.IPv6.IsValid()
		for _, p := range []netip.Prefix{j.IPv4, j.IPv6} {
			if p.IsValid() && (p.Addr().Is4() || !validate.NoIPv6(r.Sysctls)) {
				own = append(own, etcfiles.HostLine{Addr: p.Addr(), Names: etcfiles.HostNames(r.Hostname, r.Domainname)})
			}
		}
	}
	out.Ports = publish.Shown(r, recordsOf(endpointsOf(joins)))
	extra, err := etcfiles.ParseExtraHosts(r.ExtraHosts, s.hostGateways())
	if err != nil {
		return nil, err
	}
	extra = append(extra, r.Links...)
	rc, err := etcfiles.ReadResolvConf(s.cfg.ResolvConf)
	if err != nil {
		return nil, err
	}
	if hostNet {
		out.ResolvConf, out.Hosts, err = etcfiles.Host(rc.Override(r.DNS, r.DNSSearch, r.DNSOptions), extra)
		return out, err
	}
	_, err = os.Stat("/proc/sys/net/ipv6")
	out.Hosts = etcfiles.RenderHosts(err == nil && !validate.NoIPv6(r.Sysctls), extra, own)
	rc = rc.Override(s.cfg.DNS, s.cfg.DNSSearch, s.cfg.DNSOptions).Override(r.DNS, r.DNSSearch, r.DNSOptions)
	if named(joins) {
		out.ResolvConf = rc.Internal(dns.Addr()).Render()
		return out, nil
	}
	out.ResolvConf = rc.Reachable(hasIPv6 && !validate.NoIPv6(r.Sysctls)).Render()
	return out, nil
}

// hostGateways are the addresses that "host-gateway" stands for.
func (s *Service) hostGateways() []netip.Addr {
	if len(s.cfg.HostGatewayIPs) > 0 {
		return s.cfg.HostGatewayIPs
	}
	if n := s.nets.DefaultBridge(); n != nil {
		return n.HostAddrs()
	}
	return nil
}

// settings are an endpoint as inspect shows it.
func settings(r sandbox.Request, j *joining) *network.EndpointSettings {
	es := j.settings
	es.NetworkID, es.EndpointID = j.n.ID, j.ID
	if j.iface == nil {
		return es
	}
	es.MacAddress = parseMAC(j.MAC)
	if j.IPv4.IsValid() {
		es.IPAddress, es.IPPrefixLen = j.IPv4.Addr(), j.IPv4.Bits()
		es.Gateway = j.n.Gateway(&j.Endpoint, false)
	}
	if j.IPv6.IsValid() {
		es.GlobalIPv6Address, es.GlobalIPv6PrefixLen = j.IPv6.Addr(), j.IPv6.Bits()
		es.IPv6Gateway = j.n.Gateway(&j.Endpoint, true)
	}
	if j.n.Internal {
		es.Gateway, es.IPv6Gateway = netip.Addr{}, netip.Addr{}
	}
	if !j.n.Default {
		es.DNSNames = dns.Names(r.Name, es.Aliases, id.Short(r.ContainerID), r.Hostname)
	}
	return es
}
