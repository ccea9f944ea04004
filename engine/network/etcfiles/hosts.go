package etcfiles

import (
	"bytes"
	"fmt"
	"net/netip"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

// hostGateway is the word in --add-host that stands for the host's own address.
const hostGateway = "host-gateway"

// HostLine is one line of an /etc/hosts.
type HostLine struct {
	Addr  netip.Addr
	Names string
}

// ParseExtraHosts turns "name:address" (or "name=address") lines into host lines.
func ParseExtraHosts(lines []string, gateways []netip.Addr) ([]HostLine, error) {
	var out []HostLine
	for _, l := range lines {
		name, addr, ok := cutHost(l)
		if !ok || name == "" {
			return nil, errclass.Invalid("bad format for add-host: %q", l)
		}
		if addr == hostGateway {
			if len(gateways) == 0 {
				return nil, errclass.Invalid("unable to derive the IP value for host-gateway")
			}
			for _, g := range gateways {
				out = append(out, HostLine{g, name})
			}
			continue
		}
		a, err := netip.ParseAddr(strings.Trim(addr, "[]"))
		if err != nil {
			return nil, errclass.Invalid("invalid IP address in add-host: %q", addr)
		}
		out = append(out, HostLine{a, name})
	}
	return out, nil
}

func cutHost(l string) (name, addr string, ok bool) {
	if i := strings.IndexAny(l, "=:"); i >= 0 {
		return l[:i], l[i+1:], true
	}
	return "", "", false
}

// RenderHosts writes a container's /etc/hosts.
func RenderHosts(ipv6 bool, extra, own []HostLine) []byte {
	var b bytes.Buffer
	b.WriteString("127.0.0.1\tlocalhost\n")
	if ipv6 {
		b.WriteString("::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\nff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n")
	}
	for _, l := range append(extra, own...) {
		fmt.Fprintf(&b, "%s\t%s\n", l.Addr, l.Names)
	}
	return b.Bytes()
}

// HostNames is how a container calls itself in its /etc/hosts.
func HostNames(hostname, domain string) string {
	full := hostname
	if domain != "" {
		full += "." + domain
	}
	if host, _, ok := strings.Cut(full, "."); ok {
		return full + " " + host
	}
	return full
}
