package ocicli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/plainjson"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// The texts are runc's: callers compare them.
var (
	errNotRunning = errclass.With(errdefs.ErrFailedPrecondition, errors.New("container not running"))
	errNotExist   = errclass.NotFound("container does not exist")
	errExists     = errclass.With(errdefs.ErrAlreadyExists, errors.New("container with given ID already exists"))
)

// The files in a container's state directory.
const (
	stateFile  = "state.json"
	stateTemp  = ".state.json" // to become it
	specFile   = "config.json" // the bundle's, as it was at create
	startFile  = "start.sock"  // there until the program runs
	maxJSON    = 16 << 20
	maxIDBytes = 1024
)

// Statuses besides those of the spec.
const statusPaused specs.ContainerState = "paused"

// record is what a container's state.json holds.
type record struct {
	ID         string            `json:"id"`
	OCIVersion string            `json:"ociVersion"`
	Pid        int               `json:"pid"` // 0 while it is being created
	StartTime  uint64            `json:"startTime"`
	Bundle     string            `json:"bundle"`
	Rootfs     string            `json:"rootfs"`
	Created    time.Time         `json:"created"`
	Cgroup     oci.CgroupRef     `json:"cgroup"`
	Annots     map[string]string `json:"annotations,omitempty"`
}

// container is a container's state directory, held open.
type container struct {
	record
	path string
	dir  *os.File
}

// checkID takes letters, digits, and _ + . - but not what means a directory.
func checkID(id string) error {
	other := strings.IndexFunc(id, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("_+.-", r)
	})
	if id == "" || len(id) > maxIDBytes || other >= 0 || id == "." || id == ".." {
		return errclass.Invalid("invalid container ID format")
	}
	return nil
}

// store is the directory in which every container has its state directory.
type store struct{ root string }

// create makes the state directory of a container that does not exist yet, and locks it.
func (s store) create(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(s.root, 0o700); err != nil {
		return nil, err
	}
	p := filepath.Join(s.root, id)
	if err := os.Mkdir(p, 0o700); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, errExists
		}
		return nil, err
	}
	c := &container{path: p, record: record{ID: id}}
	var err error
	if c.dir, err = os.Open(p); err == nil {
		err = c.lock(true)
	}
	if err != nil {
		_ = os.Remove(p)
		return nil, err
	}
	return c, nil
}

// open opens the state of a container. Class ErrNotFound when there is none.
func (s store) open(id string) (*container, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	c := &container{path: filepath.Join(s.root, id)}
	fd, err := unix.Open(c.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
			return nil, errNotExist
		}
		return nil, &os.PathError{Op: "open", Path: c.path, Err: err}
	}
	c.dir = os.NewFile(uintptr(fd), c.path)
	if err := readJSON(filepath.Join(c.path, stateFile), &c.record); err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			c.close()
			return nil, fmt.Errorf("state of container %s: %w", id, err)
		}
		c.Annots = nil // made, and nothing is known of it yet
	}
	c.ID = id
	return c, nil
}

func (c *container) close() { c.dir.Close() }

// lock takes the container for this call alone until close. Without wait it fails
// when another call has it.
func (c *container) lock(wait bool) error {
	how := unix.LOCK_EX
	if !wait {
		how |= unix.LOCK_NB
	}
	for {
		err := unix.Flock(int(c.dir.Fd()), how)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("lock container %s: %w", c.ID, err)
		}
		return nil
	}
}

func (c *container) unlock() { _ = unix.Flock(int(c.dir.Fd()), unix.LOCK_UN) }

// save replaces the record. The caller has the lock.
func (c *container) save() error {
	b, err := plainjson.Marshal(&c.record)
	if err == nil {
		err = c.create(stateTemp, b)
	}
	if err == nil {
		err = unix.Renameat(int(c.dir.Fd()), stateTemp, int(c.dir.Fd()), stateFile)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", filepath.Join(c.path, stateFile), err)
	}
	return nil
}

// create writes a file of the state directory.
func (c *container) create(name string, b []byte) error {
	fd, err := unix.Openat(int(c.dir.Fd()), name, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
		b = b[max(n, 0):]
	}
	return nil
}

// status finds out how the container is now.
func (c *container) status() specs.ContainerState {
	if c.Pid == 0 {
		// Its creator holds the lock, or is dead.
		fd, err := unix.Open(c.path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return specs.StateStopped
		}
		defer unix.Close(fd)
		if err := unix.Flock(fd, unix.LOCK_SH|unix.LOCK_NB); errors.Is(err, unix.EWOULDBLOCK) {
			return specs.StateCreating
		}
		return specs.StateStopped
	}
	if !alive(c.Pid, c.StartTime) {
		return specs.StateStopped
	}
	if frozen, err := oci.Frozen(c.Cgroup); err == nil && frozen {
		return statusPaused
	}
	if _, err := os.Lstat(filepath.Join(c.path, startFile)); err == nil {
		return specs.StateCreated
	}
	return specs.StateRunning
}

// state is the container's state as hooks get it.
func (c *container) state(s specs.ContainerState) *specs.State {
	pid := c.Pid
	if s == specs.StateStopped {
		pid = 0
	}
	return &specs.State{Version: cmp.Or(c.OCIVersion, specs.Version), ID: c.ID, Status: s, Pid: pid, Bundle: c.Bundle, Annotations: c.Annots}
}

// spec reads the configuration that the container was created with.
func (c *container) spec() (*specs.Spec, error) {
	s := new(specs.Spec)
	if err := readJSON(filepath.Join(c.path, specFile), s); err != nil {
		return nil, fmt.Errorf("configuration of container %s: %w", c.ID, err)
	}
	return s, nil
}

// remove deletes the state: its usual files, then whatever else there is.
func (c *container) remove() error {
	for _, f := range [...]string{stateFile, specFile} {
		_ = unix.Unlinkat(int(c.dir.Fd()), f, 0)
	}
	if unix.Rmdir(c.path) == nil {
		return nil
	}
	return os.RemoveAll(c.path)
}

// readAll reads a regular file of bounded size.
func readAll(path string) ([]byte, error) {
	// Not blocking: a pipe in the place of the file must not hold us up.
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() {
		return nil, errclass.Invalid("%s is not a regular file", path)
	}
	return readLimited(f, path)
}

func readLimited(r io.Reader, name string) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxJSON+1))
	if err == nil && len(b) > maxJSON {
		err = errclass.Invalid("%s is larger than %d bytes", name, maxJSON)
	}
	return b, err
}

func readJSON(path string, v any) error {
	b, err := readAll(path)
	if err != nil {
		return err
	}
	if err := plainjson.Unmarshal(b, v); err != nil {
		return errclass.Invalid("%s: %w", path, err)
	}
	return nil
}
