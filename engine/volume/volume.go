// Package volume owns volumes: their names, labels and users. Each volume has a record,
// <data-root>/volumes/<name>/volume.json; its driver (package driver) keeps the data. The users
// of a volume are kept in memory, and containers' records restore them at start. For a driver that
// mounts, a file beside the record names each container that has the volume mounted; it is
// written before the driver is asked.
package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/volume/driver"
	"github.com/gantry/gantry/engine/volume/driver/local"
	"github.com/gantry/gantry/internal/atomicfile"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/id"
	"github.com/moby/moby/api/types/events"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

const (
	// DefaultDriver is the driver of volumes that name none.
	DefaultDriver = local.Name
	// Anonymous is the label of volumes that nobody named, as Docker's.
	Anonymous = "com.docker.volume.anonymous"

	schema = 1
	// maxRecord bounds a record that is read back, in bytes.
	maxRecord = 1 << 20
)

// Service owns all volumes. Safe for concurrent use.
type Service struct {
	root    string
	builtin []driver.Driver
	more    driver.Source
	bus     *event.Bus
	log     *slog.Logger
	names   locks // held over calls to drivers

	mu   sync.Mutex // of what follows; never held over a call to a plugin
	vols map[string]*vol
	seen map[string]bool // drivers of more that were found
}

// vol is one volume. What changes is under the service's mu.
type vol struct {
	record
	users  map[string]bool // IDs of containers
	mounts map[string]use  // by ID of container; of drivers that mount
}

// record is volume.json.
type record struct {
	Schema  int               `json:"schema"`
	Name    string            `json:"name"`
	Driver  string            `json:"driver,omitempty"` // "" is local
	Options map[string]string `json:"options,omitempty"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	// For is the container an anonymous volume was made for.
	For string `json:"for,omitempty"`
}

func (r *record) driver() string {
	if r.Driver == "" {
		return DefaultDriver
	}
	return r.Driver
}

// New opens the records below dataRoot. builtin are the drivers that are always there, local
// among them; more has those that come and go. The drivers stay the caller's.
func New(dataRoot string, builtin []driver.Driver, more driver.Source, bus *event.Bus, log *slog.Logger) (*Service, error) {
	s := &Service{
		root: filepath.Join(dataRoot, "volumes"), builtin: builtin, more: more, bus: bus, log: log,
		vols: map[string]*vol{}, seen: map[string]bool{},
	}
	if err := os.MkdirAll(s.root, 0o711); err != nil {
		return nil, fmt.Errorf("opening volumes: %w", err)
	}
	entries, err := os.ReadDir(s.root)
	if err != nil {
		return nil, fmt.Errorf("opening volumes: %w", err)
	}
	for _, e := range entries {
		if local.CheckName(e.Name()) == nil {
			s.load(e.Name())
		}
	}
	return s, nil
}

func (s *Service) load(name string) {
	f, err := os.Open(s.file(name, recordFile))
	if errors.Is(err, fs.ErrNotExist) && s.discard(name) {
		return
	}
	if err != nil {
		s.log.Error("a volume cannot be read; it is left alone", "volume", name, "error", err)
		return
	}
	defer f.Close()
	v := newVol(record{})
	err = json.NewDecoder(io.LimitReader(f, maxRecord)).Decode(&v.record)
	if err != nil || v.Name != name || v.Schema != schema {
		s.log.Error("a volume's record cannot be read; it is left alone", "volume", name, "error", err)
		return
	}
	s.loadMounts(v)
	s.vols[name] = v
}

// discard removes a volume that a crash left without its record: it is empty, for nobody was
// told of it. Records that were not finished go with it; anything else stays.
func (s *Service) discard(name string) bool {
	if err := os.Remove(s.file(name, "_data")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false
	}
	entries, err := os.ReadDir(filepath.Join(s.root, name))
	if err != nil {
		return false
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), "."+recordFile+".tmp-") && os.Remove(s.file(name, e.Name())) != nil {
			return false
		}
	}
	return os.Remove(filepath.Join(s.root, name)) == nil
}

func newVol(r record) *vol {
	return &vol{record: r, users: map[string]bool{}, mounts: map[string]use{}}
}

// recordFile is the record in a volume's directory.
const recordFile = "volume.json"

func (s *Service) file(volume, name string) string { return filepath.Join(s.root, volume, name) }

// Drivers are the drivers that were used or that volumes are of, sorted, for `docker info`.
func (s *Service) Drivers() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var names []string
	for _, d := range s.builtin {
		names = append(names, d.Describe(context.Background()).Name)
	}
	for n := range s.seen {
		names = append(names, n)
	}
	for _, v := range s.vols {
		names = append(names, v.driver())
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// driver finds a driver. Errors as driver.Source's.
func (s *Service) driver(ctx context.Context, name string) (driver.Driver, error) {
	for _, d := range s.builtin {
		if d.Describe(ctx).Name == name {
			return d, nil
		}
	}
	if s.more == nil {
		return nil, driver.NotFound(name)
	}
	d, err := s.more.Find(ctx, name)
	if err == nil {
		s.mu.Lock()
		s.seen[name] = true
		s.mu.Unlock()
	}
	return d, err
}

// isBuiltin tells that a driver is always there, and that the records tell of its volumes.
func (s *Service) isBuiltin(name string) bool {
	for _, d := range s.builtin {
		if d.Describe(context.Background()).Name == name {
			return true
		}
	}
	return false
}

// ensure finds or makes a volume. The lock of its name is held.
func (s *Service) ensure(ctx context.Context, name string, r volumetypes.CreateRequest, container string) (*vol, error) {
	v, err := s.known(ctx, name, r.Driver)
	if v != nil || err != nil {
		return v, err
	}
	rec := record{Schema: schema, Name: name, Driver: r.Driver, Options: r.DriverOpts, Created: time.Now().UTC(), Labels: map[string]string{}}
	for k, l := range r.Labels {
		rec.Labels[k] = l
	}
	anonymous := r.Name == ""
	if anonymous {
		rec.For = container
		rec.Labels[Anonymous] = ""
	} else if r.Driver == "" {
		rec.Driver = s.whoHas(ctx, name)
	}
	d, err := s.driver(ctx, rec.driver())
	switch {
	case err != nil:
		return nil, fmt.Errorf("create %s: %w", name, err)
	case r.ClusterVolumeSpec != nil:
		return nil, errclass.NotImplemented("cluster volumes are not built yet")
	}
	if err := local.CheckName(name); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	if err := d.Create(ctx, name, r.DriverOpts); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	if err := s.write(&rec, !anonymous); err != nil {
		return nil, errors.Join(fmt.Errorf("create %s: %w", name, err), d.Remove(ctx, name))
	}
	v = newVol(rec)
	s.mu.Lock()
	s.vols[name] = v
	s.mu.Unlock()
	s.bus.Emit(events.VolumeEventType, events.ActionCreate, name, map[string]string{"driver": rec.driver()})
	return v, nil
}

// known finds an existing volume, which must be of the driver want ("": any). Nil: there is none,
// and it is to be created.
func (s *Service) known(ctx context.Context, name, want string) (*vol, error) {
	s.mu.Lock()
	v := s.vols[name]
	s.mu.Unlock()
	if v == nil {
		return nil, nil
	}
	if want != "" && want != v.driver() {
		return nil, errclass.Conflict("create %s: a volume with the name %s already exists with driver %s. Choose a different volume name", name, name, v.driver())
	}
	if s.isBuiltin(v.driver()) {
		return v, nil
	}
	// A plugin may have lost it, or somebody removed it there.
	d, err := s.driver(ctx, v.driver())
	if err == nil {
		_, err = d.Get(ctx, name)
	}
	switch {
	case err == nil:
		return v, nil
	case d == nil || !errdefs.IsNotFound(err):
		return nil, errclass.Conflict("create %s: found reference to volume '%s' in driver '%s', but got an error while checking the driver: %v", name, name, v.driver(), err)
	case len(s.usedBy(v)) > 0:
		return nil, errclass.Conflict("create %s: found references to volume '%s' in driver '%s' but the volume was not found in the driver -- "+
			"you may need to remove containers referencing this volume or force remove the volume to re-create it", name, name, v.driver())
	}
	return nil, s.forget(v)
}

// whoHas finds the driver that knows a volume which we do not; "" is the default one.
func (s *Service) whoHas(ctx context.Context, name string) string {
	for _, n := range s.others() {
		if d, err := s.driver(ctx, n); err == nil {
			if _, err := d.Get(ctx, name); err == nil {
				return n
			}
		}
	}
	return ""
}

// others are the names of the drivers that are not built in and may be there.
func (s *Service) others() []string {
	if s.more == nil {
		return nil
	}
	return s.more.Names()
}

// write puts a volume's record into its directory. One that a container's record will name is on
// the disk with it.
func (s *Service) write(rec *record, sync bool) error {
	if err := os.Mkdir(filepath.Join(s.root, rec.Name), 0o701); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return atomicfile.WriteJSON(s.file(rec.Name, recordFile), rec, 0o600, sync)
}

// forget drops what is known of a volume that its driver has no more. The lock of its name is
// held.
func (s *Service) forget(v *vol) error {
	s.mu.Lock()
	delete(s.vols, v.Name)
	s.mu.Unlock()
	var errs []error
	for _, path := range []string{s.file(v.Name, mountsDir), s.file(v.Name, recordFile)} {
		errs = append(errs, os.RemoveAll(path))
	}
	if err := os.Remove(filepath.Join(s.root, v.Name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// get finds a volume.
func (s *Service) get(name string) (*vol, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if v := s.vols[name]; v != nil {
		return v, nil
	}
	return nil, errclass.NotFound("get %s: no such volume", name)
}

// usedBy are the IDs of the containers that use a volume, sorted.
func (s *Service) usedBy(v *vol) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ids []string
	for c := range v.users {
		ids = append(ids, c)
	}
	slices.Sort(ids)
	return ids
}

// nameOf is what a volume that r asks for is called.
func nameOf(r volumetypes.CreateRequest) string {
	if r.Name == "" {
		return id.New()
	}
	return r.Name
}

// delete removes a volume for good. The lock of its name is held, and nobody uses it.
func (s *Service) delete(ctx context.Context, v *vol) error {
	d, err := s.driver(ctx, v.driver())
	if err == nil {
		err = d.Remove(ctx, v.Name)
	}
	if err != nil {
		return fmt.Errorf("remove %s: %w", v.Name, err)
	}
	if err := s.forget(v); err != nil {
		// It is gone for everybody.
		s.log.Warn("removing a volume's record", "volume", v.Name, "error", err)
	}
	s.bus.Emit(events.VolumeEventType, events.ActionDestroy, v.Name, map[string]string{"driver": v.driver()})
	return nil
}

// openData opens the directory of a volume's data.
func openData(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
