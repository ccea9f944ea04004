package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"golang.org/x/sys/unix"
)

// open dials the shim, or starts one and dials it. A shim that is just dying may
// still take the connection or hold the lock, so it tries again for a while. onEvent runs
// in the reader's goroutine.
func (cfg *Config) open(ctx context.Context, onEvent func(*Event)) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, spawnWait)
	defer cancel()
	for wait := 10 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		s, err := cfg.tryOpen(ctx, onEvent)
		if err == nil || !errors.Is(err, errdefs.ErrUnavailable) || wait > time.Second/2 {
			return s, err
		}
		if pause(ctx, wait) != nil {
			return nil, err
		}
	}
}

func (cfg *Config) tryOpen(ctx context.Context, onEvent func(*Event)) (*session, error) {
	fd, err := dial(cfg.Root)
	if err != nil {
		if fd, err = cfg.spawn(ctx); err != nil {
			return nil, errclass.With(errdefs.ErrUnavailable, fmt.Errorf("start shim: %w", err))
		}
	}
	w, err := NewWire(fd)
	if err != nil {
		return nil, err
	}
	if err := w.CheckPeer(); err != nil {
		w.Close()
		return nil, err
	}
	s := &session{wire: w, calls: map[uint64]*pending{}, done: make(chan struct{}), pidfd: -1}
	go s.read(onEvent)
	err = s.call(ctx, MethodHello, Hello{Version: Version, Pid: os.Getpid()}, nil, func(b json.RawMessage, fds []int) error {
		fdpass.Close(fds)
		return json.Unmarshal(b, &s.hello)
	})
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("greet the shim: %w", err)
	}
	s.pid = s.hello.Pid
	if s.pidfd, err = unix.PidfdOpen(s.pid, 0); err != nil {
		s.pidfd = -1 // in another pid namespace, or just dead: the connection tells
	}
	return s, nil
}

func dial(root string) (int, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("shim socket: %w", err)
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(root, SocketName)}); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to shim: %w", err)
	}
	return fd, nil
}

// spawn starts a shim unless one answers by then, and dials it.
func (cfg *Config) spawn(ctx context.Context) (int, error) {
	lock, err := os.OpenFile(filepath.Join(cfg.Root, spawnLockName), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return -1, err
	}
	defer lock.Close()
	for unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		if err := pause(ctx, 20*time.Millisecond); err != nil {
			return -1, err
		}
	}
	if fd, err := dial(cfg.Root); err == nil {
		return fd, nil
	}
	if err := cfg.startShim(ctx); err != nil {
		return -1, err
	}
	return dial(cfg.Root)
}

// startShim starts the process and returns when it is ready.
func (cfg *Config) startShim(ctx context.Context) error {
	logFile, err := os.OpenFile(cfg.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("shim log: %w", err)
	}
	defer logFile.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer r.Close()
	p, err := os.StartProcess(cfg.Binary, []string{filepath.Base(cfg.Binary), "shim", "--root", cfg.Root, "--ready-fd", "3"}, &os.ProcAttr{
		Dir:   "/",
		Env:   []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
		Files: []*os.File{null, logFile, logFile, w},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return err
	}
	go func() { _, _ = p.Wait() }() // we are its parent: no zombie
	stop := context.AfterFunc(ctx, func() { r.Close() })
	defer stop()
	var word [512]byte
	n, _ := r.Read(word[:])
	if got := string(word[:n]); got != "ok\n" {
		if err := ctx.Err(); err != nil {
			return err
		}
		if got == "" {
			got = "it ended; see " + cfg.LogPath
		}
		return errors.New(got)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
