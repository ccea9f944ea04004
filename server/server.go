package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"time"
)

const (
	// maxHeader bounds a request's header in bytes; X-Registry-Auth holds tokens.
	maxHeader = 256 << 10
	// headerTimeout ends connections that dribble their header.
	headerTimeout = time.Minute
	// idleTimeout ends kept-alive connections nobody uses.
	idleTimeout = 15 * time.Minute
)

// Options are what the server is made of. All but Log are required.
type Options struct {
	Containers Containers
	Images     Images
	Networks   Networks
	Volumes    Volumes
	System     System
	// EngineVersion goes into the Server header.
	EngineVersion string
	// Debug reports whether /debug/pprof answers; asked on every request.
	Debug func() bool
	Log   *slog.Logger
}

// Server serves the engine API over HTTP/1.1 on any number of listeners.
type Server struct {
	Options
	router  *router
	http    *http.Server
	closing context.Context // ends the streams
	close   context.CancelFunc
}

// New returns a server that answers with the given services.
func New(o Options) *Server {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Debug == nil {
		o.Debug = func() bool { return false }
	}
	s := &Server{Options: o}
	s.closing, s.close = context.WithCancel(context.Background())
	s.router = newRouter(s.routes())
	s.http = &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, connKey{}, c) },
		// HTTP/2 is refused: its connection state is the part of Go's server with
		// the longest list of advisories, and no Docker client needs it.
		Protocols: new(http.Protocols),
		ErrorLog:  slog.NewLogLogger(o.Log.Handler(), slog.LevelDebug),
	}
	s.http.Protocols.SetHTTP1(true)
	return s
}

// routes is the whole table; the order decides where two patterns match.
func (s *Server) routes() []route {
	var all []route
	for _, part := range [][]route{
		systemAPI{s}.routes(), containerAPI{s}.routes(), execAPI{s}.routes(), imageAPI{s}.routes(), networkAPI{s}.routes(), volumeAPI{s}.routes(), noneAPI{s}.routes(),
		systemAPI{s}.debugRoutes(), unbuiltRoutes(),
	} {
		all = append(all, part...)
	}
	return all
}

// Serve accepts connections until the listener or the server is closed; then it
// returns nil. The server closes l.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(l)
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting, ends the streams and waits for requests under way
// until ctx ends; then it cuts them off. Hijacked connections are not the server's
// any more and stay.
func (s *Server) Shutdown(ctx context.Context) error {
	s.close()
	if err := s.http.Shutdown(ctx); err != nil {
		return errors.Join(err, s.http.Close())
	}
	return nil
}

// ServeHTTP answers one request. A panic in a handler ends that request only.
func (s *Server) ServeHTTP(hw http.ResponseWriter, r *http.Request) {
	w := &response{ResponseWriter: hw}
	defer func() {
		if p := recover(); p != nil {
			s.panicked(w, r, p)
		}
	}()
	h := w.Header()
	h.Set("Server", "Docker/"+s.EngineVersion+" (linux)")
	h.Set("Api-Version", MaxAPIVersion)
	h.Set("Ostype", "linux")
	h.Set("Docker-Experimental", "false")

	c := &call{s: s, w: w, r: r, version: newest}
	text, path, versioned := splitVersion(r.URL.Path)
	if versioned {
		v, err := parseVersion(text)
		if err != nil {
			writeError(w, statusOf(err), err.Error())
			return
		}
		c.version = v
	}
	serve, vars := s.router.find(r.Method, path)
	if serve == nil {
		writeError(w, http.StatusNotFound, "page not found")
		return
	}
	c.vars, c.query = vars, r.URL.Query()
	start := time.Now()
	err := serve(c)
	s.Log.Debug("request", "method", r.Method, "path", path, "version", c.version.String(), "took", time.Since(start), "error", err)
	if err != nil {
		s.failed(c, err)
	}
}

// failed answers with err, or ends an answer that has begun.
func (s *Server) failed(c *call, err error) {
	status := statusOf(err)
	if status >= http.StatusInternalServerError && status != http.StatusNotImplemented && !clientGone(c.ctx(), err) {
		s.Log.Error("request failed", "method", c.r.Method, "path", c.r.URL.Path, "error", err)
	}
	switch {
	case c.w.hijacked:
	case c.w.wrote:
		// Cutting the connection is the only way left to tell the client that the
		// answer is not whole.
		panic(http.ErrAbortHandler)
	default:
		writeError(c.w, status, err.Error())
	}
}

func (s *Server) panicked(w *response, r *http.Request, p any) {
	if p == http.ErrAbortHandler { //nolint:errorlint // net/http compares it so, too
		panic(p)
	}
	s.Log.Error("panic in a request", "method", r.Method, "path", r.URL.Path, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
	switch {
	case w.hijacked:
	case w.wrote:
		panic(http.ErrAbortHandler)
	default:
		writeError(w, http.StatusInternalServerError, "internal error: the request ended in a panic, see the daemon's log")
	}
}
