package dns

import (
	"fmt"
	"os"

	"github.com/gantry/gantry/internal/nft"
	"golang.org/x/sys/unix"
)

const (
	port = 53
	// behind is where the sockets are by choice, outside the range that programs are
	// given ports from.
	behind = 65353
)

// Listen opens the sockets in the calling thread's network namespace, whose loopback is
// up. The container's own port 53 stays free for a DNS server of its own: what is sent
// to 127.0.0.11:53 is rewritten to other ports, on the loopback device only and without
// tracking connections, so that no other packet pays for it. On kernels that cannot do
// that the sockets take port 53 itself. fresh says that the namespace is new: nothing of
// an earlier call is in it.
func Listen(fresh bool) (Sockets, error) {
	s, udp, tcp, err := open(behind)
	if err != nil {
		s, udp, tcp, err = open(0) // somebody in a running container has it
	}
	if err == nil {
		if err = nft.RewriteLoopback("gantry_dns", Addr(), port, udp, tcp, fresh); err == nil {
			return s, nil
		}
		s.Close()
	}
	s, _, _, ferr := open(port)
	if ferr != nil {
		return Sockets{}, fmt.Errorf("opening the resolver's sockets: %w, and without rewriting: %w", err, ferr)
	}
	return s, nil
}

func open(at uint16) (s Sockets, udp, tcp uint16, err error) {
	defer func() {
		if err != nil {
			s.Close()
			s = Sockets{}
		}
	}()
	if s.UDP, udp, err = bind(unix.SOCK_DGRAM, "dns udp", at); err != nil {
		return s, 0, 0, err
	}
	if s.TCP, tcp, err = bind(unix.SOCK_STREAM, "dns tcp", at); err != nil {
		return s, 0, 0, err
	}
	err = unix.Listen(int(s.TCP.Fd()), 128)
	return s, udp, tcp, os.NewSyscallError("listen", err)
}

func bind(kind int, name string, at uint16) (*os.File, uint16, error) {
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, 0, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), name)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(at), Addr: Addr().As4()}); err != nil {
		f.Close()
		return nil, 0, os.NewSyscallError("bind", err)
	}
	sa, err := unix.Getsockname(fd)
	in, ok := sa.(*unix.SockaddrInet4)
	if err != nil || !ok {
		f.Close()
		return nil, 0, os.NewSyscallError("getsockname", err)
	}
	return f, uint16(in.Port), nil
}
