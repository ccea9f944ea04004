package vlan

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// Driver is macvlan or ipvlan. It implements driver.Driver, and keeps nothing in memory.
type Driver struct {
	kind
	host driver.Host
}

// Macvlan makes the driver "macvlan".
func Macvlan(h driver.Host) driver.Driver { return &Driver{macvlan(), h} }

// Ipvlan makes the driver "ipvlan".
func Ipvlan(h driver.Host) driver.Driver { return &Driver{ipvlan(), h} }

// Describe implements driver.Driver. Containers may find addresses on the wire, or need none.
func (d *Driver) Describe() driver.Description {
	return driver.Description{Scope: driver.ScopeLocal, HasInterfaces: true, Unaddressed: true}
}

// Check implements driver.Driver.
func (d *Driver) Check(n driver.Network, others []driver.Network) error { return d.check(n, others) }

// Resource implements driver.Driver: the parent, whichever of the two drivers has it.
func (d *Driver) Resource(n driver.Network) string {
	if parent := n.Options[optParent]; parent != "" {
		return "parent " + parent
	}
	return "parent " + ownParent(n.ID)
}

// Start implements driver.Driver: the parent is there, up, and the kernel knows the
// kind of children.
func (d *Driver) Start(ctx context.Context, n driver.Network, again bool) error {
	o, err := d.parse(n)
	if err != nil {
		return err
	}
	made := false
	l, err := d.host.LinkByName(o.parent)
	if errors.Is(err, unix.ENODEV) {
		made = true
		if err = d.makeParent(o); err == nil {
			l, err = d.host.LinkByName(o.parent)
		}
	}
	if err == nil && !l.Up() {
		_, err = d.host.Do(rtnl.SetUp(l.Index))
	}
	if err == nil && !again {
		err = d.try(n, o, l.Index)
	}
	if err != nil && made {
		err = errors.Join(err, d.Stop(ctx, n, nil))
	}
	return err
}

// try makes a child and removes it: many kernels have no ipvlan, a link of some kinds
// cannot be a parent, and a container's start is late to say so.
func (d *Driver) try(n driver.Network, o options, parent int) error {
	var b [4]byte
	rand.Read(b[:])
	name := "gt" + hex.EncodeToString(b[:])
	_, err := d.host.Do(d.child(o, parent, rtnl.Peer{Name: name, NS: int(d.host.Netns().Fd())}))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return errclass.NotImplemented("this host's kernel has no %s: the module \"%s\" is missing (modprobe %s), so networks of driver %s cannot be used", n.Driver, n.Driver, n.Driver, n.Driver)
	case errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL):
		return errclass.Invalid("interface %s cannot be the parent of a %s network now: %v", o.parent, n.Driver, err)
	case err != nil:
		return fmt.Errorf("trying %s on %s: %w", n.Driver, o.parent, err)
	}
	_, err = d.host.Do(rtnl.DelLink(name))
	return err
}

// makeParent makes a parent that is not there: one that leads nowhere, or the 802.1q
// interface that a name like eth0.10 asks for.
func (d *Driver) makeParent(o options) error {
	if o.own {
		return d.makeOwn(o.parent)
	}
	base, tag, err := tagged(o.parent)
	if err != nil {
		return err
	}
	l, err := d.host.LinkByName(base)
	if errors.Is(err, unix.ENODEV) {
		return errclass.Invalid("-o parent interface was not found on the host: %s", base)
	}
	if err != nil {
		return err
	}
	_, err = d.host.Do(rtnl.AddVlan(o.parent, l.Index, tag))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errclass.NotImplemented("failed to create %s vlan link: this host's kernel has no 802.1q sub-interfaces, the module \"8021q\" is missing (modprobe 8021q)", o.parent)
	}
	return err
}

// makeOwn makes a dummy; where the kernel has none, a wire with both ends here, of which
// the far one hears everything and answers nothing.
func (d *Driver) makeOwn(name string) error {
	_, err := d.host.Do(rtnl.AddDummy(name))
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	far := ownFar(name)
	if _, err = d.host.Do(rtnl.AddVeth(rtnl.Veth{Name: name, Peer: rtnl.Peer{Name: far, NS: int(d.host.Netns().Fd())}})); err != nil {
		return err
	}
	l, err := d.host.LinkByName(far)
	if err == nil {
		_, err = d.host.Do(rtnl.SetSilent(l.Index), rtnl.SetUp(l.Index))
	}
	return err
}

// Stop implements driver.Driver: a parent of ours goes with the last network on it.
func (d *Driver) Stop(_ context.Context, n driver.Network, others []driver.Network) error {
	o, err := d.parse(n)
	if err != nil {
		return nil //nolint:nilerr // nothing was made by such options
	}
	for _, other := range others {
		if other.ID != n.ID && kindOf(other) != nil && other.Options[optParent] == o.parent {
			return nil
		}
	}
	l, err := d.host.LinkByName(o.parent)
	if err == nil && l.Group == rtnl.Group && (o.own || l.Kind == rtnl.KindVlan) {
		_, err = d.host.Do(rtnl.DelLink(o.parent))
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// ProvidesGateway implements driver.Driver: the world is behind the parent; a parent of ours leads
// nowhere.
func (d *Driver) ProvidesGateway(n driver.Network, _ bool) bool {
	return !n.Internal && n.Options[optParent] != ""
}

// Links implements driver.LinkOwner: a parent that is a wire, on kernels without dummies.
func (d *Driver) Links(n driver.Network) []string {
	o, err := d.parse(n)
	if err != nil || !o.own {
		return nil
	}
	return []string{o.parent, ownFar(o.parent)}
}

// Join implements driver.Driver.
func (d *Driver) Join(_ context.Context, n driver.Network, e driver.Endpoint) (driver.Interface, error) {
	o, err := d.parse(n)
	if err != nil {
		return driver.Interface{}, err
	}
	l, err := d.host.LinkByName(o.parent)
	if errors.Is(err, unix.ENODEV) {
		return driver.Interface{}, errclass.NotFound("the parent interface %s of network %s is gone", o.parent, n.Name)
	}
	if err != nil {
		return driver.Interface{}, err
	}
	i := driver.Interface{Prefix: o.ifPrefix, Announce: true}
	i.Child = func(p rtnl.Peer) *rtnl.Request { return d.child(o, l.Index, p) }
	switch {
	case d.sharedMAC || int64(o.mode) == d.passthru:
		i.SharedMAC, i.MAC = true, l.MAC
	case !e.MACChosen:
		// Not the one that belongs to the IP address: a namespace dies some time after
		// its last process, and until then the parent lets nobody else have its
		// hardware address. The neighbours are told.
		i.MAC = netns.RandomMAC()
	}
	// Routed: everything leaves by the interface, there is nobody to ask.
	i.Direct = slices.Contains(d.routed, o.mode)
	return i, nil
}

// Adopt implements driver.Driver.
func (d *Driver) Adopt(driver.Network, driver.Endpoint) {}

// Leave implements driver.Driver: the interface dies with its namespace.
func (d *Driver) Leave(context.Context, driver.Network, driver.Endpoint) error { return nil }
