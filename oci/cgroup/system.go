// Package cgroup makes, limits, reads and removes containers' cgroups on cgroup
// v1, v2 and hybrid systems, through the file systems themselves.
//
// What a resource setting means in files is computed by pure functions (writesV1,
// writesV2, deviceProgram); the rest of the package applies them. It does not use
// github.com/opencontainers/cgroups: that costs every process of the runtime
// binary 0.3 ms and 2 MB at start, and container starts are such processes.
package cgroup

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

// System is where this machine's hierarchies are mounted. It does not change
// after Find and is safe for concurrent use.
type System struct {
	// V1 are the hierarchies of version 1; empty on a unified system.
	V1 []Hierarchy
	// V2 is the mount point of version 2: the only hierarchy when V1 is empty,
	// otherwise one without controllers beside them; "" when not mounted.
	V2 string
	// NSDelegate: version 2 is mounted so that cgroup namespaces are borders of
	// delegation (nsdelegate).
	NSDelegate bool
}

// Hierarchy is one mounted v1 hierarchy.
type Hierarchy struct {
	// Controllers as mounted together: "memory", or "cpu" and "cpuacct", or
	// "name=systemd".
	Controllers []string
	Mount       string
}

// knownControllers of version 1, as they show among the mount options.
var knownControllers = [...]string{
	"blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc",
	"net_cls", "net_prio", "perf_event", "pids", "rdma",
}

// Find reads this process's mount table. Class ErrNotFound when no cgroup file
// system is mounted.
func Find() (*System, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	defer f.Close()
	s, err := parseMountinfo(f)
	if err != nil {
		return nil, fmt.Errorf("find cgroups: %w", err)
	}
	if len(s.V1) == 0 && s.V2 == "" {
		return nil, errclass.NotFound("no cgroup file system is mounted")
	}
	return s, nil
}

// parseMountinfo picks the cgroup mounts of a mountinfo file (proc(5)). The first
// mount of a hierarchy counts.
func parseMountinfo(r io.Reader) (*System, error) {
	s := new(System)
	seen := make(map[string]bool)
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		if !bytes.Contains(sc.Bytes(), []byte(" - cgroup")) {
			continue // most, on a host with many containers
		}
		pre, post, ok := strings.Cut(sc.Text(), " - ")
		a, b := strings.Fields(pre), strings.Fields(post)
		if !ok || len(a) < 5 || len(b) < 3 {
			continue
		}
		mount := unescape(a[4])
		switch b[0] {
		case "cgroup2":
			if s.V2 == "" {
				s.V2 = mount
				s.NSDelegate = slices.Contains(strings.Split(b[2], ","), "nsdelegate")
			}
		case "cgroup":
			var h Hierarchy
			for o := range strings.SplitSeq(b[2], ",") {
				if (slices.Contains(knownControllers[:], o) || strings.HasPrefix(o, "name=")) && !seen[o] {
					seen[o] = true
					h.Controllers = append(h.Controllers, o)
				}
			}
			if len(h.Controllers) > 0 {
				h.Mount = mount
				s.V1 = append(s.V1, h)
			}
		}
	}
	return s, sc.Err()
}

// unescape undoes mountinfo's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(s)
}

// Unified tells that all controllers are on version 2.
func (s *System) Unified() bool { return len(s.V1) == 0 }

// mountOf returns the mount point of a controller ("" for version 2).
func (s *System) mountOf(controller string) (string, bool) {
	if controller == "" {
		return s.V2, s.V2 != ""
	}
	for _, h := range s.V1 {
		if slices.Contains(h.Controllers, controller) {
			return h.Mount, true
		}
	}
	return "", false
}

// Paths returns the reference of a cgroup at path (absolute and clean, below the
// mount points) in all hierarchies: controller → path, "" for version 2.
func (s *System) Paths(path string) map[string]string {
	out := make(map[string]string, 16)
	for _, h := range s.V1 {
		for _, c := range h.Controllers {
			out[c] = path
		}
	}
	if s.V2 != "" {
		out[""] = path
	}
	return out
}

// Open returns the cgroup with these paths, without touching anything. Hierarchies
// that are not mounted here are left out; paths must be clean and below the root.
func (s *System) Open(paths map[string]string) (*Group, error) {
	g := &Group{sys: s, dirs: make(map[string]string, len(paths))}
	for c, p := range paths {
		if p == "/" || !filepath.IsAbs(p) || filepath.Clean(p) != p {
			return nil, errclass.Invalid("cgroup path %q is not an absolute, clean path below the root", p)
		}
		if m, ok := s.mountOf(c); ok {
			g.dirs[c] = filepath.Join(m, p)
		}
	}
	for _, d := range g.dirs {
		if !slices.Contains(g.unique, d) {
			g.unique = append(g.unique, d)
		}
	}
	slices.Sort(g.unique)
	return g, nil
}

// Group is one cgroup in all hierarchies. Its methods are safe for concurrent use
// as far as the kernel's files are.
type Group struct {
	sys    *System
	dirs   map[string]string // controller → host directory
	unique []string          // the directories, each once
	unit   Unit              // nil: the cgroup is nobody's but ours
}

// Dir returns the host's directory of a controller.
func (g *Group) Dir(controller string) (string, bool) {
	d, ok := g.dirs[controller]
	return d, ok
}
