// Package userdb finds users and groups in a container's own /etc/passwd and /etc/group. The
// files are foreign: they are read by descriptor in a view of the root, which symbolic links
// do not lead out of, and parsing is bounded.
package userdb

import (
	"bytes"
	"iter"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

const (
	// maxID is the largest user or group ID: 2^32-1 means "none" to the kernel.
	maxID = 1<<32 - 2
	// maxGroups bounds supplementary groups, as NGROUPS_MAX.
	maxGroups = 65536
)

func itoa(n int) string { return strconv.Itoa(n) }

// User is a user found.
type User struct {
	UID, GID uint32
	Groups   []uint32
	Home     string
}

// Files are the contents of /etc/passwd and /etc/group.
type Files struct{ Passwd, Group []byte }

// Resolve finds "user[:group]" with further groups by name or ID. Digits always mean
// an ID, never a name, and what isn't found never falls back to root. Errors are of
// class InvalidArgument in Docker's words.
func (f Files) Resolve(spec string, more []string) (User, error) {
	name, group, hasGroup := strings.Cut(spec, ":")
	u := User{Home: "/"}
	login, err := f.user(name, &u)
	if err != nil {
		return u, err
	}
	if hasGroup && group != "" {
		if u.GID, err = f.group(group); err != nil {
			return u, err
		}
	} else if login != "" {
		u.Groups = f.memberOf(login)
	}
	for _, g := range more {
		id, err := f.group(g)
		if err != nil {
			return u, err
		}
		u.Groups = append(u.Groups, id)
	}
	return u, nil
}

// user fills in u and returns the login name when passwd has one.
func (f Files) user(name string, u *User) (string, error) {
	if name == "" {
		name = "0"
	}
	id, numeric, err := parseID(name)
	if err != nil {
		return "", errclass.Invalid("unable to find user %s: %w", name, err)
	}
	for e := range lines(f.Passwd, 7) {
		uid, ok1, err1 := parseID(e[2])
		gid, ok2, err2 := parseID(e[3])
		if !ok1 || !ok2 || err1 != nil || err2 != nil {
			continue
		}
		if numeric && uid == id || !numeric && e[0] == name {
			u.UID, u.GID = uid, gid
			if e[5] != "" {
				u.Home = e[5]
			}
			return e[0], nil
		}
	}
	if !numeric {
		return "", errclass.Invalid("unable to find user %s: no matching entries in passwd file", name)
	}
	u.UID = id
	return "", nil
}

func (f Files) group(name string) (uint32, error) {
	id, numeric, err := parseID(name)
	if err != nil {
		return 0, errclass.Invalid("unable to find group %s: %w", name, err)
	}
	if numeric {
		return id, nil
	}
	for e := range lines(f.Group, 4) {
		if gid, ok, err := parseID(e[2]); e[0] == name && ok && err == nil {
			return gid, nil
		}
	}
	return 0, errclass.Invalid("unable to find group %s: no matching entries in group file", name)
}

func (f Files) memberOf(login string) []uint32 {
	var ids []uint32
	for e := range lines(f.Group, 4) {
		if len(ids) == maxGroups {
			break
		}
		for m := range strings.SplitSeq(e[3], ",") {
			if m != login {
				continue
			}
			if gid, ok, err := parseID(e[2]); ok && err == nil {
				ids = append(ids, gid)
			}
			break
		}
	}
	return ids
}

// parseID reads a number in range; numeric tells that s is one at all.
func parseID(s string) (id uint32, numeric bool, err error) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		if len(s) > 1 && s[0] == '-' && strings.Trim(s[1:], "0123456789") == "" {
			return 0, true, errRange
		}
		return 0, false, nil
	}
	n, perr := strconv.ParseUint(s, 10, 64)
	if perr != nil || n > maxID {
		return 0, true, errRange
	}
	return uint32(n), true, nil
}

var errRange = errclass.Invalid("uids and gids must be in range 0-4294967294")

// lines yields the entries of a passwd-like file with at least n fields (the last may
// be missing); comments and NIS lines are passed over.
func lines(data []byte, n int) iter.Seq[[]string] {
	return func(yield func([]string) bool) {
		for line := range bytes.Lines(data) {
			line = bytes.TrimSpace(line)
			if len(line) == 0 || line[0] == '#' || line[0] == '+' || line[0] == '-' {
				continue
			}
			e := strings.Split(string(line), ":")
			if len(e) < n-1 || len(e) > n+8 {
				continue
			}
			for len(e) < n {
				e = append(e, "")
			}
			if !yield(e) {
				return
			}
		}
	}
}
