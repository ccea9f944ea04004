package network

import (
	"cmp"
	"context"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/gantry/gantry/engine/network/checks"
	"github.com/gantry/gantry/engine/network/conf"
	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/undo"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// joining is one endpoint while it is being made.
type joining struct {
	n        *netw
	e        *endpoint
	settings *network.EndpointSettings
	plug     *plumb.Plug     // nil for host and none
	view     driver.Endpoint // what its driver was told
	prefix   string          // of the interface's name; "" is eth
}

// Acquire makes the network side of a container: namespace, endpoints, ports. When it
// fails nothing is left. The caller owns Sandbox.NetNS; it is nil when the container
// has no network but loopback (the runtime then makes the namespace) or uses the
// host's. Safe to call for many containers at once. Errors: NotFound for an unknown
// network, Conflict when the container has a sandbox, Invalid, Forbidden when
// addresses ran out, Internal for taken ports, as Docker answers.
func (s *Service) Acquire(ctx context.Context, r SandboxRequest) (_ *Sandbox, err error) {
	if s.cfg.Bridge == conf.NoBridge {
		// Without a default network who wants it has none, as with Docker.
		r.Endpoints = maps.Clone(r.Endpoints)
		delete(r.Endpoints, NameBridge)
	}
	sb, err := s.open(r)
	if err != nil {
		return nil, err
	}
	var u undo.List
	u.Add(func() error { s.forget(sb); return nil })
	defer func() {
		defer sb.busy.Unlock()
		if uerr := u.Run(); uerr != nil {
			s.log.Error("undoing a failed start of a sandbox", "container", r.ContainerID, "error", uerr)
		}
	}()
	joins, err := s.join(r, sb)
	if err != nil {
		return nil, err
	}
	u.Add(func() error { s.locked(func() { leave(sb, joins) }); return nil })
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := s.drivers.attach(ctx, joins, nil, &u); err != nil {
		return nil, err
	}
	gw4, gw6 := s.drivers.gateways(joins)
	setGateways(gw4, gw6)
	ws := waysOf(gw4, gw6)
	if sb.bindings, err = s.pub.publish(ws, r); err != nil {
		return nil, err
	}
	u.Add(func() error { s.pub.unbind(sb.bindings); return nil })
	var all []way
	for _, j := range joins {
		all = append(all, way{j.n, j.e})
	}
	if err := s.pub.openRouted(ws, r, all...); err != nil {
		return nil, err
	}
	programs := s.drivers.programs(gw4, gw6)
	out, err := s.describe(r, joins)
	if err != nil {
		return nil, err
	}
	if plugs := plugsOf(joins); len(plugs) > 0 {
		if err := s.makeSandbox(r, sb, joins, plugs, out, &u); err != nil {
			return nil, err
		}
	}
	if err := s.drivers.program(ctx, programs, out.Ports, &u); err != nil {
		return nil, endpointError(ws, r, err)
	}
	if err := s.fw.Publish(r.ContainerID, s.pub.firewallPorts(all...)); err != nil {
		return nil, err
	}
	s.pub.forgetFlows(true, ws.endpoints()...)
	u.Keep()
	s.mu.Lock()
	for _, j := range joins {
		sb.ends = append(sb.ends, j.e)
		s.announce(j.n, j.e)
	}
	sb.links = linkingOf(r, s.cfg.ICC)
	out.Record.LinkedTo, out.Record.Exposed = sb.links.to, sb.links.exposed
	s.mu.Unlock()
	if err := relink(s); err != nil {
		s.log.Error("opening the ports of linked containers", "container", r.ContainerID, "error", err)
	}
	s.refreshView(sb)
	for _, j := range joins {
		emit(s.bus, events.ActionConnect, j.n, map[string]string{"container": r.ContainerID})
	}
	return out, nil
}

// makeSandbox makes the namespace with what belongs into it.
func (s *Service) makeSandbox(r SandboxRequest, sb *sandbox, joins []*joining, plugs []plumb.Plug, out *Sandbox, u *undo.List) (err error) {
	var socks dns.Sockets
	listen := func() (err error) {
		if named(joins) {
			socks, err = dns.Listen(true)
		}
		return err
	}
	out.NetNS, err = plumb.MakeSandbox(s.host, s.nl, plugs, listen)
	defer func() { socks.Close() }()
	if err != nil {
		return err
	}
	u.Add(out.NetNS.Close)
	if !named(joins) {
		return nil
	}
	out.Record.DNS = dnsRecord(&s.cfg, r)
	if err := s.resolve(sb, socks, out.Record.DNS); err != nil {
		return err
	}
	u.Add(func() error { s.stopResolving(sb); return nil })
	return nil
}

// open enters a sandbox into the table, busy.
func (s *Service) open(r SandboxRequest) (*sandbox, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.restored {
		return nil, errclass.Unavailable("networks are not restored yet")
	}
	if _, ok := s.sandboxes[r.ContainerID]; ok {
		return nil, errclass.Conflict("container %s already has a network sandbox", id.Short(r.ContainerID))
	}
	sb := &sandbox{id: r.ContainerID, name: r.Name}
	sb.busy.Lock()
	s.sandboxes[r.ContainerID] = sb
	return sb, nil
}

func (s *Service) forget(sb *sandbox) {
	s.mu.Lock()
	defer s.mu.Unlock()
	sb.gone = true
	if s.sandboxes[sb.id] == sb {
		delete(s.sandboxes, sb.id)
	}
}

// join takes addresses on every network of the request.
func (s *Service) join(r SandboxRequest, sb *sandbox) ([]*joining, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var joins []*joining
	for ref, es := range r.Endpoints {
		n, err := s.find(ref)
		if err != nil && es != nil && es.NetworkID != "" {
			n, err = s.find(es.NetworkID)
		}
		if err == nil && slices.ContainsFunc(joins, func(j *joining) bool { return j.n == n }) {
			err = errclass.Invalid("network %s is named twice", ref)
		}
		if err == nil {
			var j *joining
			if j, err = s.joinOne(r, sb, n, es); err == nil {
				joins = append(joins, j)
				continue
			}
		}
		leave(sb, joins)
		return nil, err
	}
	// Interfaces are numbered by gateway priority, then name, as Docker does.
	slices.SortFunc(joins, func(a, b *joining) int {
		return cmp.Or(-cmp.Compare(a.settings.GwPriority, b.settings.GwPriority), cmp.Compare(a.n.net.Name, b.n.net.Name))
	})
	return joins, nil
}

// numberInterfaces names the interfaces inside: a wished name, else the network's
// prefix and the next free number. Names in has are used already.
func numberInterfaces(joins []*joining, has map[string]bool) error {
	var named []plumb.Named
	for _, j := range joins {
		if j.plug != nil {
			named = append(named, plumb.Named{Plug: j.plug, Prefix: j.prefix, Sysctls: j.settings.DriverOpts[optSysctls]})
		}
	}
	if err := plumb.Name(named, has); err != nil {
		return err
	}
	for _, j := range joins {
		if j.plug != nil {
			j.e.IfName = j.plug.IfName
		}
	}
	return nil
}

// joinOne takes the addresses of one endpoint. s.mu is held.
func (s *Service) joinOne(r SandboxRequest, sb *sandbox, n *netw, es *network.EndpointSettings) (*joining, error) {
	if es == nil {
		es = &network.EndpointSettings{}
	}
	es = es.Copy()
	if n.removing {
		return nil, errclass.NotFound("network %s not found", n.net.Name)
	}
	if n.net.ConfigOnly {
		return nil, errclass.Forbidden("cannot create endpoint on configuration-only network")
	}
	if err := checks.CheckEndpoint(n.subnets(), n.net.Name, es); err != nil {
		return nil, err
	}
	e := &endpoint{containerID: sb.id, EndpointRecord: EndpointRecord{ID: id.New(), NetworkID: n.net.ID, Name: r.Name, Aliases: es.Aliases, Priority: es.GwPriority}}
	if n.zone != nil {
		e.DNSNames = dns.Names(r.Name, es.Aliases, id.Short(r.ContainerID), r.Hostname)
		var err error
		if e.Links, err = checks.Links(es.Links); err != nil {
			return nil, err
		}
	}
	j := &joining{n: n, e: e, settings: es, view: driver.Endpoint{Ports: r.Ports, Exposed: r.Exposed}}
	if !n.hasInterfaces() {
		n.users[sb.id] = e
		return j, nil
	}
	if err := n.address(e, es); err != nil {
		return nil, err
	}
	n.users[sb.id] = e
	j.plug = &plumb.Plug{MAC: net.HardwareAddr(parseMAC(e.MAC)), IfName: es.DriverOpts[optIfName], MTU: n.mtu()}
	if name := j.plug.IfName; name != "" {
		if err := driver.CheckIfName(name); err != nil {
			leave(sb, []*joining{j})
			return nil, err
		}
	}
	return j, nil
}

func (n *netw) mtu() int {
	if n.bridge.MTU > 0 {
		return n.bridge.MTU
	}
	return defaultMTU
}

// address takes an endpoint's addresses; none is kept when it fails.
// Service.mu is held.
func (n *netw) address(e *endpoint, es *network.EndpointSettings) error {
	want := network.EndpointIPAMConfig{}
	if es.IPAMConfig != nil {
		want = *es.IPAMConfig
	}
	take := func(v6 bool, wish netip.Addr) (netip.Prefix, error) {
		if wish.IsValid() {
			for _, sp := range n.spaces {
				if sp.Subnet().Contains(wish) {
					return netip.PrefixFrom(wish, sp.Subnet().Bits()), sp.Take(wish)
				}
			}
			return netip.Prefix{}, errclass.Invalid("no configured subnet or ip-range contain the IP address %s", wish)
		}
		sp := n.space(v6)
		if sp == nil {
			return netip.Prefix{}, nil
		}
		a, err := sp.Next()
		return netip.PrefixFrom(a, sp.Subnet().Bits()), err
	}
	if !n.elsewhere() { // else its plugin is asked later, without locks
		var err error
		if e.IPv4, err = take(false, want.IPv4Address); err != nil {
			e.IPv4 = netip.Prefix{}
			return err
		}
		if e.IPv6, err = take(true, want.IPv6Address); err != nil {
			e.IPv6 = netip.Prefix{}
			n.unaddress(e)
			return err
		}
	}
	mac := es.MacAddress
	if opt := es.DriverOpts[optEndpointMAC]; len(mac) == 0 && opt != "" {
		mac = parseMAC(opt)
	}
	if len(mac) == 0 {
		if e.IPv4.IsValid() || e.IPv6.IsValid() {
			mac = macOf(e)
		} else {
			mac = network.HardwareAddr(plumb.RandomMAC())
		}
	}
	e.MAC = mac.String()
	return nil
}

func (n *netw) unaddress(e *endpoint) {
	for _, p := range []netip.Prefix{e.IPv4, e.IPv6} {
		for _, sp := range n.spaces {
			if p.IsValid() && sp.Subnet().Contains(p.Addr()) {
				sp.Release(p.Addr())
			}
		}
	}
}

func parseMAC(s string) network.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		return nil
	}
	return network.HardwareAddr(m)
}

// leave gives the addresses of endpoints back. s.mu is held.
func leave(sb *sandbox, joins []*joining) {
	for _, j := range joins {
		j.n.unaddress(j.e)
		delete(j.n.users, sb.id)
		withdraw(j.n, j.e)
	}
}

func setGateways(gw4, gw6 *joining) {
	if gw4 != nil {
		gw4.route(false)
	}
	if gw6 != nil {
		gw6.route(true)
	}
}

// route makes the endpoint the default route of one address family.
func (j *joining) route(v6 bool) {
	gw, all := &j.plug.GW4, netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	if v6 {
		gw, all = &j.plug.GW6, netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	if j.e.Direct {
		j.plug.Routes = append(j.plug.Routes, plumb.Route{To: all})
		return
	}
	*gw = j.n.gateway(j.e, v6)
}

func plugsOf(joins []*joining) []plumb.Plug {
	var out []plumb.Plug
	for _, j := range joins {
		if j.plug != nil {
			out = append(out, *j.plug)
		}
	}
	return out
}

// describe makes what the caller gets to keep.
func (s *Service) describe(r SandboxRequest, joins []*joining) (*Sandbox, error) {
	out := &Sandbox{Record: Record{ContainerID: r.ContainerID}, Endpoints: map[string]*network.EndpointSettings{}}
	var ends []*endpoint
	var own []etcfiles.HostLine
	hostNet := false
	for _, j := range joins {
		out.Record.Endpoints = append(out.Record.Endpoints, j.e.EndpointRecord)
		out.Endpoints[j.n.net.Name] = settings(r, j)
		ends = append(ends, j.e)
		hostNet = hostNet || j.n.net.Driver == "host"
		for _, p := range []netip.Prefix{j.e.IPv4, j.e.IPv6} {
			if p.IsValid() && (p.Addr().Is4() || !checks.NoIPv6(r.Sysctls)) {
				own = append(own, etcfiles.HostLine{Addr: p.Addr(), Names: etcfiles.HostNames(r.Hostname, r.Domainname)})
			}
		}
	}
	out.Ports = portMap(r, ends)
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
	out.Hosts = etcfiles.RenderHosts(err == nil && !checks.NoIPv6(r.Sysctls), extra, own)
	ipv6 := !checks.NoIPv6(r.Sysctls) && slices.ContainsFunc(ends, func(e *endpoint) bool { return e.IPv6.IsValid() })
	rc = rc.Override(s.cfg.DNS, s.cfg.DNSSearch, s.cfg.DNSOptions).Override(r.DNS, r.DNSSearch, r.DNSOptions)
	if named(joins) {
		out.ResolvConf = rc.Internal(dns.Addr()).Render()
		return out, nil
	}
	out.ResolvConf = rc.Reachable(ipv6).Render()
	return out, nil
}

// hostGateways are the addresses that "host-gateway" stands for.
func (s *Service) hostGateways() []netip.Addr {
	if len(s.cfg.HostGatewayIPs) > 0 {
		return s.cfg.HostGatewayIPs
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []netip.Addr
	if n := s.nets[s.names[NameBridge]]; n != nil {
		for _, sp := range n.spaces {
			if sp.own.IsValid() {
				out = append(out, sp.own)
			}
		}
	}
	return out
}

// settings are an endpoint as inspect shows it.
func settings(r SandboxRequest, j *joining) *network.EndpointSettings {
	es, e := j.settings, j.e
	es.NetworkID, es.EndpointID = j.n.net.ID, e.ID
	if j.plug == nil {
		return es
	}
	es.MacAddress = parseMAC(e.MAC)
	if e.IPv4.IsValid() {
		es.IPAddress, es.IPPrefixLen = e.IPv4.Addr(), e.IPv4.Bits()
		es.Gateway = j.n.gateway(e, false)
	}
	if e.IPv6.IsValid() {
		es.GlobalIPv6Address, es.GlobalIPv6PrefixLen = e.IPv6.Addr(), e.IPv6.Bits()
		es.IPv6Gateway = j.n.gateway(e, true)
	}
	if j.n.net.Internal {
		es.Gateway, es.IPv6Gateway = netip.Addr{}, netip.Addr{}
	}
	if !j.n.isDefault() {
		es.DNSNames = dns.Names(r.Name, es.Aliases, id.Short(r.ContainerID), r.Hostname)
	}
	return es
}
