// Package mountopt translates the mount options that are not a file system's own to flags.
package mountopt

import (
	"slices"

	"golang.org/x/sys/unix"
)

// Attributes are the MOUNT_ATTR_* that a mount option sets and clears.
type Attributes struct{ Set, Clear uint64 }

// Attr returns what a mount option does to the mount's attributes (mount(8),
// "filesystem-independent mount options"; mount_setattr(2)).
func Attr(o string) (Attributes, bool) {
	const atime = unix.MOUNT_ATTR__ATIME
	switch o {
	case "ro":
		return Attributes{Set: unix.MOUNT_ATTR_RDONLY}, true
	case "rw":
		return Attributes{Clear: unix.MOUNT_ATTR_RDONLY}, true
	case "nosuid":
		return Attributes{Set: unix.MOUNT_ATTR_NOSUID}, true
	case "suid":
		return Attributes{Clear: unix.MOUNT_ATTR_NOSUID}, true
	case "nodev":
		return Attributes{Set: unix.MOUNT_ATTR_NODEV}, true
	case "dev":
		return Attributes{Clear: unix.MOUNT_ATTR_NODEV}, true
	case "noexec":
		return Attributes{Set: unix.MOUNT_ATTR_NOEXEC}, true
	case "exec":
		return Attributes{Clear: unix.MOUNT_ATTR_NOEXEC}, true
	case "noatime":
		return Attributes{Set: unix.MOUNT_ATTR_NOATIME, Clear: atime}, true
	case "atime", "norelatime", "nostrictatime", "relatime":
		return Attributes{Clear: atime}, true // relatime is the kernel's default
	case "strictatime":
		return Attributes{Set: unix.MOUNT_ATTR_STRICTATIME, Clear: atime}, true
	case "nodiratime":
		return Attributes{Set: unix.MOUNT_ATTR_NODIRATIME}, true
	case "diratime":
		return Attributes{Clear: unix.MOUNT_ATTR_NODIRATIME}, true
	case "nosymfollow":
		return Attributes{Set: unix.MOUNT_ATTR_NOSYMFOLLOW}, true
	case "symfollow":
		return Attributes{Clear: unix.MOUNT_ATTR_NOSYMFOLLOW}, true
	}
	return Attributes{}, false
}

// Propagation returns MS_* and whether it is recursive.
func Propagation(o string) (prop uint64, rec, ok bool) {
	switch o {
	case "private", "rprivate":
		prop = unix.MS_PRIVATE
	case "shared", "rshared":
		prop = unix.MS_SHARED
	case "slave", "rslave":
		prop = unix.MS_SLAVE
	case "unbindable", "runbindable":
		prop = unix.MS_UNBINDABLE
	default:
		return 0, false, false
	}
	return prop, o[0] == 'r', true
}

// Names are the mount options this runtime handles itself, sorted; others
// go to the file system as they are.
func Names() []string {
	out := []string{"bind", "rbind", "tmpcopyup", "defaults", "loud", "nomand", "noiversion", "iversion", "nolazytime", "acl", "noacl", "remount", "async", "sync", "dirsync", "lazytime", "silent", "mand", "idmap", "ridmap"}
	for _, o := range [...]string{
		"ro", "rw", "nosuid", "suid", "nodev", "dev", "noexec", "exec", "noatime", "atime", "norelatime",
		"nostrictatime", "relatime", "strictatime", "nodiratime", "diratime", "nosymfollow", "symfollow",
	} {
		if _, ok := Attr(o); ok {
			out = append(out, o, "r"+o)
		}
	}
	for _, o := range [...]string{"private", "shared", "slave", "unbindable"} {
		out = append(out, o, "r"+o)
	}
	slices.Sort(out)
	return out
}
