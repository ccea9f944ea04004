package server

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types"
	"golang.org/x/sys/unix"
)

// hijack makes the function with which a service takes the connection over.
func (c *call) hijack() stream.Hijack {
	used := false
	return func(mux bool) (*stream.Conn, error) {
		if used {
			return nil, errclass.Internal("the connection was already taken over")
		}
		used = true
		conn, rw, err := c.w.Hijack()
		if err != nil {
			c.w.hijacked = false
			return nil, errclass.Internal("taking the connection over: %w", err)
		}
		prefix := make([]byte, rw.Reader.Buffered())
		if _, err := io.ReadFull(rw.Reader, prefix); err != nil {
			return nil, errors.Join(errclass.Internal("reading what the client sent ahead: %w", err), conn.Close())
		}
		if _, err := io.WriteString(conn, c.upgradeHead(mux)); err != nil {
			return nil, errors.Join(errclass.Unavailable("client is gone: %w", err), conn.Close())
		}
		plain, err := descriptorConn(conn)
		if err != nil {
			return nil, errors.Join(err, conn.Close())
		}
		return &stream.Conn{Conn: plain, Prefix: prefix}, nil
	}
}

// upgradeHead is the response header of a taken-over connection. A client that
// asked for an upgrade gets 101, older ones the bare 200 without a length.
func (c *call) upgradeHead(mux bool) string {
	contentType := types.MediaTypeRawStream
	if mux && !c.version.before(42) {
		contentType = types.MediaTypeMultiplexedStream
	}
	common := fmt.Sprintf("Content-Type: %s\r\nApi-Version: %s\r\nDocker-Experimental: false\r\nOstype: linux\r\nServer: %s\r\n",
		contentType, MaxAPIVersion, c.w.Header().Get("Server"))
	// Docker asks for no more than the header, so that some clients leave "Connection: Upgrade" out.
	if _, upgrade := c.r.Header["Upgrade"]; upgrade {
		return "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n" + common + "\r\n"
	}
	return "HTTP/1.1 200 OK\r\n" + common + "\r\n"
}

// descriptorConn returns a connection that can be handed to another process as a
// descriptor. Plain ones are what they are; for TLS, whose state is in this
// process, a socket pair stands in and two goroutines copy until both sides ended.
func descriptorConn(conn net.Conn) (net.Conn, error) {
	switch conn.(type) {
	case *net.UnixConn, *net.TCPConn:
		return conn, nil
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errclass.Internal("socketpair: %w", err)
	}
	ours, err1 := fileConn(fds[0])
	theirs, err2 := fileConn(fds[1])
	if err := errors.Join(err1, err2); err != nil {
		for _, c := range []*net.UnixConn{ours, theirs} {
			if c != nil {
				err = errors.Join(err, c.Close())
			}
		}
		return nil, errclass.Internal("socketpair: %w", err)
	}
	go bridge(conn, ours)
	return theirs, nil
}

func fileConn(fd int) (*net.UnixConn, error) {
	f := os.NewFile(uintptr(fd), "hijacked")
	defer f.Close() // FileConn duplicated it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("descriptor %d is no unix socket", fd)
	}
	return u, nil
}

// bridge copies both ways; each direction passes its end on as a half-close.
func bridge(client net.Conn, engine *net.UnixConn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(engine, client) // errors end the direction like an EOF
		_ = engine.CloseWrite()
	}()
	_, _ = io.Copy(client, engine)
	if cw, ok := client.(interface{ CloseWrite() error }); ok {
		_ = cw.CloseWrite()
	}
	// The engine's side has ended both ways when its peer is closed; what the
	// client still sends has no reader.
	_ = client.Close()
	<-done
	_ = engine.Close()
}

// logWriter starts the response when the service says whether frames are mixed.
type logWriter struct {
	c    *call
	mux  bool
	open bool
}

// Open implements container.LogWriter.
func (l *logWriter) Open(mux bool) io.Writer {
	l.mux, l.open = mux, true
	contentType := types.MediaTypeRawStream
	if mux && !l.c.version.before(42) {
		contentType = types.MediaTypeMultiplexedStream
	}
	l.c.w.Header().Set("Content-Type", contentType)
	l.c.w.WriteHeader(http.StatusOK)
	l.c.w.Flush()
	return flushed{l.c.w}
}
