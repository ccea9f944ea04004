package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// BecomeSubreaper makes this process the parent of the shim's children should the
// shim die (prctl(2), PR_SET_CHILD_SUBREAPER). The daemon calls it before Connect.
func BecomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	return nil
}

// reapOrphans watches the held processes that the shim is not the parent of: should
// one be our child, we take its status and tell the shim. With all, none is the
// shim's any more, as the shim has just died.
func (c *Client) reapOrphans(all bool) {
	orphans := c.held.orphans(all, func(key Key, err error) { c.cfg.Logf("watch orphan of %s: %v", key.Container, err) })
	for key, w := range orphans {
		c.wg.Add(1)
		go c.reapOrphan(key, w)
	}
}

func (c *Client) reapOrphan(key Key, w *PidWatch) {
	defer c.wg.Done()
	defer w.Close()
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-c.link.down:
			w.Close()
		case <-done:
		}
	}()
	var x Exit
	known := false
	err := w.Wait(func(fd int) bool {
		if !PollPidfd(fd, unix.POLLIN, 0) {
			return false // it runs
		}
		var err error
		x, known, err = Reap(fd)
		return known || err != nil
	})
	if err != nil || !known {
		return
	}
	x.Key = key
	ctx, cancel := context.WithTimeout(context.Background(), 2*successorWait)
	defer cancel()
	if err := c.link.call(ctx, MethodReaped, KeyRequest{Key: key, Exited: &x}, nil, nil); err != nil && !errors.Is(err, errdefs.ErrNotFound) {
		c.cfg.Logf("tell the shim how %s ended: %v", key.Container, err)
	}
}

// ReapStrangers reaps children that this process never started: what a dead shim's
// containers leave behind. Children of os/exec are never taken: they are reaped by
// their own Wait, so only a child that stays a zombie over two looks, ten seconds
// apart, is a stranger. It returns when ctx ends. It is meant for a subreaper, once
// a process.
func ReapStrangers(ctx context.Context) {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, unix.SIGCHLD)
	defer signal.Stop(ch)
	const between = 10 * time.Second
	var seen map[int]uint64
	for {
		if len(seen) == 0 {
			select {
			case <-ch:
			case <-ctx.Done():
				return
			}
		}
		if pause(ctx, between) != nil {
			return
		}
		seen = reapSeen(seen)
	}
}

// reapSeen reaps the zombies that were seen before and returns those that are new,
// by pid and start time.
func reapSeen(seen map[int]uint64) map[int]uint64 {
	now := map[int]uint64{}
	for _, pid := range zombies() {
		ticks, err := StartTicks(pid)
		if err != nil {
			continue
		}
		if t, ok := seen[pid]; ok && t == ticks {
			_, _, _ = ReapPid(pid)
			continue
		}
		now[pid] = ticks
	}
	return now
}

// zombies lists children that ended and were not reaped.
func zombies() []int {
	var list []int
	tasks, _ := os.ReadDir("/proc/self/task")
	for _, t := range tasks {
		b, err := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		if err != nil {
			continue
		}
		for _, f := range strings.Fields(string(b)) {
			pid, err := strconv.Atoi(f)
			if err == nil && isZombie(pid) {
				list = append(list, pid)
			}
		}
	}
	if len(tasks) > 0 && len(list) == 0 {
		// Kernels without the children file: one at a time.
		if pid := EndedChild(); pid > 0 {
			list = append(list, pid)
		}
	}
	return list
}

func isZombie(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	i := bytes.LastIndexByte(b, ')')
	return i > 0 && i+2 < len(b) && b[i+2] == 'Z'
}

// halfCloser and filer are what connections of net offer.
type (
	halfCloser interface{ CloseWrite() error }
	filer      interface{ File() (*os.File, error) }
)

// ConnFile returns a descriptor of a client's connection for Attach. Connections
// that are not a plain socket (TLS) are forwarded through a socket pair until both
// directions ended. It takes conn over: the caller closes only the file.
func ConnFile(conn interface {
	Read([]byte) (int, error)
	Write([]byte) (int, error)
	Close() error
},
) (*os.File, error) {
	if f, ok := conn.(filer); ok {
		file, err := f.File()
		conn.Close()
		return file, err
	}
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("socket pair: %w", err)
	}
	ours := os.NewFile(uintptr(p[0]), "client")
	var wg sync.WaitGroup
	wg.Add(2)
	go func() {
		defer wg.Done()
		forward(ours, conn)
		shutdown(ours, unix.SHUT_WR)
	}()
	go func() {
		defer wg.Done()
		forward(conn, ours)
		if h, ok := conn.(halfCloser); ok {
			_ = h.CloseWrite()
		} else {
			conn.Close()
		}
	}()
	go func() {
		wg.Wait()
		ours.Close()
		conn.Close()
	}()
	return os.NewFile(uintptr(p[1]), "client"), nil
}

func forward(dst interface{ Write([]byte) (int, error) }, src interface{ Read([]byte) (int, error) }) {
	buf := make([]byte, 32<<10)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, werr := dst.Write(buf[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func shutdown(f *os.File, how int) {
	raw, err := f.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), how) })
	}
}
