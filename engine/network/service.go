package network

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/gantry/gantry/engine/network/bridge"
	"github.com/gantry/gantry/engine/network/conf"
	"github.com/gantry/gantry/engine/network/dns"
	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/etcfiles"
	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/ipam"
	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/engine/network/proxy"
	"github.com/gantry/gantry/engine/network/records"
	"github.com/gantry/gantry/engine/network/remote"
	"github.com/gantry/gantry/engine/network/subnets"
	"github.com/gantry/gantry/engine/network/vlan"
	"github.com/gantry/gantry/engine/plugin"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/internal/nft"
	"github.com/gantry/gantry/internal/rtnl"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/network"
)

// defaultMTU is the MTU when nobody chose one; defaultBridge is the default network's
// interface.
const (
	defaultMTU    = 1500
	defaultBridge = "docker0"
)

// Service owns the host's networks. Safe for concurrent use.
type Service struct {
	cfg    Config
	bus    *event.Bus
	log    *slog.Logger
	store  records.Store
	host   plumb.HostNS
	nl     *rtnl.Conn
	fw     *firewall.Live
	nft    *nft.Conn // nil when the firewall is switched off
	pub    *publisher
	watch  *nft.Watcher
	others *rtnl.BridgeWatcher
	reaper *plumb.Reaper
	dns    *dns.Forwarder

	drivers *drivers

	linking sync.Mutex // held while links are computed and applied

	closing sync.Once
	closed  error // what closing met

	mu        sync.Mutex
	restored  bool
	nets      map[string]*netw    // by ID
	names     map[string]string   // name → ID
	sandboxes map[string]*sandbox // by container ID
	subnets   *subnets.Chooser
}

// sandbox is one container's side in memory. Service.mu guards the fields but busy.
type sandbox struct {
	// busy is held while the sandbox is made, changed or taken down.
	busy     sync.Mutex
	id, name string
	gone     bool
	ends     []*endpoint
	bindings []ports.Binding
	links    linking
	// resolver serves it at 127.0.0.11 once it has been on a user-defined network.
	resolver *dns.Resolver
	dns      *DNSRecord
}

// New makes the service in the calling thread's network namespace: it loads the
// networks, makes the predefined ones and brings the default bridge up. The firewall
// is touched by Restore, which must be called once before Acquire, also when there is
// nothing to restore.
func New(cfg Config, bus *event.Bus) (_ *Service, err error) {
	s := &Service{
		cfg: cfg, bus: bus, log: cfg.Log, nets: map[string]*netw{}, names: map[string]string{},
		sandboxes: map[string]*sandbox{},
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.store, err = records.New(cfg.DataRoot); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			s.Close()
		}
	}()
	if s.host, err = plumb.OpenHostNS(); err != nil {
		return nil, err
	}
	if s.nl, err = rtnl.Dial(); err != nil {
		return nil, err
	}
	if cfg.Firewall {
		if s.nft, err = nft.Dial(); err != nil {
			return nil, err
		}
	}
	s.fw = firewall.NewLive(s.nft, firewall.Settings{DirectRouting: cfg.AllowDirectRouting, Mark: cfg.AcceptMark, Mask: cfg.AcceptMask})
	if s.subnets, err = subnets.New(cfg.AddressPools, s.bridgeIndices, func(p netip.Prefix) string { return ownerOf(s.nets, p) }, s.nl, s.log, cfg.DataRoot); err != nil {
		return nil, err
	}
	first, last := ports.Ephemeral()
	s.pub = &publisher{cfg: &s.cfg, table: ports.NewTable(ports.Bind, first, last), proxy: proxy.NewSet(s.log), nl: s.nl, log: s.log}
	s.reaper = plumb.NewReaper(s.nl, s.log)
	plugins := cmp.Or(cfg.Plugins, plugin.Default())
	s.drivers = &drivers{
		bridge: bridgeDriver{s}, vlan: vlan.New(s.nl, s.host.F),
		remote: remote.New(plugins, s.nl), ipam: remote.NewIPAM(plugins), log: s.log,
	}
	s.dns = dns.NewForwarder(etcfiles.Servers(cfg.ResolvConf))
	s.dns.Enter = s.host.Inside
	if err := s.load(); err != nil {
		return nil, err
	}
	return s, nil
}

// Close ends the service's own work; networks, sandboxes and rules stay as they are.
// It may be called more than once.
func (s *Service) Close() error {
	s.closing.Do(func() { s.closed = s.close() })
	return s.closed
}

func (s *Service) close() error {
	var errs []error
	if s.watch != nil {
		errs = append(errs, s.watch.Close())
	}
	if s.others != nil {
		errs = append(errs, s.others.Close())
	}
	if s.reaper != nil {
		s.reaper.Close()
	}
	if s.pub != nil {
		s.pub.proxy.Close()
	}
	s.closeResolvers()
	if s.nft != nil {
		errs = append(errs, s.nft.Close())
	}
	if s.nl != nil {
		errs = append(errs, s.nl.Close())
	}
	if s.host.F != nil {
		errs = append(errs, s.host.Close())
	}
	return errors.Join(errs...)
}

// load reads the records and makes the predefined networks.
func (s *Service) load() error {
	recs, err := s.store.Load()
	if err != nil {
		return err
	}
	byName := map[string]network.Network{}
	for _, r := range recs {
		byName[r.Network.Name] = r.Network
	}
	for _, pre := range []string{NameHost, NameNone} {
		driver := map[string]string{NameHost: "host", NameNone: "null"}[pre]
		n, ok := byName[pre]
		if !ok {
			n = network.Network{
				Name: pre, ID: id.New(), Created: time.Now(), Scope: "local", Driver: driver,
				EnableIPv4: true, IPAM: network.IPAM{Driver: "default", Config: []network.IPAMConfig{}},
				Options: map[string]string{}, Labels: map[string]string{},
			}
			if err := s.store.Save(records.Record{Network: n}); err != nil {
				return err
			}
		}
		s.add(&netw{net: n, users: map[string]*endpoint{}})
	}
	for _, r := range recs {
		if isPredefined(r.Network.Name) {
			continue
		}
		if err := s.bringUp(r); err != nil {
			// The network stays known: its containers may come back when it does.
			s.log.Error("bringing up a network", "network", r.Network.Name, "error", err)
		}
	}
	if s.cfg.Bridge == conf.NoBridge {
		return plumb.RemoveOwn(s.nl, defaultBridge)
	}
	return s.loadDefault(byName[NameBridge])
}

func (s *Service) add(n *netw) {
	if n.zone == nil && !n.isDefault() && n.hasInterfaces() && !n.net.ConfigOnly {
		n.zone = dns.NewZone(n.net.Name)
	}
	s.nets[n.net.ID] = n
	s.names[n.net.Name] = n.net.ID
	for _, p := range n.claims() {
		s.subnets.Enter(p)
	}
}

// bringUp takes a stored network into service.
func (s *Service) bringUp(r records.Record) error {
	n := &netw{net: r.Network, pooled: r.Pooled, poolIDs: r.PoolIDs, users: map[string]*endpoint{}}
	s.add(n)
	if r.Network.ConfigOnly {
		return nil
	}
	if err := n.makeSpaces(); err != nil {
		return err
	}
	for _, p := range n.claims() {
		s.subnets.Enter(p)
	}
	if r.Network.Driver == "bridge" {
		var err error
		if n.bridge, err = bridge.Parse(r.Network.ID, r.Network.Options); err != nil {
			return err
		}
	}
	return s.drivers.start(context.Background(), n, true)
}

// makeSpaces makes the address spaces that the network's IPAM configuration says. Where
// it says one address twice the first one has it: a new network's is checked before.
func (n *netw) makeSpaces() error {
	n.spaces = nil
	if n.net.IPAM.Driver == ipam.DriverNull {
		return nil
	}
	for _, c := range n.net.IPAM.Config {
		sp, err := ipam.NewSpace(c.Subnet, c.IPRange)
		if err != nil {
			return err
		}
		s := &space{Space: sp, gateway: c.Gateway, own: c.Gateway}
		if c.Gateway.IsValid() {
			_ = sp.Take(c.Gateway)
		}
		for _, aux := range c.AuxAddress {
			_ = sp.Take(aux)
		}
		n.spaces = append(n.spaces, s)
	}
	return nil
}

// loadDefault makes the default bridge network as the configuration says now; its ID
// and age are the record's.
func (s *Service) loadDefault(old network.Network) error {
	name := s.cfg.Bridge
	if name == "" {
		name = defaultBridge
	}
	if err := driver.CheckIfName(name); err != nil {
		return err
	}
	conf, own, err := s.subnets.Default(subnets.Default{
		Bridge: name, Ours: s.cfg.Bridge == "", IPv6: s.cfg.IPv6, BIP: s.cfg.BIP, BIP6: s.cfg.BIP6,
		FixedCIDR: s.cfg.FixedCIDR, FixedCIDR6: s.cfg.FixedCIDR6, Gateway: s.cfg.DefaultGateway, Gateway6: s.cfg.DefaultGateway6,
	})
	if err != nil {
		return err
	}
	mtu := s.cfg.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	bind := "0.0.0.0"
	if s.cfg.DefaultBindIP.IsValid() {
		bind = s.cfg.DefaultBindIP.String()
	}
	n := network.Network{
		Name: NameBridge, ID: old.ID, Created: old.Created, Scope: "local", Driver: "bridge",
		EnableIPv4: true, EnableIPv6: s.cfg.IPv6, IPAM: network.IPAM{Driver: "default", Config: conf},
		Options: map[string]string{
			bridge.OptDefault: "true", bridge.OptName: name, bridge.OptBindIP: bind, bridge.OptMTU: strconv.Itoa(mtu),
			bridge.OptICC: strconv.FormatBool(s.cfg.ICC), bridge.OptMasq: strconv.FormatBool(s.cfg.IPMasq),
		},
		Labels: map[string]string{},
	}
	if n.ID == "" {
		n.ID, n.Created = id.New(), time.Now()
	}
	nw := &netw{net: n, users: map[string]*endpoint{}}
	if err := errors.Join(subnets.CheckTaken(conf), nw.makeSpaces()); err != nil {
		return err
	}
	for i, sp := range nw.spaces {
		sp.own = own[i].Addr()
		if !sp.gateway.IsValid() {
			sp.gateway = sp.own
		}
		if err := sp.Take(sp.own); err != nil && sp.own != conf[i].Gateway {
			return errclass.Forbidden("failed to allocate gateway (%s): %w", sp.own, err)
		}
	}
	if nw.bridge, err = bridge.Parse(n.ID, n.Options); err != nil {
		return err
	}
	if err := s.store.Save(records.Record{Network: n}); err != nil {
		return err
	}
	if nw.index, err = plumb.EnsureBridge(s.nl, name, mtu, n.EnableIPv6, own, s.cfg.Bridge == ""); err != nil {
		return fmt.Errorf("error creating default \"bridge\" network: %w", err)
	}
	s.add(nw)
	return s.fw.SetBridge(nw.firewallBridge(s.cfg.Firewall6))
}

// emit publishes a network event.
func emit(bus *event.Bus, action events.Action, n *netw, attrs map[string]string) {
	if bus == nil {
		return
	}
	a := map[string]string{"name": n.net.Name, "type": n.net.Driver}
	maps.Copy(a, attrs)
	bus.Emit(events.NetworkEventType, action, n.net.ID, a)
}

// locked runs do with mu held.
func (s *Service) locked(do func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	do()
}

// bridgeIndices are the interfaces of our bridges. s.mu is held, or nobody else knows s yet.
func (s *Service) bridgeIndices() map[int]bool {
	out := map[int]bool{}
	for _, n := range s.nets {
		if n.index != 0 {
			out[n.index] = true
		}
	}
	return out
}

// ownerOf names the network that has a range of addresses, "" where none has.
func ownerOf(nets map[string]*netw, p netip.Prefix) string {
	for _, n := range nets {
		if slices.ContainsFunc(n.claims(), p.Overlaps) {
			return n.net.Name
		}
	}
	return ""
}

// find resolves a name, an ID or an unambiguous prefix of an ID. s.mu is held.
func (s *Service) find(ref string) (*netw, error) {
	if n, ok := s.nets[ref]; ok {
		return n, nil
	}
	if nid, ok := s.names[ref]; ok {
		return s.nets[nid], nil
	}
	var found *netw
	if ref != "" {
		for nid, n := range s.nets {
			if strings.HasPrefix(nid, ref) {
				if found != nil {
					return nil, errclass.Invalid("network %s is ambiguous (%d matches found on ID prefix)", ref, 2)
				}
				found = n
			}
		}
	}
	if found == nil {
		return nil, errclass.NotFound("network %s not found", ref)
	}
	return found, nil
}
