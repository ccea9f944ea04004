package server

import (
	"errors"
	"net"
	"net/http"
	"strconv"

	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/server/run"
	"golang.org/x/sys/unix"
)

// containerRun is create, attach, start and wait in one request; extension.RunPath says how. Up to the answer 101
// nothing of the container is left when it fails.
func (s containerAPI) containerRun(c *call) error {
	cond, err := waitCondition(c)
	if err != nil {
		return err
	}
	o := container.AttachOptions{
		Stream: true, Stdin: c.flag("stdin"), Stdout: c.flag("stdout"), Stderr: c.flag("stderr"), DetachKeys: c.query.Get("detachKeys"),
	}
	// A proxy would lose the descriptor: the client itself must be at the other end.
	peer, err := peerOf(c.r)
	if err != nil {
		return err
	}
	if pid, err := strconv.Atoi(c.query.Get("pid")); err != nil || pid != peer {
		return errclass.Invalid("the client is not at the other end of this connection")
	}
	made, err := s.create(c)
	if err != nil {
		return err
	}
	conn, err := c.takeUnix()
	if err != nil {
		return err
	}
	client := run.NewClient(conn, runHead, extension.RunCreated{ID: made.ID, Warnings: made.Warnings})
	defer client.Close()
	ctx, gone := c.stream()
	defer gone()
	go func() {
		defer gone()
		client.Watch()
	}()
	if err := client.Run(ctx, c.steady(), s.Containers, o, cond); err != nil && ctx.Err() == nil {
		if ferr := client.Fail(statusOf(err), err.Error()); ferr != nil {
			s.Log.Debug("telling a client", "container", made.ID, "error", ferr)
		}
	}
	return nil
}

// runHead is the response header of a connection that containerRun took over.
const runHead = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: gantry-run\r\nApi-Version: " + MaxAPIVersion + "\r\nOstype: linux\r\n\r\n"

// connKey is the context key of a request's connection.
type connKey struct{}

// peerOf tells the process at the other end of a request's unix socket; class ErrInvalidArgument for others.
func peerOf(r *http.Request) (int, error) {
	conn, ok := r.Context().Value(connKey{}).(*net.UnixConn)
	if !ok {
		return 0, errclass.Invalid("descriptors are passed over unix sockets only")
	}
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) { cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); cerr != nil {
		return 0, cerr
	}
	if err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// takeUnix takes the connection over; it must be a unix socket.
func (c *call) takeUnix() (*net.UnixConn, error) {
	conn, rw, err := c.w.Hijack()
	if err != nil {
		c.w.hijacked = false
		return nil, errclass.Internal("taking the connection over: %w", err)
	}
	u, ok := conn.(*net.UnixConn)
	if !ok || rw.Reader.Buffered() != 0 {
		return nil, errors.Join(errclass.Invalid("the client sent more than its request"), conn.Close())
	}
	return u, nil
}
