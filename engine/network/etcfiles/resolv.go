// Package etcfiles writes the resolv.conf and hosts files of containers.
package etcfiles

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// ResolvConf is what a resolv.conf(5) says, and what was done to it: the file of a
// container tells that in comments, in Docker's words.
type ResolvConf struct {
	Servers []netip.Addr
	Search  []string
	Options []string

	path      string   // the host's file
	other     []string // lines that are passed on as they are
	invalid   []string // servers that are none
	override  [3]bool  // servers, search, options are not the host's
	ndotsFrom string
	transform string
	warning   string
	external  []netip.Addr // whom the engine's resolver asks
}

// fallbackDNS is what containers ask when the host names nothing but its own loopback
// resolvers, which no container can reach; as Docker does.
func fallbackDNS(ipv6 bool) []netip.Addr {
	out := []netip.Addr{netip.AddrFrom4([4]byte{8, 8, 8, 8}), netip.AddrFrom4([4]byte{8, 8, 4, 4})}
	if ipv6 {
		google := [16]byte{0x20, 0x01, 0x48, 0x60, 0x48, 0x60}
		for _, last := range []byte{0x88, 0x44} {
			google[14], google[15] = 0x88, last
			out = append(out, netip.AddrFrom16(google))
		}
	}
	return out
}

// ParseResolvConf reads a resolv.conf; what it does not know it passes on. path is named in
// what is made of it.
func ParseResolvConf(path string, data []byte) ResolvConf {
	rc := ResolvConf{path: path}
	for line := range bytes.Lines(data) {
		f := strings.Fields(string(line))
		if len(f) == 0 || strings.HasPrefix(f[0], "#") || strings.HasPrefix(f[0], ";") {
			continue
		}
		switch known := len(f) > 1; f[0] {
		case "nameserver":
			if !known {
				break
			}
			if a, err := netip.ParseAddr(f[1]); err == nil {
				rc.Servers = append(rc.Servers, a)
			} else {
				rc.invalid = append(rc.invalid, f[1])
			}
		case "search", "domain":
			if known {
				rc.Search = f[1:]
			}
		case "options":
			rc.Options = append(rc.Options, f[1:]...)
		default:
			if !strings.ContainsFunc(strings.Join(f, " "), unicode.IsControl) {
				rc.other = append(rc.other, strings.Join(f, " "))
			}
		}
	}
	if rc.Ndots() {
		rc.ndotsFrom = "host"
	}
	return rc
}

// Override puts a container's settings, else the daemon's, in place of the host's.
func (rc ResolvConf) Override(servers []netip.Addr, search, options []string) ResolvConf {
	if len(servers) > 0 {
		rc.Servers, rc.override[0] = servers, true
	}
	if len(search) > 0 {
		// "." asks for no search domains at all
		rc.Search = slices.DeleteFunc(slices.Clone(search), func(s string) bool { return s == "." })
		rc.override[1] = true
	}
	if len(options) > 0 {
		rc.Options, rc.override[2], rc.ndotsFrom = options, true, ""
		if rc.Ndots() {
			rc.ndotsFrom = "override"
		}
	}
	return rc
}

// Reachable drops those of the host's servers that a container cannot reach: on the host's
// loopback, and IPv6 ones when it has no IPv6; with none left it uses the fallback. Servers
// that somebody chose stay.
func (rc ResolvConf) Reachable(ipv6 bool) ResolvConf {
	rc.transform = "legacy"
	if rc.override[0] {
		return rc
	}
	rc.Servers = slices.DeleteFunc(slices.Clone(rc.Servers), func(a netip.Addr) bool {
		return a.IsLoopback() || a.Is6() && (!ipv6 || a.Zone() != "")
	})
	if len(rc.Servers) == 0 {
		rc.Servers, rc.warning = fallbackDNS(ipv6), "Used default nameservers."
	}
	return rc
}

// Internal makes the container ask the engine's resolver, which asks the servers in turn.
// Names of one label are asked first as they are: containers have such names.
func (rc ResolvConf) Internal(resolver netip.Addr) ResolvConf {
	rc.transform = "internal resolver"
	if rc.external = rc.Servers; len(rc.external) == 0 {
		rc.warning = "NO EXTERNAL NAMESERVERS DEFINED"
	}
	rc.Servers = []netip.Addr{resolver}
	rc.Options = slices.DeleteFunc(slices.Clone(rc.Options), func(o string) bool {
		v, ok := strings.CutPrefix(o, "ndots:")
		n, err := strconv.Atoi(v)
		return ok && (err != nil || n < 0)
	})
	if !rc.Ndots() {
		rc.Options, rc.ndotsFrom = append(rc.Options, "ndots:0"), "internal"
	}
	return rc
}

// Ndots tells whether the options choose ndots.
func (rc ResolvConf) Ndots() bool {
	return slices.ContainsFunc(rc.Options, func(o string) bool { return strings.HasPrefix(o, "ndots:") })
}

// Render writes the file for a container, as Docker writes it.
func (rc ResolvConf) Render() []byte {
	var b bytes.Buffer
	b.WriteString(generated + "# This file can be edited; Docker Engine will not make further changes once it\n# has been modified.\n\n")
	for _, a := range rc.Servers {
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	if len(rc.Search) > 0 {
		fmt.Fprintf(&b, "search %s\n", strings.Join(rc.Search, " "))
	}
	if len(rc.Options) > 0 {
		fmt.Fprintf(&b, "options %s\n", strings.Join(rc.Options, " "))
	}
	for _, l := range rc.other {
		fmt.Fprintf(&b, "%s\n", l)
	}
	fmt.Fprintf(&b, "\n# Based on host file: '%s'", rc.path)
	if rc.transform != "" {
		fmt.Fprintf(&b, " (%s)", rc.transform)
	}
	b.WriteByte('\n')
	if rc.warning != "" {
		fmt.Fprintf(&b, "# %s\n", rc.warning)
	}
	if len(rc.external) > 0 {
		fmt.Fprintf(&b, "# ExtServers: %v\n", rc.externals())
	}
	if len(rc.invalid) > 0 {
		fmt.Fprintf(&b, "# Invalid nameservers: %v\n", rc.invalid)
	}
	var changed []string
	for i, what := range []string{"nameservers", "search", "options"} {
		if rc.override[i] {
			changed = append(changed, what)
		}
	}
	fmt.Fprintf(&b, "# Overrides: %v\n", changed)
	if rc.ndotsFrom != "" {
		fmt.Fprintf(&b, "# Option ndots from: %s\n", rc.ndotsFrom)
	}
	return b.Bytes()
}

// externals are the resolver's own servers; what the host named is asked as the host does.
func (rc ResolvConf) externals() []string {
	var out []string
	for _, a := range rc.external {
		if rc.override[0] {
			out = append(out, a.String())
		} else {
			out = append(out, "host("+a.String()+")")
		}
	}
	return out
}

// Generated tells whether a file is one of ours, by its first line.
func Generated(data []byte) bool {
	return bytes.HasPrefix(data, []byte(generated)) || bytes.HasPrefix(data, []byte("# Generated by Gantry.\n"))
}

const generated = "# Generated by Docker Engine.\n"
