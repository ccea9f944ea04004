package cli_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/cli/clitest"
	"golang.org/x/sys/unix"
)

// ownCommand is the command line of this program in a process of its own, which ends after 20 seconds.
func ownCommand(t *testing.T, socket string, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = []string{"DOCKER_CONFIG=" + t.TempDir(), "DOCKER_HOST=unix://" + socket, "GANTRY_TEST_DOCKER=1"}
	text := &bytes.Buffer{}
	cmd.Stderr = text
	timer := time.AfterFunc(20*time.Second, func() {
		if cmd.Process != nil {
			_ = cmd.Process.Kill()
		}
	})
	t.Cleanup(func() { timer.Stop() })
	return cmd, text
}

// TestOutputNotTaken: a run whose output nobody takes ends at once, as Docker's does, however long the container runs.
func TestOutputNotTaken(t *testing.T) {
	for name, extended := range map[string]bool{"one request": true, "ordinary requests": false} {
		t.Run(name, func(t *testing.T) {
			e := clitest.New(t)
			e.Extended = extended
			full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
			if err != nil {
				t.Skip(err)
			}
			defer full.Close()
			cmd, text := ownCommand(t, e.Socket, "run", "--rm", "hello")
			cmd.Stdout = full
			_ = cmd.Run()
			if cmd.ProcessState.ExitCode() != 1 || !strings.Contains(text.String(), "write /dev/stdout: no space left on device") {
				t.Errorf("ended with %v: %s", cmd.ProcessState, text)
			}
		})
	}
}

// TestDaemonGoneBeforeStart: the daemon dies between the creation and the start, and is away for a while. The next one has
// the container, which will never end because it has not started: run tells so and leaves nothing.
func TestDaemonGoneBeforeStart(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "s")
	removed := make(chan string, 1)
	back := make(chan struct{})
	first := &http.Server{ReadHeaderTimeout: time.Minute}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /{version}"+extension.RunPath, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		if err := cutAfterCreated(w); err != nil {
			t.Error(err)
		}
		go func() {
			_ = first.Close()
			hangUp(t, socket, 4) // the client must come again
			close(back)
		}()
	})
	mux.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.57") })
	first.Handler = mux
	serve(t, first, socket)

	next := http.NewServeMux()
	next.HandleFunc("/_ping", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Api-Version", "1.57") })
	next.HandleFunc("POST /{version}/containers/c1/wait", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	next.HandleFunc("GET /{version}/containers/c1/json", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"Id":"c1","State":{"Status":"created"}}`)
	})
	next.HandleFunc("DELETE /{version}/containers/c1", func(w http.ResponseWriter, r *http.Request) {
		removed <- r.URL.RawQuery
		w.WriteHeader(http.StatusNoContent)
	})
	go func() {
		<-back
		serve(t, &http.Server{Handler: next, ReadHeaderTimeout: time.Minute}, socket)
	}()

	cmd, text := ownCommand(t, socket, "run", "--rm", "hello")
	_ = cmd.Run()
	if cmd.ProcessState.ExitCode() != 125 || !strings.Contains(text.String(), "before the container started") {
		t.Errorf("ended with %v: %s", cmd.ProcessState, text)
	}
	select {
	case q := <-removed:
		if q != "v=1" {
			t.Errorf("removed with %q", q)
		}
	default:
		t.Error("the container is still there")
	}
}

// hangUp is a daemon that is not there yet: it closes so many connections.
func hangUp(t *testing.T, socket string, times int) {
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Error(err)
		return
	}
	defer l.Close()
	for range times {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		_ = conn.Close()
	}
}

// serve serves on a socket until the test ends.
func serve(t *testing.T, s *http.Server, socket string) {
	_ = os.Remove(socket)
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { _ = s.Close() })
	go func() { _ = s.Serve(l) }()
}

// cutAfterCreated answers a run with its first message, and then no more.
func cutAfterCreated(w http.ResponseWriter) error {
	hijacked, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return err
	}
	defer hijacked.Close()
	conn, ok := hijacked.(*net.UnixConn)
	if !ok {
		return errors.New("no unix socket")
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	line, err := json.Marshal(extension.RunMessage{Created: &extension.RunCreated{ID: "c1"}})
	if err != nil {
		return err
	}
	head := "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: gantry-run\r\n\r\n"
	_, _, err = conn.WriteMsgUnix(append([]byte(head), append(line, '\n')...), unix.UnixRights(fds[1]), nil)
	return err
}
