package ports

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/network"
)

// PortRequest asks for one published port (one -p): a container's port, the host addresses it
// is wanted on, and the numbers allowed there; the same number on all of them.
type PortRequest struct {
	Proto         string // "tcp", "udp" or "sctp"
	ContainerPort uint16
	HostIPs       []netip.Addr
	// First and Last bound the numbers; 0 and 0 is any free ephemeral one.
	First, Last uint16
	// Count above 1 asks for that many ports in a row, from First on (Last is not
	// looked at). They are taken as one, without sockets: thousands of them would cost
	// more than they keep away.
	Count uint16
	// Gate asks for a socket on a row's first port where the address is IPv6, for what
	// the firewall leads there.
	Gate bool
	// ContainerIP is where it leads, for error texts.
	ContainerIP netip.Addr
}

// to is where it leads, for error texts ("172.17.0.2:80").
func (r PortRequest) to() string { return netip.AddrPortFrom(r.ContainerIP, r.ContainerPort).String() }

// RowMin is how many ports in a row are taken as one: below it each has a socket, which
// shows other programs that it is taken and serves what the kernel cannot translate. Of a
// row the first port has one at most, which serves all of them.
const RowMin = 64

// Requests turns what the API asked for (bindings by port; with all, every exposed port) into
// requests, on bind where no address is named, those with a fixed number first: an
// arbitrary choice must not take a number that somebody named. inRows allows many ports in
// a row to be one request. Errors are of class Invalid.
func Requests(wanted network.PortMap, exposed network.PortSet, all bool, bind netip.Addr, v6, inRows bool) ([]PortRequest, error) {
	var out []PortRequest
	for port, bindings := range wanted {
		if len(bindings) == 0 {
			continue // exposed only
		}
		for _, b := range bindings {
			w := PortRequest{Proto: string(port.Proto()), ContainerPort: port.Num()}
			var err error
			if w.First, w.Last, err = parseHostPort(b.HostPort); err != nil {
				return nil, err
			}
			w.HostIPs = hostAddrs(b.HostIP, bind, v6)
			out = append(out, w)
		}
	}
	if all {
		for port := range exposed {
			if len(wanted[port]) == 0 {
				out = append(out, PortRequest{Proto: string(port.Proto()), ContainerPort: port.Num(), HostIPs: hostAddrs(netip.Addr{}, bind, v6)})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b PortRequest) int {
		return cmp.Or(cmp.Compare(a.freedom(), b.freedom()), cmp.Compare(a.ContainerPort, b.ContainerPort),
			cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First))
	})
	if !inRows {
		return out, nil
	}
	return rows(out), nil
}

// rows puts requests together that ask for many ports in a row, the same on both sides or
// shifted; the others stay, in order.
func rows(in []PortRequest) []PortRequest {
	if len(in) < RowMin {
		return in
	}
	type line struct {
		proto string
		addrs string
		shift int
	}
	lines := map[line][]int{} // indexes of in, ascending by port
	for i, w := range in {
		if w.First != 0 && w.First == w.Last {
			k := line{w.Proto, fmt.Sprint(w.HostIPs), int(w.First) - int(w.ContainerPort)}
			lines[k] = append(lines[k], i)
		}
	}
	merged := map[int]uint16{} // index of a row's first request: its length; 0: part of a row
	for _, at := range lines {
		for i := 0; i < len(at); {
			n := 1
			for i+n < len(at) && in[at[i+n]].First == in[at[i]].First+uint16(n) {
				n++
			}
			for k := range n {
				if n >= RowMin {
					merged[at[i+k]] = 0
				}
			}
			if n >= RowMin {
				merged[at[i]] = uint16(n)
			}
			i += n
		}
	}
	var out []PortRequest
	for i, w := range in {
		n, ok := merged[i]
		if ok && n == 0 {
			continue
		}
		w.Count = n
		out = append(out, w)
	}
	return out
}

// freedom orders fixed numbers before ranges before any.
func (r PortRequest) freedom() int {
	if r.First == 0 {
		return 1 << 17
	}
	return int(r.Last - r.First)
}

func hostAddrs(want, bind netip.Addr, v6 bool) []netip.Addr {
	if !want.IsValid() && bind.IsValid() && !bind.IsUnspecified() {
		want = bind
	}
	switch {
	case want.IsValid():
		return []netip.Addr{want.Unmap()}
	case v6:
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	default:
		return []netip.Addr{netip.IPv4Unspecified()}
	}
}

// parseHostPort reads a host port: "", "8080" or "8000-8010".
func parseHostPort(s string) (first, last uint16, err error) {
	if s == "" || s == "0" {
		return 0, 0, nil
	}
	lo, hi, isRange := strings.Cut(s, "-")
	if !isRange {
		hi = lo
	}
	a, errA := strconv.ParseUint(lo, 10, 16)
	b, errB := strconv.ParseUint(hi, 10, 16)
	if errA != nil || errB != nil || a > b || a == 0 {
		return 0, 0, errclass.Invalid("invalid port specification: %q", s)
	}
	return uint16(a), uint16(b), nil
}
