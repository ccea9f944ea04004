package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/engine/image/pull"
	"github.com/gantry/gantry/engine/volume"
	"github.com/gantry/gantry/engine/volume/driver"
	volumelocal "github.com/gantry/gantry/engine/volume/driver/local"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/filter"
	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	registrytypes "github.com/moby/moby/api/types/registry"
	systemtypes "github.com/moby/moby/api/types/system"
)

// fakeContainers answers the calls a test sets; others panic on the nil interface,
// which the server must survive.
type fakeContainers struct {
	Containers
	create  func(container.CreateOptions) (containertypes.CreateResponse, error)
	start   func(context.Context, string) error
	stop    func(container.StopOptions) error
	wait    func(context.Context, containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error)
	attach  func(container.AttachOptions, stream.Hijack) error
	logs    func(context.Context, container.LogsOptions, container.LogWriter) error
	inspect func(string) (containertypes.InspectResponse, error)
	list    func(container.ListOptions) ([]containertypes.Summary, error)
	exec    func(containertypes.ExecStartRequest, stream.Hijack) error
	export  func(context.Context, io.Writer) error
	changes []containertypes.FilesystemChange
}

func (f *fakeContainers) Export(ctx context.Context, _ string, w io.Writer) error {
	return f.export(ctx, w)
}

func (f *fakeContainers) Changes(context.Context, string) ([]containertypes.FilesystemChange, error) {
	return f.changes, nil
}

func (f *fakeContainers) Create(_ context.Context, o container.CreateOptions) (containertypes.CreateResponse, error) {
	return f.create(o)
}
func (f *fakeContainers) Start(ctx context.Context, ref string) error { return f.start(ctx, ref) }
func (f *fakeContainers) Stop(_ context.Context, _ string, o container.StopOptions) error {
	return f.stop(o)
}

func (f *fakeContainers) Wait(ctx context.Context, _ string, cond containertypes.WaitCondition) (<-chan containertypes.WaitResponse, error) {
	return f.wait(ctx, cond)
}

func (f *fakeContainers) Attach(_ context.Context, _ string, o container.AttachOptions, h stream.Hijack) error {
	return f.attach(o, h)
}

func (f *fakeContainers) Logs(ctx context.Context, _ string, o container.LogsOptions, w container.LogWriter) error {
	return f.logs(ctx, o, w)
}

func (f *fakeContainers) Inspect(_ context.Context, ref string, _ bool) (containertypes.InspectResponse, error) {
	return f.inspect(ref)
}

func (f *fakeContainers) List(_ context.Context, o container.ListOptions) ([]containertypes.Summary, error) {
	return f.list(o)
}

func (f *fakeContainers) ExecStart(_ context.Context, _ string, o containertypes.ExecStartRequest, h stream.Hijack) error {
	return f.exec(o, h)
}

type fakeImages struct {
	Images
	pull func(context.Context, pull.Options, progress.Sink) error
	load func(io.Reader, progress.Sink) error
	tag  func(ref, to string) error
}

func (f *fakeImages) Pull(ctx context.Context, o pull.Options, p progress.Sink) error {
	return f.pull(ctx, o, p)
}

func (f *fakeImages) Load(_ context.Context, r io.Reader, _ bool, p progress.Sink) error {
	return f.load(r, p)
}
func (f *fakeImages) Tag(_ context.Context, ref, to string) error { return f.tag(ref, to) }

type fakeNetworks struct{}

func (fakeNetworks) List(context.Context, filter.Args) ([]networktypes.Summary, error) {
	return nil, nil
}

func (fakeNetworks) Create(_ context.Context, r networktypes.CreateRequest) (networktypes.CreateResponse, error) {
	return networktypes.CreateResponse{ID: "id of " + r.Name}, nil
}
func (fakeNetworks) Remove(context.Context, string) error { return nil }
func (fakeNetworks) Prune(context.Context, filter.Args) (networktypes.PruneReport, error) {
	return networktypes.PruneReport{}, nil
}

func (fakeNetworks) Inspect(_ context.Context, ref string) (networktypes.Inspect, error) {
	return networktypes.Inspect{}, errclass.NotFound("network %s not found", ref)
}

type fakeSystem struct{ bus *event.Bus }

func (f fakeSystem) Version(context.Context) systemtypes.VersionResponse {
	return systemtypes.VersionResponse{
		Version: "0.1.0", Os: "linux", Arch: "amd64", GoVersion: "go1", KernelVersion: "6",
		Platform: systemtypes.PlatformInfo{Name: "Gantry"}, Components: []systemtypes.ComponentVersion{{Name: "Engine", Version: "0.1.0"}},
	}
}

func (f fakeSystem) Info(context.Context) (systemtypes.Info, error) {
	return systemtypes.Info{ID: "fake", Name: "host", ServerVersion: "0.1.0", Driver: "overlayfs", OperatingSystem: "Debian"}, nil
}
func (f fakeSystem) Events() *event.Bus { return f.bus }
func (f fakeSystem) Auth(context.Context, registrytypes.AuthConfig) (registrytypes.AuthResponse, error) {
	return registrytypes.AuthResponse{}, errclass.Unauthorized("no")
}

// harness is a server on a unix socket with fakes behind it.
type harness struct {
	*Server
	c      *fakeContainers
	i      *fakeImages
	bus    *event.Bus
	socket string
	client *http.Client
}

// setup sets fakes before the server starts: for clients in another process.
func serve(t *testing.T, setup ...func(*harness)) *harness {
	t.Helper()
	h := &harness{c: &fakeContainers{}, i: &fakeImages{}, bus: event.New(), socket: filepath.Join(t.TempDir(), "s")}
	for _, f := range setup {
		f(h)
	}
	root, discard := t.TempDir(), slog.New(slog.DiscardHandler)
	local, err := volumelocal.Open(filepath.Join(root, "volumes"), discard)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { local.Close() })
	volumes, err := volume.New(root, []driver.Driver{local}, nil, h.bus, discard)
	if err != nil {
		t.Fatal(err)
	}
	h.Server = New(Options{
		Containers: h.c, Images: h.i, Networks: fakeNetworks{}, Volumes: volumes, System: fakeSystem{h.bus},
		EngineVersion: "0.1.0", Log: slog.New(slog.DiscardHandler),
	})
	l, err := net.Listen("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.Serve(l) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := errors.Join(h.Shutdown(ctx), <-done); err != nil {
			t.Error("shutdown:", err)
		}
	})
	h.client = &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", h.socket) },
	}}
	t.Cleanup(h.client.CloseIdleConnections)
	return h
}

// do sends a request and returns the whole answer.
func (h *harness) do(t *testing.T, method, path string, body io.Reader, header ...string) (int, string, http.Header) {
	t.Helper()
	req, err := http.NewRequest(method, "http://d"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := h.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		return resp.StatusCode, string(data) + fmt.Sprintf(" <cut off: %v>", err), resp.Header
	}
	return resp.StatusCode, string(data), resp.Header
}
