package plumb

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// Sysctl writes below /proc/sys in the calling thread's network namespace. The parts
// are ours or checked interface names.
func Sysctl(path, value string) error {
	if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
		return fmt.Errorf("setting %s: %w", path, err)
	}
	return nil
}

// OptionalSysctl is Sysctl where the kernel may lack the setting.
func OptionalSysctl(path, value string) error {
	if err := Sysctl(path, value); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// EnsureBridge makes a bridge what a network wants it to be: existing, with the given
// addresses and no other of the same families, up. An existing bridge is adopted with
// what is plugged into it. It returns the interface's index.
func EnsureBridge(c *rtnl.Conn, name string, mtu int, ipv6 bool, addrs []netip.Prefix, exclusive bool) (int, error) {
	l, err := c.LinkByName(name)
	if errors.Is(err, unix.ENODEV) {
		if _, err := c.Do(rtnl.AddBridge(name, RandomMAC(), mtu)); err != nil && !errors.Is(err, unix.EEXIST) {
			return 0, err
		}
		l, err = c.LinkByName(name)
	}
	if err != nil {
		return 0, err
	}
	if l.Kind != "bridge" {
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
		if err := OptionalSysctl(kv[0], kv[1]); err != nil {
			return 0, err
		}
	}
	have, err := c.Addrs(l.Index)
	if err != nil {
		return 0, err
	}
	var reqs []*rtnl.Request
	if ipv6 && exclusive {
		addrs = append(slices.Clone(addrs), linkLocal(l.MAC))
	}
	for _, a := range addrs {
		if !slices.ContainsFunc(have, func(h rtnl.Addr) bool { return h.Prefix == a }) {
			reqs = append(reqs, rtnl.AddAddr(l.Index, a))
		}
	}
	for _, h := range have {
		if exclusive && !h.Prefix.Addr().IsLinkLocalUnicast() && !slices.Contains(addrs, h.Prefix) {
			reqs = append(reqs, rtnl.DelAddr(l.Index, h.Prefix))
		}
	}
	if mtu > 0 && l.MTU != mtu {
		reqs = append(reqs, rtnl.SetMTU(l.Index, mtu))
	}
	if !l.Up() {
		reqs = append(reqs, rtnl.SetUp(l.Index))
	}
	if _, err = c.Do(reqs...); err != nil || len(reqs) == 0 {
		return l.Index, err
	}
	if !ipv6 {
		return l.Index, nil
	}
	return l.Index, awaitGroups(c, l.Index, addrs)
}

// RemoveOwn removes a bridge that an earlier daemon made; another's, and one that is not
// there, stay as they are.
func RemoveOwn(c *rtnl.Conn, name string) error {
	l, err := c.LinkByName(name)
	if errors.Is(err, unix.ENODEV) || err == nil && (l.Kind != "bridge" || l.Group != rtnl.Group) {
		return nil
	}
	if err == nil {
		_, err = c.Do(rtnl.DelLink(name))
	}
	return err
}

// Replug makes a container's host end a port of a bridge again.
func Replug(c *rtnl.Conn, name string, bridge int, isolated bool) error {
	l, err := c.LinkByName(name)
	if err != nil {
		return err
	}
	reqs := []*rtnl.Request{rtnl.SetMaster(l.Index, bridge)}
	if filtered := BridgeFiltered(); filtered || isolated {
		reqs = append(reqs, rtnl.SetPort(l.Index, isolated && !filtered, filtered))
	}
	_, err = c.Do(reqs...)
	return err
}

// NewHostIf is a name for the host's end of a veth pair.
func NewHostIf() string {
	var b [4]byte
	rand.Read(b[:])
	return "veth" + hex.EncodeToString(b[:])[:7]
}

// RandomMAC is a locally administered unicast address.
func RandomMAC() net.HardwareAddr {
	m := make(net.HardwareAddr, 6)
	rand.Read(m)
	m[0] = m[0]&^1 | 2
	return m
}
