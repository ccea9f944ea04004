package cgroup

import (
	"bytes"
	"errors"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// delegateList names the files that an owner may be given (cgroups(7)).
const delegateList = "/sys/kernel/cgroup/delegate"

// Delegate gives the cgroup to a user of the host: its directory, and those of its
// files by which he manages cgroups below it, but none that is a limit of it. Nothing
// on version 1, where that is not safe.
func (g *Group) Delegate(uid int) error {
	if !g.sys.Unified() {
		return nil
	}
	names := []string{"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"}
	if b, err := readFile(delegateList); err == nil {
		names = parseDelegate(b)
	}
	dir := g.dirs[""]
	if err := unix.Lchown(dir, uid, -1); err != nil {
		return err
	}
	for _, n := range names {
		// Not every cgroup has all of them.
		if err := unix.Lchown(filepath.Join(dir, n), uid, -1); err != nil && !errors.Is(err, unix.ENOENT) {
			return err
		}
	}
	return nil
}

// parseDelegate reads the kernel's list; what is no name of a file is left out.
func parseDelegate(b []byte) (out []string) {
	for line := range bytes.Lines(b) {
		n := strings.TrimSpace(string(line))
		if n != "" && n != "." && n != ".." && !strings.Contains(n, "/") {
			out = append(out, n)
		}
	}
	return out
}
