package container

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/engine/container/spec"
	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

const (
	sigKill = int(unix.SIGKILL)
	sigTerm = int(unix.SIGTERM)
	// The real-time signals by number: libc keeps the first two for itself.
	sigRTMin, sigRTMax = 34, 64
)

// parseSignal reads a signal's name, with or without SIG, or number.
func parseSignal(s string) (int, error) {
	bad := func() (int, error) { return 0, errclass.Invalid("invalid signal: %s", s) }
	if n, err := strconv.Atoi(s); err == nil {
		if n <= 0 || n > sigRTMax {
			return bad()
		}
		return n, nil
	}
	name := strings.ToUpper(s)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	if n := unix.SignalNum(name); n != 0 {
		return int(n), nil
	}
	for _, b := range []struct {
		name string
		base int
		sign int
	}{{"SIGRTMIN", sigRTMin, 1}, {"SIGRTMAX", sigRTMax, -1}} {
		rest, ok := strings.CutPrefix(name, b.name)
		if !ok {
			continue
		}
		if rest == "" {
			return b.base, nil
		}
		d, err := strconv.Atoi(rest)
		if n := b.base + d; err == nil && d*b.sign > 0 && n >= sigRTMin && n <= sigRTMax {
			return n, nil
		}
	}
	return bad()
}

// prefixed is an error with words before it that keeps its class.
type prefixed struct {
	words string
	err   error
}

func (p *prefixed) Error() string { return p.words + p.err.Error() }
func (p *prefixed) Unwrap() error { return p.err }

func prefix(words string, err error) error {
	if err == nil {
		return nil
	}
	return &prefixed{words, err}
}

func trimSlash(name string) string { return strings.TrimPrefix(name, "/") }

func utoa(n uint16) string { return strconv.Itoa(int(n)) }

// heldCapabilities reads the daemon's own bounding set by names the spec knows.
func heldCapabilities() ([]string, error) {
	f, err := os.Open("/proc/self/status")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sc := bufio.NewScanner(f)
	for sc.Scan() {
		hex, ok := strings.CutPrefix(sc.Text(), "CapEff:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64)
		if err != nil {
			return nil, fmt.Errorf("reading /proc/self/status: %w", err)
		}
		var held []string
		for i, c := range spec.KnownCaps() {
			if bits&(1<<i) != 0 {
				held = append(held, c)
			}
		}
		return held, nil
	}
	return nil, fmt.Errorf("reading /proc/self/status: no capabilities: %w", sc.Err())
}

// bootTime is when the machine came up; the zero time when that cannot be told.
func bootTime() time.Time {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(ts.Nano()))
}
