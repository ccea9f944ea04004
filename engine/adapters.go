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

// shimKeeper is the shim as a store of descriptors, for the API sockets and engine/network.
type shimKeeper struct{ *shim.Client }

// Store keeps a duplicate of f under name, instead of an older one of that name.
func (k *shimKeeper) Store(name string, f *os.File) error {
	ctx, cancel := context.WithTimeout(context.Background(), keepWait)
	defer cancel()
	return k.StoreFD(ctx, name, f)
}

// Drop closes what is kept under name; an unknown name is no error.
func (k *shimKeeper) Drop(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), keepWait)
	defer cancel()
	return k.DropFD(ctx, name)
}

// Take returns a duplicate of what is kept under name, nil when there is none.
func (k *shimKeeper) Take(name string) (*os.File, error) {
	all, err := k.fds(func(n string) bool { return n == name })
	return all[name], err
}

// TakeAll returns duplicates of all that is kept under names with the prefix.
func (k *shimKeeper) TakeAll(prefix string) (map[string]*os.File, error) {
	return k.fds(func(n string) bool { return strings.HasPrefix(n, prefix) })
}

func (k *shimKeeper) fds(want func(name string) bool) (map[string]*os.File, error) {
	ctx, cancel := context.WithTimeout(context.Background(), keepWait)
	defer cancel()
	all, err := k.FDs(ctx)
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
