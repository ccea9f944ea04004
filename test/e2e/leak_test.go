package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/test/poll"
)

// baseline is what a daemon that has just started holds.
type baseline struct {
	fds        map[string]int // kind → count, daemon and shim together
	goroutines int            // -1: not told
	links      []string
	rules      string
}

func (s *sandbox) measure() *baseline {
	b := &baseline{fds: map[string]int{}, goroutines: -1, links: links(), rules: rules()}
	pids := []int{s.shimPid()}
	if s.daemon != nil {
		pids = append(pids, s.daemon.pid())
	}
	for _, pid := range pids {
		for kind, n := range fdKinds(pid) {
			b.fds[kind] += n
		}
	}
	if body, err := s.api(http.MethodGet, "/debug/pprof/goroutine?debug=1"); err == nil {
		if m := regexp.MustCompile(`total (\d+)`).FindStringSubmatch(body); m != nil {
			b.goroutines, _ = strconv.Atoi(m[1])
		}
	}
	return b
}

// Pools and idle connections may hold this much more than at the start.
const (
	slackGoroutines = 12
	slackSockets    = 10
)

// grown says what a daemon without containers holds beyond the baseline.
func (s *sandbox) grown() (leaks []string) {
	now := s.measure()
	for kind, n := range now.fds {
		allowed := s.base.fds[kind]
		switch kind {
		case "socket":
			allowed += slackSockets
		case "file", "anon":
			allowed += 4 // databases, timers and the like, opened when first used
		}
		if n > allowed {
			leaks = append(leaks, fmt.Sprintf("%d descriptors of kind %s in daemon and shim, %d at start", n, kind, s.base.fds[kind]))
		}
	}
	if now.goroutines >= 0 && now.goroutines > s.base.goroutines+slackGoroutines {
		leaks = append(leaks, fmt.Sprintf("%d goroutines, %d at start", now.goroutines, s.base.goroutines))
	}
	if extra := minus(now.links, s.base.links); len(extra) > 0 {
		leaks = append(leaks, fmt.Sprintf("network interfaces %v", extra))
	}
	if s.base.rules != "" && now.rules != s.base.rules {
		leaks = append(leaks, fmt.Sprintf("nftables rules differ from those at start:\n%s\nat start:\n%s", now.rules, s.base.rules))
	}
	for _, dir := range []string{"d/containers", "d/layers"} {
		entries, _ := os.ReadDir(s.path(dir))
		for _, e := range entries {
			leaks = append(leaks, "directory "+filepath.Join(dir, e.Name()))
		}
	}
	for d := range cgroupDirs(s.cgroup) {
		if filepath.Base(d) != filepath.Base(s.cgroup) {
			leaks = append(leaks, "cgroup "+d)
		}
	}
	return leaks
}

// leaks removes the script's containers, looks at what the idle daemon holds, stops
// it, and looks at what is left behind.
func (s *sandbox) leaks() (all []string) {
	for _, name := range sortedNames(s.helpers) {
		s.helpers[name].kill()
	}
	if s.daemon != nil {
		if err := s.removeContainers(); err != nil {
			all = append(all, "removing containers: "+err.Error())
		}
		all = append(all, settle(s.grown)...)
		if err := s.stopDaemon(); err != nil {
			return append(all, err.Error())
		}
	}
	return append(all, settle(s.leftBehind)...)
}

func (s *sandbox) leftBehind() (all []string) {
	for _, p := range s.processesLeft() {
		all = append(all, p.String())
	}
	for _, m := range mountsBelow(s.root) {
		all = append(all, "mount "+m)
	}
	if _, err := os.Stat(s.socket()); err == nil {
		all = append(all, "the API's socket file")
	}
	return all
}

// settle asks until nothing is left, for at most 10 s: tear-down happens beside the
// requests.
func settle(look func() []string) []string {
	var leaks []string
	poll.Within(10*time.Second, func() bool {
		leaks = look()
		return len(leaks) == 0
	})
	sort.Strings(leaks)
	return leaks
}

func fdKinds(pid int) map[string]int {
	kinds := map[string]int{}
	if pid == 0 {
		return kinds
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := os.ReadDir(dir)
	if err != nil {
		return kinds
	}
	for _, fd := range fds {
		target, err := os.Readlink(filepath.Join(dir, fd.Name()))
		if err != nil {
			continue
		}
		kinds[fdKind(target)]++
	}
	return kinds
}

func fdKind(target string) string {
	switch {
	case strings.HasPrefix(target, "socket:"):
		return "socket"
	case strings.HasPrefix(target, "pipe:"):
		return "pipe"
	case strings.HasPrefix(target, "net:["), strings.HasPrefix(target, "mnt:["), strings.HasPrefix(target, "pid:["):
		return "namespace"
	case strings.Contains(target, "ptmx"), strings.HasPrefix(target, "/dev/pts/"):
		return "terminal"
	case target == "anon_inode:[pidfd]", strings.HasPrefix(target, "pidfd:"):
		return "pidfd"
	case strings.HasPrefix(target, "anon_inode:"):
		return "anon"
	}
	return "file"
}

// links and rules are of the script's network namespace: the calling thread is in it.
func links() (names []string) {
	out, err := exec.Command("ip", "-o", "link").Output()
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		name, _, _ := strings.Cut(strings.TrimSuffix(f[1], ":"), "@")
		// Made when the default network is first used, and kept.
		if name != "docker0" && name != "peer0" {
			names = append(names, name)
		}
	}
	return names
}

func rules() string {
	out, err := exec.Command("nft", "-s", "list", "ruleset").Output()
	if err != nil {
		return ""
	}
	return string(out)
}

func minus(a, b []string) (left []string) {
	in := map[string]bool{}
	for _, x := range b {
		in[x] = true
	}
	for _, x := range a {
		if !in[x] {
			left = append(left, x)
		}
	}
	return left
}

func sortedNames[V any](m map[string]V) []string {
	var names []string
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
