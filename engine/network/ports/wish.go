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

// Wish is one -p: a container port, the host addresses it is wanted on, and the
// numbers allowed there.
type Wish struct {
	Port        network.Port
	Addrs       []netip.Addr
	First, Last uint16 // 0, 0: any
	Count       uint16 // above 1: as many ports in a row, First is the first
}

// RowMin is how many ports in a row are taken as one: below it each has a socket, which
// shows other programs that it is taken and serves what the kernel cannot translate. Of a
// row the first port has one at most, which serves all of them.
const RowMin = 64

// Wishes turns what was asked for (bindings by port; with all, every exposed port) into
// wishes on bind where no address is named, those with a fixed number first: an
// arbitrary choice must not take a number that somebody named. inRows allows many ports in
// a row to be one wish. Errors are of class Invalid.
func Wishes(wanted network.PortMap, exposed network.PortSet, all bool, bind netip.Addr, v6, inRows bool) ([]Wish, error) {
	var out []Wish
	for port, bindings := range wanted {
		if len(bindings) == 0 {
			continue // exposed only
		}
		for _, b := range bindings {
			w := Wish{Port: port}
			var err error
			if w.First, w.Last, err = parseHostPort(b.HostPort); err != nil {
				return nil, err
			}
			w.Addrs = hostAddrs(b.HostIP, bind, v6)
			out = append(out, w)
		}
	}
	if all {
		for port := range exposed {
			if len(wanted[port]) == 0 {
				out = append(out, Wish{Port: port, Addrs: hostAddrs(netip.Addr{}, bind, v6)})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Wish) int {
		return cmp.Or(cmp.Compare(a.freedom(), b.freedom()), cmp.Compare(a.Port.Num(), b.Port.Num()),
			cmp.Compare(a.Port.Proto(), b.Port.Proto()), cmp.Compare(a.First, b.First))
	})
	if !inRows {
		return out, nil
	}
	return rows(out), nil
}

// rows puts wishes together that ask for many ports in a row, the same on both sides or
// shifted; the others stay, in order.
func rows(in []Wish) []Wish {
	if len(in) < RowMin {
		return in
	}
	type line struct {
		proto network.IPProtocol
		addrs string
		shift int
	}
	lines := map[line][]int{} // indexes of in, ascending by port
	for i, w := range in {
		if w.First != 0 && w.First == w.Last {
			k := line{w.Port.Proto(), fmt.Sprint(w.Addrs), int(w.First) - int(w.Port.Num())}
			lines[k] = append(lines[k], i)
		}
	}
	merged := map[int]uint16{} // index of a row's first wish: its length; 0: part of a row
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
	var out []Wish
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
func (w Wish) freedom() int {
	if w.First == 0 {
		return 1 << 17
	}
	return int(w.Last - w.First)
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
