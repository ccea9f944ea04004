package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/gantry/gantry/test/poll"
	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

// cmdTTY: tty DIALOG PROGRAM ARGS… runs a program on a terminal of 24x80 and holds
// the dialogue in the file DIALOG with it, line by line:
//
//	expect REGEXP    wait until the output not yet matched has a match (20 s)
//	send TEXT        type; Go escapes such as \n, \x03
//	resize ROWSxCOLS change the terminal's size
//	signal N         send the program a signal
//	exit CODE        wait for the end
//	raw / cooked     check the terminal's mode
func cmdTTY(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: tty DIALOG PROGRAM ARGS...")
	}
	master, slave, err := openPTY()
	ts.Check(err)
	defer master.Close()
	ts.Check(setSize(master, 24, 80))
	path := args[1]
	if !strings.Contains(path, "/") {
		path = lookup(ts, path)
	}
	cmd := exec.Command(path, args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	for _, k := range []string{"PATH", "HOME", "DOCKER_HOST", "DOCKER_CONFIG", "SOCK"} {
		cmd.Env = append(cmd.Env, k+"="+ts.Getenv(k))
	}
	cmd.Env = append(cmd.Env, "TERM=xterm")
	ts.Check(cmd.Start())
	d := &dialog{master: master, slave: slave, cmd: cmd, done: make(chan struct{})}
	go d.read()
	go func() {
		d.err = cmd.Wait()
		close(d.done)
	}()
	err = d.play(ts.ReadFile(args[0]))
	_ = cmd.Process.Kill()
	<-d.done
	slave.Close()
	ts.Logf("%s", d.transcript())
	fmt.Fprint(ts.Stdout(), d.transcript())
	ts.Check(err)
}

type dialog struct {
	master, slave *os.File
	cmd           *exec.Cmd
	done          chan struct{}
	err           error

	mu  sync.Mutex
	buf bytes.Buffer
	pos int
}

func (d *dialog) read() {
	b := make([]byte, 4096)
	for {
		n, err := d.master.Read(b)
		d.mu.Lock()
		d.buf.Write(b[:n])
		d.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (d *dialog) transcript() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.buf.String()
}

func (d *dialog) play(script string) error {
	for i, line := range strings.Split(script, "\n") {
		verb, arg, _ := strings.Cut(line, " ")
		if err := d.step(verb, arg); err != nil {
			return fmt.Errorf("dialogue line %d: %s: %w", i+1, line, err)
		}
	}
	return nil
}

func (d *dialog) step(verb, arg string) error {
	switch verb {
	case "", "#":
		return nil
	case "expect":
		return d.expect(arg)
	case "send":
		text, err := strconv.Unquote(`"` + strings.ReplaceAll(arg, `"`, `\"`) + `"`)
		if err != nil {
			return err
		}
		_, err = d.master.WriteString(text)
		return err
	case "resize":
		var r, c uint16
		if _, err := fmt.Sscanf(arg, "%dx%d", &r, &c); err != nil {
			return err
		}
		return setSize(d.master, r, c)
	case "signal":
		n, err := strconv.Atoi(arg)
		if err != nil {
			return err
		}
		return d.cmd.Process.Signal(syscall.Signal(n))
	case "raw", "cooked":
		return d.mode(verb == "raw")
	case "exit":
		select {
		case <-d.done:
		case <-time.After(20 * time.Second):
			return fmt.Errorf("still runs")
		}
		if got := strconv.Itoa(exitCode(d.err)); got != arg {
			return fmt.Errorf("exit code %s", got)
		}
		return nil
	}
	return fmt.Errorf("unknown verb")
}

func (d *dialog) expect(pattern string) error {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return err
	}
	var text string
	if poll.Within(poll.Limit, func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		rest := d.buf.Bytes()[d.pos:]
		loc := re.FindIndex(rest)
		if loc != nil {
			d.pos += loc[1]
		}
		text = string(rest)
		return loc != nil
	}) {
		return nil
	}
	return fmt.Errorf("no match in %q", text)
}

// mode waits until the terminal is (or is not) in raw mode.
func (d *dialog) mode(raw bool) error {
	var err error
	if poll.Within(poll.Limit, func() bool {
		var t *unix.Termios
		t, err = unix.IoctlGetTermios(int(d.slave.Fd()), unix.TCGETS)
		return err != nil || (t.Lflag&(unix.ICANON|unix.ECHO) == 0) == raw
	}) {
		return err
	}
	return fmt.Errorf("the terminal's mode is another")
}

func setSize(f *os.File, rows, cols uint16) error {
	return unix.IoctlSetWinsize(int(f.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: rows, Col: cols})
}

func openPTY() (master, slave *os.File, err error) {
	master, err = os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	fd := int(master.Fd())
	if err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err == nil {
		var n uint32
		if n, err = unix.IoctlGetUint32(fd, unix.TIOCGPTN); err == nil {
			slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY|syscall.O_CLOEXEC, 0)
		}
	}
	if err != nil {
		master.Close()
		return nil, nil, err
	}
	return master, slave, nil
}
