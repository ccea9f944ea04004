package validate

import (
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// The real-time signals by number: libc keeps the first two for itself.
const sigRTMin, sigRTMax = 34, 64

// Signal reads a signal's name, with or without SIG, or number.
func Signal(s string) (int, error) {
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

// Stop says how to end a container: with which signal, and after how long with SIGKILL (a
// negative time: never). signal "" is the container's own; timeout, in seconds, is the
// container's own or the daemon's default when nil.
func (v *Validator) Stop(c *container.Config, signal string, timeout *int) (sig int, after time.Duration, err error) {
	if signal == "" {
		signal = c.StopSignal
	}
	if signal == "" {
		signal = "SIGTERM"
	}
	if sig, err = Signal(signal); err != nil {
		return 0, 0, err
	}
	after = v.now.Load().stopTimeout
	for _, t := range []*int{c.StopTimeout, timeout} {
		if t != nil {
			after = time.Duration(*t) * time.Second
		}
	}
	return sig, after, nil
}
