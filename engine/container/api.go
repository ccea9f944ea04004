// Package container is the facade that the API calls for containers. It creates them and has
// the packages below it do the rest, with the messages of Docker:
//
//	validate  normalizes and validates settings  store   records on disk, the index of containers
//	task      runs a container: start to removal  exec    execs and health probes
//	stream    attached clients                    query   list, inspect, top
//	bundle    the requests to the shim            filesystem  views of roots, export, diff
package container

import (
	"io"
	"time"

	"github.com/gantry/gantry/engine/container/query"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/network"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// CreateOptions are a create request raised to the newest API's types.
type CreateOptions struct {
	Name       string // "" makes one up
	Config     *container.Config
	HostConfig *container.HostConfig
	Networking *network.NetworkingConfig
	Platform   *ocispec.Platform
}

// StopOptions say how to end a container. Signal "" is the container's own stop signal; Timeout in seconds, nil
// is the container's own or the daemon's default, -1 waits for ever.
type StopOptions struct {
	Signal  string
	Timeout *int
}

// ListOptions as GET /containers/json takes them.
type ListOptions = query.ListOptions

// Use is one container that uses an image.
type Use = query.Use

// RemoveOptions as DELETE /containers/{id} takes them.
type RemoveOptions struct {
	Force, Volumes, Link bool
}

// AttachOptions as POST /containers/{id}/attach takes them. Without Stream only the
// logs so far are sent.
type AttachOptions struct {
	Stream, Stdin, Stdout, Stderr, Logs bool
	DetachKeys                          string
}

// LogsOptions as GET /containers/{id}/logs takes them. Tail < 0 is everything.
type LogsOptions struct {
	Stdout, Stderr, Follow, Timestamps, Details bool
	Since, Until                                time.Time
	Tail                                        int
}

// LogWriter receives the log stream: Open is called once, when the container is
// known and before the first byte, with whether frames are multiplexed (no tty).
type LogWriter interface {
	Open(mux bool) io.Writer
}
