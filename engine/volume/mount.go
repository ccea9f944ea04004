package volume

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/volume/driver"
	"github.com/gantry/gantry/internal/id"
)

// mountsDir is in a volume's directory; a file in it names a container that has the volume
// mounted. It is written before the driver is asked, and removed after it was told of the end: a
// daemon that dies in between leaves the next one what to undo.
const mountsDir = "mounts"

// use is a container that has a volume mounted.
type use int

const (
	live  use = iota // this daemon mounted it, or found the container running
	stale            // a daemon before did, and nobody has said that the container runs
)

// loadMounts reads who has a volume mounted.
func (s *Service) loadMounts(v *vol) {
	entries, err := os.ReadDir(s.file(v.Name, mountsDir))
	if err != nil {
		return // as of every volume of a driver that does not mount
	}
	for _, e := range entries {
		if id.Valid(e.Name()) {
			v.mounts[e.Name()] = stale
		}
	}
}

// Mount makes the volume's data reachable for a container until Unmount, and tells where. A
// second Mount is the same use. Errors: NotFound without the volume, or the driver's.
func (s *Service) Mount(ctx context.Context, name, container string) (string, error) {
	defer s.names.lock(name)()
	v, err := s.get(name)
	if err != nil {
		return "", err
	}
	d, err := s.driver(ctx, v.driver())
	if err != nil {
		return "", err
	}
	if !d.Describe(ctx).Mounts {
		return d.Mount(ctx, name, container)
	}
	s.mu.Lock()
	before, mounted := v.mounts[container]
	s.mu.Unlock()
	if mounted && before == stale {
		if err := s.unmount(ctx, d, v, container); err != nil {
			s.log.Warn("unmounting what a daemon before left", "volume", name, "container", container, "error", err)
		}
	}
	if err := s.remember(v, container); err != nil {
		return "", err
	}
	path, err := d.Mount(ctx, name, container)
	switch {
	case err == nil:
		return path, nil
	case mounted && before == live, errdefs.IsUnavailable(err):
		// Used as before, or nobody knows: the end of the run or the next daemon unmounts.
		return "", err
	}
	return "", errors.Join(err, s.unremember(v, container))
}

// Unmount ends the container's use. None is no error.
func (s *Service) Unmount(ctx context.Context, name, container string) error {
	defer s.names.lock(name)()
	v, err := s.get(name)
	if err != nil {
		return nil // it is gone
	}
	s.mu.Lock()
	_, mounted := v.mounts[container]
	s.mu.Unlock()
	if !mounted {
		return nil
	}
	d, err := s.driver(ctx, v.driver())
	if err != nil {
		return fmt.Errorf("unmounting volume %s: %w", name, err)
	}
	return s.unmount(ctx, d, v, container)
}

// unmount ends a use at the driver. When the driver cannot be reached, the use stays on
// record. The lock of the name is held.
func (s *Service) unmount(ctx context.Context, d driver.Driver, v *vol, container string) error {
	err := d.Unmount(ctx, v.Name, container)
	if err != nil {
		err = fmt.Errorf("unmounting volume %s: %w", v.Name, err)
		if errdefs.IsUnavailable(err) {
			return err
		}
	}
	return errors.Join(err, s.unremember(v, container))
}

// abandonMount ends the use of a container that goes: when its driver cannot be told, nobody will
// ask again. The lock of the name is held.
func (s *Service) abandonMount(ctx context.Context, v *vol, container string) {
	d, err := s.driver(ctx, v.driver())
	if err == nil {
		err = d.Unmount(ctx, v.Name, container)
	}
	if err = errors.Join(err, s.unremember(v, container)); err != nil {
		s.log.Warn("unmounting a volume", "volume", v.Name, "container", container, "error", err)
	}
}

// remember notes on the disk that a container has a volume mounted.
func (s *Service) remember(v *vol, container string) error {
	s.mu.Lock()
	v.mounts[container] = live
	s.mu.Unlock()
	dir := s.file(v.Name, mountsDir)
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("noting a mount: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, container), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("noting a mount: %w", err)
	}
	return f.Close()
}

func (s *Service) unremember(v *vol, container string) error {
	s.mu.Lock()
	delete(v.mounts, container)
	s.mu.Unlock()
	if err := os.Remove(filepath.Join(s.file(v.Name, mountsDir), container)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("noting the end of a mount: %w", err)
	}
	return nil
}

// Restore is called once, after the start, with the containers that run. It unmounts what other
// containers had mounted when the earlier daemon died. It waits for the plugins; a failure is
// logged, and the next daemon tries again.
func (s *Service) Restore(ctx context.Context, running map[string]bool) {
	type left struct{ volume, container string }
	var all []left
	s.mu.Lock()
	for _, v := range s.vols {
		for c, u := range v.mounts {
			switch {
			case u != stale:
			case running[c]:
				v.mounts[c] = live
			default:
				all = append(all, left{v.Name, c})
			}
		}
	}
	s.mu.Unlock()
	for _, l := range all {
		if err := s.unmountStale(ctx, l.volume, l.container); err != nil {
			s.log.Warn("unmounting what a daemon before left", "volume", l.volume, "container", l.container, "error", err)
		}
	}
}

// unmountStale is Unmount, unless the container has been started meanwhile.
func (s *Service) unmountStale(ctx context.Context, name, container string) error {
	defer s.names.lock(name)()
	v, err := s.get(name)
	if err != nil {
		return nil // it is gone
	}
	s.mu.Lock()
	u, mounted := v.mounts[container]
	s.mu.Unlock()
	if !mounted || u != stale {
		return nil
	}
	d, err := s.driver(ctx, v.driver())
	if err != nil {
		return err
	}
	return s.unmount(ctx, d, v, container)
}
