package command

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/api/extension"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/client"
	"golang.org/x/sys/unix"
)

// Run is a container that the engine runs for this process (extension.RunPath).
type Run struct {
	extension.RunCreated
	// Streams are the container's, attached; nil for a detached one. The caller closes them.
	Streams *net.UnixConn

	conn *net.UnixConn
	r    *bufio.Reader
}

// maxRunMessage bounds a message of the engine in bytes; errors of a start are the longest.
const maxRunMessage = 1 << 20

// ErrOrdinary says that nothing has happened, and that the ordinary requests must be made: they do the same, with any
// engine and on any connection, or fail with the error that is to be told.
var ErrOrdinary = errors.New("the engine does not run containers by one request")

// Run asks the engine to create, attach to and start a container in one request and returns when it is made. ctx ends
// the request, not the Run. query is as extension.RunPath says but for pid. The caller closes the Run. Errors:
// ErrOrdinary, and others about an engine that went away.
func (c *Cli) Run(ctx context.Context, body *container.CreateRequest, query url.Values) (*Run, error) {
	conn, err := c.dialLocal(ctx)
	if err != nil {
		return nil, ErrOrdinary
	}
	data, err := json.Marshal(body)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		_ = conn.SetDeadline(time.Now().Add(answerTime)) // it is open
	})
	query.Set("pid", strconv.Itoa(os.Getpid()))
	r := &Run{conn: conn}
	err = r.ask(c.runRequest(query, data))
	if !stop() {
		<-stopped
	}
	if err == nil {
		return r, conn.SetDeadline(time.Time{})
	}
	r.Close()
	if ctx.Err() != nil {
		err = ErrOrdinary // it tells that
	}
	return nil, err
}

// dialLocal connects to an engine on this machine.
func (c *Cli) dialLocal(ctx context.Context) (*net.UnixConn, error) {
	ep, err := c.Endpoint()
	if err != nil {
		return nil, err
	}
	path, local := strings.CutPrefix(ep.Host, "unix://")
	if !local || ep.TLS || os.Getenv("DOCKER_API_VERSION") != "" {
		return nil, ErrOrdinary
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	u, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(ErrOrdinary, conn.Close())
	}
	return u, nil
}

// answerTime is how long after the end of its context an answer is still taken: the container of one that has been sent
// may have started.
const answerTime = 100 * time.Millisecond

func (c *Cli) runRequest(query url.Values, body []byte) []byte {
	h := http.Header{}
	for k, v := range c.headers() {
		h.Set(k, v)
	}
	h.Set("User-Agent", userAgent())
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Connection", "Upgrade")
	h.Set("Upgrade", "gantry-run")
	var b bytes.Buffer
	fmt.Fprintf(&b, "POST /v%s%s?%s HTTP/1.1\r\nHost: %s\r\n", client.MaxAPIVersion, extension.RunPath, query.Encode(), client.DummyHost)
	_ = h.Write(&b) // to memory
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}

// ask sends the request and reads the answer's head and the first message.
func (r *Run) ask(request []byte) error {
	if _, err := r.conn.Write(request); err != nil {
		return ErrOrdinary // not all of it was sent, so nothing was done
	}
	in := &rightsReader{conn: r.conn}
	defer in.close()
	r.r = bufio.NewReader(in)
	resp, err := http.ReadResponse(r.r, &http.Request{Method: http.MethodPost})
	if err != nil {
		return fmt.Errorf("error during connect: %w", err)
	}
	defer resp.Body.Close() // of a 101 it is empty
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return ErrOrdinary
	}
	m, err := r.Next()
	if err != nil {
		return fmt.Errorf("error during connect: %w", err)
	}
	if m.Created == nil {
		return errors.New("the daemon did not say what it created")
	}
	r.RunCreated = *m.Created
	r.Streams, err = in.take()
	return err
}

// Next is the engine's next message; io.EOF and other errors say that it went away.
func (r *Run) Next() (*extension.RunMessage, error) {
	var line []byte
	for {
		part, err := r.r.ReadSlice('\n')
		line = append(line, part...)
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) || len(line) > maxRunMessage {
			return nil, err
		}
	}
	m := &extension.RunMessage{}
	return m, json.Unmarshal(line, m)
}

// Close ends the connection to the engine. The container goes on, unless it has not started.
func (r *Run) Close() { r.conn.Close() }

// rightsReader reads a connection and keeps the descriptor that comes with the bytes.
type rightsReader struct {
	conn *net.UnixConn
	fds  []int
}

// Read implements io.Reader.
func (r *rightsReader) Read(p []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := r.conn.ReadMsgUnix(p, oob)
	if err != nil {
		return 0, err
	}
	if oobn > 0 {
		msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return n, err
		}
		for i := range msgs {
			if fds, err := unix.ParseUnixRights(&msgs[i]); err == nil {
				r.fds = append(r.fds, fds...)
			}
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}

// take makes a connection of the descriptor, nil if there is none.
func (r *rightsReader) take() (*net.UnixConn, error) {
	if len(r.fds) == 0 {
		return nil, nil
	}
	f := os.NewFile(uintptr(r.fds[0]), "streams")
	r.fds = r.fds[1:]
	defer f.Close() // FileConn duplicates it
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("streams of the container: %w", err)
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, fmt.Errorf("streams of the container are no socket")
	}
	return u, nil
}

func (r *rightsReader) close() {
	for _, fd := range r.fds {
		unix.Close(fd)
	}
	r.fds = nil
}
