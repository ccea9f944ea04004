package ocicli_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

func TestRunExitCodes(t *testing.T) {
	b := newBundle(t)
	for _, c := range []struct {
		name, out, err string
		args           []string
		code           int
	}{
		{"zero", "hi\n", "", []string{"echo", "hi"}, 0},
		{"seven", "", "", []string{"sh", "-c", "exit 7"}, 7},
		{"signal", "", "", []string{"sh", "-c", "sh -c 'kill -9 $$'; exit $?"}, 137},
		{"missing", "", `exec: \"nosuch\": executable file not found in $PATH`, []string{"nosuch"}, 1},
		{"directory", "", "is a directory", []string{"/bin"}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			b.spec.Process.Args = c.args
			b.write()
			r := b.cmd(nil, "run", "{ID}")
			if r.code != c.code || r.out != c.out || !strings.Contains(r.err, c.err) {
				t.Errorf("got %+v", r)
			}
			if l, err := os.ReadDir(b.root); err != nil || len(l) != 0 {
				t.Errorf("left in the state directory: %v %v", l, err)
			}
			if l, _ := filepath.Glob("/sys/fs/cgroup/*" + b.spec.Linux.CgroupsPath); len(l) != 0 {
				t.Errorf("left of the cgroup: %v", l)
			}
		})
	}
}

// TestLifecycle goes through the states, each step a process of its own.
func TestLifecycle(t *testing.T) {
	b := newBundle(t, "sh", "-c", "echo started >/out; exec sleep 1000")
	b.write()
	b.refused("container does not exist", "state", "{ID}")
	b.refused("container does not exist", "start", "{ID}")
	pid := filepath.Join(b.dir, "pid")
	b.ok("create", "--pid-file", pid, "{ID}")
	if s := b.status(); s != "created" {
		t.Errorf("status %s", s)
	}
	b.refused("container with given ID already exists", "create", "{ID}")
	if _, err := os.Stat(b.dir + "/rootfs/out"); err == nil {
		t.Error("the program ran before start")
	}
	if out := b.ok("exec", "{ID}", "echo", "early"); out != "early\n" {
		t.Errorf("exec in a created container: %q", out)
	}
	b.ok("start", "{ID}")
	b.refused("cannot start an already running container", "start", "{ID}")
	if s := b.status(); s != "running" {
		t.Errorf("status %s", s)
	}
	await(t, "the program", func() bool { _, err := os.Stat(b.dir + "/rootfs/out"); return err == nil })
	b.refused("that is not stopped: running", "delete", "{ID}")
	var st specs.State
	must(t, json.Unmarshal([]byte(b.ok("state", "{ID}")), &st))
	if got := readBack(t, pid); got != fmt.Sprint(st.Pid) {
		t.Errorf("pid file %q, state %d", got, st.Pid)
	}
	b.refused("unknown signal", "kill", "{ID}", "NOSUCH")
	b.ok("kill", "{ID}", "KILL")
	await(t, "the end", func() bool { return b.status() == "stopped" })
	b.refused("container not running", "kill", "{ID}")
	b.refused("cannot start a container that has stopped", "start", "{ID}")
	b.refused("cannot exec in a stopped container", "exec", "{ID}", "true")
	b.ok("delete", "{ID}")
	b.refused("container does not exist", "delete", "{ID}")
	b.ok("delete", "--force", "{ID}")
}

// TestKillThenDelete: people and scripts delete right after the kill.
func TestKillThenDelete(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	for range 20 {
		b.ok("run", "-d", "{ID}")
		b.ok("kill", "{ID}", "KILL")
		b.ok("delete", "{ID}")
	}
}

func TestDeleteForms(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	for _, c := range [][]string{{"create", "delete"}, {"create", "delete --force"}, {"run -d", "delete -f"}, {"run -d", "pause", "delete --force"}, {"run -d", "kill --all", "delete --force"}} {
		for i, step := range c {
			args := append(strings.Fields(step), "{ID}")
			if i == 0 || !strings.HasPrefix(step, "kill") {
				b.ok(args...)
				continue
			}
			b.ok(append(args, "9")...)
			await(t, "the end", func() bool { return b.status() == "stopped" })
		}
	}
	// A create that was interrupted left a directory only.
	must(t, os.Mkdir(filepath.Join(b.root, b.id), 0o700))
	if s := b.status(); s != "stopped" {
		t.Errorf("status of the remains: %s", s)
	}
	b.ok("delete", "--force", "{ID}")
	for _, id := range []string{"..", ".", "a/b", "", "a b", "../x", strings.Repeat("x", 2000)} {
		b.refused("invalid container ID format", "create", "--bundle", "{DIR}", id)
		b.refused("invalid container ID format", "delete", "--force", id)
	}
}

func TestExec(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	b.ok("run", "-d", "{ID}")
	proc := filepath.Join(b.dir, "process.json")
	p := *b.spec.Process
	p.Args, p.User = []string{"sh", "-c", "id -u; exit 9"}, specs.User{UID: 33}
	j, err := json.Marshal(&p)
	must(t, err)
	must(t, os.WriteFile(proc, j, 0o644))
	for _, c := range []struct {
		args []string
		out  string
		code int
	}{
		{[]string{"{ID}", "sh", "-c", "exit 3"}, "", 3},
		{[]string{"{ID}", "sh", "-c", "kill -TERM $$"}, "", 143},
		{[]string{"--env", "A=b", "-e", "C=d", "{ID}", "sh", "-c", "echo $A$C"}, "bd\n", 0},
		{[]string{"--user", "5:6", "-g", "7", "--additional-gids=8", "{ID}", "sh", "-c", "id -u; id -g; id -G"}, "5\n6\n6 7 8\n", 0},
		{[]string{"--cwd", "/bin", "{ID}", "pwd"}, "/bin\n", 0},
		{[]string{"--no-new-privs", "{ID}", "grep", "NoNewPrivs", "/proc/self/status"}, "NoNewPrivs:\t1\n", 0},
		{[]string{"--cap", "CAP_NET_RAW", "{ID}", "grep", "CapInh", "/proc/self/status"}, "CapInh:\t0000000000000000\n", 0},
		{[]string{"--process", proc, "{ID}"}, "33\n", 9},
		{[]string{"{ID}", "echo", "--detach", "-t"}, "--detach -t\n", 0},
	} {
		t.Run(c.out, func(t *testing.T) {
			if r := b.cmd(nil, append([]string{"exec"}, c.args...)...); r.out != c.out || r.code != c.code {
				t.Errorf("exec %v: %+v", c.args, r)
			}
		})
	}
	b.refused("executable file not found", "exec", "{ID}", "nosuch")
	b.refused("not a user or group id", "exec", "--user", "root", "{ID}", "true")
	b.refused("leads out", "exec", "--cgroup", "../x", "{ID}", "true")
	b.refused("process args cannot be empty", "exec", "{ID}")
	pid := filepath.Join(b.dir, "exec.pid")
	b.ok("exec", "-d", "--pid-file", pid, "{ID}", "sleep", "500")
	if got := b.ok("ps", "--format", "json", "{ID}"); !strings.Contains(got, readBack(t, pid)) {
		t.Errorf("ps %s misses %s", got, readBack(t, pid))
	}
	if table := b.ok("ps", "{ID}"); strings.Count(table, "sleep") != 2 || !strings.Contains(table, "PID") {
		t.Errorf("ps table:\n%s", table)
	}
}

func TestPause(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	b.write()
	b.ok("run", "--detach", "{ID}")
	b.refused("container not paused", "resume", "{ID}")
	b.ok("pause", "{ID}")
	if s := b.status(); s != "paused" {
		t.Errorf("status %s", s)
	}
	b.refused("container not running", "pause", "{ID}")
	b.refused("cannot exec in a paused container", "exec", "{ID}", "true")
	b.refused("that is not stopped: paused", "delete", "{ID}")
	b.ok("resume", "{ID}")
	if s := b.status(); s != "running" {
		t.Errorf("status %s", s)
	}
	b.ok("pause", "{ID}")
	b.ok("kill", "{ID}", "SIGKILL")
	await(t, "the end of a paused container", func() bool { return b.status() == "stopped" })
}

// TestConsoleSocket receives the terminal as conmon and containerd's shim do.
func TestConsoleSocket(t *testing.T) {
	b := newBundle(t, "sh", "-c", "tty; ls -l /dev/console | head -c 1; exec cat")
	b.spec.Process.Terminal = true
	b.write()
	b.refused("cannot allocate tty if runc will detach without setting console socket", "create", "{ID}")
	path := filepath.Join(b.dir, "console.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	must(t, err)
	defer l.Close()
	b.ok("create", "--console-socket", path, "{ID}")
	master := receive(t, l)
	defer master.Close()
	b.ok("start", "{ID}")
	_, err = master.WriteString("typed\n")
	must(t, err)
	read := ""
	await(t, "the echo", func() bool {
		buf := make([]byte, 256)
		_ = master.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, err := master.Read(buf)
		must(t, err)
		read += string(buf[:n])
		return strings.Count(read, "typed") == 2
	})
	if !strings.HasPrefix(strings.ReplaceAll(read, "typed\r\n", ""), "/dev/pts/0\r\nc") {
		t.Errorf("terminal shows %q", read)
	}
	b.ok("exec", "-d", "-t", "--console-socket", path, "{ID}", "tty")
	second := receive(t, l)
	defer second.Close()
	buf := make([]byte, 64)
	n, err := second.Read(buf)
	if err != nil || string(buf[:n]) != "/dev/pts/1\r\n" {
		t.Errorf("exec's terminal: %q %v", buf[:n], err)
	}
}

func receive(t *testing.T, l *net.UnixListener) *os.File {
	t.Helper()
	must(t, l.SetDeadline(time.Now().Add(10*time.Second)))
	c, err := l.AcceptUnix()
	must(t, err)
	defer c.Close()
	buf, oob := make([]byte, 64), make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := c.ReadMsgUnix(buf, oob)
	must(t, err)
	if n == 0 {
		t.Error("no name came with the terminal")
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:on])
	must(t, err)
	fds, err := unix.ParseUnixRights(&msgs[0])
	must(t, err)
	must(t, unix.SetNonblock(fds[0], true))
	return os.NewFile(uintptr(fds[0]), "master")
}

func TestErrorLog(t *testing.T) {
	b := newBundle(t, "nosuch")
	b.write()
	log := filepath.Join(b.dir, "log.json")
	r := b.cmd(nil, "--log", log, "--log-format", "json", "create", "--bundle", "{DIR}", "{ID}")
	if r.code != 1 || !strings.Contains(r.err, "executable file not found in $PATH") {
		t.Errorf("%+v", r)
	}
	var line struct {
		Level, Msg string
		Time       time.Time
	}
	lines := strings.Split(strings.TrimSpace(readBack(t, log)), "\n")
	must(t, json.Unmarshal([]byte(lines[len(lines)-1]), &line))
	if line.Level != "error" || !strings.Contains(line.Msg, `exec: "nosuch": executable file not found in $PATH`) || line.Time.IsZero() {
		t.Errorf("%+v", line)
	}
	b.refused("slice:prefix:name", "--systemd-cgroup", "create", "{ID}")
	b.refused("requires exactly 1 argument", "state")
	b.refused("flag provided but not defined: -nosuch", "state", "--nosuch", "x")
	if r := b.cmd(nil, "nosuch"); r.code != 3 || !strings.Contains(r.err, "No help topic for 'nosuch'") {
		t.Errorf("%+v", r)
	}
}

func TestPreserveFDs(t *testing.T) {
	b := newBundle(t, "sh", "-c", "cat <&3; cat <&4; ls /proc/self/fd; echo $LISTEN_FDS $LISTEN_PID")
	b.write()
	files := func(c *exec.Cmd) {
		for i := range 2 {
			p := filepath.Join(b.dir, fmt.Sprint("f", i))
			must(t, os.WriteFile(p, fmt.Appendf(nil, "file %d\n", i), 0o644))
			f, err := os.Open(p)
			must(t, err)
			t.Cleanup(func() { f.Close() })
			c.ExtraFiles = append(c.ExtraFiles, f)
		}
	}
	want := "file 0\nfile 1\n0\n1\n2\n3\n4\n5\n" // 5 is ls's own
	if r := b.cmd(files, "run", "--preserve-fds", "2", "{ID}"); r.out != want+"\n" {
		t.Errorf("run: %+v", r)
	}
	listen := func(c *exec.Cmd) { files(c); c.Env = append(c.Env, "LISTEN_FDS=1") }
	if r := b.cmd(listen, "run", "--preserve-fds", "1", "{ID}"); r.out != want+"1 1\n" {
		t.Errorf("LISTEN_FDS: %+v", r)
	}
	if r := b.cmd(nil, "run", "--preserve-fds", "2", "{ID}"); r.code != 1 || !strings.Contains(r.err, "preserved-fd 0 (of 2)") {
		t.Errorf("missing: %+v", r)
	}
	b.spec.Process.Args = []string{"sleep", "1000"}
	b.write()
	b.ok("run", "-d", "{ID}")
	if r := b.cmd(files, "exec", "--preserve-fds", "2", "{ID}", "sh", "-c", "cat <&3 <&4; ls /proc/self/fd"); !strings.HasSuffix(r.out, "file 1\n0\n1\n2\n3\n4\n5\n") {
		t.Errorf("exec: %+v", r)
	}
}

func TestUpdateAndEvents(t *testing.T) {
	b := newBundle(t, "sleep", "1000")
	limit := int64(64 << 20)
	b.spec.Linux.Resources = &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &limit}}
	b.write()
	b.ok("run", "-d", "{ID}")
	b.ok("update", "--memory", "128m", "--pids-limit", "77", "{ID}")
	type event struct {
		Type, ID string
		Data     struct {
			Memory struct{ Usage struct{ Limit uint64 } }
			Pids   struct{ Current, Limit uint64 }
		}
	}
	stats := func() (e event) {
		must(t, json.Unmarshal([]byte(b.ok("events", "--stats", "{ID}")), &e))
		return e
	}
	if e := stats(); e.Type != "stats" || e.ID != b.id || e.Data.Memory.Usage.Limit != 128<<20 || e.Data.Pids.Limit != 77 || e.Data.Pids.Current != 1 {
		t.Errorf("%+v", e)
	}
	r := b.cmd(func(c *exec.Cmd) { c.Stdin = strings.NewReader(`{"pids":{"limit":55}}`) }, "update", "-r", "-", "{ID}")
	if e := stats(); r.code != 0 || e.Data.Pids.Limit != 55 || e.Data.Memory.Usage.Limit != 128<<20 {
		t.Errorf("%+v %+v", r, e)
	}
	c := b.command("events", "--interval", "10ms", b.id)
	out, err := c.StdoutPipe()
	must(t, err)
	must(t, c.Start())
	dec := json.NewDecoder(out)
	var e event
	must(t, dec.Decode(&e))
	b.ok("kill", "{ID}", "KILL")
	must(t, c.Wait()) // ends with the container
}
