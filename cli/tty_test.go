package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/gantry/gantry/cli/clitest"
	"github.com/gantry/gantry/test/poll"
	"golang.org/x/sys/unix"
)

// step is one thing done to a command on a terminal: wait until its output has a text, or
// the engine a request; then type, resize or signal.
type step struct {
	until, request, typed string
	resize                *unix.Winsize
	signal                syscall.Signal
}

type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// runTTY runs a command on a terminal of its own and answers what was seen, the exit code
// and the requests.
func runTTY(t *testing.T, bin string, args []string, steps []step) (string, int, string) {
	t.Helper()
	e := clitest.New(t)
	master, slave := clitest.PTY(t)
	cmd := exec.Command(bin, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	cmd.Env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent", "TZ=UTC", "TERM=xterm", "DOCKER_CONFIG=" + t.TempDir(),
		"DOCKER_HOST=unix://" + e.Socket, "GANTRY_TEST_DOCKER=1",
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	slave.Close()
	var seen screen
	read := make(chan struct{})
	go func() {
		defer close(read)
		buf := make([]byte, 4096)
		for {
			n, err := master.Read(buf)
			seen.mu.Lock()
			seen.b.Write(buf[:n])
			seen.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	requests := func() string {
		var out []string
		for _, r := range e.Requests() {
			if strings.Contains(r.Query, "signal=WINCH") {
				continue // Docker sends the signal beside the new size
			}
			out = append(out, fmt.Sprintf("%s %s?%s %s", r.Method, r.Path, r.Query, r.Body))
		}
		sort.Strings(out)
		// A size may have been asked to be sent twice, see below.
		out = slices.CompactFunc(out, func(a, b string) bool { return a == b && strings.Contains(a, "/resize?") })
		return strings.Join(out, "\n")
	}
	var resized time.Time
	for _, s := range steps {
		if !poll.Within(10*time.Second, func() bool {
			// Docker's client sends the first size and only then listens for changes: one that
			// comes in between it misses, on a machine that is busy.
			if !resized.IsZero() && time.Since(resized) > time.Second {
				_ = cmd.Process.Signal(syscall.SIGWINCH)
				resized = time.Now()
			}
			return strings.Contains(seen.text(), s.until) && strings.Contains(requests(), s.request)
		}) {
			_ = cmd.Process.Kill()
			t.Fatalf("waiting for %q and %q; seen:\n%q\nrequests:\n%s", s.until, s.request, seen.text(), requests())
		}
		if s.resize != nil {
			if err := unix.IoctlSetWinsize(int(master.Fd()), unix.TIOCSWINSZ, s.resize); err != nil {
				t.Fatal(err)
			}
			resized = time.Now()
		}
		if s.signal != 0 {
			_ = cmd.Process.Signal(s.signal)
		}
		if _, err := master.WriteString(s.typed); err != nil {
			t.Fatal(err)
		}
	}
	timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	if !timer.Stop() {
		t.Errorf("%s did not end; seen:\n%q\nrequests:\n%s", bin, seen.text(), requests())
	}
	<-read
	return seen.text(), cmd.ProcessState.ExitCode(), requests()
}

func TestTerminalSameAsDocker(t *testing.T) {
	docker := realDocker(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args  string
		steps []step
	}{
		{"run -it hello", nil},
		{"run -it exit3", nil},
		{"run -it cat", []step{{request: "/resize", typed: "typed\r"}, {until: "typed", typed: "\x10\x11"}}},
		{"run -it --detach-keys ctrl-a cat", []step{{request: "/resize", typed: "\x10\x11"}, {until: "\x10\x11", typed: "\x01"}}},
		{"run -it cat", []step{
			{request: "/resize?h=24&w=80", resize: &unix.Winsize{Row: 30, Col: 100}},
			{request: "/resize?h=30&w=100", typed: "\x10\x11"},
		}},
		{"run forever", []step{{request: "/start", signal: syscall.SIGUSR1}, {request: "signal=USR1", signal: syscall.SIGINT}}},
		{"run --rm -t forever", []step{{request: "/start", signal: syscall.SIGTERM}}},
		{"run -i forever", []step{{request: "/start", signal: syscall.SIGHUP}, {request: "signal=HUP", typed: "\x03"}}},
		{"pull missing", nil},
		{"run -it missing", nil},
		{"exec -it c1 sh", nil},
		{"start -ai c1", nil},
		{"load", nil},
		{"save a", nil},
		{"container prune", []step{{until: "[y/N]", typed: "y\r"}}},
	} {
		t.Run(c.args, func(t *testing.T) {
			t.Parallel()
			args := strings.Fields(c.args)
			wOut, wCode, wReq := runTTY(t, docker, args, c.steps)
			gOut, gCode, gReq := runTTY(t, self, args, c.steps)
			if wOut != gOut {
				t.Errorf("seen:\n%q\nDocker's:\n%q", gOut, wOut)
			}
			if wCode != gCode {
				t.Errorf("exit code %d, Docker's is %d", gCode, wCode)
			}
			if wReq != gReq {
				t.Errorf("requests:\n%s\nDocker's:\n%s", gReq, wReq)
			}
		})
	}
}
