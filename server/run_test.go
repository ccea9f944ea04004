package server

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
	"os"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/api/extension"
	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/internal/errclass"
	containertypes "github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// runClient is the other end of extension.RunPath.
type runClient struct {
	conn *net.UnixConn
	fds  []int
}

// Read implements io.Reader.
func (c *runClient) Read(p []byte) (int, error) {
	oob := make([]byte, 64)
	n, oobn, _, _, err := c.conn.ReadMsgUnix(p, oob)
	if err != nil || n == 0 {
		return 0, errors.Join(err, io.EOF)
	}
	if msgs, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil && len(msgs) > 0 {
		fds, err := unix.ParseUnixRights(&msgs[0])
		if err != nil {
			return 0, err
		}
		c.fds = append(c.fds, fds...)
	}
	return n, nil
}

func ask(t *testing.T, h *harness, query, body string) (*runClient, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := net.Dial("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(conn, "POST /v%s%s?%s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", MaxAPIVersion, extension.RunPath, query, len(body), body)
	c := &runClient{conn: conn.(*net.UnixConn)}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return c, r, resp
}

func message(t *testing.T, r *bufio.Reader) extension.RunMessage {
	t.Helper()
	line, err := r.ReadBytes('\n')
	if err != nil {
		t.Fatal(err)
	}
	var m extension.RunMessage
	if err := json.Unmarshal(line, &m); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return m
}

const runBody = `{"Image":"busybox","Cmd":["true"],"HostConfig":{"AutoRemove":true}}`

// runnable sets fakes of a container c1 that prints a word and ends with 7; what happens is noted in order.
func runnable(t *testing.T) (*harness, chan string) {
	h := serve(t)
	did := make(chan string, 20)
	var out net.Conn
	ended := make(chan containertypes.WaitResponse, 1)
	h.c.create = func(o container.CreateOptions) (containertypes.CreateResponse, error) {
		did <- "create " + o.Name
		return containertypes.CreateResponse{ID: "c1", Warnings: []string{"careful"}}, nil
	}
	h.c.wait = func(_ context.Context, c containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error) {
		did <- "wait " + string(c)
		return ended, nil
	}
	h.c.attach = func(o container.AttachOptions, hijack stream.Hijack) error {
		did <- fmt.Sprintf("attach %v %v %v", o.Stdin, o.Stdout, o.Stderr)
		c, err := hijack(true)
		if err == nil {
			out = c.Conn
		}
		return err
	}
	h.c.start = func(context.Context, string) error {
		did <- "start"
		if out != nil {
			_, _ = io.WriteString(out, "word")
			out.Close()
		}
		ended <- containertypes.WaitResponse{StatusCode: 7}
		return nil
	}
	return h, did
}

func noted(did chan string) string {
	var all []string
	for {
		select {
		case s := <-did:
			all = append(all, s)
		default:
			return strings.Join(all, ", ")
		}
	}
}

func TestRunAttached(t *testing.T) {
	h, did := runnable(t)
	c, r, resp := ask(t, h, fmt.Sprintf("name=n&stdout=1&condition=removed&pid=%d", os.Getpid()), runBody)
	if resp.StatusCode != http.StatusSwitchingProtocols {
		t.Fatal(resp.Status)
	}
	if m := message(t, r); m.Created == nil || m.Created.ID != "c1" || len(m.Created.Warnings) != 1 || len(c.fds) != 1 {
		t.Fatalf("%+v, descriptors %v", m.Created, c.fds)
	}
	f := os.NewFile(uintptr(c.fds[0]), "")
	defer f.Close()
	if word, err := io.ReadAll(f); string(word) != "word" || err != nil {
		t.Errorf("streams: %q %v", word, err)
	}
	if m := message(t, r); m.Ended == nil || m.Ended.StatusCode != 7 {
		t.Errorf("%+v", m)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	if got := noted(did); got != "create n, wait removed, attach false true false, start" {
		t.Error(got)
	}
}

func TestRunDetached(t *testing.T) {
	h, did := runnable(t)
	c, r, _ := ask(t, h, fmt.Sprintf("pid=%d", os.Getpid()), runBody)
	if m := message(t, r); m.Created == nil || len(c.fds) != 0 {
		t.Fatalf("%+v, descriptors %v", m, c.fds)
	}
	if m := message(t, r); !m.Started {
		t.Errorf("%+v", m)
	}
	if got := noted(did); got != "create , start" {
		t.Error(got)
	}
}

func TestRunFails(t *testing.T) {
	h, _ := runnable(t)
	h.c.start = func(context.Context, string) error { return errclass.NotFound("no such program") }
	_, r, _ := ask(t, h, fmt.Sprintf("pid=%d", os.Getpid()), runBody)
	if m := message(t, r); m.Created == nil {
		t.Fatalf("%+v", m)
	}
	if m := message(t, r); m.Failed == nil || m.Failed.Status != http.StatusNotFound || m.Failed.Message != "no such program" {
		t.Errorf("%+v", m)
	}
}

// TestRunRefused: nothing happens, and the answer is an ordinary one.
func TestRunRefused(t *testing.T) {
	for name, c := range map[string]struct {
		query  string
		create error
		status int
	}{
		"another process":     {"pid=1", nil, http.StatusBadRequest},
		"no process":          {"", nil, http.StatusBadRequest},
		"condition":           {fmt.Sprintf("pid=%d&condition=never", os.Getpid()), nil, http.StatusBadRequest},
		"what create refuses": {fmt.Sprintf("pid=%d", os.Getpid()), errclass.NotFound("no image"), http.StatusNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			h, did := runnable(t)
			if c.create != nil {
				h.c.create = func(container.CreateOptions) (r containertypes.CreateResponse, err error) { return r, c.create }
			}
			_, _, resp := ask(t, h, c.query, runBody)
			var text bytes.Buffer
			_, _ = text.ReadFrom(resp.Body)
			if got := noted(did); resp.StatusCode != c.status || got != "" {
				t.Errorf("%s %s, did %q", resp.Status, text.String(), got)
			}
		})
	}
}

// TestRunClientGone: a client that leaves before the start prevents it.
func TestRunClientGone(t *testing.T) {
	h, did := runnable(t)
	waits := make(chan context.Context, 1)
	h.c.wait = func(ctx context.Context, _ containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error) {
		waits <- ctx
		return nil, nil
	}
	begun := make(chan context.Context, 1)
	h.c.attach = func(container.AttachOptions, stream.Hijack) error {
		ctx := <-waits
		begun <- ctx
		<-ctx.Done() // the server has seen it
		return nil
	}
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: h.socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s?stdout=1&pid=%d HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", extension.RunPath, os.Getpid(), len(runBody), runBody)
	<-begun
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	// The server closes its end when it is done with the request.
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatal(err)
	}
	if got := noted(did); strings.Contains(got, "start") {
		t.Error(got)
	}
}
