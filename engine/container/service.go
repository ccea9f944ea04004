package container

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/gantry/gantry/engine/container/bundle"
	"github.com/gantry/gantry/engine/container/exec"
	"github.com/gantry/gantry/engine/container/filesystem"
	"github.com/gantry/gantry/engine/container/query"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/task"
	"github.com/gantry/gantry/engine/container/validate"
	"github.com/gantry/gantry/internal/filter"
	"github.com/gantry/gantry/internal/scope"
	"github.com/gantry/gantry/shim/ociruntime"
	"github.com/moby/moby/api/types/container"
	"github.com/opencontainers/go-digest"
)

// Config is what the daemon's settings say about containers.
type Config struct {
	DataRoot string // absolute; records, logs and volumes are below it
	ExecRoot string // absolute, on tmpfs; run records are below it
	// Runtimes are the OCI runtimes that --runtime may name, besides DefaultRuntime; nil
	// is our own.
	Runtimes       map[string]*ociruntime.Ref
	DefaultRuntime string // "" is "gantry"
	CgroupParent   string // "" is "/docker", with SystemdCgroup "system.slice"
	SystemdCgroup  bool
	Cgroup2        bool // the machine has no cgroups of version 1
	// LogOpts are LogDriver's options where a container does not set them itself.
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
	deps     Deps
	log      *slog.Logger
	scope    *scope.Scope
	files    *store.Files
	index    *store.Index
	validate *validate.Validator
	tasks    *task.Manager
	execs    *exec.Set
	query    *query.Reader
	roots    *filesystem.Reader
}

// New makes the service; it touches nothing but its directories. Restore must be
// called once before anything else.
func New(cfg Config, deps Deps) (*Service, error) {
	if deps.Images == nil || deps.Layers == nil || deps.Networks == nil || deps.Volumes == nil || deps.Shim == nil || deps.Bus == nil {
		return nil, errors.New("containers need images, layers, networks, volumes, a shim and an event bus")
	}
	files, err := store.Open(cfg.DataRoot, cfg.ExecRoot)
	if err != nil {
		return nil, err
	}
	s := &Service{deps: deps, log: cfg.Log, scope: scope.New(), files: files, index: store.NewIndex()}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.validate = validate.New(validate.Config{
		Runtimes: slices.Sorted(maps.Keys(cfg.Runtimes)), DefaultRuntime: cmp.Or(cfg.DefaultRuntime, "gantry"),
		SystemdCgroup: cfg.SystemdCgroup, Cgroup2: cfg.Cgroup2,
		LogDriver: cmp.Or(cfg.LogDriver, "json-file"), LogOpts: cfg.LogOpts, Logs: deps.Logs,
		ShmSize: cmp.Or(cfg.ShmSize, 64<<20), StopTimeout: cmp.Or(cfg.StopTimeout, 10*time.Second),
	}, s.index, deps.Networks)
	s.roots = filesystem.New(s.index, deps.Images, deps.Layers, deps.Bus)
	b, err := bundle.New(bundle.Config{
		CgroupParent: cfg.CgroupParent, SystemdCgroup: cfg.SystemdCgroup, Init: cfg.Init,
		NoNewPrivileges: cfg.NoNewPrivileges, SeccompProfile: cfg.SeccompProfile, Logs: deps.Logs, Runtimes: cfg.Runtimes,
	}, deps.Images, deps.Layers, s.roots, files, s.index, deps.Seccomp)
	if err != nil {
		return nil, err
	}
	s.execs = exec.New(deps.Shim, b, files, deps.Bus, s.log, s.scope)
	s.tasks = task.New(task.Deps{
		Files: files, Index: s.index, Execs: s.execs, Bundle: b, Validate: s.validate,
		Images: deps.Images, Layers: deps.Layers, Networks: deps.Networks, Volumes: deps.Volumes, Shim: deps.Shim,
		Bus: deps.Bus, Scope: s.scope, Log: s.log,
	})
	s.query = query.New(query.Deps{
		Index: s.index, Files: files, Execs: s.execs,
		Images: deps.Images, Layers: deps.Layers, Networks: deps.Networks, Shim: deps.Shim, Logs: deps.Logs,
		StorageDriver: cmp.Or(cfg.StorageDriver, "overlayfs"),
	})
	return s, nil
}

// Restore reads all records, adopts what runs, finishes what ended meanwhile, takes back what
// was half done, and applies restart policies. It must be called once, before anything else.
func (s *Service) Restore(ctx context.Context) error { return s.tasks.Restore(ctx) }

// Reconfigure takes over new defaults: for containers created, and stops asked, from now on.
// shmSize is in bytes. Nothing else of a Config can change.
func (s *Service) Reconfigure(shmSize int64, stopTimeout time.Duration, runtime string) {
	s.validate.Reconfigure(shmSize, stopTimeout, runtime)
}

// Close ends the service's own goroutines, and cuts off what they do, as a crash would: the next
// Restore finishes it. Containers run on. It waits for the goroutines as long as ctx allows.
func (s *Service) Close(ctx context.Context) error { return s.scope.Close(ctx) }

// ImageUses tells all containers that use the image, by the ID that inspect shows.
func (s *Service) ImageUses(id digest.Digest) []Use { return s.query.ImageUses(id) }

// Counts tells how many containers run, are paused and are stopped, for /info.
func (s *Service) Counts() (running, paused, stopped int) { return s.query.Counts() }

// List tells the containers, newest first.
func (s *Service) List(ctx context.Context, o ListOptions) ([]container.Summary, error) {
	return s.query.List(ctx, o)
}

// Inspect tells everything about a container.
func (s *Service) Inspect(ctx context.Context, ref string, size bool) (container.InspectResponse, error) {
	return s.query.Inspect(ctx, ref, size)
}

// Top lists the container's processes with the host's ps. psArgs are ps's own; "-ef" when there
// are none.
func (s *Service) Top(ctx context.Context, ref string, psArgs []string) (container.TopResponse, error) {
	return s.query.Top(ctx, ref, psArgs)
}

// Export writes the container's root file system as a tar archive, and the mount points of what is
// mounted in it.
func (s *Service) Export(ctx context.Context, ref string, w io.Writer) error {
	return s.roots.Export(ctx, ref, w)
}

// Changes tells what the container has changed in its image's files; nil when nothing.
func (s *Service) Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error) {
	return s.roots.Changes(ctx, ref)
}

// Prune removes all containers that do not run and match the filters.
func (s *Service) Prune(ctx context.Context, f filter.Args) (container.PruneReport, error) {
	rep := container.PruneReport{ContainersDeleted: []string{}}
	list, err := s.query.Prunable(f)
	if err != nil {
		return rep, err
	}
	for _, c := range list {
		if err := ctx.Err(); err != nil {
			return rep, err
		}
		size, _ := s.query.Sizes(ctx, c)
		if err := s.Remove(ctx, c.ID, RemoveOptions{}); err != nil {
			s.log.Warn("pruning a container", "container", c.ID, "error", err)
			continue
		}
		rep.ContainersDeleted = append(rep.ContainersDeleted, c.ID)
		rep.SpaceReclaimed += uint64(size)
	}
	return rep, nil
}
