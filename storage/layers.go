package storage

import (
	"context"
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

// removing prefixes the directories of layers that are being removed; what a crash
// leaves of them is removed when the storage is opened.
const removing = ".removing-"

// Layers are the writable layers of containers: <data-root>/layers/<id>/{upper,work}.
// Below upper the container writes what it likes, so it is touched by descriptors
// only, never by following a path. Safe for concurrent use on different ids.
type Layers struct {
	root  string
	dir   *os.File // of root
	quit  chan struct{}
	swept chan struct{}
}

// Layer is where one container writes.
type Layer struct {
	Upper, Work string
}

// LayerUsage is what a writable layer takes.
type LayerUsage struct {
	Size   int64 // bytes of all files
	Inodes int64
}

func openLayers(root string) (*Layers, error) {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return nil, fmt.Errorf("opening layers: %w", err)
	}
	dir, err := os.Open(root)
	if err != nil {
		return nil, fmt.Errorf("opening layers: %w", err)
	}
	l := &Layers{root: root, dir: dir, quit: make(chan struct{}), swept: make(chan struct{})}
	go l.sweep()
	return l, nil
}

// sweep finishes removals that a crash interrupted.
func (l *Layers) sweep() {
	defer close(l.swept)
	entries, err := os.ReadDir(l.root)
	if err != nil {
		return
	}
	for _, e := range entries {
		select {
		case <-l.quit:
			return
		default:
		}
		if strings.HasPrefix(e.Name(), removing) {
			if err := tree.Remove(int(l.dir.Fd()), e.Name()); err != nil && !errors.Is(err, fs.ErrNotExist) {
				slog.Warn("removing layer", "name", e.Name(), "error", err)
			}
		}
	}
}

// Create makes the empty layer of a container. The error is of class AlreadyExists
// when there is one.
func (l *Layers) Create(container string) (Layer, error) {
	if !id.Valid(container) {
		return Layer{}, errclass.Invalid("invalid container ID: %q", container)
	}
	at := int(l.dir.Fd())
	err := unix.Mkdirat(at, container, 0o700)
	if errors.Is(err, unix.EEXIST) {
		return Layer{}, errclass.With(errdefs.ErrAlreadyExists, fmt.Errorf("layer of container %s exists", id.Short(container)))
	}
	if err == nil {
		err = makeLayer(at, container)
	}
	if err != nil {
		_ = tree.Remove(at, container)
		return Layer{}, fmt.Errorf("making layer of container %s: %w", id.Short(container), err)
	}
	return l.layer(container), nil
}

// makeLayer makes upper, which becomes the container's root directory and so is open
// to everyone whatever the umask, and work.
func makeLayer(at int, container string) error {
	upper := container + "/upper"
	if err := unix.Mkdirat(at, upper, 0o755); err != nil {
		return err
	}
	if err := unix.Fchmodat(at, upper, 0o755, 0); err != nil {
		return err
	}
	return unix.Mkdirat(at, container+"/work", 0o700)
}

// Get returns the layer of a container; the error is of class NotFound without one.
func (l *Layers) Get(container string) (Layer, error) {
	if !id.Valid(container) {
		return Layer{}, errclass.Invalid("invalid container ID: %q", container)
	}
	var st unix.Stat_t
	err := unix.Fstatat(int(l.dir.Fd()), container+"/upper", &st, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return Layer{}, errclass.NotFound("no layer of container %s", id.Short(container))
	}
	if err != nil {
		return Layer{}, fmt.Errorf("layer of container %s: %w", id.Short(container), err)
	}
	return l.layer(container), nil
}

func (l *Layers) layer(container string) Layer {
	dir := filepath.Join(l.root, container)
	return Layer{Upper: filepath.Join(dir, "upper"), Work: filepath.Join(dir, "work")}
}

// Remove deletes the layer of a container; none is no error. From the first step on
// the layer is gone for Get and List, and a crash after it only leaves work for the
// next start.
func (l *Layers) Remove(container string) error {
	if !id.Valid(container) {
		return errclass.Invalid("invalid container ID: %q", container)
	}
	at := int(l.dir.Fd())
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

// Usage walks the layer of a container.
func (l *Layers) Usage(ctx context.Context, container string) (LayerUsage, error) {
	if !id.Valid(container) {
		return LayerUsage{}, errclass.Invalid("invalid container ID: %q", container)
	}
	at, err := unix.Openat(int(l.dir.Fd()), container, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return LayerUsage{}, errclass.NotFound("no layer of container %s", id.Short(container))
	}
	if err != nil {
		return LayerUsage{}, fmt.Errorf("layer of container %s: %w", id.Short(container), err)
	}
	defer unix.Close(at)
	u, err := tree.Usage(ctx, at, "upper")
	return LayerUsage{Size: u.Size, Inodes: u.Inodes}, err
}

// List returns the containers that have a layer.
func (l *Layers) List() ([]string, error) {
	entries, err := os.ReadDir(l.root)
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

func (l *Layers) close() error {
	close(l.quit)
	<-l.swept
	return l.dir.Close()
}
