package bridge

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// Ensure makes a bridge what a network wants it to be: existing, with the given
// addresses and no other of the same families (unless it is not exclusive: somebody else's),
// up. An existing bridge is adopted with its ports. It returns the interface's
// index.
func Ensure(h driver.Host, name string, mtu int, ipv6 bool, addrs []netip.Prefix, exclusive bool) (int, error) {
	l, err := findOrAdd(h, name, mtu)
	if err != nil {
		return 0, err
	}
	off := "1"
	if ipv6 {
		off = "0"
	}
	for _, kv := range [][2]string{
		{"net/ipv6/conf/" + name + "/disable_ipv6", off},
		// A container with CAP_NET_RAW must not configure the host by router advertisements.
		{"net/ipv6/conf/" + name + "/accept_ra", "0"},
	} {
		if err := h.Sysctl(kv[0], kv[1]); err != nil {
			return 0, err
		}
	}
	have, err := h.Addrs(l.Index)
	if err != nil {
		return 0, err
	}
	if ipv6 && exclusive {
		addrs = append(slices.Clone(addrs), netns.LinkLocal(l.MAC))
	}
	reqs := readdress(l.Index, have, addrs, exclusive)
	if mtu > 0 && l.MTU != mtu {
		reqs = append(reqs, rtnl.SetMTU(l.Index, mtu))
	}
	if !l.Up() {
		reqs = append(reqs, rtnl.SetUp(l.Index))
	}
	if _, err = h.Do(reqs...); err != nil || len(reqs) == 0 {
		return l.Index, err
	}
	if !ipv6 {
		return l.Index, nil
	}
	return l.Index, h.AwaitAddrs(l.Index, addrs)
}

// findOrAdd finds the bridge of a name, or makes one.
func findOrAdd(h driver.Host, name string, mtu int) (rtnl.Link, error) {
	l, err := h.LinkByName(name)
	if errors.Is(err, unix.ENODEV) {
		if _, err := h.Do(rtnl.AddBridge(name, netns.RandomMAC(), mtu)); err != nil && !errors.Is(err, unix.EEXIST) {
			return l, err
		}
		l, err = h.LinkByName(name)
	}
	if err == nil && l.Kind != rtnl.KindBridge {
		err = fmt.Errorf("interface %s exists and is no bridge", name)
	}
	return l, err
}

// readdress adds the addresses that an interface lacks and, where it is exclusive, removes
// those that it has besides.
func readdress(index int, have []rtnl.Addr, want []netip.Prefix, exclusive bool) (reqs []*rtnl.Request) {
	for _, a := range want {
		if !slices.ContainsFunc(have, func(x rtnl.Addr) bool { return x.Prefix == a }) {
			reqs = append(reqs, rtnl.AddAddr(index, a))
		}
	}
	for _, x := range have {
		if exclusive && !x.Prefix.Addr().IsLinkLocalUnicast() && !slices.Contains(want, x.Prefix) {
			reqs = append(reqs, rtnl.DelAddr(index, x.Prefix))
		}
	}
	return reqs
}

// removeOwn removes a bridge that an earlier daemon made; another's, and one that is not
// there, stay as they are.
func removeOwn(h driver.Host, name string) error {
	l, err := h.LinkByName(name)
	if errors.Is(err, unix.ENODEV) || err == nil && (l.Kind != rtnl.KindBridge || l.Group != rtnl.Group) {
		return nil
	}
	if err == nil {
		_, err = h.Do(rtnl.DelLink(name))
	}
	return err
}

// replug makes a container's host end a port of a bridge again.
func replug(h driver.Host, name string, bridge int, isolated bool) error {
	l, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	reqs := []*rtnl.Request{rtnl.SetMaster(l.Index, bridge)}
	if filtered := h.BridgeFiltered(); filtered || isolated {
		reqs = append(reqs, rtnl.SetPort(l.Index, isolated && !filtered, filtered))
	}
	_, err = h.Do(reqs...)
	return err
}
