package spec

import (
	"slices"
	"strings"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Docker's default capabilities.
func defaultCaps() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW",
		"CAP_SETGID", "CAP_SETUID", "CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE",
		"CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
	}
}

// KnownCaps lists all capabilities by number (capabilities(7)).
func KnownCaps() []string {
	return []string{
		"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID",
		"CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE",
		"CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW",
		"CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT",
		"CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE",
		"CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
		"CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE",
		"CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ",
		"CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
	}
}

// NormalizeCaps gives capabilities their full names; what is "CapAdd" or "CapDrop" for
// the message. Errors are of class InvalidArgument.
func NormalizeCaps(what string, list []string) ([]string, error) {
	var out []string
	known := KnownCaps()
	for _, c := range list {
		c = strings.ToUpper(c)
		if c != "ALL" {
			if !strings.HasPrefix(c, "CAP_") {
				c = "CAP_" + c
			}
			if !slices.Contains(known, c) {
				return nil, invalid("invalid %s: unknown capability: %q", what, c)
			}
		}
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out, nil
}

// Capabilities is the bounding set that the flags ask for. held are the daemon's own:
// ALL and the defaults never ask for more; what is named alone stays, so that the
// runtime can say what is missing.
func Capabilities(add, drop []string, privileged bool, held []string) ([]string, error) {
	has := func(c string) bool { return slices.Contains(held, c) }
	all := slices.DeleteFunc(KnownCaps(), func(c string) bool { return !has(c) })
	if privileged {
		return all, nil
	}
	add, err := NormalizeCaps("CapAdd", add)
	if err != nil {
		return nil, err
	}
	if drop, err = NormalizeCaps("CapDrop", drop); err != nil {
		return nil, err
	}
	var set []string
	switch {
	case slices.Contains(add, "ALL"):
		set = all
	case slices.Contains(drop, "ALL"):
	default:
		set = slices.DeleteFunc(defaultCaps(), func(c string) bool { return !has(c) })
	}
	// Dropping wins over ALL, naming wins over dropping ALL.
	set = slices.DeleteFunc(set, func(c string) bool { return slices.Contains(drop, c) })
	for _, c := range add {
		if c != "ALL" && !slices.Contains(set, c) && !slices.Contains(drop, c) {
			set = append(set, c)
		}
	}
	return set, nil
}

// processCaps: as execve would, a user that is not root starts with none in force. The
// inheritable and ambient sets are always empty (CVE-2022-24769).
func processCaps(caps []string, uid uint32) *specs.LinuxCapabilities {
	if uid != 0 {
		return &specs.LinuxCapabilities{Bounding: caps}
	}
	return &specs.LinuxCapabilities{Bounding: caps, Permitted: caps, Effective: caps}
}
