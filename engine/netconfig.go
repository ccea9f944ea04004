package engine

import (
	"cmp"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/errclass"
)

// networkConfig is the part of the configuration that engine/network takes.
func (c *Config) networkConfig() (network.Config, error) {
	n := network.DefaultConfig(c.DataRoot)
	n.Bridge, n.MTU = c.Bridge, c.MTU
	n.ICC, n.IPMasq, n.IPForward, n.ForwardNoDrop = c.ICC, c.IPMasq, c.IPForward, c.IPForwardNoDrop
	n.Firewall, n.Firewall6, n.IPv6 = c.IPTables, c.IP6Tables, c.IPv6
	n.UserlandProxy, n.AllowDirectRouting = c.UserlandProxy, c.AllowDirectRouting
	n.DNSSearch, n.DNSOptions = c.DNSSearch, c.DNSOpts
	n.ResolvConf = cmp.Or(c.ResolvConf, os.Getenv("DOCKER_TEST_RESOLV_CONF_PATH")) // as Docker's own tests say it
	n.NetworkOptions = c.DefaultNetworkOpts
	if c.FirewallBackend != "" && c.FirewallBackend != "nftables" {
		return n, errclass.Invalid("invalid firewall-backend %q: this engine's firewall is one nftables table, there is no other", c.FirewallBackend)
	}
	var err error
	if n.AcceptMark, n.AcceptMask, err = markOf(c.AcceptMark); err != nil {
		return n, err
	}
	for _, p := range []struct {
		name, value string
		to          *netip.Prefix
	}{
		{"bip", c.BIP, &n.BIP},
		{"bip6", c.BIP6, &n.BIP6},
		{"fixed-cidr", c.FixedCIDR, &n.FixedCIDR},
		{"fixed-cidr-v6", c.FixedCIDR6, &n.FixedCIDR6},
	} {
		if *p.to, err = prefixOf(p.name, p.value); err != nil {
			return n, err
		}
	}
	for _, a := range []struct {
		name, value string
		to          *netip.Addr
	}{
		{"default-gateway", c.DefaultGateway, &n.DefaultGateway},
		{"default-gateway-v6", c.DefaultGateway6, &n.DefaultGateway6},
		{"ip", c.IP, &n.DefaultBindIP},
	} {
		if *a.to, err = addrOf(a.name, a.value); err != nil {
			return n, err
		}
	}
	if n.DNS, err = addrsOf("dns", c.DNS); err != nil {
		return n, err
	}
	if n.HostGatewayIPs, err = addrsOf("host-gateway-ip", c.HostGatewayIPs); err != nil {
		return n, err
	}
	for _, s := range c.DefaultAddressPools {
		p, err := parsePool(s)
		if err != nil {
			return n, err
		}
		n.AddressPools = append(n.AddressPools, p)
	}
	return n, nil
}

// markOf reads a packet mark and its mask, "0x1/0x3", as Docker does; "" is 0, 0.
func markOf(s string) (mark, mask uint32, err error) {
	if s == "" {
		return 0, 0, nil
	}
	m, k, both := strings.Cut(s, "/")
	a, err := strconv.ParseUint(m, 0, 32)
	if err != nil {
		return 0, 0, errclass.Invalid("invalid firewall mark %q: %w", s, err)
	}
	b := uint64(0xffffffff)
	if both {
		if b, err = strconv.ParseUint(k, 0, 32); err != nil {
			return 0, 0, errclass.Invalid("invalid firewall mask %q: %w", s, err)
		}
	}
	if b == 0 {
		return 0, 0, errclass.Invalid("invalid firewall mask %q: it would accept everything", s)
	}
	return uint32(a), uint32(b), nil
}

// parsePool reads "base=CIDR,size=N".
func parsePool(s string) (network.Pool, error) {
	var p network.Pool
	for field := range strings.SplitSeq(s, ",") {
		key, value, ok := strings.Cut(strings.TrimSpace(field), "=")
		var err error
		switch {
		case ok && key == "base":
			p.Base, err = netip.ParsePrefix(value)
		case ok && key == "size":
			p.Size, err = strconv.Atoi(value)
		default:
			return p, errclass.Invalid("invalid address pool %q: must be base=CIDR,size=N", s)
		}
		if err != nil {
			return p, errclass.Invalid("invalid address pool %q: %w", s, err)
		}
	}
	if !p.Base.IsValid() || p.Size < p.Base.Bits() || p.Size > p.Base.Addr().BitLen() {
		return p, errclass.Invalid("invalid address pool %q: size must be between the base's prefix length and %d", s, p.Base.Addr().BitLen())
	}
	return p, nil
}
