// Package forwarding makes the host a router for containers, and for nobody else.
package forwarding

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/engine/network/plumb"
	"github.com/gantry/gantry/internal/atomicfile"
)

// state remembers, for this boot, that the daemon switched forwarding on.
type state struct {
	Boot string `json:"boot"`
}

// Switch is what decides about forwarding.
type Switch struct {
	// Dir keeps the file "forward", which remembers over restarts of the daemon.
	Dir string
	// IPv6: there are networks with IPv6.
	IPv6 bool
	// Allowed: the daemon may switch it on (ip-forward).
	Allowed bool
	// NoDrop leaves foreign forwarded traffic alone (ip-forward-no-drop).
	NoDrop   bool
	Firewall *firewall.Live
	Log      *slog.Logger
}

// On switches the kernel's forwarding on when it is off. A host that was no router must not
// become one for others: then what is not ours is dropped from now on, until the next boot
// (Docker sets the policy of its FORWARD chain for the same reason). It works in the calling
// thread's network namespace.
func (s Switch) On() error {
	path := filepath.Join(s.Dir, "forward")
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	mark := state{Boot: strings.TrimSpace(string(boot))}
	data, _ := os.ReadFile(path)
	was := strings.Contains(string(data), `"`+mark.Boot+`"`)
	off := s.off()
	if len(off) > 0 && !s.Allowed {
		s.Log.Warn("IP forwarding is off: containers will not reach other hosts", "sysctls", strings.Join(off, " "))
		off = nil
	}
	if len(off) > 0 && !was {
		if err := atomicfile.WriteJSON(path, mark, 0o600, false); err != nil {
			return err
		}
		was = true
	}
	s.Firewall.DropForward(was && s.Allowed && !s.NoDrop)
	if len(off) > 0 {
		// The drop first, then the forwarding.
		if err := s.Firewall.Apply(); err != nil {
			return err
		}
	}
	for _, k := range off {
		if err := plumb.Sysctl(k, "1"); err != nil {
			return fmt.Errorf("switching forwarding on: %w", err)
		}
	}
	return nil
}

// off are the settings that say no.
func (s Switch) off() []string {
	keys := []string{"net/ipv4/ip_forward"}
	if s.IPv6 {
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
