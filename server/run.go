package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/internal/errclass"
	containertypes "github.com/moby/moby/api/types/container"
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
	r := &running{s: s, id: made.ID, created: &extension.RunCreated{ID: made.ID, Warnings: made.Warnings}}
	if r.conn, err = c.takeUnix(); err != nil {
		return err
	}
	defer r.conn.Close()
	ctx, cancel := c.stream()
	defer cancel()
	go r.watch(cancel)
	if err := r.run(ctx, c.steady(), o, cond); err != nil && ctx.Err() == nil {
		s.Log.Debug("a client left", "container", made.ID, "error", err)
	}
	return nil
}

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

// running is one container on behalf of the client of containerRun.
type running struct {
	s       containerAPI
	id      string
	conn    *net.UnixConn
	created *extension.RunCreated // until it has been sent
}

// watch calls gone when the client closes its end. It sends nothing, so every byte is a mistake.
func (r *running) watch(gone func()) {
	defer gone()
	_, _ = r.conn.Read(make([]byte, 1)) // what ends it is all the same
}

// run attaches the client, starts the container and tells its end. An error says that the client cannot be told.
func (r *running) run(ctx, steady context.Context, o container.AttachOptions, cond containertypes.WaitCondition) error {
	attached := o.Stdin || o.Stdout || o.Stderr
	var ended <-chan containertypes.WaitResponse
	var err error
	if attached {
		if ended, err = r.s.Containers.Wait(ctx, r.id, cond); err != nil {
			return r.fail(err)
		}
		if err = r.s.Containers.Attach(steady, r.id, o, r.streams); err != nil {
			return r.fail(err)
		}
	}
	if r.created != nil {
		if err := r.send(nil); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err() // the client gave up before the start
	}
	if err := r.s.Containers.Start(steady, r.id); err != nil {
		if cond == containertypes.WaitConditionRemoved && ended != nil {
			<-ended
		}
		return r.fail(err)
	}
	if !attached {
		return r.tell(&extension.RunMessage{Started: true}, -1)
	}
	select {
	case res := <-ended:
		m := &extension.RunEnded{StatusCode: res.StatusCode}
		if res.Error != nil {
			m.Error = res.Error.Message
		}
		return r.tell(&extension.RunMessage{Ended: m}, -1)
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *running) fail(err error) error {
	if r.created != nil {
		if err := r.send(nil); err != nil {
			return err
		}
	}
	return r.tell(&extension.RunMessage{Failed: &extension.RunFailed{Status: statusOf(err), Message: err.Error()}}, -1)
}

// streams is the hijack of this request: it makes a socket and sends the client its other end.
func (r *running) streams(bool) (*stream.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errclass.Internal("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "streams")
	defer theirs.Close()
	ours, err := fileConn(fds[0])
	if err != nil {
		return nil, errclass.Internal("socketpair: %w", err)
	}
	if err := r.send(theirs); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return &stream.Conn{Conn: ours}, nil
}

// send sends the head of the answer and the first message, with the descriptor if there is one.
func (r *running) send(theirs *os.File) error {
	fd := -1
	if theirs != nil {
		fd = int(theirs.Fd())
	}
	m := &extension.RunMessage{Created: r.created}
	r.created = nil
	return r.tell(m, fd)
}

// runHead is the response header of a connection that containerRun took over.
const runHead = "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: gantry-run\r\nApi-Version: " + MaxAPIVersion + "\r\nOstype: linux\r\n\r\n"

// tellTime bounds how long a client may take to be told: it has nothing else to do.
const tellTime = 30 * time.Second

func (r *running) tell(m *extension.RunMessage, fd int) error {
	var b bytes.Buffer
	if m.Created != nil {
		b.WriteString(runHead)
	}
	if err := json.NewEncoder(&b).Encode(m); err != nil {
		return err
	}
	if err := r.conn.SetWriteDeadline(time.Now().Add(tellTime)); err != nil {
		return err
	}
	if fd < 0 {
		_, err := r.conn.Write(b.Bytes())
		return err
	}
	n, _, err := r.conn.WriteMsgUnix(b.Bytes(), unix.UnixRights(fd), nil)
	if err == nil && n < b.Len() {
		_, err = r.conn.Write(b.Bytes()[n:])
	}
	return err
}
