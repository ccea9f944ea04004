package host

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantry/gantry/engine/network/netns"
	"github.com/gantry/gantry/internal/atomicfile"
)

// state remembers, for this boot, that the daemon switched forwarding on.
type state struct {
	Boot string `json:"boot"`
}

// EnableForwarding switches the kernel's forwarding on when it is off and the daemon may
// (ip-forward), for IPv6 when there are networks with it. A host that was no router must not
// become one for others: then what is not ours is dropped from now on, until the next boot
// (Docker sets the policy of its FORWARD chain for the same reason).
func (h *Host) EnableForwarding(v6 bool) error {
	path := filepath.Join(h.settings.Dir, "forward")
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	mark := state{Boot: strings.TrimSpace(string(boot))}
	data, _ := os.ReadFile(path)
	was := strings.Contains(string(data), `"`+mark.Boot+`"`)
	off := forwardingOff(v6)
	if len(off) > 0 && !h.settings.IPForward {
		h.log.Warn("IP forwarding is off: containers will not reach other hosts", "sysctls", strings.Join(off, " "))
		off = nil
	}
	if len(off) > 0 && !was {
		if err := atomicfile.WriteJSON(path, mark, 0o600, false); err != nil {
			return err
		}
		was = true
	}
	h.fw.DropForward(was && h.settings.IPForward && !h.settings.ForwardNoDrop)
	if len(off) > 0 {
		// The drop first, then the forwarding.
		if err := h.fw.Apply(); err != nil {
			return err
		}
	}
	for _, k := range off {
		if err := netns.Sysctl(k, "1"); err != nil {
			return fmt.Errorf("switching forwarding on: %w", err)
		}
	}
	return nil
}

// forwardingOff are the settings that say no.
func forwardingOff(v6 bool) []string {
	keys := []string{"net/ipv4/ip_forward"}
	if v6 {
		keys = append(keys, "net/ipv6/conf/default/forwarding", "net/ipv6/conf/all/forwarding")
	}
	var off []string
	for _, k := range keys {
		if v, err := os.ReadFile("/proc/sys/" + k); err == nil && strings.TrimSpace(string(v)) == "0" {
			off = append(off, k)
		}
	}
	return off
}
