// Package clitest is a fake of the engine's API for tests of the command line: canned
// answers, containers that behave as their image's name says, and a record of requests.
package clitest

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/gantry/gantry/api/extension"
)

// APIVersion is what the fake says it speaks.
const APIVersion = "1.50"

// Request is one recorded request. Path has no version prefix.
type Request struct {
	Method, Path, Query, Body string
	Auth                      string // X-Registry-Auth
}

// Engine is the fake. Socket is where it listens.
//
// Containers behave by the first word of their image's name: hello prints a line on each
// stream, exitN ends with N, cat copies its input, missing is there only after a pull,
// gone never is; forever runs until killed; noexec, noperm and nostart fail to start.
type Engine struct {
	Socket string
	// Extended says that it takes what only our own engine takes. Set before the first request.
	Extended bool
	// Hold, if it is there, gets a value for every such request, which is then answered when it is closed.
	Hold chan struct{}

	mu     sync.Mutex
	reqs   []Request
	pulled map[string]bool
	ctrs   map[string]*ctr
	own    map[string]reply
	n      int
	srv    *http.Server
}

type reply struct {
	code int
	body string
	cut  bool
}

type ctr struct {
	image   string
	cfg     config
	started chan struct{}
	done    chan struct{}
	code    int
	ended   sync.Once
}

type config struct {
	Image     string
	Tty       bool
	OpenStdin bool
}

// New starts an engine on a socket below t's directory; it ends with t.
func New(t testing.TB) *Engine {
	t.Helper()
	e, err := Start(filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// Start starts an engine on a socket.
func Start(socket string) (*Engine, error) {
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	e := &Engine{Socket: socket, pulled: map[string]bool{}, ctrs: map[string]*ctr{}, own: map[string]reply{}}
	e.srv = &http.Server{Handler: e}
	go func() { _ = e.srv.Serve(l) }()
	return e, nil
}

// Close ends the engine and all its connections that were not hijacked.
func (e *Engine) Close() { _ = e.srv.Close() }

// Answer sets what the engine says to a request ("GET /volumes", without version and
// query) instead of its own answer. A code above 399 makes body the message of an error.
func (e *Engine) Answer(request string, code int, body string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.own[request] = reply{code: code, body: body}
}

// Cut makes the answer to a request break off behind body, as a connection does that is lost.
func (e *Engine) Cut(request, body string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.own[request] = reply{code: 200, body: body, cut: true}
}

// Requests are those recorded so far, without pings and what only our own engine takes.
func (e *Engine) Requests() []Request {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]Request(nil), e.reqs...)
}

var errNoRoute = fmt.Errorf("page not found")

// ServeHTTP implements http.Handler.
func (e *Engine) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Api-Version", APIVersion)
	w.Header().Set("Ostype", "linux")
	path := r.URL.Path
	if m := regexp.MustCompile(`^/v1\.[0-9]+(/.*)$`).FindStringSubmatch(path); m != nil {
		path = m[1]
	}
	if path == "/_ping" {
		_, _ = io.WriteString(w, "OK")
		return
	}
	if path == extension.RunPath {
		e.run(w, r)
		return
	}
	hijack := strings.HasSuffix(path, "/attach") || (strings.HasPrefix(path, "/exec/") && strings.HasSuffix(path, "/start"))
	var body []byte
	if !strings.HasSuffix(path, "/images/load") && (!hijack || r.ContentLength > 0) {
		body, _ = io.ReadAll(io.LimitReader(r.Body, 1<<20))
	}
	e.mu.Lock()
	e.reqs = append(e.reqs, Request{
		Method: r.Method, Path: path, Query: r.URL.Query().Encode(), Body: normal(body), Auth: r.Header.Get("X-Registry-Auth"),
	})
	own, ok := e.own[r.Method+" "+path]
	e.mu.Unlock()
	switch {
	case ok && own.cut:
		answer(w, own.code, own.body)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	case ok && own.code > 399:
		fail(w, own.code, "%s", own.body)
	case ok:
		answer(w, own.code, own.body)
	default:
		e.route(w, r, path, body)
	}
}

// normal sorts keys and drops nulls, zeroes and empty values, which clients of different
// age write or leave out.
func normal(b []byte) string {
	var v any
	if len(b) == 0 || json.Unmarshal(b, &v) != nil {
		return string(b)
	}
	out, _ := json.Marshal(prune(v))
	return string(out)
}

func prune(v any) any {
	switch x := v.(type) {
	case map[string]any:
		return pruneMap(x)
	case []any:
		for i := range x {
			x[i] = prune(x[i])
		}
		if len(x) == 0 {
			return nil
		}
		return x
	}
	if v == "" || v == float64(0) || v == false {
		return nil
	}
	return v
}

func pruneMap(x map[string]any) any {
	for k, e := range x {
		switch k {
		case "ExposedPorts", "Volumes", "Tmpfs", "Labels", "EndpointsConfig":
			// Their keys say something by being there.
			if m, ok := e.(map[string]any); ok && len(m) > 0 {
				for n := range m {
					m[n] = fmt.Sprint(prune(m[n]))
				}
				continue
			}
		}
		p := prune(e)
		if p == nil && k != "MaskedPaths" && k != "ReadonlyPaths" {
			delete(x, k)
			continue
		}
		x[k] = p
	}
	if len(x) == 0 {
		return nil
	}
	// Docker's client sends these in any order.
	for _, k := range []string{"Env", "Binds"} {
		if list, ok := x[k].([]any); ok {
			sort.Slice(list, func(i, j int) bool { return fmt.Sprint(list[i]) < fmt.Sprint(list[j]) })
		}
	}
	return x
}

func fail(w http.ResponseWriter, code int, f string, args ...any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(map[string]string{"message": fmt.Sprintf(f, args...)})
}

func answer(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	if s, ok := v.(string); ok {
		_, _ = io.WriteString(w, s)
		return
	}
	_ = json.NewEncoder(w).Encode(v)
}

func (e *Engine) route(w http.ResponseWriter, r *http.Request, path string, body []byte) {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	switch {
	case path == "/containers/create":
		e.create(w, r, body)
	case path == "/containers/prune":
		answer(w, 200, `{"ContainersDeleted":["aaa","bbb"],"SpaceReclaimed":12345678}`)
	case parts[0] == "containers" && len(parts) == 3:
		e.container(w, r, parts[1], parts[2])
	case parts[0] == "containers" && len(parts) == 2 && r.Method == http.MethodDelete:
		e.simple(w, parts[1], http.StatusNoContent)
	case path == "/images/create":
		e.pull(w, r)
	case path == "/images/load":
		_, _ = io.Copy(io.Discard, r.Body)
		answer(w, 200, `{"stream":"Loaded image: busybox:latest\n"}`+"\n")
	case parts[0] == "exec":
		e.exec(w, parts, body)
	default:
		e.canned(w, r, path, parts)
	}
}

func (e *Engine) create(w http.ResponseWriter, r *http.Request, body []byte) {
	var c config
	if err := json.Unmarshal(body, &c); err != nil {
		fail(w, 400, "invalid JSON: %v", err)
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	kind := strings.SplitN(strings.SplitN(c.Image, ":", 2)[0], "@", 2)[0]
	switch {
	case kind == "gone", kind == "missing" && !e.pulled["missing"]:
		ref := c.Image
		if !strings.Contains(ref, ":") {
			ref += ":latest"
		}
		fail(w, 404, "No such image: %s", ref)
		return
	case kind == "conflict":
		fail(w, 409, `Conflict. The container name "/%s" is already in use by container "abc". You have to remove (or rename) that container to be able to reuse that name.`, r.URL.Query().Get("name"))
		return
	}
	e.n++
	sum := sha256.Sum256([]byte(c.Image + strconv.Itoa(e.n)))
	id := hex.EncodeToString(sum[:])
	e.ctrs[id] = &ctr{image: kind, cfg: c, started: make(chan struct{}), done: make(chan struct{})}
	resp := map[string]any{"Id": id, "Warnings": []string{}}
	if kind == "warn" {
		resp["Warnings"] = []string{"Your kernel does not support it."}
	}
	answer(w, 201, resp)
}

func (e *Engine) find(ref string) *ctr {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.ctrs[ref]
}

// simple answers for names: anything not made here and not called none-… is there.
func (e *Engine) simple(w http.ResponseWriter, ref string, code int) {
	if strings.HasPrefix(ref, "none") {
		fail(w, 404, "No such container: %s", ref)
		return
	}
	w.WriteHeader(code)
}

func (e *Engine) container(w http.ResponseWriter, r *http.Request, ref, action string) {
	if strings.HasPrefix(ref, "none") {
		fail(w, 404, "No such container: %s", ref)
		return
	}
	c := e.find(ref)
	switch action {
	case "json":
		answer(w, 200, inspectJSON(ref))
	case "start":
		e.start(w, ref, c)
	case "attach":
		e.attach(w, c)
	case "wait":
		e.wait(w, c)
	case "logs":
		w.Header().Set("Content-Type", "application/vnd.docker.multiplexed-stream")
		_, _ = w.Write(frame(1, "out 1\n"))
		_, _ = w.Write(frame(2, "err 1\n"))
		_, _ = w.Write(frame(1, "out 2\n"))
	case "top":
		answer(w, 200, `{"Titles":["UID","PID","CMD"],"Processes":[["root","12","sleep 100"],["root","13","a much longer command line than others"]]}`)
	case "changes":
		answer(w, 200, map[bool]string{false: `[{"Path":"/etc","Kind":0},{"Path":"/etc/new file","Kind":1},{"Path":"/gone","Kind":2}]`, true: "null"}[ref == "unchanged"])
	case "export":
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = io.WriteString(w, "an archive\n")
	case "exec":
		answer(w, 201, `{"Id":"e0e0e0"}`)
	case "kill":
		if c != nil {
			sig := r.URL.Query().Get("signal")
			code, ends := map[string]int{"INT": 130, "TERM": 143, "KILL": 137, "": 137}[sig]
			if ends {
				c.end(code)
			}
		}
		w.WriteHeader(http.StatusNoContent)
	case "stop", "restart", "pause", "unpause", "rename", "resize":
		w.WriteHeader(http.StatusNoContent)
	default:
		fail(w, 404, "%v", errNoRoute)
	}
}

func (e *Engine) start(w http.ResponseWriter, ref string, c *ctr) {
	if c == nil {
		e.simple(w, ref, 204)
		return
	}
	const pre = "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error during container init: exec: "
	msg := map[string]string{
		"noexec": pre + `"nosuch": executable file not found in $PATH: unknown`,
		"nofile": pre + `"/nosuch": stat /nosuch: no such file or directory: unknown`,
		"noperm": pre + `"/etc": permission denied: unknown`,
		"isdir":  pre + `"/etc": is a directory: unknown`,
	}[c.image]
	code := 400
	if c.image == "nostart" {
		msg, code = "driver failed programming external connectivity", 500
	}
	if msg != "" {
		c.end(127)
		fail(w, code, "%s", msg)
		return
	}
	close(c.started)
	w.WriteHeader(http.StatusNoContent)
}

func (c *ctr) end(code int) {
	c.ended.Do(func() {
		c.code = code
		close(c.done)
	})
}

func (e *Engine) wait(w http.ResponseWriter, c *ctr) {
	if c == nil {
		answer(w, 200, `{"StatusCode":7}`)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	_ = http.NewResponseController(w).Flush()
	<-c.done
	fmt.Fprintf(w, `{"StatusCode":%d}`, c.code)
}

func frame(stream byte, s string) []byte {
	b := make([]byte, 8, 8+len(s))
	b[0] = stream
	binary.BigEndian.PutUint32(b[4:], uint32(len(s)))
	return append(b, s...)
}

func hijack(w http.ResponseWriter, tty bool) (net.Conn, *bufio.Reader, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, nil, err
	}
	ct := "application/vnd.docker.multiplexed-stream"
	if tty {
		ct = "application/vnd.docker.raw-stream"
	}
	fmt.Fprintf(conn, "HTTP/1.1 101 UPGRADED\r\nContent-Type: %s\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nApi-Version: %s\r\n\r\n", ct, APIVersion)
	return conn, rw.Reader, nil
}

func (e *Engine) attach(w http.ResponseWriter, c *ctr) {
	if c == nil {
		c = &ctr{image: "hello", started: make(chan struct{}), done: make(chan struct{})}
		close(c.started)
	}
	conn, in, err := hijack(w, c.cfg.Tty)
	if err != nil {
		return
	}
	c.live(conn, in)
}

// live is a container's life as an attached client sees it.
func (c *ctr) live(conn net.Conn, in *bufio.Reader) {
	select {
	case <-c.started:
	case <-c.done:
		conn.Close()
		return
	}
	if c.image == "forever" {
		<-c.done
		endOutput(conn, in)
		return
	}
	code := play(conn, in, c.image, c.cfg.Tty)
	endOutput(conn, in)
	c.end(code)
}

// endOutput ends the stream and takes in what the client still sends, until it closes: a
// socket closed with unread input would reset the connection.
func endOutput(conn net.Conn, in *bufio.Reader) {
	if u, ok := conn.(*net.UnixConn); ok {
		_ = u.CloseWrite()
	}
	go func() {
		_, _ = io.Copy(io.Discard, in)
		conn.Close()
	}()
}

// play is a container's life: what it prints, and its exit code.
func play(conn net.Conn, in *bufio.Reader, kind string, tty bool) int {
	put := func(stream byte, s string) {
		if tty {
			_, _ = io.WriteString(conn, s)
			return
		}
		_, _ = conn.Write(frame(stream, s))
	}
	if n, ok := strings.CutPrefix(kind, "exit"); ok {
		code, _ := strconv.Atoi(n)
		return code
	}
	switch kind {
	case "cat":
		buf := make([]byte, 32<<10)
		for {
			n, err := in.Read(buf)
			if n > 0 {
				put(1, string(buf[:n]))
			}
			if err != nil {
				return 0
			}
		}
	default:
		put(1, "hello out\n")
		put(2, "hello err\n")
	}
	return 0
}

func (e *Engine) pull(w http.ResponseWriter, r *http.Request) {
	img := r.URL.Query().Get("fromImage")
	if strings.HasSuffix(img, "gone") {
		fail(w, 404, "pull access denied for gone, repository does not exist or may require 'docker login': denied: requested access to the resource is denied")
		return
	}
	e.mu.Lock()
	e.pulled[strings.TrimPrefix(img, "docker.io/library/")] = true
	e.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(img, "broken") {
		_, _ = io.WriteString(w, `{"status":"Pulling from library/broken","id":"latest"}`+"\n"+`{"errorDetail":{"message":"unexpected EOF"},"error":"unexpected EOF"}`+"\n")
		return
	}
	var b bytes.Buffer
	for _, l := range []string{
		`{"status":"Pulling from library/missing","id":"latest"}`,
		`{"status":"Pulling fs layer","progressDetail":{},"id":"aaaaaaaaaaaa"}`,
		`{"status":"Downloading","progressDetail":{"current":100,"total":1000},"progress":"[=>  ] 100B/1kB","id":"aaaaaaaaaaaa"}`,
		`{"status":"Download complete","progressDetail":{},"id":"aaaaaaaaaaaa"}`,
		`{"status":"Pull complete","progressDetail":{},"id":"aaaaaaaaaaaa"}`,
		`{"status":"Digest: sha256:0123456789012345678901234567890123456789012345678901234567890123"}`,
		`{"status":"Status: Downloaded newer image for missing:latest"}`,
	} {
		b.WriteString(l + "\r\n")
	}
	_, _ = w.Write(b.Bytes())
}

func (e *Engine) exec(w http.ResponseWriter, parts []string, body []byte) {
	if len(parts) != 3 {
		fail(w, 404, "%v", errNoRoute)
		return
	}
	switch parts[2] {
	case "json":
		answer(w, 200, `{"ID":"e0e0e0","Running":false,"ExitCode":5,"ContainerID":"c1"}`)
	case "resize":
		w.WriteHeader(http.StatusOK)
	case "start":
		var o struct{ Detach, Tty bool }
		_ = json.Unmarshal(body, &o)
		if o.Detach {
			w.WriteHeader(http.StatusOK)
			return
		}
		conn, in, err := hijack(w, o.Tty)
		if err != nil {
			return
		}
		play(conn, in, "hello", o.Tty)
		endOutput(conn, in)
	}
}
