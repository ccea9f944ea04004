package exec

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// pair is a connection, and the client's end of it.
func pair(t *testing.T) (conn, peer *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	conn, peer = os.NewFile(uintptr(fds[0]), "conn"), os.NewFile(uintptr(fds[1]), "peer")
	t.Cleanup(func() { conn.Close(); peer.Close() })
	return conn, peer
}
