// Package layerdir keeps one directory per container, <data-root>/layers/<id>, for storage
// drivers to put a writable layer in. Below it containers write what they like, so it is
// touched by descriptors only, never by following a path.
package layerdir

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage/tree"
	"golang.org/x/sys/unix"
)

const (
	// removing prefixes the directories that are being removed, and making those that are
	// being filled; what a crash leaves of them is removed by the next Open.
	removing = ".removing-"
	making   = ".making-"
)

// Dir is the directory of all. Safe for concurrent use on different ids.
type Dir struct {
	root  string
	dir   *os.File // of root
	quit  chan struct{}
	swept chan struct{}
}

// Open opens, or makes, <dataRoot>/layers and removes in the background what a crash has
// left there. The caller closes it.
func Open(dataRoot string) (*Dir, error) {
	root := filepath.Join(dataRoot, "layers")
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("opening layers: %w", err)
	}
	dir, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("opening layers: %w", err)
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("opening layers: %w", err)
	}
	var stale []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), removing) || strings.HasPrefix(e.Name(), making) {
			stale = append(stale, e.Name())
		}
	}
	d := &Dir{root: root, dir: dir, quit: make(chan struct{}), swept: make(chan struct{})}
	go d.sweep(stale)
	return d, nil
}

// sweep finishes what a crash interrupted.
func (d *Dir) sweep(stale []string) {
	defer close(d.swept)
	for _, name := range stale {
		select {
		case <-d.quit:
			return
		default:
		}
		if err := tree.Remove(int(d.dir.Fd()), name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			slog.Warn("removing layer", "name", name, "error", err)
		}
	}
}

// Make makes a container's directory. fill puts into it what makes it a layer: it gets an
// open directory and the new one's name in it. The error is of class AlreadyExists when
// there is one. After another error nothing is left.
func (d *Dir) Make(container string, fill func(at int, name string) error) error {
	return d.make(container, container, fill)
}

// MakeSlowly is Make for a fill that takes time: the directory is not there before fill
// has ended.
func (d *Dir) MakeSlowly(container string, fill func(at int, name string) error) error {
	if err := valid(container); err != nil {
		return err
	}
	at := int(d.dir.Fd())
	if err := unix.Faccessat(at, container, unix.F_OK, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return exists(container)
	}
	tmp := making + container
	if err := d.make(container, tmp, fill); err != nil {
		return err
	}
	err := unix.Renameat2(at, tmp, at, container, unix.RENAME_NOREPLACE)
	if err == nil {
		return nil
	}
	_ = tree.Remove(at, tmp)
	if errors.Is(err, unix.EEXIST) {
		return exists(container)
	}
	return fmt.Errorf("making layer of container %s: %w", id.Short(container), err)
}

func exists(container string) error {
	return errclass.With(errdefs.ErrAlreadyExists, fmt.Errorf("layer of container %s exists", id.Short(container)))
}

func (d *Dir) make(container, name string, fill func(at int, name string) error) error {
	if err := valid(container); err != nil {
		return err
	}
	at := int(d.dir.Fd())
	err := unix.Mkdirat(at, name, 0o700)
	if errors.Is(err, unix.EEXIST) {
		return exists(container)
	}
	if err == nil {
		err = fill(at, name)
	}
	if err != nil {
		_ = tree.Remove(at, name)
		return fmt.Errorf("making layer of container %s: %w", id.Short(container), err)
	}
	return nil
}

// Path is the container's directory, for the description of its layer (driver.Layer).
func (d *Dir) Path(container string) string { return filepath.Join(d.root, container) }

// Check looks whether the container's directory has the entry sub, by which a driver
// knows its own. The error is of class NotFound when it has no directory,
// FailedPrecondition when that lacks sub.
func (d *Dir) Check(container, sub string) error {
	if err := valid(container); err != nil {
		return err
	}
	at := int(d.dir.Fd())
	var st unix.Stat_t
	err := unix.Fstatat(at, container+"/"+sub, &st, unix.AT_SYMLINK_NOFOLLOW)
	if !errors.Is(err, unix.ENOENT) {
		return wrap(container, err)
	}
	if err := unix.Fstatat(at, container, &st, unix.AT_SYMLINK_NOFOLLOW); err == nil {
		return errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf("layer of container %s was made by another storage driver", id.Short(container)))
	}
	return missing(container)
}

// OpenLayer opens the container's directory for its path; the caller closes it. The error
// is of class NotFound without one.
func (d *Dir) OpenLayer(container string) (int, error) {
	if err := valid(container); err != nil {
		return -1, err
	}
	fd, err := unix.Openat(int(d.dir.Fd()), container, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return -1, missing(container)
	}
	return fd, wrap(container, err)
}

// Remove deletes the container's directory; none is no error. From the first step on it
// is gone, and a crash after it only leaves work for the next Open.
func (d *Dir) Remove(container string) error {
	if err := valid(container); err != nil {
		return err
	}
	at := int(d.dir.Fd())
	err := unix.Renameat(at, container, at, removing+container)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("removing layer of container %s: %w", id.Short(container), err)
	}
	err = tree.Remove(at, removing+container)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing layer of container %s: %w", id.Short(container), err)
	}
	return nil
}

// List returns the containers that have a directory.
func (d *Dir) List() ([]string, error) {
	entries, err := os.ReadDir(d.root)
	if err != nil {
		return nil, fmt.Errorf("listing layers: %w", err)
	}
	var ids []string
	for _, e := range entries {
		if id.Valid(e.Name()) {
			ids = append(ids, e.Name())
		}
	}
	return ids, nil
}

// Close waits for the sweep and closes the directory.
func (d *Dir) Close() error {
	close(d.quit)
	<-d.swept
	return d.dir.Close()
}

func valid(container string) error {
	if !id.Valid(container) {
		return errclass.Invalid("invalid container ID: %q", container)
	}
	return nil
}

func missing(container string) error {
	return errclass.NotFound("no layer of container %s", id.Short(container))
}

func wrap(container string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("layer of container %s: %w", id.Short(container), err)
}
