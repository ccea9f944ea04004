package bridge

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
)

// The options of bridge networks, in Docker's words.
const (
	OptDefault  = "com.docker.network.bridge.default_bridge"
	OptName     = "com.docker.network.bridge.name"
	OptICC      = "com.docker.network.bridge.enable_icc"
	OptMasq     = "com.docker.network.bridge.enable_ip_masquerade"
	OptBindIP   = "com.docker.network.bridge.host_binding_ipv4"
	OptMTU      = driver.OptMTU
	OptMode4    = "com.docker.network.bridge.gateway_mode_ipv4"
	OptMode6    = "com.docker.network.bridge.gateway_mode_ipv6"
	OptTrusted  = "com.docker.network.bridge.trusted_host_interfaces"
	OptInhibit  = "com.docker.network.bridge.inhibit_ipv4"
	OptHostIPv4 = "com.docker.network.host_ipv4"
	OptHostIPv6 = "com.docker.network.host_ipv6"
	OptIfPrefix = driver.OptIfPrefix
)

// Options are the decoded options of a bridge network.
type Options struct {
	Name string // of the bridge's interface
	// ICC lets containers talk to each other, Masq hides them behind the host.
	ICC, Masq bool
	BindIP    netip.Addr // ports are published on; invalid: the daemon's choice
	MTU       int        // 0: the daemon's choice
	// Mode4 and Mode6 are the gateway modes of each family.
	Mode4, Mode6 driver.GatewayMode
	Trusted      []string // interfaces that may reach containers' own addresses
	Inhibit      bool     // the bridge gets no IPv4 address
	// HostIP4 and HostIP6 are what containers' packets leave under; invalid: masquerade.
	HostIP4, HostIP6 netip.Addr
	IfPrefix         string // of the names inside
}

// bridgeName is the name of a network's bridge.
func bridgeName(networkID string, o map[string]string) string {
	if name := o[OptName]; name != "" {
		return name
	}
	return "br-" + id.Short(networkID)
}

// parse decodes a bridge network's options. Errors are of class Invalid.
func parse(networkID string, o map[string]string) (Options, error) {
	b := Options{Name: bridgeName(networkID, o), ICC: true, Masq: true, IfPrefix: "eth"}
	var err error
	for _, k := range slices.Sorted(maps.Keys(o)) {
		v := o[k]
		switch k {
		case OptName:
			if v != "" {
				err = driver.CheckIfName(v)
			}
		case OptICC:
			b.ICC, err = parseBool(k, v)
		case OptMasq:
			b.Masq, err = parseBool(k, v)
		case OptInhibit:
			b.Inhibit, err = parseBool(k, v)
		case OptBindIP:
			b.BindIP, err = parseIP(k, v)
		case OptHostIPv4:
			b.HostIP4, err = parseIP(k, v)
		case OptHostIPv6:
			b.HostIP6, err = parseIP(k, v)
		case OptMTU:
			b.MTU, err = driver.ParseMTU(v)
		case OptMode4:
			b.Mode4, err = parseMode(k, v)
		case OptMode6:
			b.Mode6, err = parseMode(k, v)
		case OptTrusted:
			b.Trusted = strings.FieldsFunc(v, func(r rune) bool { return r == ':' })
			for _, name := range b.Trusted {
				err = errors.Join(err, driver.CheckIfName(name))
			}
		case OptIfPrefix:
			b.IfPrefix = v
			err = driver.CheckIfName(v + "0")
		}
		if err != nil {
			return b, err
		}
	}
	return b, nil
}

func parseBool(k, v string) (bool, error) {
	on, err := strconv.ParseBool(v)
	if err != nil {
		return false, errclass.Invalid("failed to parse %s value: %s (%v)", k, v, err)
	}
	return on, nil
}

func parseIP(k, v string) (netip.Addr, error) {
	a, err := netip.ParseAddr(v)
	if err != nil || a.Zone() != "" {
		return a, errclass.Invalid("failed to parse %s value: %s (nil ip)", k, v)
	}
	return a.Unmap(), nil
}

func parseMode(k, v string) (driver.GatewayMode, error) {
	switch m := driver.GatewayMode(v); m {
	case "", driver.ModeNAT, driver.ModeNATUnprotected, driver.ModeRouted, driver.ModeIsolated:
		return m, nil
	}
	return "", errclass.Invalid("unknown gateway mode %s for %s", v, k)
}
