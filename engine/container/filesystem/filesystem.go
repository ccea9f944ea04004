// Package filesystem reads containers' root file systems, running or not: views of them for
// others, the archive of export, the changes that diff tells. It changes nothing, and
// whatever a container does to its files meanwhile, nothing of the host gets out with them.
package filesystem

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/pack"
	"github.com/gantry/gantry/storage/rootview"
	"github.com/moby/moby/api/types/container"
	"github.com/moby/moby/api/types/events"
	"golang.org/x/sys/unix"
)

// Images is what is asked of engine/image.
type Images interface {
	// LeaseOf is the hold a container has already; class NotFound when none.
	LeaseOf(ctx context.Context, containerID string) (*image.RootfsLease, error)
}

// Layers is what is asked of storage's writable layers; see storage.Layers for the contracts.
type Layers interface {
	Get(containerID string) (storage.Layer, error)
	View(ctx context.Context, containerID string, running *os.File, a rootview.Access) (*os.File, error)
}

// Reader reads root file systems. Safe for concurrent use.
type Reader struct {
	index  *store.Index
	images Images
	layers Layers
	bus    *event.Bus
}

// New makes a reader.
func New(index *store.Index, images Images, layers Layers, bus *event.Bus) *Reader {
	return &Reader{index, images, layers, bus}
}

// Open opens a container's root as it is now, for reading, by storage.Layers.View: its own mount
// where it runs. The caller closes the directory (O_PATH).
func (r *Reader) Open(ctx context.Context, c *store.Container) (*os.File, error) {
	ns, err := c.Namespace("mnt")
	if errors.Is(err, fsm.ErrNotRunning) {
		return r.layers.View(ctx, c.ID, nil, rootview.ReadOnly)
	}
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return r.layers.View(ctx, c.ID, ns, rootview.ReadOnly)
}

// Export writes a container's root as a tar archive. Of what is mounted in it there are the
// mount points only. Errors: class NotFound, Conflict while it is removed, as pack.Tree.
func (r *Reader) Export(ctx context.Context, ref string, w io.Writer) error {
	c, err := r.index.Get(ref)
	if err != nil {
		return err
	}
	switch c.View().Phase {
	case fsm.Dead:
		return errclass.Conflict("You cannot export container %s which is Dead", c.ID)
	case fsm.Removing:
		return errclass.Conflict("You cannot export container %s which is being removed", c.ID)
	}
	if err := r.export(ctx, c, w); err != nil {
		return fmt.Errorf("Error exporting container %s: %w", ref, err)
	}
	c.Emit(r.bus, events.ActionExport, nil)
	return nil
}

func (r *Reader) export(ctx context.Context, c *store.Container, w io.Writer) error {
	root, err := r.Open(ctx, c)
	if err != nil {
		return err
	}
	defer root.Close()
	return pack.Tree(ctx, w, root, pack.Options{}) // of extended attributes file capabilities only, as Docker
}

// Changes tells what a container has changed in its image, a directory before what is in
// it, sorted by name; nil when nothing. Errors: class NotFound, as pack.Differ.
func (r *Reader) Changes(ctx context.Context, ref string) ([]container.FilesystemChange, error) {
	c, err := r.index.Get(ref)
	if err != nil {
		return nil, err
	}
	lease, err := r.images.LeaseOf(ctx, c.ID)
	if err != nil {
		return nil, err
	}
	layer, err := r.layers.Get(c.ID)
	if err != nil {
		return nil, err
	}
	older, err := rootview.Merge(lease.Lower)
	if err != nil {
		return nil, err
	}
	defer older.Close()
	if layer.Path == "" {
		list, err := upperChanges(ctx, layer.Upper, older)
		if !errdefs.IsFailedPrecondition(err) {
			return list, err
		}
	}
	newer, err := r.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	defer newer.Close()
	return changes(ctx, pack.Compare(newer, older, ours()))
}

// upperChanges looks only at what an overlay keeps of the changes.
func upperChanges(ctx context.Context, upper string, older *os.File) ([]container.FilesystemChange, error) {
	dir, err := os.OpenFile(upper, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return changes(ctx, pack.Overlay(dir, older, ours()))
}

func changes(ctx context.Context, d pack.Differ) (list []container.FilesystemChange, err error) {
	err = d.Changes(ctx, func(c pack.Change) error {
		list = append(list, container.FilesystemChange{Path: c.Path, Kind: container.ChangeType(c.Kind)})
		return nil
	})
	return list, err
}

// ours are the mount points that the engine itself makes in a root, which Docker has in a layer
// of their own below the container's. Those of volumes are the user's, and show.
func ours() pack.DiffOptions {
	return pack.DiffOptions{MountPoints: []string{
		"/dev/console", "/dev/mqueue", "/dev/pts", "/dev/shm", "/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf",
	}}
}
