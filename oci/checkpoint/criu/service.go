package criu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci/launch/selfexe"
	"golang.org/x/sys/unix"
)

// leastVersion is the oldest criu that is asked, 3.0.
const leastVersion = 30000

// Find returns the path of criu: what the caller named, or the program of that name.
// Class ErrNotImplemented where there is none.
func Find(path string) (string, error) {
	if path == "" {
		path = "criu"
	}
	p, err := exec.LookPath(path)
	if err != nil {
		return "", errclass.NotImplemented("checkpoint and restore need CRIU, which is not installed here: %w", err)
	}
	return p, nil
}

// Service is a process of criu's that waits for a request. It is for one goroutine.
type Service struct {
	cmd  *exec.Cmd
	sock *os.File
	done bool
}

// Start starts criu. Close ends it.
func Start(ctx context.Context, path string) (*Service, error) { return StartWith(ctx, path, nil) }

// StartWith starts criu with more descriptors, from 4 on.
func StartWith(ctx context.Context, path string, files []*os.File) (*Service, error) {
	return start(ctx, path, []string{path, "swrk", "3"}, nil, files)
}

// start starts a program with a socket as its descriptor 3 and files following.
func start(ctx context.Context, path string, args []string, stdio []*os.File, files []*os.File) (*Service, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("socket of criu: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "criu")
	defer theirs.Close()
	s := &Service{sock: os.NewFile(uintptr(fds[0]), "criu")}
	s.cmd = exec.CommandContext(ctx, path, args[1:]...)
	s.cmd.Args[0] = args[0]
	s.cmd.ExtraFiles = append([]*os.File{theirs}, files...)
	if len(stdio) == 3 {
		s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = stdio[0], stdio[1], stdio[2]
	}
	s.cmd.SysProcAttr = &syscall.SysProcAttr{}
	if err := s.cmd.Start(); err != nil {
		s.sock.Close()
		return nil, fmt.Errorf("start criu: %w", err)
	}
	return s, nil
}

// StartLauncher starts criu by a launcher of ours, which waits for Go.
func StartLauncher(ctx context.Context, st *Launcher, stdio []*os.File, files []*os.File) (*Service, error) {
	b, err := json.Marshal(st)
	if err != nil {
		return nil, err
	}
	exe, err := selfexe.Exe()
	if err != nil {
		return nil, err
	}
	// Out of the way of the descriptors that the launcher gets.
	const high = 100
	exe, err = unix.FcntlInt(uintptr(exe), unix.F_DUPFD_CLOEXEC, high)
	if err != nil {
		return nil, err
	}
	defer unix.Close(exe)
	return start(ctx, fmt.Sprintf("/proc/self/fd/%d", exe), []string{LauncherArg0, LauncherArg1, string(b)}, stdio, files)
}

// Pid is criu's process id.
func (s *Service) Pid() int { return s.cmd.Process.Pid }

// Go lets a launcher go on, whose process is where it belongs by now.
func (s *Service) Go() error { return s.send([]byte{0}) }

// Close ends criu, if it has not ended by itself.
func (s *Service) Close() {
	s.sock.Close()
	if !s.done {
		_ = s.cmd.Process.Kill()
	}
	_ = s.cmd.Wait()
}

func (s *Service) send(b []byte) error {
	if _, err := fdpass.Send(int(s.sock.Fd()), b, 0); err != nil {
		return fmt.Errorf("ask criu: %w", err)
	}
	return nil
}

// maxResponse bounds an answer; criu's own are a few hundred bytes.
const maxResponse = 64 << 10

// receive reads an answer, and the descriptor that came with it (nil if none).
func (s *Service) receive() (*response, *os.File, error) {
	b := make([]byte, maxResponse)
	n, fds, err := fdpass.Receive(int(s.sock.Fd()), b, 1, unix.MSG_TRUNC) // n is the message's own length
	if err != nil {
		return nil, nil, fmt.Errorf("answer of criu: %w", err)
	}
	var f *os.File
	if len(fds) == 1 {
		f = os.NewFile(uintptr(fds[0]), "pty")
	}
	switch {
	case n == 0:
		err = errors.New("criu has ended without an answer")
	case n > len(b):
		err = errWire
	case b[0] == launcherError:
		err = errors.New(string(b[1:n]))
	}
	var r *response
	if err == nil {
		r, err = parseResponse(b[:n])
	}
	if err != nil && f != nil {
		f.Close()
		f = nil
	}
	return r, f, err
}

// Notify is called at each step of a restore, with the step, the first process's id where
// there is one, and at "orphan-pts-master" the master side of its terminal, which
// it owns. An error fails the restore.
type Notify func(step string, pid int, terminal *os.File) error

// ask sends a request and follows criu to its answer.
func (s *Service) ask(m message, notify Notify) (*response, error) {
	if err := s.send(m); err != nil {
		return nil, err
	}
	var want error // why a step was refused
	for {
		r, f, err := s.receive()
		if err != nil {
			if want != nil {
				return nil, want
			}
			return nil, err
		}
		if r.typ == reqNotify {
			if notify == nil || want != nil {
				err = want
			} else {
				err = notify(r.script, r.pid, f)
			}
			if err != nil && want == nil {
				want = err
			}
			if err := s.send(notified(want == nil)); err != nil {
				if want != nil { // whoever refused may have ended criu as well
					return nil, want
				}
				return nil, err
			}
			continue
		}
		if f != nil {
			f.Close()
		}
		if want != nil {
			return nil, want
		}
		s.done = true
		if !r.success {
			text := r.message
			if text == "" && r.errno != 0 {
				text = unix.Errno(r.errno).Error()
			}
			return r, &FailedError{Text: strings.TrimSpace(text)}
		}
		return r, nil
	}
}

// FailedError is what criu says when it cannot do what it was asked; its log says more.
type FailedError struct{ Text string }

func (f *FailedError) Error() string {
	if f.Text == "" {
		return "criu failed"
	}
	return "criu failed: " + f.Text
}

// CheckVersion asks a criu of its own whether it is new enough, and returns its
// version: 31701 is 3.17.1. Class ErrNotImplemented where it is too old or does not
// work on this kernel.
func CheckVersion(ctx context.Context, path string) (int, error) {
	s, err := Start(ctx, path)
	if err != nil {
		return 0, err
	}
	defer s.Close()
	r, err := s.ask(request(reqVersion, nil), nil)
	if err != nil {
		return 0, errclass.With(errdefs.ErrNotImplemented, fmt.Errorf("criu does not work here (see criu check): %w", err))
	}
	if r.version < leastVersion {
		return r.version, errclass.NotImplemented("criu %d is too old: checkpoint and restore need 3.0", r.version)
	}
	return r.version, nil
}

// CheckFeatures asks whether this criu and this kernel can track memory, and restore
// pages lazily.
func CheckFeatures(ctx context.Context, path string) (memTrack, lazyPages bool, err error) {
	s, err := Start(ctx, path)
	if err != nil {
		return false, false, err
	}
	defer s.Close()
	m := request(reqFeatureCheck, nil)
	var f message
	f.number(1, 1)
	f.number(2, 1)
	m.sub(5, f)
	r, err := s.ask(m, nil)
	if err != nil {
		return false, false, err
	}
	return r.memTrack, r.lazyPages, nil
}

// Dump saves the processes; pre only their memory, and they run on.
func (s *Service) Dump(o *Options, pre bool) error {
	typ := reqDump
	if pre {
		typ = reqPreDump
	}
	_, err := s.ask(request(typ, o), nil)
	return err
}

// Restore restores processes, of which the first becomes this process's child; its id
// is returned.
func (s *Service) Restore(o *Options, n Notify) (int, error) {
	r, err := s.ask(request(reqRestore, o), n)
	if err != nil {
		return 0, err
	}
	return r.pid, nil
}
