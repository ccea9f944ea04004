// Package netdev moves network devices of the host into a container's network namespace
// (linux.netDevices of the OCI runtime specification 1.3).
package netdev

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/rtnl"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Check looks whether there is a network namespace of the container's to move devices into,
// somebody who may (confined: an ordinary user), and at their names. Class ErrInvalidArgument.
func Check(l *specs.Linux, confined bool) error {
	switch own := slices.ContainsFunc(l.Namespaces, func(ns specs.LinuxNamespace) bool { return ns.Type == specs.NetworkNamespace }); {
	case len(l.NetDevices) == 0:
		return nil
	case !own:
		return errclass.Invalid("unable to move network devices without a private NET namespace")
	case confined:
		return errclass.Invalid("network devices are moved by root only")
	}
	return checkNames(l.NetDevices)
}

func checkNames(devices map[string]specs.LinuxNetDevice) error {
	inside := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		to := target(name, devices[name])
		for _, n := range []string{name, to} {
			if !valid(n) {
				return errclass.Invalid("netDevices: %q cannot be the name of a network device", n)
			}
		}
		if other, twice := inside[to]; twice {
			return errclass.Invalid("netDevices: %s and %s would both be %s", other, name, to)
		}
		inside[to] = name
	}
	return nil
}

// target is what a device is called in the container.
func target(name string, d specs.LinuxNetDevice) string {
	if d.Name != "" {
		return d.Name
	}
	return name
}

// valid is what the kernel takes (dev_valid_name), less the patterns that it would fill in.
func valid(name string) bool {
	return name != "" && name != "." && name != ".." && len(name) < unix.IFNAMSIZ &&
		!strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '/' || r == ':' || r == '%' || r == 0x7f })
}

// Moved are devices that are in a container.
type Moved struct {
	ns, home *os.File
	devices  []device
}

type device struct {
	from, to string
	up       bool
	addrs    []netip.Prefix
}

// Move moves the devices, whose names Check has passed, from the calling thread's network
// namespace into ns, which stays the caller's: with their MTU, hardware address and
// lasting global addresses, and up. After an error all of them are where they were.
// The caller closes what it gets. Errors: a device that does not exist, ErrNotFound; a name
// that is taken inside, and what the kernel does not let go, ErrInvalidArgument.
func Move(devices map[string]specs.LinuxNetDevice, ns *os.File) (*Moved, error) {
	home, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	m := &Moved{ns: ns, home: home}
	c, err := rtnl.Dial()
	if err != nil {
		home.Close()
		return nil, err
	}
	defer c.Close()
	for _, name := range slices.Sorted(maps.Keys(devices)) {
		if err = m.take(c, name, target(name, devices[name])); err != nil {
			break
		}
	}
	if err == nil {
		err = inside(ns, m.settle)
	}
	if err != nil {
		return nil, errors.Join(err, m.Back())
	}
	return m, nil
}

// take moves one device, which is down then and without addresses.
func (m *Moved) take(c *rtnl.Conn, from, to string) error {
	l, err := c.LinkByName(from)
	if errors.Is(err, unix.ENODEV) {
		return errclass.NotFound("network device %s does not exist", from)
	}
	if err != nil {
		return fmt.Errorf("network device %s: %w", from, err)
	}
	all, err := c.Addrs(l.Index)
	if err != nil {
		return fmt.Errorf("network device %s: %w", from, err)
	}
	d := device{from: from, to: to, up: l.Up()}
	for _, a := range all {
		if a.Lasting && a.Global {
			d.addrs = append(d.addrs, a.Prefix)
		}
	}
	if _, err := c.Do(rtnl.MoveLink(l.Index, to, nil, int(m.ns.Fd()))); err != nil {
		if errors.Is(err, unix.EEXIST) {
			return errclass.Invalid("network device %s: the container has a device named %s", from, to)
		}
		return errclass.Invalid("network device %s cannot be moved into the container: %w", from, err)
	}
	m.devices = append(m.devices, d)
	return nil
}

// settle gives all devices their addresses again and takes them up, inside.
func (m *Moved) settle(c *rtnl.Conn) error {
	for i := range m.devices {
		d := &m.devices[i]
		l, err := c.LinkByName(d.to)
		if err != nil {
			return fmt.Errorf("network device %s in the container: %w", d.to, err)
		}
		if err := configure(c, l.Index, d.addrs, true); err != nil {
			return fmt.Errorf("network device %s in the container: %w", d.to, err)
		}
	}
	return nil
}

func configure(c *rtnl.Conn, index int, addrs []netip.Prefix, up bool) error {
	for _, a := range addrs {
		if _, err := c.Do(rtnl.AddAddr(index, a)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	if !up {
		return nil
	}
	_, err := c.Do(rtnl.SetUp(index))
	return err
}

// Back brings the devices back with their names, addresses and state, for a start that
// failed: with the container's network namespace they might end. It closes.
func (m *Moved) Back() error {
	defer m.Close()
	var errs []error
	back := inside(m.ns, func(c *rtnl.Conn) error {
		for _, d := range m.devices {
			l, err := c.LinkByName(d.to)
			if err == nil {
				_, err = c.Do(rtnl.MoveLink(l.Index, d.from, nil, int(m.home.Fd())))
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("bring network device %s back: %w", d.from, err))
			}
		}
		return nil
	})
	home := inside(m.home, func(c *rtnl.Conn) error {
		for _, d := range m.devices {
			l, err := c.LinkByName(d.from)
			if err == nil {
				err = configure(c, l.Index, d.addrs, d.up)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("network device %s: %w", d.from, err))
			}
		}
		return nil
	})
	m.devices = nil
	return errors.Join(append(errs, back, home)...)
}

// Close leaves the devices where they are. It may be called again.
func (m *Moved) Close() { m.home.Close() }

// inside runs f with a connection of another network namespace. The thread that enters it
// ends with the goroutine: it is fit for nothing else. It is never the first one, which
// would not end, and which /proc/self speaks of.
func inside(ns *os.File, f func(*rtnl.Conn) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			done <- inside(ns, f) // while this one is taken
			runtime.UnlockOSThread()
			return
		}
		done <- enter(ns, f)
	}()
	return <-done
}

func enter(ns *os.File, f func(*rtnl.Conn) error) error {
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("enter the container's network namespace: %w", err)
	}
	c, err := rtnl.Dial()
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}
