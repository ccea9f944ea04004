package systemd

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// deviceEntry is one of DeviceAllow: a node or a class of nodes, and what is allowed.
type deviceEntry struct {
	Path, Access string
}

// deviceProps says the rules in what systemd knows, a list of what is allowed. It
// matters on version 1, where a systemd that reloads would otherwise allow
// everything. What cannot be said is left out: the files, which are written after,
// are exact. names are /proc/devices.
func deviceProps(rules []specs.LinuxDeviceCgroup, names deviceNames) []Property {
	allowed, all := allowList(rules)
	if all {
		return []Property{prop("DevicePolicy", "auto"), prop("DeviceAllow", []deviceEntry{})}
	}
	list := []deviceEntry{}
	for _, a := range allowed {
		if p := names.path(a); p != "" {
			list = append(list, deviceEntry{p, a.access})
		}
	}
	// The empty list makes systemd forget what it had.
	return []Property{prop("DevicePolicy", "strict"), prop("DeviceAllow", []deviceEntry{}), prop("DeviceAllow", list)}
}

// allow is one kind of device; major and minor -1 mean any.
type allow struct {
	typ          string
	major, minor int64
	access       string
}

// allowList goes through the rules in their order; all: devices are allowed unless
// a rule says otherwise.
func allowList(rules []specs.LinuxDeviceCgroup) (out []allow, all bool) {
	for _, r := range rules {
		access := r.Access
		if access == "" {
			access = "rwm"
		}
		types := []string{r.Type}
		switch r.Type {
		case "a", "":
			if r.Major == nil && r.Minor == nil && len(access) == 3 {
				out, all = nil, r.Allow
				continue
			}
			types = []string{"b", "c"}
		case "u":
			types = []string{"c"}
		}
		for _, t := range types {
			a := allow{t, number64(r.Major), number64(r.Minor), access}
			if r.Allow {
				out = append(out, a)
				continue
			}
			out = slices.DeleteFunc(out, func(b allow) bool { return a.covers(b) })
		}
	}
	return out, all
}

func number64(n *int64) int64 {
	if n == nil || *n < 0 {
		return -1
	}
	return *n
}

// covers tells that a, forbidden, leaves nothing of b.
func (a allow) covers(b allow) bool {
	return a.typ == b.typ && (a.major < 0 || a.major == b.major) && (a.minor < 0 || a.minor == b.minor) &&
		strings.IndexFunc(b.access, func(r rune) bool { return !strings.ContainsRune(a.access, r) }) < 0
}

// deviceNames are the names of drivers: "c136" is "pts".
type deviceNames map[string]string

// parseDevices reads /proc/devices.
func parseDevices(r io.Reader) (deviceNames, error) {
	out := make(deviceNames)
	typ := ""
	sc := bufio.NewScanner(io.LimitReader(r, 1<<20))
	for sc.Scan() {
		line := strings.TrimSpace(sc.Text())
		switch line {
		case "Character devices:":
			typ = "c"
			continue
		case "Block devices:":
			typ = "b"
			continue
		}
		major, name, ok := strings.Cut(line, " ")
		if n, err := strconv.ParseUint(major, 10, 32); ok && err == nil && typ != "" {
			key := fmt.Sprintf("%s%d", typ, n)
			if _, twice := out[key]; !twice { // the first is the whole of the number
				out[key] = strings.TrimSpace(name)
			}
		}
	}
	return out, sc.Err()
}

// path is what DeviceAllow calls the device, "" when it has no name there.
func (n deviceNames) path(a allow) string {
	class := "char"
	if a.typ == "b" {
		class = "block"
	}
	switch {
	case a.major < 0 && a.minor < 0:
		return class + "-*"
	case a.major < 0:
		return ""
	case a.minor < 0:
		name, ok := n[fmt.Sprintf("%s%d", a.typ, a.major)]
		if !ok {
			return ""
		}
		return class + "-" + name
	}
	return fmt.Sprintf("/dev/%s/%d:%d", class, a.major, a.minor)
}
