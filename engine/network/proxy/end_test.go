package proxy

import (
	"log/slog"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// A port whose forwarding has ended can be bound again at once: no Accept that has not
// returned yet may hold it.
func TestEndFreesThePort(t *testing.T) {
	p := NewSet(slog.New(slog.DiscardHandler))
	defer p.Close()
	addr := "127.0.0.1:0"
	for i := range 300 {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		addr = l.Addr().String()
		fd, err := l.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var f *os.File
		fd.Control(func(fd uintptr) {
			var n int
			if n, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); err == nil {
				f = os.NewFile(uintptr(n), "socket")
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Start(to("tcp", "127.0.0.1:1"), f); err != nil {
			t.Fatal(err)
		}
		l.Close()
		f.Close()
		p.End(to("tcp", "127.0.0.1:1"))
	}
}
