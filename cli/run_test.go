package cli_test

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gantry/gantry/cli/clitest"
	"github.com/gantry/gantry/test/poll"
)

// TestSignalsInOneRequest: the container gets the signals of a command that runs it by one request.
func TestSignalsInOneRequest(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	e := clitest.New(t)
	e.Extended = true
	cmd := exec.Command(self, "run", "--rm", "forever")
	cmd.Env = []string{"DOCKER_CONFIG=" + t.TempDir(), "DOCKER_HOST=unix://" + e.Socket, "GANTRY_TEST_DOCKER=1"}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	until := func(what string, ok func() bool) {
		t.Helper()
		if !poll.Within(poll.Limit, ok) {
			_ = cmd.Process.Kill()
			t.Fatal("waiting for " + what)
		}
	}
	until("the start", func() bool { return e.Started() == 1 })
	// A container that runs has all signals.
	for _, s := range []struct {
		sig  syscall.Signal
		name string
	}{{syscall.SIGHUP, "HUP"}, {syscall.SIGUSR1, "USR1"}, {syscall.SIGWINCH, "WINCH"}, {syscall.SIGINT, "INT"}} {
		if err := cmd.Process.Signal(s.sig); err != nil {
			t.Fatal(err)
		}
		until(s.name, func() bool {
			for _, r := range e.Requests() {
				if strings.Contains(r.Query, "signal="+s.name) {
					return true
				}
			}
			return false
		})
	}
	if _ = cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("ended with %v", cmd.ProcessState)
	}
}

// TestSignalWithoutContainer: a signal that comes before there is a container does what it always does.
func TestSignalWithoutContainer(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			e := clitest.New(t)
			e.Extended, e.Hold = true, make(chan struct{})
			defer close(e.Hold)
			cmd := exec.Command(self, "run", "--rm", "forever")
			cmd.Env = []string{"DOCKER_CONFIG=" + t.TempDir(), "DOCKER_HOST=unix://" + e.Socket, "GANTRY_TEST_DOCKER=1"}
			var text bytes.Buffer
			cmd.Stderr = &text
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			<-e.Hold // the request is there
			if err := cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			timer := time.AfterFunc(10*time.Second, func() { _ = cmd.Process.Kill() })
			defer timer.Stop()
			_ = cmd.Wait()
			status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
			switch {
			case !ok:
				t.Fatal(cmd.ProcessState)
			case sig == syscall.SIGHUP && (!status.Signaled() || status.Signal() != sig), sig == syscall.SIGTERM && status.ExitStatus() != 125:
				t.Errorf("ended with %v: %s", cmd.ProcessState, text.String())
			}
		})
	}
}
