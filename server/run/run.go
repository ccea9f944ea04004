// Package run serves the second half of extension.RunPath: on behalf of one client it attaches to
// a container that has been created, starts it and waits for it, over a unix socket that was taken
// over from HTTP.
package run

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"time"

	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/internal/errclass"
	containertypes "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// Containers is what is asked of the engine; see server.Containers.
type Containers interface {
	Start(ctx context.Context, ref string) error
	Wait(ctx context.Context, ref string, cond containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error)
	Attach(ctx context.Context, ref string, o container.AttachOptions, hijack stream.Hijack) error
}

// Client is who is told about the container. It is used by one goroutine.
type Client struct {
	conn    *net.UnixConn
	head    string
	created *extension.RunCreated // until it has been sent
}

// NewClient takes conn over. head is the head of the HTTP response; it is sent with the first message. The caller
// closes the client.
func NewClient(conn *net.UnixConn, head string, created extension.RunCreated) *Client {
	return &Client{conn: conn, head: head, created: &created}
}

// Close closes the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Watch returns when the client has closed its end. It sends nothing, so every byte is a mistake.
func (c *Client) Watch() { _, _ = c.conn.Read(make([]byte, 1)) }

// Run attaches the client to the container, starts it and tells its end, or with nothing to attach to its start. An
// error is to be told by Fail. ctx ends with the client: then nothing is started and nobody waits; what is begun goes on
// with steady.
func (c *Client) Run(ctx, steady context.Context, containers Containers, o container.AttachOptions, cond containertypes.WaitCondition) error {
	id := c.created.ID
	attached := o.Stdin || o.Stdout || o.Stderr
	var ended <-chan containertypes.WaitResponse
	var err error
	if attached {
		if ended, err = containers.Wait(ctx, id, cond); err != nil {
			return err
		}
		if err = containers.Attach(steady, id, o, c.streams); err != nil {
			return err
		}
	}
	if err := c.sendCreated(-1); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err() // the client gave up before the start
	}
	if err := containers.Start(steady, id); err != nil {
		if cond == containertypes.WaitConditionRemoved && ended != nil {
			<-ended
		}
		return err
	}
	if !attached {
		return c.tell(&extension.RunMessage{Started: true}, -1)
	}
	select {
	case res := <-ended:
		m := &extension.RunEnded{StatusCode: res.StatusCode}
		if res.Error != nil {
			m.Error = res.Error.Message
		}
		return c.tell(&extension.RunMessage{Ended: m}, -1)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Fail tells why the container did not start.
func (c *Client) Fail(status int, message string) error {
	if err := c.sendCreated(-1); err != nil {
		return err
	}
	return c.tell(&extension.RunMessage{Failed: &extension.RunFailed{Status: status, Message: message}}, -1)
}

// streams is the hijack of this client: it makes a socket and sends the client its other end.
func (c *Client) streams(bool) (*stream.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, errclass.Internal("socketpair: %w", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "streams")
	defer theirs.Close()
	file := os.NewFile(uintptr(fds[0]), "streams")
	defer file.Close() // FileConn duplicates it
	ours, err := net.FileConn(file)
	if err != nil {
		return nil, errclass.Internal("socketpair: %w", err)
	}
	if err := c.sendCreated(fds[1]); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return &stream.Conn{Conn: ours}, nil
}

// sendCreated sends the head of the answer and the first message, once, with a descriptor unless it is negative.
func (c *Client) sendCreated(fd int) error {
	if c.created == nil {
		return nil
	}
	m := &extension.RunMessage{Created: c.created}
	c.created = nil
	return c.tell(m, fd)
}

// tellTime bounds how long a client may take to be told: it has nothing else to do.
const tellTime = 30 * time.Second

func (c *Client) tell(m *extension.RunMessage, fd int) error {
	var b bytes.Buffer
	b.WriteString(c.head)
	c.head = ""
	if err := json.NewEncoder(&b).Encode(m); err != nil {
		return err
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(tellTime)); err != nil {
		return err
	}
	if fd < 0 {
		_, err := c.conn.Write(b.Bytes())
		return err
	}
	n, _, err := c.conn.WriteMsgUnix(b.Bytes(), unix.UnixRights(fd), nil)
	if err == nil && n < b.Len() {
		_, err = c.conn.Write(b.Bytes()[n:])
	}
	return err
}
