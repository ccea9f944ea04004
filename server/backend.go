// Package server is the HTTP side of the engine API: route, decode, raise older API
// versions to the current types, call a service, encode, and map error classes to
// status codes. It decides nothing else.
package server

import (
	"context"
	"io"

	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/filter"
	containertypes "github.com/moby/moby/api/types/container"
	imagetypes "github.com/moby/moby/api/types/image"
	networktypes "github.com/moby/moby/api/types/network"
	registrytypes "github.com/moby/moby/api/types/registry"
	systemtypes "github.com/moby/moby/api/types/system"
	volumetypes "github.com/moby/moby/api/types/volume"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Containers is what the server asks of engine/container. ref is a name, an ID or an
// unambiguous prefix of one. Errors carry an errdefs class.
type Containers interface {
	Create(ctx context.Context, o container.CreateOptions) (containertypes.CreateResponse, error)
	Start(ctx context.Context, ref string) error
	Stop(ctx context.Context, ref string, o container.StopOptions) error
	Restart(ctx context.Context, ref string, o container.StopOptions) error
	Kill(ctx context.Context, ref, signal string) error
	Pause(ctx context.Context, ref string) error
	Unpause(ctx context.Context, ref string) error
	Rename(ctx context.Context, ref, name string) error
	Resize(ctx context.Context, ref string, height, width uint16) error
	Remove(ctx context.Context, ref string, o container.RemoveOptions) error
	// Wait answers once the wait stands; the channel then gets exactly one response.
	Wait(ctx context.Context, ref string, cond containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error)
	Attach(ctx context.Context, ref string, o container.AttachOptions, hijack stream.Hijack) error
	Logs(ctx context.Context, ref string, o container.LogsOptions, w container.LogWriter) error
	Inspect(ctx context.Context, ref string, size bool) (containertypes.InspectResponse, error)
	List(ctx context.Context, o container.ListOptions) ([]containertypes.Summary, error)
	Export(ctx context.Context, ref string, w io.Writer) error
	Changes(ctx context.Context, ref string) ([]containertypes.FilesystemChange, error)
	Top(ctx context.Context, ref string, psArgs []string) (containertypes.TopResponse, error)
	Prune(ctx context.Context, f filter.Args) (containertypes.PruneReport, error)
	NetworkConnect(ctx context.Context, netRef, ref string, ep *networktypes.EndpointSettings) error
	NetworkDisconnect(ctx context.Context, netRef, ref string, force bool) error

	ExecCreate(ctx context.Context, ref string, o containertypes.ExecCreateRequest) (id string, err error)
	// ExecStart detached returns when the process runs; attached it takes the connection.
	ExecStart(ctx context.Context, execID string, o containertypes.ExecStartRequest, hijack stream.Hijack) error
	ExecInspect(ctx context.Context, execID string) (containertypes.ExecInspectResponse, error)
	ExecResize(ctx context.Context, execID string, height, width uint16) error
}

// Images is what the server asks of engine/image.
type Images interface {
	Pull(ctx context.Context, o pull.Options, p progress.Sink) error
	Load(ctx context.Context, r io.Reader, quiet bool, p progress.Sink) error
	Save(ctx context.Context, refs []string, platforms []ocispec.Platform, w io.Writer) error
	List(ctx context.Context, o image.ListOptions) ([]imagetypes.Summary, error)
	Inspect(ctx context.Context, ref string, platform *ocispec.Platform, manifests bool) (imagetypes.InspectResponse, error)
	History(ctx context.Context, ref string, platform *ocispec.Platform) ([]imagetypes.HistoryResponseItem, error)
	Tag(ctx context.Context, ref, newRef string) error
	Remove(ctx context.Context, ref string, o image.RemoveOptions) ([]imagetypes.DeleteResponse, error)
	Prune(ctx context.Context, f filter.Args) (imagetypes.PruneReport, error)
}

// Volumes is what the server asks of engine/volume.
type Volumes interface {
	List(ctx context.Context, f filter.Args) (list []volumetypes.Volume, warnings []string, err error)
	Create(ctx context.Context, r volumetypes.CreateRequest) (volumetypes.Volume, error)
	Inspect(ctx context.Context, name string) (volumetypes.Volume, error)
	Remove(ctx context.Context, name string, force bool) error
	Prune(ctx context.Context, f filter.Args, allDefault bool) (volumetypes.PruneReport, error)
}

// Networks is what the server asks of engine/network.
type Networks interface {
	List(ctx context.Context, f filter.Args) ([]networktypes.Summary, error)
	Inspect(ctx context.Context, ref string) (networktypes.Inspect, error)
	Create(ctx context.Context, r networktypes.CreateRequest) (networktypes.CreateResponse, error)
	Remove(ctx context.Context, ref string) error
	Prune(ctx context.Context, f filter.Args) (networktypes.PruneReport, error)
}

// System is what the server asks of the engine as a whole.
type System interface {
	Version(ctx context.Context) systemtypes.VersionResponse
	Info(ctx context.Context) (systemtypes.Info, error)
	Events() *event.Bus
	Auth(ctx context.Context, a registrytypes.AuthConfig) (registrytypes.AuthResponse, error)
}
