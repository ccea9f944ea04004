package ocicli

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// procStat is what /proc/PID/stat says of a process (proc(5)).
type procStat struct {
	state byte
	// start is in clock ticks since boot: with the pid it names a process for ever.
	start uint64
}

// parseStat parses a stat line. The name in parentheses may hold anything.
func parseStat(b []byte) (procStat, error) {
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return procStat{}, errors.New("malformed stat line")
	}
	f := strings.Fields(string(b[i+1:]))
	const state, start = 0, 19 // fields 3 and 22
	if len(f) <= start || len(f[state]) != 1 {
		return procStat{}, errors.New("malformed stat line")
	}
	n, err := strconv.ParseUint(f[start], 10, 64)
	if err != nil {
		return procStat{}, errors.New("malformed stat line")
	}
	return procStat{state: f[state][0], start: n}, nil
}

func readStat(pid int) (procStat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return procStat{}, err
	}
	return parseStat(b)
}

// alive tells whether the process is still that one, and no zombie.
func alive(pid int, start uint64) bool {
	if pid <= 0 {
		return false
	}
	st, err := readStat(pid)
	return err == nil && st.start == start && st.state != 'Z' && st.state != 'X'
}

// openProcess returns a pidfd of the process if it is still that one. The check
// comes after the open: then the number cannot pass to another.
func openProcess(pid int, start uint64) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, errNotRunning
	}
	if !alive(pid, start) {
		unix.Close(fd)
		return nil, errNotRunning
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}
