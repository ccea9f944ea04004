package runtime

import (
	"bytes"
	"encoding/json"
	"flag"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

var (
	specCount = flag.Int("specs", 40, "random specs to compare runtimes with")
	specSeed  = flag.Uint64("seed", 1, "seed of the first random spec; the others count up")
)

// cgroupFiles are read of a created container, from outside.
var cgroupFiles = []string{
	"memory/memory.limit_in_bytes", "memory/memory.soft_limit_in_bytes", "memory/memory.memsw.limit_in_bytes",
	"cpu/cpu.shares", "cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us", "cpuset/cpuset.cpus", "cpuset/cpuset.mems", "pids/pids.max", "devices/devices.list",
}

// peer is one of the runtimes compared.
type peer struct {
	name, path string
	// alone: it refuses a v2 hierarchy beside those of v1, so it does not see one.
	alone bool
}

// TestDifferential runs the same random bundles with runc, crun and ours, and
// compares what the program inside can see and what the cgroups say. For a spec
// that fails: go test ./test/runtime -run Differential -specs 1 -seed N.
func TestDifferential(t *testing.T) {
	var peers []peer
	if p, err := exec.LookPath("runc"); err == nil {
		peers = append(peers, peer{name: "runc", path: p})
	}
	if p, err := exec.LookPath("crun"); err == nil {
		_, err := os.Stat("/sys/fs/cgroup/unified")
		peers = append(peers, peer{name: "crun", path: p, alone: err == nil})
	}
	if len(peers) == 0 {
		t.Skip("needs runc or crun")
	}
	bundle := t.TempDir()
	for d := bundle; d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755|os.ModeSticky*os.FileMode(b2i(d == "/tmp"))|0o22*os.FileMode(b2i(d == "/tmp"))))
	}
	busybox(t, filepath.Join(bundle, "rootfs"))
	must(t, (&generator{host: filepath.Join(bundle, "host")}).write(bundle))
	agree := 0
	for i := range *specCount {
		seed := *specSeed + uint64(i)
		g := generator{rand.New(rand.NewPCG(seed, 1)), filepath.Join(bundle, "host")}
		s := g.spec()
		j, err := json.MarshalIndent(s, "", " ")
		must(t, err)
		must(t, os.WriteFile(filepath.Join(bundle, "config.json"), j, 0o644))
		own := observe(t, peer{name: "ours", path: ours()}, bundle)
		same := true
		for _, p := range peers {
			theirs := observe(t, p, bundle)
			if d := differences(s, own, theirs, p.name); len(d) != 0 {
				same = false
				t.Errorf("seed %d: ours (-) and %s (+) differ:\n%s", seed, p.name, strings.Join(d, "\n"))
			}
		}
		if same {
			agree++
		}
	}
	t.Logf("%d of %d specs: the same with all runtimes", agree, *specCount)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// observe creates, looks at, starts and deletes a container, and returns what there
// was to see, by section. A container that is refused has only the section refused.
func observe(t *testing.T, p peer, bundle string) map[string][]string {
	t.Helper()
	root := t.TempDir()
	// Under a filter the probe cannot clean up after itself.
	left, err := filepath.Glob(filepath.Join(bundle, "rootfs/tmp/*"))
	must(t, err)
	for _, f := range left {
		must(t, os.RemoveAll(f))
	}
	call := func(stdout *os.File, args ...string) error {
		args = append([]string{p.path, "--root", root}, args...)
		if p.alone {
			args = append([]string{"unshare", "-m", "--propagation", "private", "sh", "-c", `umount /sys/fs/cgroup/unified; exec "$@"`, "sh"}, args...)
		}
		c := exec.Command(args[0], args[1:]...)
		c.Dir = bundle
		if stdout != nil {
			c.Stdout, c.Stderr = stdout, stdout
		}
		return c.Run()
	}
	out, err := os.Create(filepath.Join(root, "out"))
	must(t, err)
	defer out.Close()
	defer func() { _ = call(nil, "delete", "--force", "x") }()
	pidFile := filepath.Join(root, "pid")
	if err := call(out, "create", "--pid-file", pidFile, "x"); err != nil {
		b, _ := os.ReadFile(out.Name())
		return map[string][]string{"refused": {string(b)}}
	}
	res := make(map[string][]string)
	for _, f := range cgroupFiles {
		b, err := os.ReadFile(filepath.Join("/sys/fs/cgroup", filepath.Dir(f), "gruntime-differ", filepath.Base(f)))
		if err != nil {
			b = []byte(err.Error())
		}
		lines := strings.Split(strings.TrimSpace(string(b)), "\n")
		slices.Sort(lines)
		res[f] = lines
	}
	pid, err := os.ReadFile(pidFile)
	must(t, err)
	fd, err := unix.PidfdOpen(atoi(string(pid)), 0)
	must(t, err)
	defer unix.Close(fd)
	if err := call(out, "start", "x"); err != nil {
		b, _ := os.ReadFile(out.Name())
		return map[string][]string{"refused": {string(b)}}
	}
	await(t, "the end of the probe", func() bool {
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 1000)
		return n > 0
	})
	b, err := os.ReadFile(out.Name())
	must(t, err)
	section := "before"
	for l := range strings.Lines(string(bytes.ToValidUTF8(b, nil))) {
		l = strings.TrimRight(l, "\n")
		if name, ok := strings.CutPrefix(l, "## "); ok {
			section = name
			continue
		}
		res[section] = append(res[section], normal(section, l))
	}
	return res
}

func atoi(s string) (n int) {
	for _, c := range strings.TrimSpace(s) {
		n = n*10 + int(c-'0')
	}
	return n
}

var (
	peerGroup = regexp.MustCompile(`(shared|master|propagate_from):\d+`)
	tmpfsMode = regexp.MustCompile(`,mode=\d+`)
	nsNumber  = regexp.MustCompile(`\[\d+\]`)
	hostNS    = func() map[string]string {
		m := make(map[string]string)
		for _, n := range []string{"mnt", "pid", "uts", "ipc", "net", "cgroup", "user", "time"} {
			l, _ := os.Readlink("/proc/self/ns/" + n)
			m[n] = l
		}
		return m
	}()
)

// normal takes out of a line what differs from run to run.
func normal(section, l string) string {
	switch section {
	case "mountinfo":
		// ID, parent and device number are the run's own.
		f := strings.Fields(l)
		if len(f) < 10 {
			return l
		}
		l = peerGroup.ReplaceAllString(strings.Join(f[3:], " "), "$1")
		if strings.Contains(l, " - tmpfs ") { // what it really is, section root tells
			l = tmpfsMode.ReplaceAllString(l, "")
		}
		return l
	case "ns":
		n, v, _ := strings.Cut(l, " ")
		if v == hostNS[n] {
			return n + " the host's"
		}
		return n + " " + nsNumber.ReplaceAllString(v, "")
	}
	return l
}

// differences lists the lines that only one has. Order counts nowhere but among the
// mounts of the spec.
func differences(s *specs.Spec, ours, theirs map[string][]string, name string) []string {
	if (ours["refused"] == nil) != (theirs["refused"] == nil) {
		if name == "crun" && len(s.Linux.UIDMappings) != 0 && strings.Contains(strings.Join(ours["refused"], ""), "operation not permitted") {
			return nil // flags that a user namespace may not change: runc and ours say so, crun leaves them
		}
		return []string{"ours:   " + strings.Join(ours["refused"], ""), "theirs: " + strings.Join(theirs["refused"], "")}
	}
	if ours["refused"] != nil {
		return nil
	}
	var out []string
	for sec := range ours {
		if theirs[sec] == nil {
			theirs[sec] = nil
		}
	}
	for sec := range theirs {
		for _, l := range minus(ours[sec], theirs[sec]) {
			if !known(s, sec, l, name) {
				out = append(out, sec+": - "+l)
			}
		}
		for _, l := range minus(theirs[sec], ours[sec]) {
			if !known(s, sec, l, name) {
				out = append(out, sec+": + "+l)
			}
		}
	}
	slices.Sort(out)
	return out
}

// minus is a without the lines of b.
func minus(a, b []string) []string {
	b = slices.Clone(b)
	var out []string
	for _, l := range a {
		if i := slices.Index(b, l); i >= 0 {
			b = slices.Delete(b, i, i+1)
		} else {
			out = append(out, l)
		}
	}
	return out
}

// known tells differences that are meant; docs/RUNTIME.md explains each.
func known(s *specs.Spec, section, line, name string) bool {
	switch section {
	case "devices/devices.list":
		// runc adds the tun device; crun allows everything unless the spec does not.
		return name == "runc" && line == "c 10:200 rwm" || name == "crun"
	case "mountinfo":
		return knownMount(s, line, name)
	case "root", "write":
		// Without a mode a tmpfs is as the directory below it; for runc 1.1 also with
		// a mode, for crun it is 1777.
		return slices.ContainsFunc(s.Mounts, func(m specs.Mount) bool {
			return m.Type == "tmpfs" && strings.Contains(line, m.Destination)
		})
	case "dev":
		// In a user namespace mqueue's root belongs to who made the namespace.
		if strings.HasPrefix(line, "/dev/mqueue ") && len(s.Linux.UIDMappings) != 0 {
			return true
		}
		return name == "crun" // /dev/null belongs to the user when it is the input; no core
	case "cgroup":
		return name == "crun" && strings.Contains(line, "0::/") // does not see the v2 tree
	case "env":
		return name == "crun" && strings.HasPrefix(line, "HOME=") // unset for users without an entry
	case "devices":
		return name == "crun" // follows from its device rules
	}
	return false
}

func knownMount(s *specs.Spec, line, name string) bool {
	on := func(p string) bool { return strings.Contains(line, " "+p+" ") }
	if slices.ContainsFunc(s.Linux.MaskedPaths, on) {
		return true // masked either way, with other flags
	}
	if name != "crun" {
		// runc also makes the superblock of a read-only sysfs read-only.
		return strings.Contains(line, " - sysfs ")
	}
	if len(s.Linux.UIDMappings) != 0 && strings.Contains(line, "/host/") {
		return true // crun leaves flags it may not set
	}
	if strings.Contains(line, " - devtmpfs ") {
		return true // nodes bound into a user namespace: crun adds nosuid and noexec
	}
	unshared := func(m specs.Mount) bool { // crun 1.8 does not share all mounts that should be
		shared := slices.Contains(m.Options, "shared") || slices.Contains(m.Options, "rshared")
		return shared && strings.Contains(line, strings.Replace(m.Destination, "/link/", "/real/", 1)+" ")
	}
	// crun drops nosuid, nodev and noexec on read-only paths.
	return slices.ContainsFunc(s.Mounts, unshared) || slices.ContainsFunc(s.Linux.ReadonlyPaths, on)
}
