// Package signum translates between names and numbers of signals.
package signum

import (
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Parse parses a signal: a number, or a name with or without SIG, as runc takes it.
func Parse(s string) (unix.Signal, error) {
	if n, err := strconv.Atoi(s); err == nil {
		if n < 0 || n > Max {
			return 0, fmt.Errorf("unknown signal %q", s)
		}
		return unix.Signal(n), nil
	}
	name := strings.TrimPrefix(strings.ToUpper(s), "SIG")
	if n := unix.SignalNum("SIG" + name); n != 0 {
		return n, nil
	}
	rt, ok := strings.CutPrefix(name, "RTMIN")
	base, sign := rtMin, 1
	if !ok {
		if rt, ok = strings.CutPrefix(name, "RTMAX"); !ok {
			return 0, fmt.Errorf("unknown signal %q", s)
		}
		base, sign = Max, -1
	}
	if rt == "" {
		return unix.Signal(base), nil
	}
	n, err := strconv.ParseUint(rt[1:], 10, 6)
	if err != nil || sign > 0 != (rt[0] == '+') || rt[0] != '+' && rt[0] != '-' || int(n) > Max-rtMin {
		return 0, fmt.Errorf("unknown signal %q", s)
	}
	return unix.Signal(base + sign*int(n)), nil
}

// Real-time signals as the C library counts them (signal(7)).
const (
	rtMin = 34
	// Max is the last signal.
	Max = 64
)
