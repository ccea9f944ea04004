package ports

import (
	"net/netip"
	"os"

	"golang.org/x/sys/unix"
)

// Bind takes a socket on an address of the host. A tcp socket listens: only that
// keeps programs that set SO_REUSEADDR (nearly all servers) from taking the port
// beside us, and without SO_REUSEADDR of our own old connections in TIME_WAIT would be
// in the way. Protocols the kernel has not are held without a socket: nil, nil.
func Bind(proto string, a netip.AddrPort) (*os.File, error) {
	typ, num := unix.SOCK_STREAM, unix.IPPROTO_TCP
	switch proto {
	case "udp":
		typ, num = unix.SOCK_DGRAM, unix.IPPROTO_UDP
	case "sctp":
		num = unix.IPPROTO_SCTP
	}
	fam := unix.AF_INET
	var sa unix.Sockaddr
	if a.Addr().Is4() {
		sa = &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	} else {
		fam = unix.AF_INET6
		sa = &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	}
	fd, err := unix.Socket(fam, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, num)
	if err != nil {
		if num == unix.IPPROTO_SCTP && (err == unix.EPROTONOSUPPORT || err == unix.ESOCKTNOSUPPORT) {
			return nil, nil
		}
		return nil, err
	}
	if err := prepare(fd, fam, typ, sa); err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "port"), nil
}

func prepare(fd, fam, typ int, sa unix.Sockaddr) error {
	if fam == unix.AF_INET6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if typ == unix.SOCK_STREAM {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	if typ == unix.SOCK_STREAM {
		return unix.Listen(fd, unix.SOMAXCONN)
	}
	return nil
}
