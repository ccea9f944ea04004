package engine

import (
	"context"
	"os"
	"strings"
	"time"

	"github.com/gantry/gantry/shim"
)

// keepWait bounds how long a call to the fd store may take: it runs in places that
// have no context of their own.
const keepWait = 30 * time.Second

// shimFDs is the shim's store of descriptors, for the API sockets and engine/network.
type shimFDs struct{ shim *shim.FDStore }

// Store keeps a duplicate of f under name, instead of an older one of that name.
func (s *shimFDs) Store(name string, f *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), keepWait)
	defer cancel()
	return s.shim.Store(ctx, name, f)
}

// Drop closes what is kept under name; an unknown name is no error.
func (s *shimFDs) Drop(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), keepWait)
	defer cancel()
	return s.shim.Drop(ctx, name)
}

// Take returns a duplicate of what is kept under name, nil when there is none.
func (s *shimFDs) Take(name string) (*os.File, error) {
	all, err := s.fds(func(n string) bool { return n == name })
	return all[name], err
}

// TakeAll returns duplicates of all that is kept under names with the prefix.
func (s *shimFDs) TakeAll(prefix string) (map[string]*os.File, error) {
	return s.fds(func(n string) bool { return strings.HasPrefix(n, prefix) })
}

func (s *shimFDs) fds(want func(name string) bool) (map[string]*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), keepWait)
	defer cancel()
	all, err := s.shim.All(ctx)
	if err != nil {
		return nil, err
	}
	for n, f := range all {
		if !want(n) {
			_ = f.Close() // a duplicate
			delete(all, n)
		}
	}
	return all, nil
}
