package vfs

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	snapshotdb "github.com/containerd/containerd/v2/core/snapshots/storage"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/storage/tree"
	bolt "go.etcd.io/bbolt"
	"golang.org/x/sys/unix"
)

const (
	// dirLabel tells a layer's directory.
	dirLabel = "containerd.io/snapshot/vfs.dir"
	// lockTimeout is how long opening waits for another process that has the database open.
	lockTimeout = time.Second
)

// snapshotter keeps layers as whole trees: <root>/snapshots/<n>, with their names in
// metadata.db. Trees that are being made are in <root>/work, which is emptied when it is
// opened: so what is in snapshots and not in the database may always go.
type snapshotter struct {
	root string
	ms   *snapshotdb.MetaStore
}

func openSnapshots(root string) (*snapshotter, error) {
	s := &snapshotter{root: root}
	for _, d := range []string{root, s.path("snapshots"), s.path("work")} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			return nil, err
		}
	}
	if err := empty(s.path("work")); err != nil {
		return nil, err
	}
	var err error
	s.ms, err = snapshotdb.NewMetaStore(s.path("metadata.db"), func(o *bolt.Options) error {
		o.Timeout, o.NoFreelistSync, o.FreelistType = lockTimeout, true, bolt.FreelistMapType
		return nil
	})
	return s, err
}

func empty(dir string) error {
	fd, err := openTree(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return tree.Empty(fd)
}

func (s *snapshotter) path(elem ...string) string {
	return filepath.Join(append([]string{s.root}, elem...)...)
}
func (s *snapshotter) dir(id string) string { return s.path("snapshots", id) }

func (s *snapshotter) labelled(info snapshots.Info, id string) snapshots.Info {
	if info.Labels == nil {
		info.Labels = map[string]string{}
	}
	info.Labels[dirLabel] = s.dir(id)
	return info
}

// Stat implements snapshots.Snapshotter.
func (s *snapshotter) Stat(ctx context.Context, key string) (snapshots.Info, error) {
	id, info, _, err := s.get(ctx, key)
	if err != nil {
		return snapshots.Info{}, err
	}
	return s.labelled(info, id), nil
}

func (s *snapshotter) get(ctx context.Context, key string) (id string, info snapshots.Info, usage snapshots.Usage, err error) {
	err = s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		id, info, usage, err = snapshotdb.GetInfo(ctx, key)
		return err
	})
	return id, info, usage, err
}

// Update implements snapshots.Snapshotter.
func (s *snapshotter) Update(ctx context.Context, info snapshots.Info, fieldpaths ...string) (out snapshots.Info, err error) {
	err = s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		if out, err = snapshotdb.UpdateInfo(ctx, info, fieldpaths...); err != nil {
			return err
		}
		id, _, _, err := snapshotdb.GetInfo(ctx, out.Name)
		out = s.labelled(out, id)
		return err
	})
	return out, err
}

// Usage implements snapshots.Snapshotter. Of a committed layer it is what the layer adds,
// though its directory holds all below it as well.
func (s *snapshotter) Usage(ctx context.Context, key string) (snapshots.Usage, error) {
	id, info, usage, err := s.get(ctx, key)
	if err == nil && info.Kind == snapshots.KindActive {
		return s.measure(ctx, id, info.Parent)
	}
	return usage, err
}

// measure tells what an active layer adds to its parent.
func (s *snapshotter) measure(ctx context.Context, id, parent string) (snapshots.Usage, error) {
	base := -1
	if parent != "" {
		pid, _, _, err := s.get(ctx, parent)
		if err != nil {
			return snapshots.Usage{}, err
		}
		if base, err = openTree(s.dir(pid)); err != nil {
			return snapshots.Usage{}, err
		}
		defer unix.Close(base)
	}
	u, err := tree.UsageAbove(ctx, unix.AT_FDCWD, s.dir(id), base)
	return snapshots.Usage{Size: u.Size, Inodes: u.Inodes}, err
}

// Prepare implements snapshots.Snapshotter.
func (s *snapshotter) Prepare(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindActive, key, parent, opts)
}

// View implements snapshots.Snapshotter.
func (s *snapshotter) View(ctx context.Context, key, parent string, opts ...snapshots.Opt) ([]mount.Mount, error) {
	return s.create(ctx, snapshots.KindView, key, parent, opts)
}

func (s *snapshotter) create(ctx context.Context, kind snapshots.Kind, key, parent string, opts []snapshots.Opt) ([]mount.Mount, error) {
	// A view of a layer is the layer's directory itself.
	tmp := ""
	if kind == snapshots.KindActive || parent == "" {
		from := []string{}
		if parent != "" {
			id, _, _, err := s.get(ctx, parent)
			if err != nil {
				return nil, err
			}
			from = append(from, s.dir(id))
		}
		var err error
		if tmp, err = s.stack(ctx, from); err != nil {
			return nil, err
		}
		defer s.discard(&tmp)
	}
	var snap snapshotdb.Snapshot
	err := s.ms.WithTransaction(ctx, true, func(ctx context.Context) (err error) {
		if snap, err = snapshotdb.CreateSnapshot(ctx, kind, key, parent, opts...); err != nil || tmp == "" {
			return err
		}
		return os.Rename(tmp, s.dir(snap.ID))
	})
	if err != nil {
		return nil, err
	}
	tmp = ""
	return s.mounts(&snap), nil
}

// stack makes a tree of the directories, one upon the other, in work.
func (s *snapshotter) stack(ctx context.Context, layers []string) (_ string, err error) {
	tmp, err := os.MkdirTemp(s.path("work"), "")
	if err != nil {
		return "", err
	}
	defer func() {
		if err != nil {
			s.discard(&tmp)
		}
	}()
	if err := os.Chmod(tmp, 0o755); err != nil { //nolint:gosec // the root directory of an image is open to all
		return "", err
	}
	to, err := openTree(tmp)
	if err != nil {
		return "", err
	}
	defer unix.Close(to)
	for _, l := range layers {
		if err := applyPath(ctx, l, to); err != nil {
			return "", err
		}
	}
	return tmp, nil
}

// discard removes a tree of work, if there is one.
func (s *snapshotter) discard(tmp *string) {
	if *tmp == "" {
		return
	}
	if fd, err := openTree(s.path("work")); err == nil {
		_ = tree.Remove(fd, filepath.Base(*tmp))
		unix.Close(fd)
	}
}

// Mounts implements snapshots.Snapshotter.
func (s *snapshotter) Mounts(ctx context.Context, key string) ([]mount.Mount, error) {
	var snap snapshotdb.Snapshot
	err := s.ms.WithTransaction(ctx, false, func(ctx context.Context) (err error) {
		snap, err = snapshotdb.GetSnapshot(ctx, key)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.mounts(&snap), nil
}

func (s *snapshotter) mounts(snap *snapshotdb.Snapshot) []mount.Mount {
	source, mode := s.dir(snap.ID), "rw"
	if snap.Kind == snapshots.KindView {
		mode = "ro"
		if len(snap.ParentIDs) > 0 {
			source = s.dir(snap.ParentIDs[0])
		}
	}
	return []mount.Mount{{Type: "bind", Source: source, Options: []string{"rbind", mode}}}
}

// Commit implements snapshots.Snapshotter. A layer that was prepared without a parent and
// gets one now is put upon a copy of that one's tree.
func (s *snapshotter) Commit(ctx context.Context, name, key string, opts ...snapshots.Opt) error {
	var base snapshots.Info
	for _, o := range opts {
		if err := o(&base); err != nil {
			return err
		}
	}
	id, info, _, err := s.get(ctx, key)
	if err != nil {
		return err
	}
	if _, err := s.Stat(ctx, name); err == nil { // before much is copied; the transaction decides
		return fmt.Errorf("committed snapshot %v: %w", name, errdefs.ErrAlreadyExists)
	}
	usage, err := s.measure(ctx, id, info.Parent)
	if err != nil {
		return err
	}
	tmp := ""
	switch {
	case info.Parent != "": // whose copy was made by Prepare
		if err := syncTree(s.dir(id)); err != nil {
			return err
		}
	case base.Parent != "":
		parent, _, _, err := s.get(ctx, base.Parent)
		if err != nil {
			return err
		}
		if tmp, err = s.stack(ctx, []string{s.dir(parent), s.dir(id)}); err != nil {
			return err
		}
		defer s.discard(&tmp)
		if err := syncTree(tmp); err != nil {
			return err
		}
	}
	return s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		if _, err := snapshotdb.CommitActive(ctx, key, name, usage, opts...); err != nil {
			return fmt.Errorf("failed to commit snapshot %s: %w", key, err)
		}
		if tmp == "" {
			return nil
		}
		// What was prepared is in work now, and goes. Should the transaction not make it, the
		// layer is still an active one, and its owner discards it.
		return unix.Renameat2(unix.AT_FDCWD, tmp, unix.AT_FDCWD, s.dir(id), unix.RENAME_EXCHANGE)
	})
}

// syncTree brings a tree, with all else of its file system, to the disk.
func syncTree(dir string) error {
	fd, err := openTree(dir)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Syncfs(fd); err != nil {
		return fmt.Errorf("writing to the disk: %w", err)
	}
	return nil
}

// Remove implements snapshots.Snapshotter. The files go with the next Cleanup.
func (s *snapshotter) Remove(ctx context.Context, key string) error {
	return s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		_, _, err := snapshotdb.Remove(ctx, key)
		return err
	})
}

// Walk implements snapshots.Snapshotter.
func (s *snapshotter) Walk(ctx context.Context, fn snapshots.WalkFunc, filters ...string) error {
	return s.ms.WithTransaction(ctx, false, func(ctx context.Context) error {
		return snapshotdb.WalkInfo(ctx, func(ctx context.Context, info snapshots.Info) error {
			id, _, _, err := snapshotdb.GetInfo(ctx, info.Name)
			if err != nil {
				return err
			}
			return fn(ctx, s.labelled(info, id))
		}, filters...)
	})
}

// Cleanup implements snapshots.Cleaner.
func (s *snapshotter) Cleanup(ctx context.Context) error {
	var gone []string
	// A transaction that writes keeps others from making a directory meanwhile.
	err := s.ms.WithTransaction(ctx, true, func(ctx context.Context) error {
		ids, err := snapshotdb.IDMap(ctx)
		if err != nil {
			return err
		}
		entries, err := os.ReadDir(s.path("snapshots"))
		for _, e := range entries {
			if _, ok := ids[e.Name()]; !ok {
				gone = append(gone, e.Name())
			}
		}
		return err
	})
	if err != nil {
		return err
	}
	fd, err := openTree(s.path("snapshots"))
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var errs []error
	for _, name := range gone {
		if err := tree.Remove(fd, name); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// Close implements snapshots.Snapshotter.
func (s *snapshotter) Close() error { return s.ms.Close() }
