package server

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/internal/errclass"
	containertypes "github.com/moby/moby/api/types/container"
	eventtypes "github.com/moby/moby/api/types/events"
)

func TestPingAndHeaders(t *testing.T) {
	h := serve(t)
	for _, path := range []string{"/_ping", "/v1.24/_ping", "/v1.57/_ping"} {
		t.Run(path, func(t *testing.T) {
			status, body, header := h.do(t, "GET", path, nil)
			if status != 200 || body != "OK" {
				t.Errorf("%s: %d %q", path, status, body)
			}
			for k, want := range map[string]string{"Api-Version": "1.57", "Ostype": "linux", "Docker-Experimental": "false", "Server": "Docker/0.1.0 (linux)", "Builder-Version": "1"} {
				t.Run(k, func(t *testing.T) {
					if got := header.Get(k); got != want {
						t.Errorf("%s: header %s = %q, want %q", path, k, got, want)
					}
				})
			}
		})
	}
	if status, body, _ := h.do(t, "HEAD", "/_ping", nil); status != 200 || body != "" {
		t.Errorf("HEAD: %d %q", status, body)
	}
}

func TestErrorAnswers(t *testing.T) {
	h := serve(t)
	for _, c := range []struct {
		method, path string
		status       int
		message      string
	}{
		{"GET", "/v1.99/version", 400, "client version 1.99 is too new. Maximum supported API version is 1.57"},
		{"GET", "/v2.0/version", 400, "client version 2.0 is too new. Maximum supported API version is 1.57"},
		{"GET", "/v1.12/version", 400, "client version 1.12 is too old. Minimum supported API version is 1.24, please upgrade your client to a newer version"},
		{"GET", "/v1.44/nothing", 404, "page not found"},
		{"PATCH", "/version", 404, "page not found"},
		{"GET", "/", 404, "page not found"},
		{"POST", "/v1.50/swarm/init", 501, "POST /swarm/init is not built yet in this engine"},
		{"GET", "/images/a/b:c/attestations", 501, "GET /images/{name}/attestations is not built yet in this engine"},
		{"GET", "/networks/a/b", 404, "network a/b not found"},
		{"GET", "/debug/pprof/", 404, "page not found"},
		{"GET", "/containers/json?filters=x", 400, "invalid filter: invalid character 'x' looking for beginning of value"},
		{"POST", "/containers/x/wait?condition=maybe", 400, `invalid condition: "maybe"`},
		{"GET", "/containers/x/logs", 400, "Bad parameters: you must choose at least one stream"},
		{"GET", "/events?since=yesterday", 400, `invalid value for "since": strconv.ParseInt: parsing "yesterday": invalid syntax`},
		{"POST", "/containers/x/resize?h=70000&w=1", 400, `invalid resize height "70000"`},
		// The fake has no Pause: a nil call panics.
		{"POST", "/containers/x/pause", 500, "internal error: the request ended in a panic, see the daemon's log"},
	} {
		t.Run(c.method+" "+c.path, func(t *testing.T) {
			status, body, _ := h.do(t, c.method, c.path, nil)
			var e struct{ Message string }
			if err := json.Unmarshal([]byte(body), &e); err != nil {
				t.Errorf("%s %s: %q: %v", c.method, c.path, body, err)
			}
			if status != c.status || e.Message != c.message {
				t.Errorf("%s %s: %d %q, want %d %q", c.method, c.path, status, e.Message, c.status, c.message)
			}
		})
	}
}

func TestStatusOf(t *testing.T) {
	for want, classes := range map[int][]error{
		404: {errdefs.ErrNotFound}, 400: {errdefs.ErrInvalidArgument, errdefs.ErrOutOfRange},
		409: {errdefs.ErrConflict, errdefs.ErrAlreadyExists, errdefs.ErrFailedPrecondition},
		401: {errdefs.ErrUnauthenticated}, 403: {errdefs.ErrPermissionDenied}, 304: {errdefs.ErrNotModified},
		503: {errdefs.ErrUnavailable}, 501: {errdefs.ErrNotImplemented},
		500: {errdefs.ErrInternal, errdefs.ErrUnknown, errors.New("plain"), context.Canceled},
	} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			for _, class := range classes {
				if got := statusOf(fmt.Errorf("wrapped: %w", errclass.With(class, errors.New("x")))); got != want {
					t.Errorf("%v: %d, want %d", class, got, want)
				}
			}
		})
	}
}

func TestEveryEndpointIsKnown(t *testing.T) {
	h := serve(t)
	data, err := os.ReadFile("testdata/endpoints.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Split(strings.TrimRight(line, "\n"), "\t")
		if f[0] == "method" || f[0] == "OPTIONS" {
			continue
		}
		path := f[1]
		for _, v := range []string{"id", "checkpoint"} {
			path = strings.ReplaceAll(path, "{"+v+"}", "0123456789ab")
		}
		path = strings.ReplaceAll(path, "{name}", "some/thing:x")
		if strings.HasPrefix(path, "/containers/") || strings.HasPrefix(path, "/volumes/") || strings.HasPrefix(path, "/debug/") {
			path = strings.ReplaceAll(path, "some/thing:x", "x")
		}
		if serve, _ := h.router.find(f[0], path); serve == nil {
			t.Errorf("%s %s is neither served nor listed as unbuilt", f[0], f[1])
		}
	}
}

func TestUnbuiltIsNotRouted(t *testing.T) {
	h := serve(t)
	routed := map[string]bool{}
	for _, r := range h.routes() {
		key := r.method + " " + r.pattern
		if routed[key] {
			t.Errorf("%s is there twice", key)
		}
		routed[key] = true
	}
}

func TestCreateBodies(t *testing.T) {
	h := serve(t)
	var got container.CreateOptions
	h.c.create = func(o container.CreateOptions) (containertypes.CreateResponse, error) {
		got = o
		return containertypes.CreateResponse{ID: "abc"}, nil
	}
	status, body, _ := h.do(t, "POST", "/v1.43/containers/create?name=n&platform=linux/arm64/v8", strings.NewReader(
		`{"Image":"i","Cmd":"echo hi","MacAddress":"02:42:ac:11:00:02","HostConfig":{"NetworkMode":"","Annotations":{"a":"b"}}}`+"\n"))
	if status != 201 || body != `{"Id":"abc","Warnings":[]}`+"\n" {
		t.Fatalf("%d %s", status, body)
	}
	if got.Name != "n" || got.Platform.Architecture != "arm64" || got.Config.Cmd[0] != "echo hi" || got.HostConfig.NetworkMode != "default" ||
		got.HostConfig.Annotations["a"] != "b" || got.Networking.EndpointsConfig["default"].MacAddress.String() != "02:42:ac:11:00:02" {
		t.Errorf("%+v", got)
	}
	for body, want := range map[string]int{
		`{}`: 400, `{"Image":`: 400, `{"Image":"x"} {}`: 400, ``: 400,
		`{"Image":"` + strings.Repeat("x", maxJSONBody) + `"}`: 413,
	} {
		t.Run(fmt.Sprintf("%.40q", body), func(t *testing.T) {
			status, answer, _ := h.do(t, "POST", "/containers/create", strings.NewReader(body))
			if status != want {
				t.Errorf("%.20q: %d %s, want %d", body, status, answer, want)
			}
		})
	}
	if status, answer, _ := h.do(t, "POST", "/containers/create", strings.NewReader(`{"Image":"x"}`), "Content-Type", "text/plain"); status != 400 {
		t.Errorf("text/plain: %d %s", status, answer)
	}
}

// TestContentType: a body is JSON and says so; without one, no type is needed.
func TestContentType(t *testing.T) {
	h := serve(t)
	for _, c := range []struct {
		path, header, body string
		status             string
	}{
		{"/containers/create", "Content-Length: 13\r\n", `{"Image":"x"}`, "400"},
		{"/containers/create", "Content-Type: text/plain\r\nContent-Length: 13\r\n", `{"Image":"x"}`, "400"},
		{"/containers/create", "Content-Type: ;\r\nContent-Length: 13\r\n", `{"Image":"x"}`, "400"},
		{"/containers/create", "Transfer-Encoding: chunked\r\n", "d\r\n{\"Image\":\"x\"}\r\n0\r\n\r\n", "400"},
		{"/exec/x/start", "Content-Type: text/plain\r\nContent-Length: 2\r\n", "{}", "400"},
		{"/exec/x/start", "Content-Type: text/plain\r\nContent-Length: 0\r\n", "", "400"},
		{"/exec/x/start", "Content-Length: 0\r\n", "", "404"},
		{"/exec/x/start", "Content-Type: application/json; charset=utf-8\r\nContent-Length: 2\r\n", "{}", "404"},
	} {
		t.Run(c.path+c.header, func(t *testing.T) {
			h.c.exec = func(containertypes.ExecStartRequest, stream.Hijack) error {
				return errclass.NotFound("No such exec instance: x")
			}
			_, r := h.raw(t, "POST /v1.57"+c.path+" HTTP/1.1\r\nHost: d\r\n"+c.header+"\r\n"+c.body)
			line, err := r.ReadString('\n')
			if err != nil || !strings.HasPrefix(line, "HTTP/1.1 "+c.status) {
				t.Errorf("%q %v, want %s", line, err, c.status)
			}
		})
	}
}

func TestWaitHeadersComeFirst(t *testing.T) {
	h := serve(t)
	result := make(chan containertypes.WaitResponse, 1)
	h.c.wait = func(_ context.Context, cond containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error) {
		if cond != containertypes.WaitConditionNextExit {
			t.Errorf("condition %q", cond)
		}
		return result, nil
	}
	resp, err := h.client.Post("http://d/v1.50/containers/x/wait?condition=next-exit", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close() // Post returned: the header is here while the wait stands
	result <- containertypes.WaitResponse{StatusCode: 7}
	data, err := io.ReadAll(resp.Body)
	if err != nil || string(data) != `{"StatusCode":7}`+"\n" {
		t.Errorf("%q %v", data, err)
	}
}

// raw opens a connection and sends text as it is.
func (h *harness) raw(t *testing.T, text string) (*net.UnixConn, *bufio.Reader) {
	t.Helper()
	c, err := net.Dial("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn), bufio.NewReader(c)
}

func TestAttachHijack(t *testing.T) {
	h := serve(t)
	h.c.attach = func(o container.AttachOptions, hijack stream.Hijack) error {
		if !o.Stdin || !o.Stream || o.DetachKeys != "ctrl-a" {
			t.Errorf("%+v", o)
		}
		conn, err := hijack(true)
		if err != nil {
			return err
		}
		if _, err := hijack(true); err == nil {
			t.Error("a second hijack worked")
		}
		go func() {
			defer conn.Close()
			if _, ok := conn.Conn.(*net.UnixConn); !ok {
				t.Errorf("%T", conn.Conn)
			}
			rest, _ := io.ReadAll(conn)
			fmt.Fprintf(conn, "got %s|%s", conn.Prefix, rest)
		}()
		return nil
	}
	for _, c := range []struct{ version, upgrade, first, contentType string }{
		{"1.50", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "HTTP/1.1 101 UPGRADED\r\n", "application/vnd.docker.multiplexed-stream"},
		{"1.41", "Connection: Upgrade\r\nUpgrade: tcp\r\n", "HTTP/1.1 101 UPGRADED\r\n", "application/vnd.docker.raw-stream"},
		{"1.50", "Upgrade: tcp\r\n", "HTTP/1.1 101 UPGRADED\r\n", "application/vnd.docker.multiplexed-stream"},
		{"1.50", "", "HTTP/1.1 200 OK\r\n", "application/vnd.docker.multiplexed-stream"},
	} {
		t.Run(c.version+" "+c.upgrade, func(t *testing.T) {
			conn, r := h.raw(t, "POST /v"+c.version+"/containers/x/attach?stream=1&stdin=1&detachKeys=ctrl-a HTTP/1.1\r\nHost: d\r\n"+c.upgrade+"Content-Length: 0\r\n\r\nearly")
			first, err := r.ReadString('\n')
			if err != nil || first != c.first {
				t.Fatalf("%q %v", first, err)
			}
			found := false
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					t.Fatal(err)
				}
				if line == "\r\n" {
					break
				}
				found = found || line == "Content-Type: "+c.contentType+"\r\n"
			}
			if !found {
				t.Errorf("%+v: content type is missing", c)
			}
			io.WriteString(conn, " late")
			conn.CloseWrite()
			all, err := io.ReadAll(r)
			if got := strings.Replace(string(all), "|", "", 1); err != nil || got != "got early late" {
				t.Errorf("%q %v", all, err)
			}
		})
	}
}

// TestHijackErrorIsStillAStatus: a client that expects a stream is told in plain text.
func TestHijackErrorIsStillAStatus(t *testing.T) {
	h := serve(t)
	h.c.attach = func(container.AttachOptions, stream.Hijack) error {
		return errclass.NotFound("No such container: x")
	}
	status, body, header := h.do(t, "POST", "/containers/x/attach?stream=1", nil)
	if status != 404 || body != "No such container: x\r\n" || header.Get("Content-Type") != "application/vnd.docker.raw-stream" {
		t.Errorf("%d %q %v", status, body, header)
	}
}

func TestLogsStream(t *testing.T) {
	h := serve(t)
	h.c.logs = func(_ context.Context, o container.LogsOptions, w container.LogWriter) error {
		if o.Tail != 5 || !o.Follow || o.Since.UnixNano() != 1500000000 {
			t.Errorf("%+v", o)
		}
		out := w.Open(true)
		io.WriteString(out, "abc")
		return errors.New("disk on fire")
	}
	status, body, header := h.do(t, "GET", "/v1.44/containers/x/logs?stdout=1&follow=true&tail=5&since=1.5", nil)
	want := "abc\x03\x00\x00\x00\x00\x00\x00\x22Error grabbing logs: disk on fire\n"
	if status != 200 || body != want || header.Get("Content-Type") != "application/vnd.docker.multiplexed-stream" {
		t.Errorf("%d %q %v", status, body, header)
	}
	h.c.logs = func(_ context.Context, _ container.LogsOptions, w container.LogWriter) error {
		io.WriteString(w.Open(false), "abc")
		return errors.New("disk on fire")
	}
	if _, body, _ := h.do(t, "GET", "/containers/x/logs?stdout=1", nil); !strings.Contains(body, "cut off") {
		t.Errorf("a raw stream that failed ended like a whole one: %q", body)
	}
}

func TestShutdownEndsStreams(t *testing.T) {
	h := serve(t)
	h.c.logs = func(ctx context.Context, _ container.LogsOptions, w container.LogWriter) error {
		w.Open(true)
		<-ctx.Done()
		return ctx.Err()
	}
	resp, err := h.client.Get("http://d/containers/x/logs?stdout=1&follow=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := h.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(resp.Body); err != nil {
		t.Error(err)
	}
}

func TestPullStream(t *testing.T) {
	h := serve(t)
	h.i.pull = func(_ context.Context, o pull.Options, p progress.Sink) error {
		if o.Ref != "reg:5000/a/b:1.0" || o.AllTags || o.Auth.Username != "u" {
			t.Errorf("%+v", o)
		}
		p.Update("1.0", "Pulling from a/b", 0, 0)
		p.Update("0123456789ab", "Pulling fs layer", 0, 0)
		p.Update("0123456789ab", "Downloading", 1000, 4000)
		p.Update("0123456789ab", "Downloading", 2000, 4000) // too soon after the last
		p.Update("0123456789ab", "Downloading", 4000, 4000) // but the end is shown
		p.Update("", "Status: done", 0, 0)
		return errors.New("toomanyrequests: slow down")
	}
	status, body, _ := h.do(t, "POST", "/images/create?fromImage=reg:5000/a/b&tag=1.0", nil, "X-Registry-Auth", "eyJ1c2VybmFtZSI6InUifQ==")
	want := strings.Join([]string{
		`{"status":"Pulling from a/b","id":"1.0"}`,
		`{"status":"Pulling fs layer","progressDetail":{},"id":"0123456789ab"}`,
		`{"status":"Downloading","progressDetail":{"current":1000,"total":4000},"progress":"[============\u003e                                      ]      1kB/4kB","id":"0123456789ab"}`,
		`{"status":"Downloading","progressDetail":{"current":4000,"total":4000},"progress":"[==================================================\u003e]      4kB/4kB","id":"0123456789ab"}`,
		`{"status":"Status: done"}`,
		`{"errorDetail":{"message":"toomanyrequests: slow down"},"error":"toomanyrequests: slow down"}`,
	}, "\r\n") + "\r\n"
	if status != 200 || body != want {
		t.Errorf("%d\n%s\nwant\n%s", status, body, want)
	}
	h.i.pull = func(context.Context, pull.Options, progress.Sink) error {
		return errclass.NotFound("manifest for x not found")
	}
	if status, body, _ := h.do(t, "POST", "/images/create?fromImage=x", nil); status != 404 || body != `{"message":"manifest for x not found"}`+"\n" {
		t.Errorf("%d %s", status, body)
	}
}

func TestEvents(t *testing.T) {
	h := serve(t)
	h.bus.Publish(eventtypes.Message{Type: "container", Action: "start", Actor: eventtypes.Actor{ID: "c1", Attributes: map[string]string{"image": "i:1", "name": "n"}}, Time: 5, TimeNano: 5e9})
	h.bus.Publish(eventtypes.Message{Type: "image", Action: "pull", Actor: eventtypes.Actor{ID: "i:1"}, Time: 6, TimeNano: 6e9})
	status, body, _ := h.do(t, "GET", `/v1.50/events?since=4&until=10&filters={"type":["container"]}`, nil)
	want := `{"status":"start","id":"c1","from":"i:1","Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{"image":"i:1","name":"n"}},"scope":"local","time":5,"timeNano":5000000000}` + "\n"
	if status != 200 || body != want {
		t.Errorf("%d %s", status, body)
	}
	_, body, header := h.do(t, "GET", `/v1.57/events?since=6&until=10`, nil, "Accept", "application/json-seq")
	if want := "\x1e" + `{"Type":"image","Action":"pull","Actor":{"ID":"i:1","Attributes":null},"scope":"local","time":6,"timeNano":6000000000}` + "\n"; body != want || header.Get("Content-Type") != "application/json-seq" {
		t.Errorf("%q %v", body, header)
	}
}

// TestEventsPeriod: what is kept is told for a period that has an end, even without a
// beginning, and 0 is the beginning of time.
func TestEventsPeriod(t *testing.T) {
	h := serve(t)
	for i := range 3 {
		h.bus.Publish(eventtypes.Message{Type: "image", Action: "pull", Time: int64(i + 5), TimeNano: int64(i+5) * 1e9})
	}
	for _, c := range []struct {
		query  string
		events int
	}{
		{"until=6", 2}, {"since=0&until=6", 2}, {"since=0&until=100", 3}, {"since=6&until=6", 1}, {"until=0", 0}, {"since=0&until=0", 0},
	} {
		t.Run(c.query, func(t *testing.T) {
			status, body, _ := h.do(t, "GET", "/v1.57/events?"+c.query, nil)
			if n := strings.Count(body, "\n"); status != 200 || n != c.events {
				t.Errorf("%d, %d events, want %d", status, n, c.events)
			}
		})
	}
	status, body, _ := h.do(t, "GET", "/v1.57/events?since=7&until=6", nil)
	if want := `{"message":"` + "`since` time (7) cannot be after `until` time (6)" + `"}` + "\n"; status != 400 || body != want {
		t.Errorf("%d %s", status, body)
	}
}

// TestEventsSinceZeroGoesOn: without an end the kept events come first, then new ones.
func TestEventsSinceZeroGoesOn(t *testing.T) {
	h := serve(t)
	h.bus.Publish(eventtypes.Message{Type: "image", Action: "pull", Time: 5, TimeNano: 5e9})
	_, r := h.raw(t, "GET /v1.57/events?since=0 HTTP/1.1\r\nHost: d\r\n\r\n")
	resp, err := http.ReadResponse(r, nil) // the body is not closed: that would wait for the end of the stream
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(resp.Body)
	for _, want := range []int64{5, 6} {
		t.Run(fmt.Sprint(want), func(t *testing.T) {
			var m eventtypes.Message
			if err := dec.Decode(&m); err != nil || m.Time != want {
				t.Fatalf("%+v %v, want time %d", m, err, want)
			}
			h.bus.Publish(eventtypes.Message{Type: "image", Action: "pull", Time: 6, TimeNano: 6e9})
		})
	}
}

func TestEventsOfAContainer(t *testing.T) {
	h := serve(t)
	h.bus.Publish(eventtypes.Message{Type: "container", Action: "start", Actor: eventtypes.Actor{ID: "c1"}, Time: 5, TimeNano: 5e9})
	h.bus.Publish(eventtypes.Message{Type: "network", Action: "connect", Actor: eventtypes.Actor{ID: "n1", Attributes: map[string]string{"container": "c1"}}, Time: 5, TimeNano: 5e9})
	_, body, _ := h.do(t, "GET", `/v1.57/events?until=10&filters={"container":["c1"]}`, nil)
	if !strings.Contains(body, `"start"`) || strings.Contains(body, "network") {
		t.Error(body)
	}
}

// TestAnswersAreNotEscaped: people read them.
func TestAnswersAreNotEscaped(t *testing.T) {
	const odd = "a && b < c > d"
	h := serve(t, func(h *harness) {
		h.c.list = func(container.ListOptions) ([]containertypes.Summary, error) {
			return []containertypes.Summary{{Command: odd}}, nil
		}
	})
	h.i.pull = func(context.Context, pull.Options, progress.Sink) error { return errclass.NotFound(odd) }
	h.bus.Publish(eventtypes.Message{Type: "image", Action: "pull", Actor: eventtypes.Actor{ID: odd}, Time: 5, TimeNano: 5e9})
	for method, path := range map[string]string{
		"/containers/json": "GET", "/images/create?fromImage=x": "POST", "/events?until=10": "GET",
	} {
		t.Run(method, func(t *testing.T) {
			if _, body, _ := h.do(t, path, "/v1.57"+method, nil); !strings.Contains(body, odd) {
				t.Errorf("%s: %s", method, body)
			}
		})
	}
}

// The filter by annotation came with 1.56.
func TestAnnotationFilterIsGated(t *testing.T) {
	h := serve(t, func(h *harness) {
		h.c.list = func(o container.ListOptions) ([]containertypes.Summary, error) {
			if len(o.Filters["annotation"]) != 1 {
				t.Errorf("%v", o.Filters)
			}
			return nil, nil
		}
	})
	for version, want := range map[string]int{"1.55": 400, "1.56": 200} {
		t.Run(version, func(t *testing.T) {
			status, body, _ := h.do(t, "GET", "/v"+version+`/containers/json?filters={"annotation":["k=v"]}`, nil)
			if status != want || want == 400 && !strings.Contains(body, "invalid filter 'annotation'") {
				t.Errorf("%s: %d %s", version, status, body)
			}
		})
	}
}

// TestRealClient lets Docker's own command line read our answers.
func TestRealClient(t *testing.T) {
	docker, err := exec.LookPath("docker")
	if err != nil {
		t.Skip("no docker command on this machine")
	}
	h := serve(t, func(h *harness) {
		h.c.list = func(container.ListOptions) ([]containertypes.Summary, error) { return nil, nil }
	})
	for _, c := range []struct{ args, want string }{
		{"version --format {{.Server.Version}}", "0.1.0\n"},
		{"info --format {{.Driver}}", "overlayfs\n"},
		{"ps -q", ""},
		{"network ls -q", ""},
	} {
		t.Run(c.args, func(t *testing.T) {
			cmd := exec.Command(docker, append([]string{"-H", "unix://" + h.socket}, strings.Fields(c.args)...)...)
			cmd.Env = append(os.Environ(), "DOCKER_CONFIG="+t.TempDir())
			out, err := cmd.CombinedOutput()
			if err != nil || string(out) != c.want {
				t.Errorf("docker %s: %v\n%s", c.args, err, out)
			}
		})
	}
}

func TestHeaderLimits(t *testing.T) {
	h := serve(t)
	_, r := h.raw(t, "GET /_ping HTTP/1.1\r\nHost: d\r\nX: "+strings.Repeat("x", maxHeader+8192)+"\r\n\r\n")
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("%v %v", resp, err)
	}
}
