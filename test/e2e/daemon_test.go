package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/gantry/gantry/test/poll"
	"github.com/rogpeppe/go-internal/testscript"
)

// process is a program the harness started and waits for.
type process struct {
	cmd  *exec.Cmd
	done chan struct{}
	err  error
}

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// spawn starts a program in the script's namespace, its output going to a file.
func (s *sandbox) spawn(log string, env []string, attr *syscall.SysProcAttr, name string, args ...string) (*process, error) {
	out, err := os.OpenFile(s.path(log), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr, cmd.SysProcAttr = out, out, attr
	cmd.Env = env
	cmd.Dir = s.root
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, done: make(chan struct{})}
	go func() {
		p.err = cmd.Wait()
		close(p.done)
	}()
	return p, nil
}

func (s *sandbox) daemonArgs(ts *testscript.TestScript, extra []string) []string {
	config := s.path("daemon.json")
	if _, err := os.Stat(config); err != nil {
		ts.Check(os.WriteFile(config, []byte("{}\n"), 0o644))
	}
	args := []string{
		"--config-file", config, "--exec-root", s.path("x"),
		"-H", "unix://" + s.socket(), "--pidfile", s.path("pid"), "--debug", "--cgroup-parent", s.cgroup,
	}
	if !hasFlag(extra, "--data-root") {
		args = append(args, "--data-root", s.path("d"))
	}
	return append(args, extra...)
}

func hasFlag(args []string, name string) bool {
	for _, a := range args {
		if a == name || strings.HasPrefix(a, name+"=") {
			return true
		}
	}
	return false
}

func (s *sandbox) daemonEnv(ts *testscript.TestScript) []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.path("home"), "TMPDIR=/var/tmp"}
	if _, err := os.Stat(s.path("ca.pem")); err == nil {
		env = append(env, "SSL_CERT_FILE="+s.path("ca.pem"))
	}
	if d := ts.Getenv("DAEMON_ENV"); d != "" {
		env = append(env, strings.Split(d, ",")...)
	}
	return env
}

// cmdDaemon: daemon start [-activate | -plugins DIR] [flags] | stop | kill9 | wait | try [flags] | log REGEXP | pid
func cmdDaemon(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if len(args) == 0 {
		ts.Fatalf("usage: daemon start|stop|kill9|restart|try [flags]")
	}
	switch args[0] {
	case "start":
		ts.Check(s.startDaemon(ts, args[1:]))
	case "stop":
		ts.Check(s.stopDaemon())
	case "restart":
		ts.Check(s.stopDaemon())
		ts.Check(s.startDaemon(ts, args[1:]))
	case "kill9":
		d := s.mustDaemon(ts)
		d.kill()
		s.setDaemon(nil)
	case "try":
		// A daemon that is expected to refuse: runs to its end, at most 20 s.
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, filepath.Join(os.Getenv("GANTRY_BIN"), "dockerd"), s.daemonArgs(ts, args[1:])...)
		cmd.Env, cmd.Dir = s.daemonEnv(ts), s.root
		cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
		cmd.WaitDelay = 5 * time.Second
		cmd.Stdout, cmd.Stderr = ts.Stdout(), ts.Stderr()
		err := cmd.Run()
		if ctx.Err() != nil {
			ts.Fatalf("the daemon runs, it should have refused")
		}
		check(ts, neg, err)
	default:
		ts.Fatalf("daemon: unknown verb %q", args[0])
	}
}

func (s *sandbox) setDaemon(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.daemon = p
}

func (s *sandbox) mustDaemon(ts *testscript.TestScript) *process {
	if s.daemon == nil {
		ts.Fatalf("no daemon runs")
	}
	return s.daemon
}

func (s *sandbox) startDaemon(ts *testscript.TestScript, flags []string) error {
	if s.daemon != nil {
		return errors.New("a daemon runs already")
	}
	bin := filepath.Join(os.Getenv("GANTRY_BIN"), "dockerd")
	args := s.daemonArgs(ts, flags)
	if len(flags) > 0 && flags[0] == "-activate" {
		args = append([]string{s.socket(), bin}, s.daemonArgs(ts, flags[1:])...)
		args[slices.Index(args, "-H")+1] = "fd://"
		bin = lookup(ts, "activate")
	}
	if len(flags) > 1 && flags[0] == "-plugins" {
		args = append([]string{flags[1], bin}, s.daemonArgs(ts, flags[2:])...)
		bin = lookup(ts, "pluginplace")
	}
	p, err := s.spawn("daemon.log", s.daemonEnv(ts), nil, bin, args...)
	if err != nil {
		return err
	}
	s.setDaemon(p)
	answered := false
	poll.Within(poll.Limit, func() bool {
		body, err := s.api(http.MethodGet, "/_ping")
		answered = err == nil && body == "OK"
		return answered || p.ended()
	})
	switch {
	case answered:
	case p.ended():
		s.setDaemon(nil)
		return fmt.Errorf("the daemon ended at start: %w", p.err)
	default:
		return fmt.Errorf("the daemon does not answer /_ping after %v", poll.Limit)
	}
	if s.base == nil {
		s.base = s.measure()
	}
	return nil
}

func (s *sandbox) stopDaemon() error {
	d := s.daemon
	if d == nil {
		return errors.New("no daemon runs")
	}
	if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-d.done:
		s.setDaemon(nil)
		if d.err != nil {
			return fmt.Errorf("the daemon ended badly: %w", d.err)
		}
		return nil
	case <-time.After(30 * time.Second):
		return errors.New("the daemon does not end 30 s after SIGTERM")
	}
}

// api asks the daemon without any client of Docker's.
func (s *sandbox) api(method, path string) (string, error) {
	c := http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", s.socket())
		},
	}}
	req, err := http.NewRequest(method, "http://docker"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 32<<20))
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	return string(b), err
}

func (s *sandbox) removeContainers() error {
	body, err := s.api(http.MethodGet, "/containers/json?all=1")
	if err != nil {
		return err
	}
	var list []struct{ ID string }
	if err := json.Unmarshal([]byte(body), &list); err != nil {
		return err
	}
	var errs []error
	for _, c := range list {
		if _, err := s.api(http.MethodDelete, "/containers/"+c.ID+"?force=1&v=1"); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// shimPid is the process that holds the containers, 0 when there is none.
func (s *sandbox) shimPid() int {
	for _, p := range processes() {
		if p.state != "Z" && strings.Contains(p.cmdline, s.root) && strings.Contains(p.cmdline, "shim") && !strings.Contains(p.cmdline, "dockerd ") {
			return p.pid
		}
	}
	return 0
}

// cmdShim: shim kill9 | shim pid
func cmdShim(ts *testscript.TestScript, _ bool, args []string) {
	pid := of(ts).shimPid()
	if pid == 0 {
		ts.Fatalf("no shim runs")
	}
	if len(args) == 1 && args[0] == "kill9" {
		ts.Check(syscall.Kill(pid, syscall.SIGKILL))
		return
	}
	fmt.Fprintln(ts.Stdout(), pid)
}
