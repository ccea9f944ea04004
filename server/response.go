package server

import (
	"bufio"
	"net"
	"net/http"
)

// response remembers whether an answer was begun, for errors and panics that
// come late. It passes everything else through.
type response struct {
	http.ResponseWriter
	wrote, hijacked bool
}

func (w *response) WriteHeader(status int) {
	w.wrote = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(p []byte) (int, error) {
	w.wrote = true
	return w.ResponseWriter.Write(p)
}

// Flush sends what was written so far.
func (w *response) Flush() {
	w.wrote = true
	_ = http.NewResponseController(w.ResponseWriter).Flush() // the client is gone: nobody to tell
}

// Hijack takes the connection over from the HTTP server.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(w.ResponseWriter).Hijack()
	if err == nil {
		w.hijacked = true
	}
	return conn, rw, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// flushed writes through to the client at once: for streams.
type flushed struct{ w *response }

func (f flushed) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err == nil {
		f.w.Flush()
	}
	return n, err
}
