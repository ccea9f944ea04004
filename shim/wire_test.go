package shim

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"golang.org/x/sys/unix"
)

func wires(t testing.TB) (*Wire, *Wire) {
	t.Helper()
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var w [2]*Wire
	for i := range w {
		if w[i], err = NewWire(p[i]); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { w[i].Close() })
	}
	return w[0], w[1]
}

func TestWireFrames(t *testing.T) {
	a, b := wires(t)
	if err := a.CheckPeer(); err != nil {
		t.Fatal(err)
	}
	var fds []int
	for range 3 {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		fds = append(fds, p[0], p[1])
	}
	defer fdpass.Close(fds)
	big := json.RawMessage(`"` + strings.Repeat("x", 1<<20) + `"`)
	frames := []struct {
		body json.RawMessage
		fds  []int
	}{
		{json.RawMessage(`1`), nil},
		{json.RawMessage(`2`), fds[:2]},
		{json.RawMessage(`3`), fds[2:3]},
		{big, fds[3:]},
		{json.RawMessage(`5`), nil},
	}
	sent := make(chan error, 1)
	go func() {
		for i, f := range frames {
			if err := a.Send(&Envelope{ID: uint64(i), Body: f.body}, f.fds...); err != nil {
				sent <- err
				return
			}
		}
		a.Close()
		sent <- nil
	}()
	for i, f := range frames {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			e, got, err := b.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if e.ID != uint64(i) || string(e.Body) != string(f.body) || len(got) != len(f.fds) {
				t.Fatalf("frame %d: id %d, %d bytes, %d descriptors", i, e.ID, len(e.Body), len(got))
			}
			for j, fd := range got {
				var x, y unix.Stat_t
				if unix.Fstat(fd, &x) != nil || unix.Fstat(f.fds[j], &y) != nil || x.Ino != y.Ino {
					t.Errorf("frame %d: descriptor %d is another", i, j)
				}
				if flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("descriptor without close-on-exec")
				}
			}
			fdpass.Close(got)
		})
	}
	if _, _, err := b.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestWireBounds(t *testing.T) {
	for _, raw := range []string{"\xff\xff\xff\xff", "\x00\x00\x00\x02{]", "\x00\x00\x00\x0a{\"fds\":1}\n", "\x00\x00\x00\x0b{\"fds\":-1}\n"} {
		t.Run(raw, func(t *testing.T) {
			a, b := wires(t)
			if _, err := a.f.Write([]byte(raw)); err != nil {
				t.Fatal(err)
			}
			if _, _, err := b.Recv(); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%q: %v", raw, err)
			}
		})
	}
	a, b := wires(t)
	if _, err := a.f.Write([]byte("\x00\x00")); err != nil {
		t.Fatal(err)
	}
	a.Close()
	if _, _, err := b.Recv(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("cut frame: %v", err)
	}
}

func TestErrorsKeepTheirClass(t *testing.T) {
	for name, class := range classes() {
		err := ToWire(errclass.With(class, errors.New("text of "+name))).Err()
		if !errors.Is(err, class) || err.Error() != "text of "+name {
			t.Errorf("%s became %v", name, err)
		}
	}
	if err := ToWire(fmt.Errorf("none")).Err(); err.Error() != "none" || errclass.Of(err) != errdefs.ErrUnknown {
		t.Errorf("unclassed became %v", err)
	}
	if ToWire(nil) != nil || (*Error)(nil).Err() != nil {
		t.Error("nil is not nil")
	}
}

func FuzzWire(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x02{}\x00\x00\x00\x0a{\"fds\":3}\n"))
	f.Add([]byte("\x00\x3f\xff\xff{"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 1<<15 {
			return
		}
		a, b := wires(t)
		if _, err := a.f.Write(in); err != nil {
			t.Fatal(err)
		}
		a.Close()
		for {
			_, fds, err := b.Recv()
			fdpass.Close(fds)
			if err != nil {
				return
			}
		}
	})
}

func TestStartTicks(t *testing.T) {
	ticks, err := StartTicks(os.Getpid())
	if err != nil || ticks == 0 {
		t.Fatalf("%d, %v", ticks, err)
	}
	f, err := OpenRunning(os.Getpid(), ticks)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	for _, pid := range []int{0, -1, 1 << 22} {
		t.Run(fmt.Sprint(pid), func(t *testing.T) {
			if _, err := OpenRunning(pid, 1); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("pid %d: %v", pid, err)
			}
		})
	}
}
