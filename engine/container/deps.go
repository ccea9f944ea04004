package container

import (
	"context"
	"os"

	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/storage"
	networktypes "github.com/moby/moby/api/types/network"
	volumetypes "github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// Images is what containers ask of engine/image.
type Images interface {
	// Resolve finds the image a reference, ID or unambiguous prefix of an ID names,
	// for the platform (nil: the host's). Class NotFound with Docker's words when absent.
	Resolve(ctx context.Context, ref string, p *ocispec.Platform) (*image.Image, error)
	// Lease makes the container hold img's layers until Release. Idempotent.
	Lease(ctx context.Context, img *image.Image, containerID string) (*image.RootfsLease, error)
	// LeaseOf is the hold a container has already; class NotFound when none.
	LeaseOf(ctx context.Context, containerID string) (*image.RootfsLease, error)
	// Unpacked is what the image's layers take, in bytes.
	Unpacked(ctx context.Context, img *image.Image) (int64, error)
	// Release ends the hold; none is no error.
	Release(ctx context.Context, containerID string) error
}

// Layers is what containers ask of storage's writable layers.
type Layers interface {
	// Create makes the layer's directories; class AlreadyExists when they are there.
	Create(containerID string) (storage.Layer, error)
	// Get finds them; class NotFound without.
	Get(containerID string) (storage.Layer, error)
	// Remove deletes the layer; none is no error.
	Remove(containerID string) error
	// Usage is what the writable directory takes.
	Usage(ctx context.Context, containerID string) (storage.LayerUsage, error)
}

// Volumes is what containers ask of engine/volume; see there for the contracts.
type Volumes interface {
	Acquire(r volumetypes.CreateRequest, container string) (name, path string, err error)
	Use(name, container string) error
	Release(name, container string, remove bool) error
	Abandon(container string) error
	Fill(name string, from *os.File) error
}

// Networks is what containers ask of engine/network; see there for the contracts.
type Networks interface {
	Acquire(ctx context.Context, r network.SandboxRequest) (*network.Sandbox, error)
	Release(ctx context.Context, containerID string) error
	Restore(ctx context.Context, records []network.Record) error
	Connect(ctx context.Context, ns *os.File, r network.SandboxRequest) (*network.Sandbox, error)
	Disconnect(ctx context.Context, ns *os.File, containerID, ref string, keep func(network.Record)) (network.Record, error)
	Known(ref string) (id, name, driver string, err error)
	SetLinks(containerID string, to []string) error
	CheckEndpoint(ref string, es *networktypes.EndpointSettings) error
}

// Shim is what containers ask of the process that holds them. Files given to a call
// stay the caller's, who closes them after it; descriptors that come back
// (Started.FDs) are kept by the implementation. After the shim died calls wait a
// bounded time for its successor and then answer with class Unavailable.
type Shim interface {
	// Start runs a container and returns when its program runs, or failed to: then the
	// error reads as an OCI runtime's (`exec: "foo": executable file not found in $PATH`).
	Start(ctx context.Context, r *shim.StartRequest, files []*os.File) (*shim.Started, error)
	// Exec runs a further process in a running container, with errors as Start's.
	Exec(ctx context.Context, r *shim.ExecRequest, files []*os.File) (*shim.Started, error)
	// Attach connects one client to a held process; conn is the client's connection.
	Attach(ctx context.Context, key shim.Key, a shim.AttachSpec, conn *os.File) error
	// Signal sends sig to a held process; class NotFound when it has ended.
	Signal(ctx context.Context, key shim.Key, sig int) error
	// Pause freezes and Resume thaws the whole container.
	Pause(ctx context.Context, key shim.Key) error
	Resume(ctx context.Context, key shim.Key) error
	// Resize sets the size of the process's terminal.
	Resize(ctx context.Context, key shim.Key, size oci.WinSize) error
	// Forget acknowledges an exit: the shim drops what it held, cgroup included.
	// Unknown keys are no error.
	Forget(ctx context.Context, key shim.Key) error
	// Pids lists the container's processes as the host numbers them.
	Pids(ctx context.Context, key shim.Key) ([]int, error)
	// Adopt gives the shim a process that no shim holds, found after both died.
	Adopt(ctx context.Context, st shim.Status, pidfd *os.File) error
	// List tells everything the shim holds, exits not yet forgotten included.
	List(ctx context.Context) ([]shim.Status, error)
	// Events delivers what the shim pushes, from the moment the client connected.
	// After a shim was replaced the first event is a zero one: list again. The channel
	// is the same on every call and is closed when the client is closed.
	Events() <-chan shim.Event
}

// SeccompCompiler compiles a filter to classic BPF (oci/plan/seccomp).
type SeccompCompiler func(p *specs.LinuxSeccomp) (prog []byte, flags uint32, err error)

// Deps are the services containers stand on. All are required but Seccomp: without it
// the runtime compiles the spec's profile itself.
type Deps struct {
	Images   Images
	Layers   Layers
	Networks Networks
	Volumes  Volumes
	Shim     Shim
	Bus      *event.Bus
	Seccomp  SeccompCompiler
}
