package host

import (
	"maps"
	"net/netip"
	"slices"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/rtnl"
)

// ApplyFirewall brings the kernel's table to what was said of bridges and ports so far, and
// keeps it there: from now on every change is applied at once, and what others change is
// repaired. Where the firewall is switched off, what an earlier daemon left goes.
func (h *Host) ApplyFirewall() error {
	if err := h.watchBridges(); err != nil {
		return err
	}
	if err := h.fw.Apply(); err != nil {
		return err
	}
	if h.nft != nil {
		var err error
		if h.watch, err = h.nft.Watch(h.fw.Ruleset(), h.Repair); err != nil {
			return err
		}
	} else if err := firewall.RemoveLeft(); err != nil {
		return err
	}
	// Only now: the table keeps the wire away from 127.0.0.0/8.
	h.mu.Lock()
	h.applied = true
	names := slices.Collect(maps.Keys(h.protected))
	h.mu.Unlock()
	for _, name := range names {
		h.openLocalnet(name)
	}
	return nil
}

// Protect implements driver.Host. Without the firewall's IPv6 half ("ip6tables": false)
// nothing of ours touches a bridge's IPv6: no translation, no protection.
func (h *Host) Protect(b driver.Bridge) error {
	if !h.settings.Firewall6 {
		b.Subnets = slices.DeleteFunc(slices.Clone(b.Subnets), func(p netip.Prefix) bool { return p.Addr().Is6() })
		b.Masq6, b.SNAT6, b.Mode6 = false, netip.Addr{}, driver.ModeNATUnprotected
	}
	if err := h.fw.SetBridge(b); err != nil {
		return err
	}
	h.mu.Lock()
	h.protected[b.Name] = b.Index
	applied := h.applied
	h.mu.Unlock()
	if applied {
		h.openLocalnet(b.Name)
	}
	return nil
}

// Unprotect implements driver.Host.
func (h *Host) Unprotect(name string) error {
	h.mu.Lock()
	delete(h.protected, name)
	h.mu.Unlock()
	return h.fw.RemoveBridge(name)
}

// openLocalnet lets connections from 127.0.0.1 reach a bridge's published ports: the kernel
// routes such sources onto a bridge only when told to. The firewall must be applied:
// without its guard 127.0.0.0/8 would be open to the wire.
func (h *Host) openLocalnet(bridge string) {
	on := "1"
	if h.nft == nil {
		on = "0" // an earlier daemon's table may have been its guard
	}
	if err := routeLocalnet(bridge, on); err != nil {
		h.log.Warn("published ports will not answer on 127.0.0.1", "bridge", bridge, "error", err)
	}
}

func routeLocalnet(bridge, on string) error {
	return netns.OptionalSysctl("net/ipv4/conf/"+bridge+"/route_localnet", on)
}

// Repair makes our table again after somebody changed, removed or flushed it. As long as
// that fails, nothing keeps the wire away from 127.0.0.0/8: then the bridges do not
// route there.
func (h *Host) Repair() error {
	err := h.fw.Apply()
	if err != nil {
		h.log.Error("repairing the firewall", "error", err)
	} else {
		h.log.Warn("somebody changed our nftables table: made it again")
	}
	h.mu.Lock()
	names := slices.Collect(maps.Keys(h.protected))
	h.mu.Unlock()
	for _, name := range names {
		if err == nil {
			h.openLocalnet(name)
		} else if cerr := routeLocalnet(name, "0"); cerr != nil {
			h.log.Error("closing 127.0.0.0/8", "bridge", name, "error", cerr)
		}
	}
	return err
}

// watchBridges keeps the firewall told of the host's other bridges.
func (h *Host) watchBridges() (err error) {
	if h.nft == nil {
		return nil
	}
	h.others, err = rtnl.WatchBridges(h.nl, func(names map[int]string) {
		if err := h.fw.SetForeign(slices.Sorted(maps.Values(names))); err != nil {
			h.log.Error("telling the firewall of other bridges", "error", err)
		}
	})
	return err
}
