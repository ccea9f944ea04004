package volume

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/gantry/gantry/internal/copyup"
	"github.com/gantry/gantry/internal/id"
	volumetypes "github.com/moby/moby/api/types/volume"
	"golang.org/x/sys/unix"
)

// Used is a volume that a container uses.
type Used struct {
	Name, Driver string
	// Path is where the data is; "" while the driver has it nowhere: Mount tells.
	Path string
}

// Acquire makes the container a user of the volume r names, which is made when it is not
// there. Errors as Create's.
func (s *Service) Acquire(ctx context.Context, r volumetypes.CreateRequest, container string) (Used, error) {
	name := nameOf(r)
	defer s.names.lock(name)()
	v, err := s.ensure(ctx, name, r, container)
	if err != nil {
		return Used{}, err
	}
	d, err := s.driver(ctx, v.driver())
	if err != nil {
		return Used{}, fmt.Errorf("create %s: %w", name, err)
	}
	u := Used{Name: v.Name, Driver: v.driver()}
	if u.Path, err = d.Path(ctx, name); err != nil {
		s.log.Debug("where a volume is", "volume", name, "error", err) // Mount will tell
	}
	s.mu.Lock()
	v.users[container] = true
	s.mu.Unlock()
	return u, nil
}

// Use makes a container whose record names the volume its user again, after a start.
// NotFound when the volume is gone.
func (s *Service) Use(name, container string) error {
	defer s.names.lock(name)()
	v, err := s.get(name)
	if err != nil {
		return err
	}
	s.mu.Lock()
	v.users[container] = true
	s.mu.Unlock()
	return nil
}

// Release ends the container's use of the volume; with remove it goes when nobody else uses it.
func (s *Service) Release(ctx context.Context, name, container string, remove bool) error {
	defer s.names.lock(name)()
	v, err := s.get(name)
	if err != nil {
		return nil // it is gone
	}
	s.mu.Lock()
	delete(v.users, container)
	last := len(v.users) == 0
	_, mounted := v.mounts[container]
	s.mu.Unlock()
	if mounted {
		s.abandonMount(ctx, v, container)
	}
	if remove && last {
		return s.delete(ctx, v)
	}
	return nil
}

// Abandon removes the anonymous volumes that were made for a container which never came to be.
func (s *Service) Abandon(ctx context.Context, container string) error {
	s.mu.Lock()
	var names []string
	for n, v := range s.vols {
		if v.For == container && len(v.users) == 0 {
			names = append(names, n)
		}
	}
	s.mu.Unlock()
	var errs []error
	for _, n := range names {
		errs = append(errs, s.Release(ctx, n, container, true))
	}
	return errors.Join(errs...)
}

// Fill copies what the directory from (O_PATH will do) holds into the volume, with owner and
// mode, unless something is in it already. from stays the caller's.
func (s *Service) Fill(ctx context.Context, name string, from *os.File) error {
	if err := s.fill(ctx, name, from); err != nil {
		return fmt.Errorf("copying the image's content into volume %s: %w", name, err)
	}
	return nil
}

func (s *Service) fill(ctx context.Context, name string, from *os.File) (err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(from.Fd()), &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return nil
	}
	user := id.New()
	path, err := s.Mount(ctx, name, user)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Unmount(context.WithoutCancel(ctx), name, user)) }()
	to, err := openData(path)
	if err != nil {
		return err
	}
	defer to.Close()
	if _, err := to.Readdirnames(1); !errors.Is(err, io.EOF) {
		return err
	}
	if err := copyup.Copy(int(from.Fd()), int(to.Fd())); err != nil {
		return err
	}
	if err := unix.Fchown(int(to.Fd()), int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	return unix.Fchmod(int(to.Fd()), st.Mode&0o7777)
}
