// Package host is the machine as networks change it: links, addresses and sysctls in the
// host's network namespace, the nftables table, forwarding, connection tracking. It
// implements driver.Host, and holds the one connection of each kind that networks work by.
package host

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"sync"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/internal/nft"
	"github.com/gantry/gantry/internal/rtnl"
)

// Settings are what the daemon's configuration says about the machine.
type Settings struct {
	// Firewall applies the nftables table; Firewall6 its IPv6 half.
	Firewall, Firewall6 bool
	// Rules are the firewall's own settings.
	Rules firewall.Settings
	// Dir keeps the file "forward", which remembers over restarts of the daemon that it
	// switched forwarding on.
	Dir string
	// IPForward lets the daemon switch forwarding on; ForwardNoDrop leaves foreign forwarded
	// traffic alone then.
	IPForward, ForwardNoDrop bool
	// Log must be set.
	Log *slog.Logger
}

// Host implements driver.Host. Safe for concurrent use.
type Host struct {
	settings Settings
	log      *slog.Logger
	ns       netns.Host
	nl       *rtnl.Conn
	nft      *nft.Conn // nil when the firewall is switched off
	fw       *firewall.Live
	reaper   *reaper
	watch    *nft.Watcher
	others   *rtnl.BridgeWatcher

	closing sync.Once
	closed  error // what closing met

	mu        sync.Mutex
	applied   bool           // the firewall's table is the kernel's
	protected map[string]int // indexes of bridges by their names
}

// Open makes the host of the calling thread's network namespace. The kernel's firewall is
// touched by ApplyFirewall first. Close it.
func Open(settings Settings) (_ *Host, err error) {
	h := &Host{settings: settings, log: settings.Log, protected: map[string]int{}}
	defer func() {
		if err != nil {
			h.Close()
		}
	}()
	if h.ns, err = netns.OpenHost(); err != nil {
		return nil, err
	}
	if h.nl, err = rtnl.Dial(); err != nil {
		return nil, err
	}
	if settings.Firewall {
		if h.nft, err = nft.Dial(); err != nil {
			return nil, err
		}
	}
	h.fw = firewall.NewLive(h.nft, settings.Rules)
	h.reaper = newReaper(h.nl, h.log)
	return h, nil
}

// Close ends the work beside requests and closes the connections; what was made stays.
// It may be called more than once.
func (h *Host) Close() error {
	h.closing.Do(func() { h.closed = h.close() })
	return h.closed
}

func (h *Host) close() error {
	var errs []error
	if h.watch != nil {
		errs = append(errs, h.watch.Close())
	}
	if h.others != nil {
		errs = append(errs, h.others.Close())
	}
	if h.reaper != nil {
		h.reaper.close()
	}
	if h.nft != nil {
		errs = append(errs, h.nft.Close())
	}
	if h.nl != nil {
		errs = append(errs, h.nl.Close())
	}
	if h.ns.F != nil {
		errs = append(errs, h.ns.Close())
	}
	return errors.Join(errs...)
}

// Do implements driver.Host.
func (h *Host) Do(reqs ...*rtnl.Request) ([]rtnl.Reply, error) { return h.nl.Do(reqs...) }

// LinkByName implements driver.Host.
func (h *Host) LinkByName(name string) (rtnl.Link, error) { return h.nl.LinkByName(name) }

// Addrs implements driver.Host.
func (h *Host) Addrs(index int) ([]rtnl.Addr, error) { return h.nl.Addrs(index) }

// AwaitAddrs implements driver.Host.
func (h *Host) AwaitAddrs(index int, addrs []netip.Prefix) error {
	return netns.AwaitAddrs(h.nl, index, addrs)
}

// Netns implements driver.Host.
func (h *Host) Netns() *os.File { return h.ns.F }

// Sysctl implements driver.Host.
func (h *Host) Sysctl(path, value string) error { return netns.OptionalSysctl(path, value) }

// BridgeFiltered implements driver.Host.
func (h *Host) BridgeFiltered() bool { return netns.BridgeFiltered() }

// NS is the host's network namespace, to enter others and find back.
func (h *Host) NS() netns.Host { return h.ns }

// Conn is the netlink connection in the host's namespace. It stays the host's.
func (h *Host) Conn() *rtnl.Conn { return h.nl }

// Bridges are the indexes of the bridges that are under the firewall: our networks'.
func (h *Host) Bridges() map[int]bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := map[int]bool{}
	for _, index := range h.protected {
		out[index] = true
	}
	return out
}

// Reap has an interface of ours gone soon, beside the request: it dies with its namespace,
// unless somebody else holds that.
func (h *Host) Reap(hostIf string) { h.reaper.later(hostIf) }

// Publish makes a container's published ports these, in one transaction; when it fails they are
// what they were.
func (h *Host) Publish(containerID string, now []ports.Mapping) error {
	return h.fw.Publish(containerID, now)
}

// Unpublish removes a container's published ports; an unknown container is no error.
func (h *Host) Unpublish(containerID string) error { return h.fw.Unpublish(containerID) }

// SetLinks replaces what containers may reach of each other although icc is off.
func (h *Host) SetLinks(links []firewall.Link) error { return h.fw.SetLinks(links) }

// Ruleset is what the kernel's table should be now.
func (h *Host) Ruleset() nft.Ruleset { return h.fw.Ruleset() }

// Intact tells whether the kernel has the table that it should have.
func (h *Host) Intact() (bool, error) { return h.nft.Intact(h.Ruleset()) }

var _ driver.Host = (*Host)(nil)
