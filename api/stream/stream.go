// Package stream has what both ends of an attached stream need: the hijacked
// connection as the server hands it to the engine, and Docker's 8-byte framing.
package stream

import "net"

// Conn is a client connection taken over from HTTP after the response header
// was written. Prefix are bytes of the client's stream that the HTTP reader had
// already taken; they come before what Conn reads. The receiver closes Conn.
type Conn struct {
	net.Conn
	Prefix []byte
}

// Hijack writes the upgrade response and takes the connection over. With mux the
// content type announces the multiplexed stream (application/vnd.docker.multiplexed-stream),
// otherwise the raw one. It may be called once; after an error nothing was taken over
// and the caller can still answer with an ordinary HTTP error.
type Hijack func(mux bool) (*Conn, error)
