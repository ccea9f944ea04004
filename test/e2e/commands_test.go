package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/gantry/gantry/test/poll"
	"github.com/rogpeppe/go-internal/testscript"
)

// commands are what scripts may say beyond testscript's own.
func commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	return map[string]func(ts *testscript.TestScript, neg bool, args []string){
		"daemon":     cmdDaemon,
		"shim":       cmdShim,
		"registry":   cmdRegistry,
		"docker":     cmdDocker,
		"exits":      cmdExits,
		"eventually": cmdEventually,
		"tty":        cmdTTY,
		"peer":       cmdPeer,
		"setvar":     cmdSetvar,
		"atmost":     cmdAtmost,
		"gone":       cmdGone,
		"newshim":    cmdNewShim,
	}
}

// cmdDocker: [!] docker ARGS… runs the client under test.
func cmdDocker(ts *testscript.TestScript, neg bool, args []string) {
	err := ts.Exec("docker", args...)
	check(ts, neg, err)
}

func check(ts *testscript.TestScript, neg bool, err error) {
	switch {
	case err != nil && !neg:
		ts.Fatalf("unexpected failure: %v", err)
	case err == nil && neg:
		ts.Fatalf("unexpected success")
	}
}

func exitCode(err error) int {
	var e *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		if ws, ok := e.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			return 128 + int(ws.Signal())
		}
		return e.ExitCode()
	}
	return -1
}

// cmdExits: exits CODE PROGRAM ARGS… runs a program that must end with that code.
func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 || neg {
		ts.Fatalf("usage: exits CODE PROGRAM ARGS...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	if got := exitCode(err); got != want {
		ts.Fatalf("exit code %d, want %d (%v)", got, want, err)
	}
}

// cmdEventually: eventually [-t DURATION] [-stdout REGEXP] PROGRAM ARGS… repeats a
// program until it succeeds (and prints a match). With ! until it fails (or the
// match is gone).
func cmdEventually(ts *testscript.TestScript, neg bool, args []string) {
	limit, pattern := 15*time.Second, (*regexp.Regexp)(nil)
	for len(args) > 1 && strings.HasPrefix(args[0], "-") {
		var err error
		switch args[0] {
		case "-t":
			limit, err = time.ParseDuration(args[1])
		case "-stdout":
			pattern, err = regexp.Compile("(?m)" + args[1])
		default:
			err = fmt.Errorf("eventually: unknown flag %s", args[0])
		}
		ts.Check(err)
		args = args[2:]
	}
	if len(args) == 0 {
		ts.Fatalf("usage: eventually [-t DURATION] [-stdout REGEXP] PROGRAM ARGS...")
	}
	var err error
	if !poll.Within(limit, func() bool {
		err = ts.Exec(args[0], args[1:]...)
		ok := err == nil
		if ok && pattern != nil {
			ok = pattern.MatchString(ts.ReadFile("stdout"))
		}
		return ok != neg
	}) {
		ts.Fatalf("not so within %v (last: %v)", limit, err)
	}
}

// cmdSetvar: setvar NAME keeps the last output, trimmed, in a variable.
func cmdSetvar(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: setvar NAME")
	}
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}

// cmdAtmost: atmost NUMBER checks that the last output is a number no larger.
func cmdAtmost(ts *testscript.TestScript, _ bool, args []string) {
	got, err := strconv.ParseInt(strings.TrimSpace(ts.ReadFile("stdout")), 10, 64)
	ts.Check(err)
	want, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	if got > want {
		ts.Fatalf("%d is more than %d", got, want)
	}
}

// cmdGone: gone PID waits until a process has ended.
func cmdGone(ts *testscript.TestScript, _ bool, args []string) {
	if !poll.Within(10*time.Second, func() bool {
		b, err := os.ReadFile(filepath.Join("/proc", args[0], "stat"))
		return err != nil || strings.Contains(string(b), ") Z ")
	}) {
		ts.Fatalf("process %s still runs", args[0])
	}
}

// cmdNewShim: newshim waits until a shim runs.
func cmdNewShim(ts *testscript.TestScript, _ bool, _ []string) {
	if !poll.Within(10*time.Second, func() bool { return of(ts).shimPid() != 0 }) {
		ts.Fatalf("no new shim runs")
	}
}

// cmdPeer: peer start makes another host: a network namespace joined by a veth,
// 192.0.2.1 being the daemon's side and 192.0.2.2 the other. $PEER is its pid:
// exec nsenter -n -t $PEER …
func cmdPeer(ts *testscript.TestScript, _ bool, args []string) {
	s := of(ts)
	p, err := s.spawn("peer.log", nil, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}, "/bin/sleep", "600")
	ts.Check(err)
	s.mu.Lock()
	s.helpers["peer"] = p
	s.mu.Unlock()
	pid := strconv.Itoa(p.pid())
	ts.Setenv("PEER", pid)
	for _, c := range []string{
		"ip link add peer0 type veth peer name eth0 netns " + pid,
		"ip addr add 192.0.2.1/24 dev peer0", "ip link set peer0 up",
		"nsenter -n -t " + pid + " ip addr add 192.0.2.2/24 dev eth0",
		"nsenter -n -t " + pid + " ip link set eth0 up",
		"nsenter -n -t " + pid + " ip link set lo up",
		"nsenter -n -t " + pid + " ip route add default via 192.0.2.1",
	} {
		f := strings.Fields(c)
		ts.Check(ts.Exec(f[0], f[1:]...))
	}
}
