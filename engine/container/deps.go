package container

import (
	"context"

	"github.com/gantry/gantry/engine/container/bundle"
	"github.com/gantry/gantry/engine/container/exec"
	"github.com/gantry/gantry/engine/container/filesystem"
	"github.com/gantry/gantry/engine/container/mounts"
	"github.com/gantry/gantry/engine/container/query"
	"github.com/gantry/gantry/engine/container/task"
	"github.com/gantry/gantry/engine/container/validate"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/storage"
)

// Images is what containers ask of engine/image.
type Images interface {
	// Lease makes the container hold img's layers until Release. Idempotent.
	Lease(ctx context.Context, img *image.Image, containerID string) (*image.RootfsLease, error)
	query.Images
	bundle.Images
	task.Images
}

// Layers is what containers ask of storage's writable layers.
type Layers interface {
	// Create makes the layer's directories; class AlreadyExists when they are there.
	Create(containerID string) (storage.Layer, error)
	query.Layers
	bundle.Layers
	filesystem.Layers
	task.Layers
}

// Volumes is what containers ask of engine/volume; see there for the contracts.
type Volumes interface {
	mounts.Volumes
	task.Volumes
}

// Networks is what containers ask of engine/network; see there for the contracts.
type Networks interface {
	validate.Networks
	query.Networks
	task.Networks
}

// Shim is what containers ask of the process that holds them.
type Shim interface {
	task.Shim
	exec.Shim
	query.Shim
}

// Deps are the services containers stand on. All are required but Seccomp: without it
// the runtime compiles the spec's profile itself.
type Deps struct {
	Images   Images
	Layers   Layers
	Networks Networks
	Volumes  Volumes
	Shim     Shim
	Logs     logs.Drivers
	Bus      *event.Bus
	Seccomp  bundle.SeccompCompiler
}
