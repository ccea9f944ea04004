package fdpass

import (
	"errors"
	"os"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

func pair(t *testing.T, typ int) (a, b int) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, typ|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { Close(p[:]) })
	return p[0], p[1]
}

// open counts this process's descriptors.
func open(t *testing.T) int {
	t.Helper()
	l, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(l)
}

func TestReceive(t *testing.T) {
	for name, row := range map[string]struct {
		sent, limit int
		refused     bool
	}{
		"none":                 {0, 4, false},
		"one":                  {1, 1, false},
		"all":                  {Max, Max, false},
		"one more":             {2, 1, true}, // there is room for two in the buffer of one
		"many more":            {20, 1, true},
		"none is taken":        {1, 0, true},
		"limit above the most": {Max, 10000, false},
	} {
		t.Run(name, func(t *testing.T) {
			a, b := pair(t, unix.SOCK_STREAM)
			fds := make([]int, row.sent)
			for i := range fds {
				fds[i] = a
			}
			if n, err := Send(a, []byte("xyz"), 0, fds...); n != 3 || err != nil {
				t.Fatal(n, err)
			}
			before := open(t)
			buf := make([]byte, 8)
			n, got, err := Receive(b, buf, row.limit, 0)
			if row.refused {
				if !errors.Is(err, errdefs.ErrInvalidArgument) || got != nil {
					t.Errorf("%d %v", len(got), err)
				}
				if after := open(t); after != before {
					t.Errorf("%d descriptors are left open", after-before)
				}
				return
			}
			if err != nil || string(buf[:n]) != "xyz" || len(got) != row.sent {
				t.Fatalf("%q %d %v", buf[:n], len(got), err)
			}
			for _, fd := range got {
				if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("descriptor %d: %x %v", fd, flags, err)
				}
			}
			Close(got)
		})
	}
}

func TestReceiveEnds(t *testing.T) {
	a, b := pair(t, unix.SOCK_STREAM)
	if err := unix.Shutdown(a, unix.SHUT_WR); err != nil {
		t.Fatal(err)
	}
	if n, fds, err := Receive(b, make([]byte, 1), 1, 0); n != 0 || fds != nil || err != nil {
		t.Error(n, fds, err)
	}
	if _, _, err := Receive(a, make([]byte, 1), 1, unix.MSG_DONTWAIT); !errors.Is(err, unix.EAGAIN) {
		t.Error(err)
	}
	if _, _, err := Receive(-1, make([]byte, 1), 1, 0); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
}

func TestSendRefuses(t *testing.T) {
	a, _ := pair(t, unix.SOCK_STREAM)
	if _, err := Send(a, []byte("x"), 0, make([]int, Max+1)...); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Error(err)
	}
	if err := SendAll(a, []byte("x"), 12345); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
}

// TestOtherControlMessages: credentials that come along are passed over.
func TestOtherControlMessages(t *testing.T) {
	a, b := pair(t, unix.SOCK_STREAM)
	if err := unix.SetsockoptInt(b, unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		t.Fatal(err)
	}
	if err := SendAll(a, []byte("x"), a); err != nil {
		t.Fatal(err)
	}
	n, fds, err := Receive(b, make([]byte, 1), 16, 0)
	if n != 1 || len(fds) != 1 || err != nil {
		t.Error(n, fds, err)
	}
	Close(fds)
}

func TestFiles(t *testing.T) {
	a, b := pair(t, unix.SOCK_STREAM)
	file := func(fd int) *os.File {
		d, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.SetNonblock(d, true); err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(d), "socket")
		t.Cleanup(func() { f.Close() })
		return f
	}
	from, to := file(a), file(b)
	big := make([]byte, 4<<20) // more than the socket holds
	done := make(chan error, 1)
	go func() { done <- SendFile(from, big, a) }()
	total, buf := 0, make([]byte, 64<<10)
	for total < len(big) {
		n, fds, err := ReceiveFile(to, buf, 1)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		if (total == 0) != (len(fds) == 1) {
			t.Errorf("%d descriptors at byte %d", len(fds), total)
		}
		Close(fds)
		total += n
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := to.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, _, err := ReceiveFile(to, buf, 1); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	to.Close()
	from.Close()
	if _, _, err := ReceiveFile(to, buf, 1); err == nil {
		t.Error("received from a closed file")
	}
	if err := SendFile(from, big); err == nil {
		t.Error("sent to a closed file")
	}
}
