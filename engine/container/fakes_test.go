package container

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/volume"
	"github.com/gantry/gantry/engine/volume/driver"
	volumelocal "github.com/gantry/gantry/engine/volume/driver/local"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/jsonfile"
	"github.com/gantry/gantry/logs/local"
	"github.com/gantry/gantry/logs/none"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/rootview"
	"github.com/gantry/gantry/test/poll"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"
)

// fakeImages knows one image, "busybox".
type fakeImages struct {
	mu     sync.Mutex
	root   string
	leases map[string]bool
	config dockerspec.DockerOCIImageConfig
}

func (f *fakeImages) Unpacked(context.Context, *image.Image) (int64, error) { return 1000, nil }

func (f *fakeImages) Resolve(_ context.Context, ref string, _ *ocispec.Platform) (*image.Image, error) {
	if ref != "busybox" && ref != digest.FromString("busybox").String() {
		return nil, errclass.NotFound("No such image: %s", ref)
	}
	img := &image.Image{ID: digest.FromString("busybox"), Names: []string{"busybox:latest"}}
	img.Config.OS = "linux"
	img.Config.Config = f.config
	return img, nil
}

func (f *fakeImages) Lease(_ context.Context, _ *image.Image, id string) (*image.RootfsLease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.leases[id] = true
	return &image.RootfsLease{Lower: []string{f.root}}, nil
}

func (f *fakeImages) LeaseOf(_ context.Context, id string) (*image.RootfsLease, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.leases[id] {
		return nil, errclass.NotFound("no lease")
	}
	return &image.RootfsLease{Lower: []string{f.root}}, nil
}

func (f *fakeImages) Release(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.leases, id)
	return nil
}

type fakeLayers struct {
	mu   sync.Mutex
	root string
	have map[string]bool
	fail error
	hold chan struct{} // nil, or Remove waits until it is closed
}

func (f *fakeLayers) layer(id string) storage.Layer {
	return storage.Layer{Upper: filepath.Join(f.root, id, "upper"), Work: filepath.Join(f.root, id, "work")}
}

func (f *fakeLayers) Create(id string) (storage.Layer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.have[id] = true
	l := f.layer(id)
	return l, os.MkdirAll(l.Upper, 0o755)
}

func (f *fakeLayers) Get(id string) (storage.Layer, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.have[id] {
		return storage.Layer{}, errclass.NotFound("no layer")
	}
	return f.layer(id), nil
}

func (f *fakeLayers) Remove(id string) error {
	if f.hold != nil {
		<-f.hold
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return f.fail
	}
	delete(f.have, id)
	return os.RemoveAll(filepath.Join(f.root, id))
}

func (f *fakeLayers) View(_ context.Context, id string, _ *os.File, _ rootview.Access) (*os.File, error) {
	return os.OpenFile(f.layer(id).Upper, unix.O_PATH|unix.O_DIRECTORY, 0)
}

func (f *fakeLayers) Usage(context.Context, string) (storage.LayerUsage, error) {
	return storage.LayerUsage{Size: 42}, nil
}

type fakeNetworks struct {
	mu       sync.Mutex
	have     map[string]bool
	fail     error
	restored []network.Record
	lenient  bool                   // takes any endpoint
	asked    network.SandboxRequest // last
}

func (f *fakeNetworks) Acquire(_ context.Context, r network.SandboxRequest) (*network.Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	if f.have[r.ContainerID] {
		return nil, errors.New("acquired twice")
	}
	f.have[r.ContainerID], f.asked = true, r
	ns, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return nil, err
	}
	eps := map[string]*networktypes.EndpointSettings{}
	for n := range r.Endpoints {
		eps[n] = &networktypes.EndpointSettings{NetworkID: "net-" + n, IPAddress: netip.MustParseAddr("172.17.0.2")}
	}
	return &network.Sandbox{
		NetNS: ns, Endpoints: eps, Ports: r.Ports,
		Record: network.Record{ContainerID: r.ContainerID}, Hosts: []byte("127.0.0.1 localhost\n"),
	}, nil
}

func (f *fakeNetworks) Release(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.have, id)
	return nil
}

func (f *fakeNetworks) Restore(_ context.Context, rs []network.Record) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.restored = rs
	f.have = map[string]bool{}
	for _, r := range rs {
		f.have[r.ContainerID] = true
	}
	return nil
}

func (f *fakeNetworks) Connect(_ context.Context, _ *os.File, r network.SandboxRequest) (*network.Sandbox, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		return nil, f.fail
	}
	sb := &network.Sandbox{Endpoints: map[string]*networktypes.EndpointSettings{}, Record: network.Record{ContainerID: r.ContainerID}}
	for n := range r.Endpoints {
		sb.Endpoints[n] = &networktypes.EndpointSettings{NetworkID: "net-" + n, IPAddress: netip.MustParseAddr("172.18.0.2")}
		sb.Record.Endpoints = append(sb.Record.Endpoints, network.EndpointRecord{NetworkID: "net-" + n})
	}
	return sb, nil
}

func (f *fakeNetworks) Disconnect(_ context.Context, _ *os.File, id, _ string, keep func(network.Record)) (network.Record, error) {
	if f.fail == nil {
		keep(network.Record{ContainerID: id})
	}
	return network.Record{ContainerID: id}, f.fail
}

func (f *fakeNetworks) CheckEndpoint(ref string, es *networktypes.EndpointSettings) error {
	if es != nil && es.IPAMConfig != nil && !f.lenient {
		return errclass.Invalid("no address can be chosen on %s", ref)
	}
	return nil
}
func (f *fakeNetworks) SetLinks(string, []string) error { return nil }

func (f *fakeNetworks) Known(ref string) (id, name string, driver network.Description, err error) {
	ref = strings.TrimPrefix(ref, "net-")
	driver.HasInterfaces = true
	switch ref {
	case "host":
		driver = network.Description{HostNamespace: true}
	case "none":
		driver = network.Description{}
	}
	return "net-" + ref, ref, driver, nil
}

// fakeShim holds processes that only exist in its map. The program decides: "fail…"
// does not start, "true" ends at once with 0, "false" with 1, anything else runs until
// it gets a signal; "stubborn" ends by SIGKILL only.
type fakeShim struct {
	mu       sync.Mutex
	procs    map[shim.Key]*fakeProc
	events   chan shim.Event
	starts   int
	dying    int      // calls of Forget that a dying shim does not answer
	attached shim.Key // by the last call of Attach
	probes   []string // IDs of health probes
	slow     bool     // starts answer when their context ends
	signals  []int
	late     error // told of starts that succeed after it
	// probe is what an exec of "probe" prints and ends with; a negative code: it hangs.
	probe func() (output string, code int)
}

type fakeProc struct {
	shim.Status
	program string
	req     *shim.StartRequest
	execReq *shim.ExecRequest
}

func newFakeShim() *fakeShim {
	return &fakeShim{procs: map[shim.Key]*fakeProc{}, events: make(chan shim.Event, 4096)}
}

func (f *fakeShim) begin(key shim.Key, p *fakeProc) (*shim.Started, error) {
	f.mu.Lock()
	f.starts++
	if strings.HasPrefix(p.program, "fail") {
		f.mu.Unlock()
		switch p.program {
		case "fail-noexec":
			return nil, errclass.Invalid("exec: %q: permission denied", p.program)
		case "fail-other":
			return nil, errclass.Internal("the kernel said no")
		}
		return nil, errclass.Invalid("exec: %q: executable file not found in $PATH", p.program)
	}
	if f.procs[key] != nil {
		f.mu.Unlock()
		return nil, errclass.Conflict("held twice")
	}
	for k, other := range f.procs {
		if key.Exec == "" && k.Container == key.Container && k.Exec == "" && other.Exit == nil {
			f.mu.Unlock()
			return nil, errclass.Conflict("two runs at once")
		}
	}
	p.Key = key
	ticks, _ := shim.StartTicks(os.Getpid())
	p.Started = shim.Started{Pid: os.Getpid(), StartTicks: ticks, Started: time.Now()}
	f.procs[key] = p
	f.mu.Unlock()
	switch p.program {
	case "true":
		f.exit(key, 0, 0)
	case "false":
		f.exit(key, 1, 0)
	}
	return &p.Started, nil
}

func (f *fakeShim) Start(ctx context.Context, r *shim.StartRequest, files []*os.File) (*shim.Started, error) {
	if len(files) != len(r.NamespaceFDs)+len(r.Attach) {
		return nil, errors.New("wrong number of files")
	}
	st, err := f.begin(r.Key, &fakeProc{program: r.Spec.Process.Args[0], req: r})
	if f.slow {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if f.late != nil {
		return nil, f.late
	}
	return st, err
}

func (f *fakeShim) Exec(_ context.Context, r *shim.ExecRequest, files []*os.File) (*shim.Started, error) {
	st, err := f.begin(r.Key, &fakeProc{program: r.Process.Args[0], execReq: r})
	if err != nil || r.Process.Args[0] != "probe" {
		return st, err
	}
	f.mu.Lock()
	f.probes = append(f.probes, r.Key.Exec)
	f.mu.Unlock()
	output, code := f.probe()
	for _, file := range files {
		if _, err := file.WriteString(output); err != nil {
			return nil, err
		}
	}
	if code >= 0 {
		f.exit(r.Key, code, 0)
	}
	return st, nil
}

func (f *fakeShim) exit(key shim.Key, code, sig int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p := f.procs[key]
	if p == nil || p.Exit != nil {
		return
	}
	p.Exit = &shim.Exit{Key: key, Code: code, Signal: sig, At: time.Now()}
	f.events <- shim.Event{Exit: p.Exit}
}

func (f *fakeShim) Attach(_ context.Context, key shim.Key, _ shim.AttachSpec, _ *os.File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.attached = key
	return nil
}

func (f *fakeShim) Signal(_ context.Context, key shim.Key, sig int) error {
	f.mu.Lock()
	p := f.procs[key]
	if p == nil || p.Exit != nil {
		f.mu.Unlock()
		return errclass.NotFound("not held")
	}
	f.signals = append(f.signals, sig)
	ends := sig == sigKill || p.program != "stubborn" && sig != 1 && !p.Paused
	f.mu.Unlock()
	if ends {
		f.exit(key, 128+sig, sig)
	}
	return nil
}

func (f *fakeShim) set(key shim.Key, paused bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if p := f.procs[key]; p != nil {
		p.Paused = paused
		return nil
	}
	return errclass.NotFound("not held")
}

func (f *fakeShim) Pause(_ context.Context, key shim.Key) error  { return f.set(key, true) }
func (f *fakeShim) Resume(_ context.Context, key shim.Key) error { return f.set(key, false) }
func (f *fakeShim) Resize(_ context.Context, key shim.Key, _ oci.WinSize) error {
	return errclass.Invalid("container %s has no terminal", key.Container)
}
func (f *fakeShim) Pids(context.Context, shim.Key) ([]int, error) { return []int{os.Getpid()}, nil }

func (f *fakeShim) Forget(_ context.Context, key shim.Key) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.dying > 0 {
		f.dying--
		return errclass.Unavailable("the shim is gone")
	}
	delete(f.procs, key)
	return nil
}

func (f *fakeShim) List(context.Context) ([]shim.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []shim.Status
	for _, p := range f.procs {
		out = append(out, p.Status)
	}
	return out, nil
}

func (f *fakeShim) Adopt(_ context.Context, st shim.Status, _ *os.File) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.procs[st.Key] = &fakeProc{Status: st, program: "adopted"}
	return nil
}

func (f *fakeShim) Events() <-chan shim.Event { return f.events }

func (f *fakeShim) len() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.procs)
}

// rig is a service over fakes.
type rig struct {
	*Service
	t      testing.TB
	images *fakeImages
	layers *fakeLayers
	nets   *fakeNetworks
	shim   *fakeShim
	bus    *event.Bus
	dir    string

	volumes *volume.Service
}

func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigIn(t, t.TempDir())
}

// newRigIn is newRig with all files below dir.
func newRigIn(t testing.TB, dir string) *rig {
	t.Helper()
	root := filepath.Join(dir, "image")
	if err := os.MkdirAll(filepath.Join(root, "etc"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "etc/passwd"), []byte("root:x:0:0::/root:/bin/sh\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	r := &rig{
		t: t, dir: dir, bus: event.New(), shim: newFakeShim(),
		images: &fakeImages{root: root, leases: map[string]bool{}},
		layers: &fakeLayers{root: filepath.Join(dir, "layers"), have: map[string]bool{}},
		nets:   &fakeNetworks{have: map[string]bool{}},
	}
	r.images.config.Cmd = []string{"sh"}
	r.images.config.Env = []string{"PATH=/bin", "IMG=1"}
	r.start()
	t.Cleanup(r.stop)
	return r
}

// start makes a daemon over what is there.
func (r *rig) start() {
	r.t.Helper()
	discard := slog.New(slog.DiscardHandler)
	volumeDriver, err := volumelocal.Open(filepath.Join(r.dir, "data", "volumes"), discard)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { volumeDriver.Close() })
	volumes, err := volume.New(filepath.Join(r.dir, "data"), []driver.Driver{volumeDriver}, nil, r.bus, discard)
	if err != nil {
		r.t.Fatal(err)
	}
	s, err := New(Config{DataRoot: filepath.Join(r.dir, "data"), ExecRoot: filepath.Join(r.dir, "exec")},
		Deps{Images: r.images, Layers: r.layers, Networks: r.nets, Volumes: volumes, Shim: r.shim, Bus: r.bus, Logs: logs.Drivers{jsonfile.Driver{}, local.Driver{}, none.Driver{}}})
	if err != nil {
		r.t.Fatal(err)
	}
	r.Service, r.volumes = s, volumes
	if err := s.Restore(context.Background()); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := r.Close(ctx); err != nil {
		r.t.Errorf("closing: %v", err)
	}
}

func (r *rig) create(name string, host *container.HostConfig, cmd ...string) string {
	r.t.Helper()
	resp, err := r.Create(context.Background(), CreateOptions{
		Name:   name,
		Config: &container.Config{Image: "busybox", Cmd: cmd}, HostConfig: host,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp.ID
}

func (r *rig) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// until polls for what comes about beside.
func (r *rig) until(what string, ok func() bool) {
	r.t.Helper()
	if !poll.Within(10*time.Second, ok) {
		r.t.Fatalf("not in time: %s", what)
	}
}

func (r *rig) state(ref string) *container.State {
	r.t.Helper()
	i, err := r.Inspect(context.Background(), ref, false)
	r.must(err)
	return i.State
}
