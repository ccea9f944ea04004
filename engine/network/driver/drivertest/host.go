// Package drivertest holds what tests of network drivers need: a host in memory, and the suite
// that every driver passes on it. Package networktest tests drivers with real packets.
package drivertest

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// Host is a driver.Host in memory: links that exist, settings, bridges under the firewall. It
// understands the netlink messages that drivers send by the names in them only: enough to
// see that what was begun is ended. Safe for concurrent use.
type Host struct {
	ns *os.File

	mu      sync.Mutex
	links   map[string]rtnl.Link
	sysctls map[string]string
	bridges map[string]driver.Bridge
	last    int // index that was given
	// Fail, when set, is asked before every call, by what it is ("Do", Removal, "LinkByName docker0",
	// "Sysctl net/…", "Protect br0", …): its error is the call's.
	Fail func(call string) error
}

// Removal is what Fail is told of a message that removes a link.
const Removal = "Do remove"

// NewHost is a host with some links: no bridge is under its firewall.
func NewHost(t testing.TB, links ...rtnl.Link) *Host {
	t.Helper()
	ns, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	h := &Host{ns: ns, links: map[string]rtnl.Link{}, sysctls: map[string]string{}, bridges: map[string]driver.Bridge{}}
	for _, l := range links {
		h.Add(l)
	}
	return h
}

func (h *Host) fail(call string) error {
	if h.Fail == nil {
		return nil
	}
	return h.Fail(call)
}

// Do implements driver.Host: a message makes or removes the link that it names.
func (h *Host) Do(reqs ...*rtnl.Request) ([]rtnl.Reply, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range reqs {
		call := "Do"
		if typ, _ := r.Header(); typ == unix.RTM_DELLINK {
			call = Removal
		}
		if err := h.fail(call); err != nil {
			return nil, err
		}
		if err := h.do(r); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// do reads one message (rtnetlink(7)). h.mu is held.
func (h *Host) do(r *rtnl.Request) error {
	typ, flags := r.Header()
	asked, ok := rtnl.ParseLink(rtnl.Reply{Type: unix.RTM_NEWLINK, Data: r.Bytes()[unix.SizeofNlMsghdr:]})
	if typ != unix.RTM_NEWLINK && typ != unix.RTM_DELLINK && typ != unix.RTM_GETLINK || !ok {
		return nil // of addresses and routes
	}
	name := asked.Name
	for _, l := range h.links {
		if name == "" && l.Index == asked.Index {
			name = l.Name
		}
	}
	l, there := h.links[name]
	switch add := typ == unix.RTM_NEWLINK && flags&unix.NLM_F_CREATE != 0; {
	case add && there:
		return unix.EEXIST
	case add:
		asked.Index = h.next()
		if asked.MAC == nil {
			asked.MAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}
		}
		h.links[name] = asked
	case !there:
		return unix.ENODEV
	case typ == unix.RTM_DELLINK:
		delete(h.links, name)
	case typ == unix.RTM_NEWLINK:
		l.Flags |= asked.Flags
		if asked.Master != 0 {
			l.Master = asked.Master
		}
		h.links[name] = l
	}
	return nil
}

// next is the index of a new link. h.mu is held.
func (h *Host) next() int {
	h.last++
	return h.last
}

// Add adds a link, as somebody else would: a container's interface comes with its namespace.
func (h *Host) Add(l rtnl.Link) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.Index = h.next()
	h.links[l.Name] = l
}

// LinkByName implements driver.Host.
func (h *Host) LinkByName(name string) (rtnl.Link, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fail("LinkByName " + name); err != nil {
		return rtnl.Link{}, err
	}
	l, ok := h.links[name]
	if !ok {
		return l, fmt.Errorf("link %s: %w", name, unix.ENODEV)
	}
	return l, nil
}

// Addrs implements driver.Host: there are none.
func (h *Host) Addrs(int) ([]rtnl.Addr, error) { return nil, nil }

// AwaitAddrs implements driver.Host.
func (h *Host) AwaitAddrs(int, []netip.Prefix) error { return nil }

// Sysctl implements driver.Host.
func (h *Host) Sysctl(path, value string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fail("Sysctl " + path); err != nil {
		return err
	}
	h.sysctls[path] = value
	return nil
}

// BridgeFiltered implements driver.Host.
func (h *Host) BridgeFiltered() bool { return false }

// Netns implements driver.Host.
func (h *Host) Netns() *os.File { return h.ns }

// Protect implements driver.Host.
func (h *Host) Protect(b driver.Bridge) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fail("Protect " + b.Name); err != nil {
		return err
	}
	h.bridges[b.Name] = b
	return nil
}

// Unprotect implements driver.Host.
func (h *Host) Unprotect(name string) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.fail("Unprotect " + name); err != nil {
		return err
	}
	delete(h.bridges, name)
	return nil
}

// Bridge is what was said to the firewall of a bridge.
func (h *Host) Bridge(name string) (driver.Bridge, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	b, ok := h.bridges[name]
	return b, ok
}

// Setting is what was written below /proc/sys; "" is nothing.
func (h *Host) Setting(path string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.sysctls[path]
}

// Remove removes a link, as somebody else would.
func (h *Host) Remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.links, name)
}

// String is what networks have made of the host: links and bridges under the firewall.
func (h *Host) String() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []string
	for name := range h.links {
		out = append(out, name)
	}
	for name := range h.bridges {
		out = append(out, "firewall:"+name)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}
