package validate

import (
	"regexp"
	"strconv"
	"time"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/network"
)

// The options of networks of all drivers that say which families they have, in Docker's words.
const (
	optEnableIPv4 = "com.docker.network.enable_ipv4"
	optEnableIPv6 = "com.docker.network.enable_ipv6"
)

// CheckConfig holds Docker's rules of configuration networks, in its words and order. Errors
// are of class Forbidden.
func CheckConfig(r network.CreateRequest) error {
	if r.ConfigOnly && (r.Ingress || r.Internal || r.Attachable || r.Scope != "") {
		return errclass.Forbidden("configuration network can only contain network specific fields. Network operator fields like [ ingress | internal | attachable | scope ] are not supported.")
	}
	if r.ConfigFrom == nil || r.ConfigFrom.Network == "" {
		return nil
	}
	i := r.IPAM
	switch {
	case r.ConfigOnly:
		return errclass.Forbidden("a configuration network cannot depend on another configuration network")
	case i != nil && (i.Driver != "" && i.Driver != "default" || len(i.Options) > 0 || len(i.Config) > 0),
		r.EnableIPv4 != nil && !*r.EnableIPv4, r.EnableIPv6 != nil && *r.EnableIPv6, len(r.Labels) > 0:
		return errclass.Forbidden("user specified configurations are not supported if the network depends on a configuration network")
	case len(r.Options) > 0:
		return errclass.Forbidden("network driver options are not supported if the network depends on a configuration network")
	}
	return nil
}

// Until reads a moment: a duration before now, a UNIX time or RFC 3339. Errors are
// of class Invalid.
func Until(v string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(v); err == nil {
		return now.Add(-d), nil
	}
	if sec, err := strconv.ParseFloat(v, 64); err == nil {
		return time.Unix(int64(sec), int64((sec-float64(int64(sec)))*1e9)), nil
	}
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, v, time.Local); err == nil {
			return t, nil
		}
	}
	return time.Time{}, errclass.Invalid("invalid until filter %q", v)
}

// Driver tells whether there can be a network of the driver and scope that are asked for.
// Errors are of the classes Unavailable, Invalid and Forbidden.
func Driver(r network.CreateRequest, d driver.Description) error {
	switch {
	case r.Ingress || r.Scope == driver.ScopeSwarm || d.Scope == driver.ScopeSwarm:
		return errclass.Unavailable("This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.")
	case r.Scope != "" && r.Scope != driver.ScopeLocal:
		return errclass.Invalid("invalid scope %q", r.Scope)
	case d.Predefined:
		return errclass.Forbidden("only one instance of %q network is allowed", r.Driver)
	}
	return nil
}

// Families decides which families a network has: by its flags, else by its options, else by
// its configuration network, which it has already. Errors are of class Invalid.
func Families(n *network.Network, r network.CreateRequest, d driver.Description) error {
	if n.ConfigFrom.Network != "" {
		return nil
	}
	for _, f := range []struct {
		flag    *bool
		opt     string
		to      *bool
		without bool
	}{{r.EnableIPv4, optEnableIPv4, &n.EnableIPv4, true}, {r.EnableIPv6, optEnableIPv6, &n.EnableIPv6, false}} {
		v, ok := n.Options[f.opt]
		switch *f.to = f.without; {
		case f.flag != nil:
			*f.to = *f.flag
		case ok:
			on, err := strconv.ParseBool(v)
			if err != nil {
				return errclass.Invalid("driver-opt %q is not a valid bool", f.opt)
			}
			*f.to = on
		}
	}
	if !n.EnableIPv4 && !n.EnableIPv6 && !d.Unaddressed {
		return errclass.Invalid("IPv4 or IPv6 must be enabled")
	}
	return nil
}

// Match compares as Docker's filters do: equal, or the value is a regular expression that
// fits somewhere. (Go's expressions take linear time, whoever wrote them.)
func Match(value, s string) bool {
	if value == s {
		return true
	}
	re, err := regexp.Compile(value)
	return err == nil && re.MatchString(s)
}
