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
// up. An existing bridge is adopted with what is plugged into it. It returns the interface's
// index.
func Ensure(h driver.Host, name string, mtu int, ipv6 bool, addrs []netip.Prefix, exclusive bool) (int, error) {
	l, err := h.LinkByName(name)
	if errors.Is(err, unix.ENODEV) {
		if _, err := h.Do(rtnl.AddBridge(name, netns.RandomMAC(), mtu)); err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, err
		}
		l, err = h.LinkByName(name)
	}
	if err != nil {
		return 0, err
	}
	if l.Kind != rtnl.KindBridge {
		return 0, fmt.Errorf("interface %s exists and is no bridge", name)
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
	var reqs []*rtnl.Request
	if ipv6 && exclusive {
		addrs = append(slices.Clone(addrs), netns.LinkLocal(l.MAC))
	}
	for _, a := range addrs {
		if !slices.ContainsFunc(have, func(x rtnl.Addr) bool { return x.Prefix == a }) {
			reqs = append(reqs, rtnl.AddAddr(l.Index, a))
		}
	}
	for _, x := range have {
		if exclusive && !x.Prefix.Addr().IsLinkLocalUnicast() && !slices.Contains(addrs, x.Prefix) {
			reqs = append(reqs, rtnl.DelAddr(l.Index, x.Prefix))
		}
	}
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
