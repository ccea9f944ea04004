// Package stream holds what both ends of an attached stream share: the hijacked connection
// that the server hands to the engine, and Docker's framing with its 8-byte header.
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
