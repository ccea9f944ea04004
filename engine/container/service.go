package container

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/opencontainers/go-digest"
)

// Config is what the daemon's settings say about containers.
type Config struct {
	DataRoot string // absolute; records, logs and volumes are below it
	ExecRoot string // absolute, on tmpfs; run records are below it
	// Runtimes are the names --runtime may give, besides DefaultRuntime.
	Runtimes       []string
	DefaultRuntime string // "" is "gantry"
	CgroupParent   string // "" is "/docker", with SystemdCgroup "system.slice"
	SystemdCgroup  bool
	Cgroup2        bool // the machine has no cgroups of version 1
	// LogOpts are json-file's options where a container has none of its own.
	LogOpts map[string]string
	// LogDriver is the log driver where a container names none; "" is "json-file".
	LogDriver string
	// Init makes --init the default.
	Init            bool
	ShmSize         int64 // bytes, 0 is 64 MiB
	NoNewPrivileges bool
	// SeccompProfile is a profile's JSON, "unconfined", or "" for the built-in one.
	SeccompProfile string
	// StopTimeout is how long stop waits when neither request nor container say; 0 is 10 s.
	StopTimeout time.Duration
	// StorageDriver is what inspect shows as Driver; "" is "overlayfs".
	StorageDriver string
	Log           *slog.Logger // nil: discarded
}

// Service owns all containers. Safe for concurrent use.
type Service struct {
	cfg     Config // what stays
	now     atomic.Pointer[defaults]
	deps    Deps
	log     *slog.Logger
	index   *index
	execs   *execs
	seccomp seccompCache
	held    []string // the daemon's own capabilities
	ncpu    int

	closing   chan struct{}
	closeOnce sync.Once
	work      sync.WaitGroup // owners and the shim's listener
}

// New makes the service; it touches nothing but its directories. Restore must be
// called once before anything else.
func New(cfg Config, deps Deps) (*Service, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.DefaultRuntime == "" {
		cfg.DefaultRuntime = "gantry"
	}
	if cfg.LogDriver == "" {
		cfg.LogDriver = "json-file"
	}
	if cfg.ShmSize == 0 {
		cfg.ShmSize = 64 << 20
	}
	if cfg.StopTimeout == 0 {
		cfg.StopTimeout = 10 * time.Second
	}
	if cfg.StorageDriver == "" {
		cfg.StorageDriver = "overlayfs"
	}
	if deps.Images == nil || deps.Layers == nil || deps.Networks == nil || deps.Volumes == nil || deps.Shim == nil || deps.Bus == nil {
		return nil, errors.New("containers need images, layers, networks, volumes, a shim and an event bus")
	}
	for _, d := range []string{filepath.Join(cfg.DataRoot, "containers"), filepath.Join(cfg.ExecRoot, "containers")} {
		if err := os.MkdirAll(d, 0o710); err != nil {
			return nil, fmt.Errorf("preparing containers: %w", err)
		}
	}
	held, err := heldCapabilities()
	if err != nil {
		return nil, err
	}
	s := &Service{
		cfg: cfg, deps: deps, log: cfg.Log, index: newIndex(), execs: newExecs(), held: held,
		ncpu: runtime.NumCPU(), closing: make(chan struct{}),
	}
	s.now.Store(&defaults{shmSize: cfg.ShmSize, stopTimeout: cfg.StopTimeout, runtime: cfg.DefaultRuntime})
	return s, nil
}

// defaults are the settings that a running daemon may change; replaced as a whole.
type defaults struct {
	shmSize     int64
	stopTimeout time.Duration
	runtime     string
}

// Reconfigure takes over new defaults: for containers created, and stops asked, from now on.
// shmSize is in bytes. Nothing else of a Config can change.
func (s *Service) Reconfigure(shmSize int64, stopTimeout time.Duration, runtime string) {
	s.now.Store(&defaults{shmSize: shmSize, stopTimeout: stopTimeout, runtime: runtime})
}

// spawn starts an owner's goroutine.
func (s *Service) spawn(o *owner) { s.beside(o.loop) }

// beside runs f in a goroutine that Close waits for. Only goroutines that Close waits
// for may call it.
func (s *Service) beside(f func()) {
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		f()
	}()
}

// Close ends the service's own goroutines; containers run on. It waits for them as
// long as ctx allows.
func (s *Service) Close(ctx context.Context) error {
	s.closeOnce.Do(func() { close(s.closing) })
	ended := make(chan struct{})
	go func() { s.work.Wait(); close(ended) }()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// ImageInUse tells a container that uses the image (by the ID Inspect shows), and
// whether that one runs; "" when none does. A running one is preferred.
func (s *Service) ImageInUse(id digest.Digest) (containerID string, running bool) {
	for _, o := range s.index.all() {
		if o.rec.Load().Image != string(id) {
			continue
		}
		if up := isUp(o.view.Load().State); up || containerID == "" {
			containerID, running = o.id, up
			if up {
				break
			}
		}
	}
	return containerID, running
}

// Use is one container that uses an image.
type Use struct {
	ContainerID string
	Running     bool
}

// ImageUses tells all containers that use the image.
func (s *Service) ImageUses(id digest.Digest) []Use {
	var uses []Use
	for _, o := range s.index.all() {
		if o.rec.Load().Image == string(id) {
			uses = append(uses, Use{ContainerID: o.id, Running: isUp(o.view.Load().State)})
		}
	}
	return uses
}

// Counts tells how many containers run, are paused and are stopped, for /info.
func (s *Service) Counts() (running, paused, stopped int) {
	for _, o := range s.index.all() {
		switch st := o.view.Load().State; {
		case st.Phase == fsm.Paused:
			paused++
		case isUp(st):
			running++
		default:
			stopped++
		}
	}
	return running, paused, stopped
}

// isUp is what Docker's State.Running says: restarting counts as running, and so does
// a container whose end is not all done with.
func isUp(st fsm.State) bool {
	return st.Phase.Up() || st.Phase == fsm.Exiting || st.Phase == fsm.Restarting || st.Phase == fsm.Starting && st.ByPolicy
}

func (s *Service) removingDir(id string) string {
	return filepath.Join(s.cfg.DataRoot, "containers", removing+id)
}

// removing prefixes directories of containers whose removal has begun: it is the point
// of no return, and Restore finishes what a crash left.
const removing = ".removing-"

// removeRest removes what a container has outside its renamed directory, then that.
func (s *Service) removeRest(ctx context.Context, id string) error {
	if err := s.deps.Layers.Remove(id); err != nil {
		return err
	}
	if err := s.deps.Images.Release(ctx, id); err != nil {
		return err
	}
	if err := s.removeVolumes(s.removingDir(id)); err != nil {
		return err
	}
	if err := s.dropRun(id); err != nil {
		return err
	}
	return os.RemoveAll(s.removingDir(id))
}
