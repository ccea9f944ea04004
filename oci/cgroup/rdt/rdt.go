// Package rdt assigns containers to classes of service of Intel's Resource Director
// Technology: shares of the L3 cache and of the memory's bandwidth, by the kernel's
// resctrl file system, and groups that count their use.
//
// Sources: runtime-spec, config-linux.md, "IntelRdt"; the kernel's Documentation/arch/x86/resctrl.rst.
package rdt

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Root is where resctrl is mounted.
const Root = "/sys/fs/resctrl"

// magic is resctrl's (linux/magic.h).
const magic = 0x7655821

// Available tells whether resctrl is mounted.
func Available() bool {
	var st unix.Statfs_t
	return unix.Statfs(Root, &st) == nil && st.Type&math.MaxUint32 == magic
}

// Of is the class of service that a configuration names; nil: none. Class
// ErrNotImplemented where resctrl is not mounted.
func Of(id string, s *specs.Spec) (*Group, error) {
	if s == nil || s.Linux == nil || s.Linux.IntelRdt == nil {
		return nil, nil //nolint:nilnil // none was asked for
	}
	if !Available() {
		return nil, errclass.NotImplemented("intelRdt is specified in config, but Intel RDT is not enabled on this machine (%s is not mounted)", Root)
	}
	return Plan(Root, id, s.Linux.IntelRdt)
}

// Group is a container's class of service.
type Group struct {
	dir     string // the class's directory
	monitor string // the monitoring group's, "" when there is none
	lines   []string
	// own: the class is the container's, and goes with it.
	own bool
	// named: the class is one that somebody else may have made.
	named bool
}

// Plan says what the configuration of the container id asks for, below root, without
// effects. Class ErrInvalidArgument.
func Plan(root, id string, r *specs.LinuxIntelRdt) (*Group, error) {
	g := &Group{own: r.ClosID == "", named: r.ClosID != ""}
	name := r.ClosID
	switch {
	case g.own:
		name = id
	case name == "/":
		name = ""
	}
	if strings.ContainsAny(name, "/\n\x00") || name == "." || name == ".." || name == "info" || name == "mon_groups" || name == "mon_data" {
		return nil, errclass.Invalid("intelRdt: %q cannot be the name of a class of service", name)
	}
	g.dir = filepath.Join(root, name)
	if r.EnableMonitoring {
		if id == "" || strings.ContainsAny(id, "/\n\x00") || id == "." || id == ".." {
			return nil, errclass.Invalid("intelRdt: %q cannot be the name of a monitoring group", id)
		}
		g.monitor = filepath.Join(g.dir, "mon_groups", id)
	}
	if r.MemBwSchema != "" && !strings.HasPrefix(r.MemBwSchema, "MB:") {
		return nil, errclass.Invalid("intelRdt: memBwSchema %q does not begin with MB:", r.MemBwSchema)
	}
	// The order is the specification's.
	for _, l := range append([]string{r.L3CacheSchema, r.MemBwSchema}, r.Schemata...) {
		if l == "" {
			continue
		}
		if strings.ContainsAny(l, "\n\x00") {
			return nil, errclass.Invalid("intelRdt: the schema %q has more than one line", l)
		}
		if _, _, ok := parseLine(l); !ok {
			return nil, errclass.Invalid("intelRdt: %q is not a schema", l)
		}
		g.lines = append(g.lines, l)
	}
	return g, nil
}

// Dirs are the directories whose tasks a process of the container belongs to.
func (g *Group) Dirs() []string {
	if g.monitor == "" {
		return []string{g.dir}
	}
	return []string{g.dir, g.monitor}
}

// Create makes the class, or checks one that exists, and writes its schemata. Class
// ErrInvalidArgument where an existing one is another, or the kernel refuses the
// values. After an error nothing is left.
func (g *Group) Create() (err error) {
	made := false
	switch err := os.Mkdir(g.dir, 0o755); {
	case err == nil:
		made = true
	case !errors.Is(err, fs.ErrExist):
		return fmt.Errorf("make a class of service: %w%s", err, lastStatus(g.dir))
	}
	defer func() {
		if err != nil {
			_ = g.remove(made)
		}
	}()
	switch {
	case made && g.named && len(g.lines) == 0:
		return errclass.Invalid("intelRdt: the class of service %s does not exist, and there are no schemata to make it with", filepath.Base(g.dir))
	case !made && g.named && len(g.lines) != 0:
		if err := g.compare(); err != nil {
			return err
		}
	case len(g.lines) != 0:
		if err := g.write(); err != nil {
			return err
		}
	}
	if g.monitor != "" {
		if err := os.Mkdir(g.monitor, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make a monitoring group: %w%s", err, lastStatus(g.dir))
		}
	}
	return nil
}

// write writes the schemata, each line by itself: the kernel tells which it refuses.
func (g *Group) write() error {
	for _, l := range g.lines {
		if err := writeFile(filepath.Join(g.dir, "schemata"), l+"\n"); err != nil {
			return errclass.Invalid("intelRdt: schema %q: %w%s", l, err, lastStatus(g.dir))
		}
	}
	return nil
}

// Set changes the schemata of a class that exists; what is "" stays.
func (g *Group) Set(l3, memBw string) error {
	p, err := Plan(filepath.Dir(g.dir), filepath.Base(g.dir), &specs.LinuxIntelRdt{L3CacheSchema: l3, MemBwSchema: memBw})
	if err != nil {
		return err
	}
	p.dir = g.dir
	return p.write()
}

// compare proves that an existing class has what was asked for.
func (g *Group) compare() error {
	b, err := readFile(filepath.Join(g.dir, "schemata"))
	if err != nil {
		return fmt.Errorf("class of service %s: %w", g.dir, err)
	}
	is := map[string]map[string]string{}
	for l := range strings.Lines(b) {
		if res, vals, ok := parseLine(strings.TrimSpace(l)); ok {
			is[res] = vals
		}
	}
	for _, l := range g.lines {
		res, want, _ := parseLine(l)
		for dom, v := range want {
			if have, ok := is[res][dom]; !ok || have != v {
				return errclass.Invalid("intelRdt: the class of service %s exists, and its schemata are not %q", filepath.Base(g.dir), l)
			}
		}
	}
	return nil
}

// parseLine reads "L3:0=ff;1=0f": the resource, and values by domain without leading
// zeros.
func parseLine(l string) (resource string, values map[string]string, ok bool) {
	resource, rest, ok := strings.Cut(l, ":")
	resource = strings.TrimSpace(resource)
	if !ok || resource == "" || rest == "" {
		return "", nil, false
	}
	values = map[string]string{}
	for d := range strings.SplitSeq(rest, ";") {
		dom, v, ok := strings.Cut(d, "=")
		dom, v = strings.TrimSpace(dom), strings.ToLower(strings.TrimSpace(v))
		if !ok || dom == "" || v == "" {
			return "", nil, false
		}
		if n := strings.TrimLeft(v, "0"); n != "" {
			v = n
		} else {
			v = "0"
		}
		values[dom] = v
	}
	return resource, values, true
}

// lastStatus is what the kernel says of the last failure: resctrl's errors are few.
func lastStatus(dir string) string {
	root := dir
	for range 2 {
		if b, err := readFile(filepath.Join(root, "info/last_cmd_status")); err == nil {
			if s := strings.TrimSpace(b); s != "" && s != "ok" {
				return " (" + s + ")"
			}
			return ""
		}
		root = filepath.Dir(root)
	}
	return ""
}

// Join puts a process with all its threads into the group.
func (g *Group) Join(pid int) error {
	// A thread may begin while the others are moved; its maker was moved by then, or it
	// is among those of the next look.
	moved := map[string]bool{}
	for {
		ents, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if err != nil {
			return err
		}
		more := false
		for _, e := range ents {
			if moved[e.Name()] {
				continue
			}
			if err := g.joinTask(e.Name()); err != nil {
				return err
			}
			moved[e.Name()], more = true, true
		}
		if !more {
			return nil
		}
	}
}

func (g *Group) joinTask(tid string) error {
	if _, err := strconv.Atoi(tid); err != nil {
		return err
	}
	for _, d := range g.Dirs() {
		if err := writeFile(filepath.Join(d, "tasks"), tid); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("join the class of service %s: %w%s", d, err, lastStatus(d))
		}
	}
	return nil
}

// Remove removes what is the container's own. It is idempotent.
func (g *Group) Remove() error { return g.remove(g.own) }

func (g *Group) remove(class bool) error {
	var err error
	if g.monitor != "" {
		err = rmdir(g.monitor)
	}
	if class {
		err = errors.Join(err, rmdir(g.dir))
	}
	return err
}

func rmdir(dir string) error {
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, unix.ENOENT) {
		return &os.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

const maxFile = 1 << 16

func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b := make([]byte, maxFile)
	n := 0
	for n < len(b) {
		k, err := f.Read(b[n:])
		n += k
		if err != nil || k == 0 {
			break
		}
	}
	return string(b[:n]), nil
}

// writeFile writes with one call, as resctrl wants it.
func writeFile(path, value string) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(value)); err != nil {
		return fmt.Errorf("write %q to %s: %w", strings.TrimSpace(value), path, err)
	}
	return nil
}
