// Package query answers questions about containers from their snapshots: list, inspect, top.
// It changes nothing.
package query

import (
	"context"

	"github.com/gantry/gantry/engine/container/exec"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/storage"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Images is what queries ask of engine/image.
type Images interface {
	// Resolve finds the image a reference, ID or unambiguous prefix of an ID names,
	// for the platform (nil: the host's). Class NotFound with Docker's words when absent.
	Resolve(ctx context.Context, ref string, p *ocispec.Platform) (*image.Image, error)
	// Unpacked is what the image's layers take, in bytes.
	Unpacked(ctx context.Context, img *image.Image) (int64, error)
}

// Layers is what queries ask of storage's writable layers.
type Layers interface {
	// Usage is what the writable directory takes.
	Usage(ctx context.Context, containerID string) (storage.LayerUsage, error)
}

// Networks is what queries ask of engine/network.
type Networks interface {
	// Known tells of a network that exists; class NotFound for others.
	Known(ref string) (id, name string, driver network.Description, err error)
}

// Shim is what queries ask of the process that holds containers.
type Shim interface {
	// Pids lists the container's processes as the host numbers them.
	Pids(ctx context.Context, key shim.Key) ([]int, error)
}

// Deps are what a Reader stands on. StorageDriver is what inspect shows as Driver.
type Deps struct {
	Index         *store.Index
	Files         *store.Files
	Execs         *exec.Set
	Images        Images
	Layers        Layers
	Networks      Networks
	Shim          Shim
	Logs          logs.Drivers
	StorageDriver string
}

// Reader answers queries. Safe for concurrent use.
type Reader struct {
	index    *store.Index
	files    *store.Files
	execs    *exec.Set
	images   Images
	layers   Layers
	networks Networks
	shim     Shim
	logs     logs.Drivers
	driver   string
}

// New makes a reader.
func New(d Deps) *Reader {
	return &Reader{d.Index, d.Files, d.Execs, d.Images, d.Layers, d.Networks, d.Shim, d.Logs, d.StorageDriver}
}

// ListOptions as GET /containers/json takes them.
type ListOptions struct {
	All     bool
	Limit   int // <= 0: all
	Size    bool
	Filters filter.Args
}

// Use is one container that uses an image.
type Use struct {
	ContainerID string
	Running     bool
}

// ImageUses tells all containers that use the image, by the ID that inspect shows.
func (q *Reader) ImageUses(id digest.Digest) []Use {
	var uses []Use
	for _, c := range q.index.All() {
		if c.Record().Image == string(id) {
			uses = append(uses, Use{ContainerID: c.ID, Running: c.View().Running()})
		}
	}
	return uses
}

// Counts tells how many containers run, are paused and are stopped, for /info.
func (q *Reader) Counts() (running, paused, stopped int) {
	for _, c := range q.index.All() {
		switch v := c.View(); {
		case v.Phase == fsm.Paused:
			paused++
		case v.Running():
			running++
		default:
			stopped++
		}
	}
	return running, paused, stopped
}
