package ports

import (
	"bufio"
	"encoding/binary"
	"encoding/hex"
	"io"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
)

// takeRow takes several ports in a row on all addresses, or nothing.
func (t *Table) takeRow(container string, r PortRequest) (_ []Mapping, err error) {
	var got []Mapping
	defer func() {
		if err != nil {
			t.Release(got)
		}
	}()
	busy := inUse(r.Proto)
	for _, a := range r.HostIPs {
		m := Mapping{Proto: r.Proto, HostIP: a, HostPort: r.First, ContainerPort: r.ContainerPort, Count: r.Count, Gate: r.Gate && a.Is6()}
		if err := t.reserve(container, m); err != nil {
			return nil, err
		}
		got = append(got, m)
		if m.Gate {
			if err := t.open(m); err != nil {
				return nil, bindError(r, a, m.HostPort, err)
			}
		}
		// What the list tells may be on another address: binding decides.
		for _, port := range busy {
			if port < m.HostPort || port > m.last() || port == m.HostPort && m.Gate {
				continue
			}
			f, err := t.bind(r.Proto, netip.AddrPortFrom(a, port))
			if err != nil {
				return nil, bindError(r.nth(port), a, port, err)
			}
			if f != nil {
				f.Close()
			}
		}
	}
	return got, nil
}

// nth is the request of one port of a row, for error texts.
func (r PortRequest) nth(port uint16) PortRequest {
	r.ContainerPort += port - r.First
	return r
}

// inUse lists the local ports of the namespace's sockets: of the kernel's list, which
// costs one read where binding thousands of ports to try them costs thousands of calls.
func inUse(proto string) []uint16 {
	var out []uint16
	for _, name := range []string{proto, proto + "6"} {
		f, err := os.Open("/proc/thread-self/net/" + name)
		if err != nil {
			continue // a kernel without IPv6, or a protocol without a list
		}
		out = append(out, localPorts(f)...)
		f.Close()
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// localPorts reads /proc/net/tcp, udp and their IPv6 forms (proc_net_tcp(5)).
// Connected sockets are left out: they keep nobody from listening.
func localPorts(r io.Reader) []uint16 {
	var out []uint16
	sc := bufio.NewScanner(r)
	for sc.Scan() {
		f := strings.Fields(sc.Text())
		if len(f) < 4 || strings.Trim(portless(f[2]), "0") != "" {
			continue
		}
		_, hexPort, ok := strings.Cut(f[1], ":")
		if b, err := hex.DecodeString(hexPort); ok && err == nil && len(b) == 2 {
			out = append(out, binary.BigEndian.Uint16(b))
		}
	}
	return out
}

// portless is an address of such a list without its port; the heading has none.
func portless(s string) string {
	a, _, ok := strings.Cut(s, ":")
	if _, err := strconv.ParseUint(a[:min(len(a), 8)], 16, 32); !ok || err != nil {
		return "x"
	}
	return a
}
