// Package volume owns volumes: directories below <data-root>/volumes that outlive containers.
// There is one driver, "local", without options. A volume is <name>/_data and <name>/volume.json;
// it appears and goes by one rename. Who uses it is kept in memory and told anew by the
// containers' records at start. What is below _data is the containers': it is touched by
// descriptors only.
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
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gantry/gantry/internal/atomicfile"
	"github.com/gantry/gantry/internal/copyup"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage/tree"
	"github.com/moby/moby/api/types/events"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

const (
	// Driver is the only driver.
	Driver = "local"
	// Anonymous is the label of volumes that nobody named, as Docker's.
	Anonymous = "com.docker.volume.anonymous"

	schema   = 1
	making   = ".new-"
	removing = ".removing-"
	// maxRecord bounds a record that is read back, in bytes.
	maxRecord = 1 << 20
)

var nameRE = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]+$`)

// Service owns all volumes. Safe for concurrent use.
type Service struct {
	root string
	dir  *os.File // of root
	bus  *event.Bus
	log  *slog.Logger

	mu   sync.Mutex
	vols map[string]*vol
}

type vol struct {
	record
	users map[string]bool // IDs of containers
}

// record is volume.json.
type record struct {
	Schema  int               `json:"schema"`
	Name    string            `json:"name"`
	Created time.Time         `json:"created"`
	Labels  map[string]string `json:"labels,omitempty"`
	// For is the container an anonymous volume was made for.
	For string `json:"for,omitempty"`
}

// New opens the store below dataRoot and finishes what a crash left half done. Close ends it.
func New(dataRoot string, bus *event.Bus, log *slog.Logger) (*Service, error) {
	root := filepath.Join(dataRoot, "volumes")
	if err := os.MkdirAll(root, 0o711); err != nil {
		return nil, fmt.Errorf("opening volumes: %w", err)
	}
	dir, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("opening volumes: %w", err)
	}
	s := &Service{root: root, dir: dir, bus: bus, log: log, vols: map[string]*vol{}}
	entries, err := os.ReadDir(root)
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("opening volumes: %w", err)
	}
	for _, e := range entries {
		s.load(e.Name())
	}
	return s, nil
}

func (s *Service) load(name string) {
	if strings.HasPrefix(name, making) || strings.HasPrefix(name, removing) {
		if err := tree.Remove(int(s.dir.Fd()), name); err != nil {
			s.log.Warn("removing what is left of a volume", "volume", name, "error", err)
		}
		return
	}
	f, err := os.Open(filepath.Join(s.root, name, "volume.json"))
	if err != nil {
		s.log.Error("a volume cannot be read; it is left alone", "volume", name, "error", err)
		return
	}
	defer f.Close()
	v := &vol{users: map[string]bool{}}
	err = json.NewDecoder(io.LimitReader(f, maxRecord)).Decode(&v.record)
	if err != nil || v.Name != name || v.Schema != schema {
		s.log.Error("a volume's record cannot be read; it is left alone", "volume", name, "error", err)
		return
	}
	s.vols[name] = v
}

// Close lets go of the store. No other call may be under way.
func (s *Service) Close() error { return s.dir.Close() }

// Create makes a volume; an existing one of that name is returned as it is. Without a name
// it gets an ID and is anonymous. Errors: InvalidArgument, NotFound for other drivers,
// NotImplemented for driver options.
func (s *Service) Create(_ context.Context, r volumetypes.CreateRequest) (volumetypes.Volume, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.ensure(r, "")
	if err != nil {
		return volumetypes.Volume{}, err
	}
	return s.public(v), nil
}

// Acquire makes the container a user of the volume r names, which is made when it is not
// there, and tells its name and directory. Errors as Create's.
func (s *Service) Acquire(r volumetypes.CreateRequest, container string) (name, path string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.ensure(r, container)
	if err != nil {
		return "", "", err
	}
	v.users[container] = true
	return v.Name, s.data(v.Name), nil
}

// Use makes a container whose record names the volume its user again, after a start.
// NotFound when the volume is gone.
func (s *Service) Use(name, container string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, err := s.get(name)
	if err == nil {
		v.users[container] = true
	}
	return err
}

// Release ends the container's use of the volume; with remove it goes when nobody else uses it.
func (s *Service) Release(name, container string, remove bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	v := s.vols[name]
	if v == nil {
		return nil
	}
	delete(v.users, container)
	if remove && len(v.users) == 0 {
		return s.delete(v)
	}
	return nil
}

// Abandon removes the anonymous volumes that were made for a container which never came to be.
func (s *Service) Abandon(container string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, v := range s.vols {
		if v.For == container && len(v.users) == 0 {
			errs = append(errs, s.delete(v))
		}
	}
	return errors.Join(errs...)
}

// Fill copies what the directory from (O_PATH will do) holds into the volume, with owner and
// mode, unless something is in it already. from stays the caller's.
func (s *Service) Fill(name string, from *os.File) error {
	if err := s.fill(name, from); err != nil {
		return fmt.Errorf("copying the image's content into volume %s: %w", name, err)
	}
	return nil
}

func (s *Service) fill(name string, from *os.File) error {
	fd, err := unix.Openat(int(s.dir.Fd()), name+"/_data", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	to := os.NewFile(uintptr(fd), "_data")
	defer to.Close()
	if _, err := to.Readdirnames(1); !errors.Is(err, io.EOF) {
		return err
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	if err := copyup.Copy(int(from.Fd()), fd); err != nil {
		return err
	}
	if err := unix.Fchown(fd, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(fd, st.Mode&0o7777)
}

func (s *Service) data(name string) string { return filepath.Join(s.root, name, "_data") }

// ensure finds or makes a volume. s.mu is held.
func (s *Service) ensure(r volumetypes.CreateRequest, container string) (*vol, error) {
	anonymous := r.Name == ""
	if v := s.vols[r.Name]; v != nil {
		if r.Driver != "" && r.Driver != Driver {
			return nil, errclass.Conflict("create %s: a volume with the name %s already exists with driver %s. Choose a different volume name", r.Name, r.Name, Driver)
		}
		return v, nil
	}
	rec := record{Schema: schema, Name: r.Name, Created: time.Now().UTC(), Labels: map[string]string{}}
	for k, l := range r.Labels {
		rec.Labels[k] = l
	}
	if anonymous {
		rec.Name, rec.For = id.New(), container
		rec.Labels[Anonymous] = ""
	}
	switch {
	case r.Driver != "" && r.Driver != Driver:
		return nil, errclass.NotFound("create %s: error looking up volume plugin %s: plugin %q not found", rec.Name, r.Driver, r.Driver)
	case r.ClusterVolumeSpec != nil:
		return nil, errclass.NotImplemented("cluster volumes are not built yet")
	case len(rec.Name) == 1:
		return nil, errclass.Invalid("create %s: volume name is too short, names should be at least two alphanumeric characters", rec.Name)
	case !nameRE.MatchString(rec.Name) || len(rec.Name) > 255:
		return nil, badName(rec.Name)
	case len(r.DriverOpts) > 0:
		return nil, errclass.NotImplemented("create %s: options of the local volume driver are not built yet", rec.Name)
	}
	if err := s.make(&rec, !anonymous); err != nil {
		return nil, fmt.Errorf("create %s: %w", rec.Name, err)
	}
	v := &vol{record: rec, users: map[string]bool{}}
	s.vols[rec.Name] = v
	s.bus.Emit(events.VolumeEventType, events.ActionCreate, rec.Name, map[string]string{"driver": Driver})
	return v, nil
}

func badName(name string) error {
	return errclass.Invalid("create %s: %q includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. "+
		"If you intended to pass a host directory, use absolute path", name, name)
}

// make puts the directory there. One that a container's record will name is on the disk with it.
func (s *Service) make(rec *record, sync bool) (err error) {
	at, tmp := int(s.dir.Fd()), making+rec.Name
	if err := unix.Mkdirat(at, tmp, 0o701); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = tree.Remove(at, tmp)
		}
	}()
	if err := unix.Mkdirat(at, tmp+"/_data", 0o755); err != nil {
		return err
	}
	if err := unix.Fchmodat(at, tmp+"/_data", 0o755, 0); err != nil {
		return err
	}
	if err := atomicfile.WriteJSON(filepath.Join(s.root, tmp, "volume.json"), rec, 0o600, sync); err != nil {
		return err
	}
	return unix.Renameat2(at, tmp, at, rec.Name, unix.RENAME_NOREPLACE)
}

// delete removes a volume for good. s.mu is held.
func (s *Service) delete(v *vol) error {
	at := int(s.dir.Fd())
	err := unix.Renameat(at, v.Name, at, removing+v.Name)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove %s: %w", v.Name, err)
	}
	delete(s.vols, v.Name)
	s.bus.Emit(events.VolumeEventType, events.ActionDestroy, v.Name, map[string]string{"driver": Driver})
	if err := tree.Remove(at, removing+v.Name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		// It is gone for everybody: the next start goes on.
		s.log.Warn("removing a volume's files", "volume", v.Name, "error", err)
	}
	return nil
}

// get finds a volume. s.mu is held.
func (s *Service) get(name string) (*vol, error) {
	if v := s.vols[name]; v != nil {
		return v, nil
	}
	return nil, errclass.NotFound("get %s: no such volume", name)
}

func (s *Service) public(v *vol) volumetypes.Volume {
	out := volumetypes.Volume{
		Name: v.Name, Driver: Driver, Mountpoint: s.data(v.Name), Scope: "local",
		CreatedAt: v.Created.Local().Format(time.RFC3339),
	}
	if len(v.Labels) > 0 {
		out.Labels = map[string]string{}
		for k, l := range v.Labels {
			out.Labels[k] = l
		}
	}
	return out
}

func (v *vol) usedBy() []string {
	var ids []string
	for c := range v.users {
		ids = append(ids, c)
	}
	slices.Sort(ids)
	return ids
}
