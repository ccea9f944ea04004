package run

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"reflect"
	"strconv"
	"strings"

	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
)

// attachment is one --network.
type attachment struct {
	target         string
	aliases, links []string
	linkLocal      []string
	ip, ip6, mac   string
	driverOpts     map[string]string
	gwPriority     int
}

// networkList is --network.
type networkList struct{ vals []attachment }

// Type implements pflag.Value.
func (n *networkList) Type() string { return "network" }

// String implements pflag.Value.
func (n *networkList) String() string { return "" }

// Set implements pflag.Value.
func (n *networkList) Set(v string) error {
	a := attachment{}
	if !strings.Contains(v, "=") {
		a.target = v
		n.vals = append(n.vals, a)
		return nil
	}
	fs, err := fields(v)
	if err != nil {
		return err
	}
	for _, field := range fs {
		if err := a.field(field); err != nil {
			return err
		}
	}
	if a.target == "" {
		return errors.New("network name/id is not specified")
	}
	n.vals = append(n.vals, a)
	return nil
}

// field takes one key=value of the long form.
func (a *attachment) field(field string) error {
	key, val, ok := strings.Cut(strings.ToLower(field), "=")
	if !ok || key == "" {
		return fmt.Errorf("invalid field %s", field)
	}
	key, val = strings.TrimSpace(key), strings.TrimSpace(val)
	switch key {
	case "name":
		a.target = val
	case "alias":
		a.aliases = append(a.aliases, val)
	case "ip":
		a.ip = val
	case "ip6":
		a.ip6 = val
	case "mac-address":
		if _, err := net.ParseMAC(val); err != nil {
			return fmt.Errorf("invalid mac address: %s", val)
		}
		a.mac = val
	case "link-local-ip":
		a.linkLocal = append(a.linkLocal, val)
	case "driver-opt":
		_, raw, _ := strings.Cut(field, "=")
		return a.driverOpt(raw) // whose value keeps its case
	case "gw-priority":
		p, err := strconv.Atoi(val)
		if err != nil {
			var ne *strconv.NumError
			if errors.As(err, &ne) {
				err = ne.Err
			}
			return fmt.Errorf("invalid gw-priority (%s): %w", val, err)
		}
		a.gwPriority = p
	default:
		return errors.New("invalid field key " + key)
	}
	return nil
}

func (a *attachment) driverOpt(s string) error {
	k, v, ok := strings.Cut(strings.TrimSpace(s), "=")
	if !ok || k == "" {
		return errors.New("invalid key value pair format in driver options")
	}
	if a.driverOpts == nil {
		a.driverOpts = map[string]string{}
	}
	a.driverOpts[strings.TrimSpace(strings.ToLower(k))] = strings.TrimSpace(v)
	return nil
}

func userDefined(mode string) bool {
	switch mode {
	case "default", "bridge", "host", "none":
		return false
	}
	return !container.NetworkMode(mode).IsContainer()
}

// networking merges --network with the flags that speak of the first network.
func (f *Flags) networking() (container.NetworkMode, *network.NetworkingConfig, error) {
	nets := f.networks.vals
	if len(nets) == 0 {
		nets = []attachment{{target: "default"}}
	} else {
		nets = append([]attachment(nil), nets...)
	}
	hasUser, hasOther := false, false
	eps := map[string]*network.EndpointSettings{}
	for i := range nets {
		n := &nets[i]
		if userDefined(n.target) {
			hasUser = true
		} else {
			hasOther = true
		}
		if i == 0 {
			if err := f.firstNetwork(n); err != nil {
				return "", nil, err
			}
		}
		ep, err := n.endpoint()
		if err != nil {
			return "", nil, err
		}
		if len(f.networks.vals) == 1 && reflect.DeepEqual(*ep, network.EndpointSettings{}) {
			// Nothing is said about the one network: the daemon makes the endpoint itself.
			continue
		}
		if _, dup := eps[n.target]; dup {
			return "", nil, fmt.Errorf("network %q is specified multiple times", n.target)
		}
		eps[n.target] = ep
	}
	if hasUser && hasOther {
		return "", nil, errors.New("conflicting options: cannot attach both user-defined and non-user-defined network-modes")
	}
	return container.NetworkMode(nets[0].target), &network.NetworkingConfig{EndpointsConfig: eps}, nil
}

func (f *Flags) firstNetwork(n *attachment) error {
	both := func(flag, what string) error {
		return fmt.Errorf("conflicting options: cannot specify both %s and per-network %s", flag, what)
	}
	if len(n.aliases) > 0 && len(f.netAlias.All()) > 0 {
		return both("--network-alias", "alias")
	}
	if n.ip != "" && f.ip != "" {
		return both("--ip", "IPv4 address")
	}
	if n.ip6 != "" && f.ip6 != "" {
		return both("--ip6", "IPv6 address")
	}
	if n.mac != "" && f.mac != "" {
		return both("--mac-address", "MAC address")
	}
	if len(n.linkLocal) > 0 && len(f.linkLocal.All()) > 0 {
		return both("--link-local-ip", "link-local IP addresses")
	}
	if v := f.netAlias.All(); len(v) > 0 {
		n.aliases = v
	}
	if v := f.link.All(); len(v) > 0 && userDefined(n.target) {
		n.links = v
	}
	if f.ip != "" {
		n.ip = f.ip
	}
	if f.ip6 != "" {
		n.ip6 = f.ip6
	}
	if f.mac != "" {
		n.mac = f.mac
	}
	if v := f.linkLocal.All(); len(v) > 0 {
		n.linkLocal = v
	}
	return nil
}

func (a *attachment) endpoint() (*network.EndpointSettings, error) {
	if strings.TrimSpace(a.target) == "" {
		return nil, errors.New("no name set for network")
	}
	if !userDefined(a.target) {
		if len(a.aliases) > 0 {
			return nil, fmt.Errorf("network-scoped aliases are only supported for user-defined networks")
		}
		if len(a.links) > 0 {
			return nil, fmt.Errorf("links are only supported for user-defined networks")
		}
	}
	ep := &network.EndpointSettings{
		Aliases: a.aliases, Links: a.links, DriverOpts: a.driverOpts, GwPriority: a.gwPriority,
	}
	addr := func(s string) (netip.Addr, error) {
		if s == "" {
			return netip.Addr{}, nil
		}
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return ip, fmt.Errorf("invalid IP address: %s", s)
		}
		return ip, nil
	}
	if a.ip != "" || a.ip6 != "" || len(a.linkLocal) > 0 {
		ip, err := addr(a.ip)
		if err != nil {
			return nil, err
		}
		ip6, err := addr(a.ip6)
		if err != nil {
			return nil, err
		}
		ll, err := parseAddrs(a.linkLocal)
		if err != nil {
			return nil, err
		}
		ep.IPAMConfig = &network.EndpointIPAMConfig{IPv4Address: ip, IPv6Address: ip6, LinkLocalIPs: ll}
	}
	if a.mac != "" {
		hw, err := net.ParseMAC(strings.TrimSpace(a.mac))
		if err != nil {
			return nil, fmt.Errorf("%s is not a valid mac address", a.mac)
		}
		ep.MacAddress = network.HardwareAddr(hw)
	}
	return ep, nil
}
