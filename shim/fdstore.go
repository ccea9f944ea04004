package shim

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"golang.org/x/sys/unix"
)

// FDStore keeps descriptors for the daemon beyond the daemon's life, as systemd's file
// descriptor store does for its services: listening sockets, DNS sockets, published
// ports. The shim holds one duplicate of each by name, and the daemon another, which it
// hands to a new shim should this one die. It is a Client's (Client.FDStore) and ends
// with it; what the shim holds stays. All methods are safe for concurrent use and may be
// repeated. Their errors are the calls' of Client: class Unavailable when the shim dies
// meanwhile.
type FDStore struct {
	link *link

	mu  sync.Mutex
	fds map[string]int
}

// Store gives the shim a duplicate of f to hold under name, in place of an earlier
// one of that name. f stays the caller's.
func (s *FDStore) Store(ctx context.Context, name string, f *os.File) error {
	fd, err := dupFile(f)
	if err != nil {
		return err
	}
	if err := s.link.call(ctx, MethodStoreFD, NameRequest{Name: name}, []int{fd}, nil); err != nil {
		unix.Close(fd)
		return err
	}
	s.put(name, fd)
	return nil
}

// All returns duplicates of everything that is held, by name. The caller closes them.
func (s *FDStore) All(ctx context.Context) (map[string]*os.File, error) {
	if _, err := s.link.current(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m := make(map[string]*os.File, len(s.fds))
	for name, old := range s.fds {
		fd, err := unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			for _, f := range m {
				f.Close()
			}
			return nil, fmt.Errorf("duplicate stored descriptor: %w", err)
		}
		m[name] = os.NewFile(uintptr(fd), name)
	}
	return m, nil
}

// Drop forgets a descriptor. Unknown names are no error.
func (s *FDStore) Drop(ctx context.Context, name string) error {
	err := s.link.call(ctx, MethodDropFD, NameRequest{Name: name}, nil, nil)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.fds[name]; ok {
		unix.Close(old)
		delete(s.fds, name)
	}
	return nil
}

// put takes fd over.
func (s *FDStore) put(name string, fd int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.fds[name]; ok {
		unix.Close(old)
	}
	s.fds[name] = fd
}

// closeAll closes our duplicates.
func (s *FDStore) closeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, fd := range s.fds {
		unix.Close(fd)
	}
	clear(s.fds)
}

// load takes over what the shim at the other end of t holds.
func (s *FDStore) load(ctx context.Context, t *session) error {
	return t.call(ctx, MethodFDs, struct{}{}, nil, func(b json.RawMessage, fds []int) error {
		var n NameRequest
		if err := json.Unmarshal(b, &n); err != nil || len(fds) != 1 {
			fdpass.Close(fds)
			if n.Name == "" {
				return err // the end of the list
			}
			return errclass.Internal("the shim's answer about stored descriptors")
		}
		s.put(n.Name, fds[0])
		return nil
	})
}

// handOver gives a new shim everything. There is no session meanwhile, so nobody else
// changes the table, and the numbers hold.
func (s *FDStore) handOver(ctx context.Context, t *session) error {
	s.mu.Lock()
	fds := make(map[string]int, len(s.fds))
	for name, fd := range s.fds {
		fds[name] = fd
	}
	s.mu.Unlock()
	for name, fd := range fds {
		if err := t.call(ctx, MethodStoreFD, NameRequest{Name: name}, []int{fd}, nil); err != nil {
			return err
		}
	}
	return nil
}
