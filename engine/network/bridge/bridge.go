// Package bridge is the driver "bridge". It joins containers by a bridge on the host, which is
// their gateway. The host's firewall decides which packets reach them and publishes their ports.
package bridge

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"sync"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// defaultName is the default network's bridge, where the configuration names none.
const defaultName = "docker0"

// defaultMTU is the MTU when nobody chose one.
const defaultMTU = 1500

// Config is what the daemon's settings say about bridge networks.
type Config struct {
	// Given names a bridge that somebody else made for the default network ("": none): it is
	// not removed, not made again, and keeps addresses that are not ours.
	Given string
	// ICC, Masq and BindIP are those of the default network: containers may talk to each
	// other, are hidden behind the host's addresses, and have their ports published there
	// (invalid: on all addresses).
	ICC, Masq bool
	BindIP    netip.Addr
	// MTU of networks for which nobody chose one; 0 is 1500.
	MTU int
	// Log may be nil.
	Log *slog.Logger
}

// Driver implements driver.Driver. It remembers the ports of its
// bridges, so that a bridge that somebody deletes can be made again.
type Driver struct {
	cfg  Config
	host driver.Host
	log  *slog.Logger

	mu   sync.Mutex
	nets map[string]*bridge // by network ID
}

// bridge is one network's in the kernel. Driver.mu guards the fields but remake.
type bridge struct {
	// remake is held while the bridge is looked for and made again.
	remake sync.Mutex
	opts   Options
	index  int               // of its interface; 0: it could not be made
	ports  map[string]string // host's ends of interfaces, by endpoint ID
}

// New makes the driver's constructor.
func New(cfg Config) driver.New {
	return func(h driver.Host) driver.Driver {
		d := &Driver{cfg: cfg, host: h, log: cfg.Log, nets: map[string]*bridge{}}
		if d.log == nil {
			d.log = slog.New(slog.DiscardHandler)
		}
		return d
	}
}

// Describe implements driver.Driver.
func (d *Driver) Describe() driver.Description {
	out := driver.Description{Scope: driver.ScopeLocal, HasInterfaces: true, NeedsGateway: true, HostAddress: true}
	if d.cfg.MTU > 0 && d.cfg.MTU != defaultMTU {
		out.Defaults = map[string]string{OptMTU: strconv.Itoa(d.cfg.MTU)}
	}
	return out
}

// Default implements driver.DefaultMaker.
func (d *Driver) Default() (string, map[string]string) {
	name, bind := cmp.Or(d.cfg.Given, defaultName), netip.IPv4Unspecified()
	if d.cfg.BindIP.IsValid() {
		bind = d.cfg.BindIP
	}
	return name, map[string]string{
		OptDefault: "true", OptName: name, OptBindIP: bind.String(), OptMTU: strconv.Itoa(cmp.Or(d.cfg.MTU, defaultMTU)),
		OptICC: strconv.FormatBool(d.cfg.ICC), OptMasq: strconv.FormatBool(d.cfg.Masq),
	}
}

// RemoveDefault implements driver.DefaultMaker.
func (d *Driver) RemoveDefault() error { return removeOwn(d.host, defaultName) }

// Check implements driver.Driver.
func (d *Driver) Check(n driver.Network, others []driver.Network) error {
	b, err := parse(n.ID, n.Options)
	if err != nil {
		return err
	}
	if !n.Internal && (b.Mode4 == driver.ModeIsolated || b.Mode6 == driver.ModeIsolated) {
		return errclass.Invalid("gateway mode 'isolated' can only be used for an internal network")
	}
	if len(others) == 0 {
		return nil
	}
	return errclass.Forbidden("cannot create network %s (%s): conflicts with network %s (%s): networks have same bridge name",
		n.ID, b.Name, others[0].ID, b.Name)
}

// Resource implements driver.Driver.
func (d *Driver) Resource(n driver.Network) string { return "bridge " + bridgeName(n.ID, n.Options) }

// bridge returns what is known of a network, which may be nothing yet.
func (d *Driver) bridge(n driver.Network) *bridge {
	d.mu.Lock()
	defer d.mu.Unlock()
	b := d.nets[n.ID]
	if b == nil {
		b = &bridge{ports: map[string]string{}}
		d.nets[n.ID] = b
	}
	return b
}

// Start implements driver.Driver.
func (d *Driver) Start(_ context.Context, n driver.Network, _ bool) error {
	o, err := parse(n.ID, n.Options)
	if err != nil {
		return err
	}
	var own []netip.Prefix
	for _, sub := range n.Subnets {
		v6 := sub.Prefix.Addr().Is6()
		mode := o.Mode4
		if v6 {
			mode = o.Mode6
		}
		// inhibit_ipv4 is about IPv4 only, as its name says.
		inhibited := o.Inhibit && !v6 || mode == driver.ModeIsolated
		if sub.Host.IsValid() && !inhibited {
			own = append(own, netip.PrefixFrom(sub.Host, sub.Prefix.Bits()))
		}
	}
	mtu := o.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	index, err := Ensure(d.host, o.Name, mtu, n.IPv6, own, o.Name != d.cfg.Given)
	if err != nil {
		return err
	}
	b := d.bridge(n)
	d.mu.Lock()
	b.opts, b.index = o, index
	d.mu.Unlock()
	return d.host.Protect(firewalled(n, o, index))
}

// firewalled is a network as the firewall sees it.
func firewalled(n driver.Network, o Options, index int) driver.Bridge {
	b := driver.Bridge{
		Name: o.Name, Index: index, ICC: o.ICC, Internal: n.Internal, Masq4: o.Masq, Masq6: o.Masq && n.IPv6,
		Mode4: o.Mode4, Mode6: o.Mode6, SNAT4: o.HostIP4, SNAT6: o.HostIP6, Trusted: o.Trusted,
	}
	for _, sub := range n.Subnets {
		b.Subnets = append(b.Subnets, sub.Prefix)
	}
	return b
}

// standing returns a network's bridge: options and index. One that somebody deleted is made
// again, with the running containers' interfaces in it; not one that was given to us.
func (d *Driver) standing(n driver.Network) (Options, int, error) {
	b := d.bridge(n)
	b.remake.Lock()
	defer b.remake.Unlock()
	d.mu.Lock()
	o, index := b.opts, b.index
	d.mu.Unlock()
	if index != 0 {
		if _, err := d.host.Do(rtnl.GetLinkIndex(index)); err == nil || !errors.Is(err, unix.ENODEV) || o.Name == d.cfg.Given {
			return o, index, nil
		}
		d.log.Warn("somebody deleted a network's bridge: making it again", "network", n.Name, "bridge", o.Name)
	}
	if err := d.Start(context.Background(), n, true); err != nil {
		return o, 0, err
	}
	d.mu.Lock()
	o, index = b.opts, b.index
	var ports []string
	for _, name := range b.ports {
		ports = append(ports, name)
	}
	d.mu.Unlock()
	for _, name := range ports {
		if err := replug(d.host, name, index, !o.ICC); err != nil && !errors.Is(err, unix.ENODEV) {
			d.log.Error("plugging a container into its bridge again", "interface", name, "error", err)
		}
	}
	return o, index, nil
}

// Stop implements driver.Driver: a bridge that somebody else made stays.
func (d *Driver) Stop(_ context.Context, n driver.Network, _ []driver.Network) error {
	name := bridgeName(n.ID, n.Options)
	err := d.host.Unprotect(name)
	l, lerr := d.host.LinkByName(name)
	if lerr == nil && l.Group == rtnl.Group {
		_, lerr = d.host.Do(rtnl.DelLink(name))
	}
	if lerr != nil && !errors.Is(lerr, unix.ENODEV) {
		return errors.Join(err, lerr)
	}
	d.mu.Lock()
	delete(d.nets, n.ID)
	d.mu.Unlock()
	return err
}

// ProvidesGateway implements driver.Driver.
func (d *Driver) ProvidesGateway(n driver.Network, v6 bool) bool {
	key := OptMode4
	if v6 {
		key = OptMode6
	}
	return !n.Internal && n.Options[key] != string(driver.ModeIsolated)
}

// Publishing implements driver.HostPublisher.
func (d *Driver) Publishing(n driver.Network) driver.Publishing {
	o, err := parse(n.ID, n.Options)
	if err != nil { // Check refused it, in another age perhaps: no port is published
		return driver.Publishing{Interface: o.Name, Mode4: driver.ModeIsolated, Mode6: driver.ModeIsolated, Internal: true}
	}
	return driver.Publishing{Interface: o.Name, BindIP: o.BindIP, Mode4: o.Mode4, Mode6: o.Mode6, Internal: n.Internal}
}

// Join implements driver.Driver.
func (d *Driver) Join(_ context.Context, n driver.Network, e driver.Endpoint) (driver.Interface, error) {
	o, index, err := d.standing(n)
	if err != nil {
		return driver.Interface{}, err
	}
	mtu := o.MTU
	if mtu == 0 {
		mtu = defaultMTU
	}
	e.HostIf = netns.NewHostIf()
	d.Adopt(n, e)
	return driver.Interface{Prefix: o.IfPrefix, Port: driver.Port{
		HostIf: e.HostIf, MTU: mtu, Bridge: index, Isolated: !o.ICC, Filtered: d.host.BridgeFiltered(),
	}}, nil
}

// Adopt implements driver.Driver.
func (d *Driver) Adopt(n driver.Network, e driver.Endpoint) {
	b := d.bridge(n)
	d.mu.Lock()
	defer d.mu.Unlock()
	b.ports[e.ID] = e.HostIf
}

// Leave implements driver.Driver.
func (d *Driver) Leave(_ context.Context, n driver.Network, e driver.Endpoint) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if b := d.nets[n.ID]; b != nil {
		delete(b.ports, e.ID)
	}
	return nil
}
