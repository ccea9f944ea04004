// Package engine assembles the daemon. It reads the configuration, starts the services from
// the lowest to the highest, restores them after a crash, shuts them down, and answers
// what concerns the whole daemon (/info, /version).
package engine

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/engine/plugin"
	"github.com/gantry/gantry/engine/volume"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/undo"
	"github.com/gantry/gantry/internal/version"
	"github.com/gantry/gantry/oci/plan/seccomp"
	"github.com/gantry/gantry/shim"
	"github.com/gantry/gantry/storage"
)

// API serves requests over the engine. It is made above this package, which knows
// nothing of HTTP.
type API interface {
	// Serve accepts on l until Shutdown (then nil is returned) or l fails. It closes l.
	Serve(l net.Listener) error
	// Shutdown stops accepting, ends streams, and waits for requests until ctx ends.
	Shutdown(ctx context.Context) error
}

// Engine is the whole daemon. Made by New, run by Serve, ended by Close. Its
// methods are safe for concurrent use.
type Engine struct {
	cfg         atomic.Pointer[Config]
	log         *slog.Logger
	level       *slog.LevelVar
	root        *dataRoot
	host        host
	bus         *event.Bus
	runtimePath string

	store    *storage.Store
	shim     *shim.Client
	fdStore  *shimFDs
	images   *image.Service
	networks *network.Service
	volumes  *volume.Service
	// closeVolumes lets go of the volume drivers.
	closeVolumes func() error
	containers   *container.Service
	api          API
	listeners    []*listener
}

func (e *Engine) config() *Config { return e.cfg.Load() }

// Containers returns the service that owns containers.
func (e *Engine) Containers() *container.Service { return e.containers }

// Images returns the service that owns images.
func (e *Engine) Images() *image.Service { return e.images }

// Volumes returns the service that owns volumes.
func (e *Engine) Volumes() *volume.Service { return e.volumes }

// Networks returns the service that owns networks.
func (e *Engine) Networks() *network.Service { return e.networks }

// Log returns the daemon's log.
func (e *Engine) Log() *slog.Logger { return e.log }

// Debug tells whether the daemon runs in debug mode; a reload may change it.
func (e *Engine) Debug() bool { return e.config().Debug }

// New starts all services: locks the data-root, opens the stores, finds or starts the
// shim, restores networks and containers, and opens the API sockets last, so that no
// request meets a half-restored engine. It fails as a whole, leaving only what a next
// start needs. activated are the service manager's sockets (see activatedFiles).
// newAPI makes the server once the services are there.
func New(ctx context.Context, cfg *Config, log *slog.Logger, level *slog.LevelVar, newAPI func(*Engine) API) (_ *Engine, err error) {
	e := &Engine{log: log, level: level, host: readHost(), bus: event.New()}
	e.cfg.Store(cfg)
	activated := activatedFiles()
	var u undo.List
	defer func() {
		if err != nil {
			err = errors.Join(err, u.Run())
		}
		for _, f := range activated {
			_ = f.Close() // the listeners have duplicates
		}
	}()
	if e.runtimePath, err = findRuntime(); err != nil {
		return nil, err
	}
	if e.root, err = openDataRoot(cfg.DataRoot); err != nil {
		return nil, err
	}
	u.Add(e.root.close)
	if err = openExecRoot(cfg.ExecRoot); err != nil {
		return nil, err
	}
	if cfg.Pidfile != "" {
		if err = writePidfile(cfg.Pidfile); err != nil {
			return nil, err
		}
		u.Add(func() error { return removePidfile(cfg.Pidfile) })
	}
	if err = e.openServices(ctx, cfg, &u); err != nil {
		return nil, err
	}
	e.api = newAPI(e)
	if e.listeners, err = listen(cfg, e.fdStore, activated, log); err != nil {
		return nil, err
	}
	return e, nil
}

// openServices opens what stands on the data-root, in the order of dependence.
func (e *Engine) openServices(ctx context.Context, cfg *Config, u *undo.List) (err error) {
	sd, err := findStorageDriver(cfg.StorageDriver)
	if err != nil {
		return err
	}
	if e.store, err = storage.Open(cfg.DataRoot, sd.open); err != nil {
		return err
	}
	u.Add(e.store.Close)
	if e.images, err = image.New(e.store, cfg.imageConfig(), e.bus); err != nil {
		return err
	}
	if e.shim, err = e.connectShim(ctx, cfg); err != nil {
		return err
	}
	u.Add(e.releaseShim)
	netConfig, err := cfg.networkConfig()
	if err != nil {
		return err
	}
	netConfig.FDStore, netConfig.Log = e.fdStore, e.log
	netConfig.Drivers = networkDrivers(netConfig, plugin.Default())
	if e.networks, err = network.New(netConfig, e.bus); err != nil {
		return err
	}
	u.Add(e.networks.Close)
	ctrConfig, err := cfg.containerConfig()
	if err != nil {
		return err
	}
	ctrConfig.Log, ctrConfig.Cgroup2, ctrConfig.StorageDriver = e.log, e.host.cgroup2, e.store.Driver().Name
	if e.volumes, err = e.openVolumes(cfg.DataRoot, u); err != nil {
		return err
	}
	e.containers, err = container.New(ctrConfig, container.Deps{
		Images: e.images, Layers: e.store.Layers(), Networks: e.networks, Volumes: e.volumes, Shim: e.shim, Bus: e.bus,
		Logs:    logDrivers(),
		Seccomp: seccomp.Compile,
	})
	if err != nil {
		return err
	}
	u.Add(e.closeContainers)
	return e.containers.Restore(ctx)
}

// openVolumes opens the service of volumes over its drivers.
func (e *Engine) openVolumes(dataRoot string, u *undo.List) (*volume.Service, error) {
	builtin, more, closeAll, err := volumeDrivers(dataRoot, e.log)
	if err != nil {
		return nil, err
	}
	u.Add(closeAll)
	e.closeVolumes = closeAll
	return volume.New(dataRoot, builtin, more, e.bus, e.log)
}

// connectShim finds the shim, or starts one. The daemon becomes the subreaper above
// it, so that containers whose shim was killed come to the daemon.
func (e *Engine) connectShim(ctx context.Context, cfg *Config) (*shim.Client, error) {
	if err := shim.BecomeSubreaper(); err != nil {
		e.log.Warn("exit codes will be lost when the shim is killed", "error", err)
	}
	c, err := shim.Connect(ctx, shim.Config{
		Root: filepath.Join(cfg.ExecRoot, "shim"), Binary: e.runtimePath,
		Logf: func(format string, a ...any) { e.log.Warn(fmt.Sprintf(format, a...)) },
	})
	if err != nil {
		return nil, fmt.Errorf("shim: %w", err)
	}
	e.fdStore = &shimFDs{c.FDStore()}
	go shim.ReapStrangers(ctx)
	return c, nil
}

// imageConfig is the part of the configuration that engine/image takes.
func (c *Config) imageConfig() image.Config {
	ic := image.Config{
		InsecureRegistries: c.InsecureRegistries, MaxConcurrentDownloads: c.MaxConcurrentDownloads,
		MaxAttempts: c.MaxDownloadAttempts, UserAgent: "docker/" + version.Version + " gantry/" + version.Version,
	}
	if len(c.RegistryMirrors) > 0 {
		ic.Mirrors = map[string][]string{"docker.io": c.RegistryMirrors}
	}
	return ic
}

// containerConfig is the part of the configuration that engine/container takes.
func (c *Config) containerConfig() (container.Config, error) {
	cc := container.Config{
		DataRoot: c.DataRoot, ExecRoot: c.ExecRoot, Runtimes: c.runtimes(), DefaultRuntime: c.DefaultRuntime,
		CgroupParent: c.CgroupParent, SystemdCgroup: c.systemdCgroup(), LogOpts: c.LogOpts, LogDriver: c.LogDriver, Init: c.Init, ShmSize: c.DefaultShmSize,
		NoNewPrivileges: c.NoNewPrivileges, StopTimeout: c.stopTimeout(),
	}
	switch c.SeccompProfile {
	case "", "builtin":
	case "unconfined":
		cc.SeccompProfile = "unconfined"
	default:
		data, err := readBounded(c.SeccompProfile)
		if err != nil {
			return cc, fmt.Errorf("seccomp profile: %w", err)
		}
		cc.SeccompProfile = string(data)
	}
	return cc, nil
}

// findRuntime finds gantry-runtime: beside this program, in libexec, or in $PATH.
func findRuntime() (string, error) {
	const name = "gantry-runtime"
	self, err := os.Executable()
	if err == nil {
		dir := filepath.Dir(self)
		for _, p := range []string{filepath.Join(dir, name), filepath.Join(dir, "..", "libexec", "gantry", name)} {
			if st, err := os.Stat(p); err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
				return p, nil
			}
		}
	}
	p, err := exec.LookPath(name)
	if err != nil {
		return "", fmt.Errorf("%s is neither beside dockerd nor in $PATH: %w", name, err)
	}
	return filepath.Abs(p)
}

// Serve answers requests until Close, or until a listener fails.
func (e *Engine) Serve() error {
	errs := make(chan error, len(e.listeners))
	var wg sync.WaitGroup
	for _, l := range e.listeners {
		e.log.Info("API listen on " + l.host)
		wg.Go(func() { errs <- e.api.Serve(l.Listener) })
	}
	var first error
	for range e.listeners {
		if err := <-errs; err != nil {
			first = errors.Join(first, err)
			break
		}
	}
	if first == nil {
		wg.Wait()
	}
	return first
}

// closeWait bounds each step of the end that waits for something.
const closeWait = 10 * time.Second

// Close ends the daemon: no new requests, streams end, requests under way get the
// shutdown timeout. Containers run on. It is called once.
func (e *Engine) Close() error {
	var errs []error
	for _, l := range e.listeners {
		errs = append(errs, e.fdStore.Drop(storeName(l.host)))
		if l.path != "" {
			if err := os.Remove(l.path); err != nil && !errors.Is(err, os.ErrNotExist) {
				errs = append(errs, err)
			}
		}
	}
	ctx, cancel := context.Background(), context.CancelFunc(func() {})
	if wait := e.config().ShutdownTimeout; wait >= 0 {
		ctx, cancel = context.WithTimeout(ctx, time.Duration(wait)*time.Second)
	}
	if err := e.api.Shutdown(ctx); err != nil {
		errs = append(errs, fmt.Errorf("requests under way were cut off: %w", err))
	}
	cancel()
	errs = append(errs, e.closeContainers(), e.networks.Close(), e.closeVolumes(), e.releaseShim(), e.store.Close())
	if p := e.config().Pidfile; p != "" {
		errs = append(errs, removePidfile(p))
	}
	return errors.Join(append(errs, e.root.close())...)
}

func (e *Engine) closeContainers() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	return e.containers.Close(ctx)
}

// releaseShim lets go of the shim, and ends it when it holds nothing.
func (e *Engine) releaseShim() error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWait)
	defer cancel()
	held, err := e.shim.List(ctx)
	if err == nil && len(held) == 0 {
		err = e.shim.Shutdown(ctx)
	}
	return errors.Join(err, e.shim.Close())
}
