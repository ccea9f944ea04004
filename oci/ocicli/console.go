package ocicli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci"
	"golang.org/x/sys/unix"
)

// foreground is the caller's side of a process that is waited for: signals that
// come are passed on, a terminal is copied in both directions.
type foreground struct {
	terminal bool
	sigs     signals
	old      *unix.Termios // of standard input, when it was set raw
	output   chan struct{} // closed when the terminal's output has ended
}

// newForeground starts to collect signals: none that comes while the process is
// being made is lost. children tells that programs are run on this side (hooks).
func newForeground(terminal, children bool) *foreground {
	return &foreground{terminal: terminal, sigs: collectSignals(children)}
}

// size is that of the caller's terminal; zero without.
func (fg *foreground) size() oci.WinSize {
	if !fg.terminal {
		return oci.WinSize{}
	}
	ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
	if err != nil {
		return oci.WinSize{}
	}
	return oci.WinSize{Rows: ws.Row, Cols: ws.Col}
}

// proxy sets the caller's terminal raw and copies.
func (fg *foreground) proxy(console *os.File) {
	if t, err := unix.IoctlGetTermios(0, unix.TCGETS); err == nil {
		raw := *t
		// termios(3), cfmakeraw.
		raw.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
		raw.Oflag &^= unix.OPOST
		raw.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
		raw.Cflag &^= unix.CSIZE | unix.PARENB
		raw.Cflag |= unix.CS8
		raw.Cc[unix.VMIN], raw.Cc[unix.VTIME] = 1, 0
		if unix.IoctlSetTermios(0, unix.TCSETS, &raw) == nil {
			fg.old = t
		}
	}
	fg.output = make(chan struct{})
	go func() { _, _ = io.Copy(console, os.Stdin) }() // ends with this process
	go func() {
		_, _ = io.Copy(os.Stdout, console) // ends with EIO when nobody has the terminal
		close(fg.output)
	}()
}

// drainTime bounds the wait for a terminal's last output: a process that was left
// behind may hold it open.
const drainTime = time.Second

// wait passes signals on until the process has ended and returns its status as a
// shell counts it.
func (fg *foreground) wait(p *oci.Process) (int, error) {
	if err := fg.sigs.each(p.PidFD, func(s unix.Signal) { fg.forward(p, s) }); err != nil {
		return 0, err
	}
	code, err := reap(p.Pid)
	if fg.output != nil {
		_ = p.Console.SetReadDeadline(time.Now().Add(drainTime))
		<-fg.output
	}
	fg.restore()
	return code, err
}

func (fg *foreground) forward(p *oci.Process, sig unix.Signal) {
	switch sig {
	case unix.SIGCHLD, unix.SIGURG, unix.SIGPIPE, unix.SIGTTIN, unix.SIGTTOU:
		// Ours: children, the Go runtime's preemption, our own streams.
	case unix.SIGWINCH:
		if p.Console == nil {
			return
		}
		if ws, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ); err == nil {
			_ = control(p.Console, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, ws) })
		}
	default:
		_ = signalProcess(p.PidFD, sig)
	}
}

func (fg *foreground) restore() {
	fg.sigs.stop()
	if fg.old != nil {
		_ = unix.IoctlSetTermios(0, unix.TCSETS, fg.old)
		fg.old = nil
	}
}

// stop undoes what was prepared for a process that did not come to be.
func (l *launch) stop() {
	if l.fg != nil {
		l.fg.restore()
	}
}

// terminalReady gives a new process's terminal to whom it is for.
func (l *launch) terminalReady(p *oci.Process) error {
	if p.Console == nil {
		return nil
	}
	if l.console == "" {
		l.fg.proxy(p.Console)
		return nil
	}
	defer p.Console.Close()
	return sendConsole(l.console, p.Console)
}

// sendConsole passes the master side of a terminal over a unix socket, with its
// name as the payload (runc's docs/terminals.md).
func sendConsole(socket string, console *os.File) error {
	// Addresses are limited to 108 bytes: name the directory by descriptor.
	dir, err := os.Open(filepath.Dir(socket))
	if err != nil {
		return fmt.Errorf("console socket: %w", err)
	}
	defer dir.Close()
	sock, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("console socket: %w", err)
	}
	defer unix.Close(sock)
	addr := &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(socket))}
	if err := unix.Connect(sock, addr); err != nil {
		return fmt.Errorf("console socket %s: %w", socket, err)
	}
	return control(console, func(fd int) error {
		if err := unix.SetNonblock(fd, false); err != nil { // the receiver expects it so
			return err
		}
		if err := fdpass.SendAll(sock, []byte("/dev/ptmx"), fd); err != nil {
			return fmt.Errorf("console socket %s: %w", socket, err)
		}
		return nil
	})
}

// control calls f with the descriptor, in the mode it is in.
func control(file *os.File, f func(fd int) error) error {
	rc, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}

func signalProcess(pidfd *os.File, sig unix.Signal) error {
	return control(pidfd, func(fd int) error { return unix.PidfdSendSignal(fd, sig, nil, 0) })
}

// reap waits for a child and returns its status as a shell counts it.
func reap(pid int) (int, error) {
	var ws unix.WaitStatus
	for {
		_, err := unix.Wait4(pid, &ws, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait for process %d: %w", pid, err)
		}
		if ws.Signaled() {
			return 128 + int(ws.Signal()), nil
		}
		return ws.ExitStatus(), nil
	}
}
