// Package links implements Docker's links on the default bridge: it parses them and derives
// their environment variables and the lines of the hosts file.
package links

import (
	"bytes"
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	networktypes "github.com/moby/moby/api/types/network"
)

// Parse reads "name:alias", "name", and what inspect shows: "/name:/parent/alias".
// Errors are of class Invalid.
func Parse(l string) (name, alias string, err error) {
	if l == "" {
		return "", "", errclass.Invalid("empty string specified for links")
	}
	name, alias, ok := strings.Cut(l, ":")
	if strings.Contains(alias, ":") {
		return "", "", errclass.Invalid("bad format for links: %s", l)
	}
	if !ok {
		return name, name, nil
	}
	if shown, ok := strings.CutPrefix(name, "/"); ok {
		return shown, path.Base(alias), nil
	}
	return name, alias, nil
}

// Vars are the variables of one link, as Docker has made them since 2013: the first
// port, each port, where runs of ports begin and end, and the other's own variables.
func Vars(name, ip string, env []string, exposed networktypes.PortSet) []string {
	alias := strings.ReplaceAll(strings.ToUpper(path.Base(name)), "-", "_")
	ports := make([]networktypes.Port, 0, len(exposed))
	for p := range exposed {
		ports = append(ports, p)
	}
	tcpFirst := func(p networktypes.Port) string {
		if p.Proto() == networktypes.TCP {
			return ""
		}
		return string(p.Proto())
	}
	slices.SortFunc(ports, func(a, b networktypes.Port) int {
		return cmp.Or(cmp.Compare(tcpFirst(a), tcpFirst(b)), cmp.Compare(a.Num(), b.Num()))
	})
	url := func(p networktypes.Port) string { return fmt.Sprintf("%s://%s:%d", p.Proto(), ip, p.Num()) }
	prefix := func(p networktypes.Port) string {
		return fmt.Sprintf("%s_PORT_%d_%s", alias, p.Num(), strings.ToUpper(string(p.Proto())))
	}
	var out []string
	first := 0 // of the run that i belongs to
	for i, p := range ports {
		if i == 0 {
			out = append(out, alias+"_PORT="+url(p))
		}
		if i > 0 && (ports[i-1].Proto() != p.Proto() || ports[i-1].Num()+1 != p.Num()) {
			first = i
		}
		k := prefix(p)
		out = append(out, k+"="+url(p), k+"_ADDR="+ip, fmt.Sprintf("%s_PORT=%d", k, p.Num()), k+"_PROTO="+string(p.Proto()))
		last := i == len(ports)-1 || ports[i+1].Proto() != p.Proto() || ports[i+1].Num() != p.Num()+1
		if last && i > first {
			k, s := prefix(ports[first]), ports[first]
			out = append(out, k+"_START="+url(s), fmt.Sprintf("%s_PORT_START=%d", k, s.Num()),
				k+"_END="+url(p), fmt.Sprintf("%s_PORT_END=%d", k, p.Num()))
		}
	}
	out = append(out, alias+"_NAME="+name)
	for _, e := range env {
		if k, v, ok := strings.Cut(e, "="); ok && k != "HOME" && k != "PATH" {
			out = append(out, alias+"_ENV_"+k+"="+v)
		}
	}
	return out
}

// Readdress puts new addresses into the lines of a hosts file that begin with a name; an
// invalid one leaves lines of its family as they are.
func Readdress(hosts []byte, name string, v4, v6 netip.Addr) []byte {
	var out []byte
	for line := range bytes.Lines(hosts) {
		old, names, ok := bytes.Cut(line, []byte("\t"))
		if was, err := netip.ParseAddr(string(old)); ok && err == nil {
			now := v4
			if was.Is6() {
				now = v6
			}
			if f := strings.Fields(string(names)); now.IsValid() && len(f) > 1 && f[0] == name {
				line = append([]byte(now.String()+"\t"), names...)
			}
		}
		out = append(out, line...)
	}
	return out
}

// Drop leaves out the lines of a hosts file that begin with a name.
func Drop(hosts []byte, name string) []byte {
	var out []byte
	for line := range bytes.Lines(hosts) {
		if f := bytes.Fields(line); len(f) < 3 || string(f[1]) != name {
			out = append(out, line...)
		}
	}
	return out
}
