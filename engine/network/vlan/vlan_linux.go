package vlan

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"os"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// Driver is macvlan or ipvlan: which one, each network says. It implements
// driver.Driver, and keeps nothing in memory.
type Driver struct {
	nl   *rtnl.Conn
	host *os.File
}

// New makes a driver that works by nl in the network namespace host; both stay the
// caller's.
func New(nl *rtnl.Conn, host *os.File) *Driver { return &Driver{nl: nl, host: host} }

// Check implements driver.Driver.
func (d *Driver) Check(n driver.Network, others []driver.Network) error { return check(n, others) }

// Start implements driver.Driver: the parent is there, up, and the kernel knows the
// kind of children.
func (d *Driver) Start(ctx context.Context, n driver.Network, again bool) error {
	o, err := parse(n)
	if err != nil {
		return err
	}
	made := false
	l, err := d.nl.LinkByName(o.parent)
	if errors.Is(err, unix.ENODEV) {
		made = true
		if err = d.makeParent(o); err == nil {
			l, err = d.nl.LinkByName(o.parent)
		}
	}
	if err == nil && !l.Up() {
		_, err = d.nl.Do(rtnl.SetUp(l.Index))
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
	_, err := d.nl.Do(child(n.Driver, o, parent)(rtnl.Peer{Name: name, NS: int(d.host.Fd())}))
	switch {
	case errors.Is(err, unix.EOPNOTSUPP):
		return errclass.NotImplemented("this host's kernel has no %s: the module \"%s\" is missing (modprobe %s), so networks of driver %s cannot be used", n.Driver, n.Driver, n.Driver, n.Driver)
	case errors.Is(err, unix.EBUSY) || errors.Is(err, unix.EINVAL):
		return errclass.Invalid("interface %s cannot be the parent of a %s network now: %v", o.parent, n.Driver, err)
	case err != nil:
		return fmt.Errorf("trying %s on %s: %w", n.Driver, o.parent, err)
	}
	_, err = d.nl.Do(rtnl.DelLink(name))
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
	l, err := d.nl.LinkByName(base)
	if errors.Is(err, unix.ENODEV) {
		return errclass.Invalid("-o parent interface was not found on the host: %s", base)
	}
	if err != nil {
		return err
	}
	_, err = d.nl.Do(rtnl.AddVlan(o.parent, l.Index, tag))
	if errors.Is(err, unix.EOPNOTSUPP) {
		return errclass.NotImplemented("failed to create %s vlan link: this host's kernel has no 802.1q sub-interfaces, the module \"8021q\" is missing (modprobe 8021q)", o.parent)
	}
	return err
}

// makeOwn makes a dummy; where the kernel has none, a wire with both ends here, of which
// the far one hears everything and answers nothing.
func (d *Driver) makeOwn(name string) error {
	_, err := d.nl.Do(rtnl.AddDummy(name))
	if !errors.Is(err, unix.EOPNOTSUPP) {
		return err
	}
	far := ownFar(name)
	if _, err = d.nl.Do(rtnl.AddVeth(rtnl.Veth{Name: name, Peer: rtnl.Peer{Name: far, NS: int(d.host.Fd())}})); err != nil {
		return err
	}
	l, err := d.nl.LinkByName(far)
	if err == nil {
		_, err = d.nl.Do(rtnl.SetSilent(l.Index), rtnl.SetUp(l.Index))
	}
	return err
}

// Stop implements driver.Driver: a parent of ours goes with the last network on it.
func (d *Driver) Stop(_ context.Context, n driver.Network, others []driver.Network) error {
	o, err := parse(n)
	if err != nil {
		return nil //nolint:nilerr // nothing was made by such options
	}
	for _, other := range others {
		if other.ID != n.ID && (other.Driver == "macvlan" || other.Driver == "ipvlan") && other.Options[optParent] == o.parent {
			return nil
		}
	}
	l, err := d.nl.LinkByName(o.parent)
	if err == nil && l.Group == rtnl.Group && (o.own || l.Kind == "vlan") {
		_, err = d.nl.Do(rtnl.DelLink(o.parent))
	}
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Out implements driver.Driver: the world is behind the parent; a parent of ours leads
// nowhere.
func (d *Driver) Out(n driver.Network, _ bool) bool { return !n.Internal && n.Options[optParent] != "" }

// Join implements driver.Driver.
func (d *Driver) Join(_ context.Context, n driver.Network, e driver.Endpoint) (driver.Interface, error) {
	o, err := parse(n)
	if err != nil {
		return driver.Interface{}, err
	}
	l, err := d.nl.LinkByName(o.parent)
	if errors.Is(err, unix.ENODEV) {
		return driver.Interface{}, errclass.NotFound("the parent interface %s of network %s is gone", o.parent, n.Name)
	}
	if err != nil {
		return driver.Interface{}, err
	}
	i := driver.Interface{Child: child(n.Driver, o, l.Index), Prefix: o.ifPrefix, Announce: true}
	switch {
	case n.Driver == "ipvlan" || o.mode == rtnl.MacvlanPassthru:
		i.SharedMAC, i.MAC = true, l.MAC
	case !e.MACChosen:
		// Not the one that belongs to the IP address: a namespace dies some time after
		// its last process, and until then the parent lets nobody else have its
		// hardware address. The neighbours are told.
		i.MAC = plumb.RandomMAC()
	}
	// Routed: everything leaves by the interface, there is nobody to ask.
	i.Direct = n.Driver == "ipvlan" && o.mode != rtnl.IpvlanL2
	return i, nil
}

// Leave implements driver.Driver: the interface dies with its namespace.
func (d *Driver) Leave(context.Context, driver.Network, driver.Endpoint) error { return nil }

// child makes one container's interface.
func child(kind string, o options, parent int) func(rtnl.Peer) *rtnl.Request {
	return func(p rtnl.Peer) *rtnl.Request {
		if kind == "ipvlan" {
			return rtnl.AddIpvlan(parent, uint16(o.mode), o.flags, o.mtu, p)
		}
		return rtnl.AddMacvlan(parent, o.mode, o.mtu, p)
	}
}
