// Package keep is what holds sockets while there is no daemon.
package keep

import (
	"log/slog"
	"os"
)

// Keeper holds descriptors beyond the daemon's life (the shim's fd store), so that
// published ports stay taken, and the resolver's sockets open, while the daemon is
// away. Calls are made without locks of the callers held.
type Keeper interface {
	// Store keeps a duplicate of f under name; an older one of that name is replaced.
	Store(name string, f *os.File) error
	// Drop closes what is kept under name; an unknown name is no error.
	Drop(name string) error
	// Take returns a descriptor kept under name (the keeper keeps its own), which
	// the caller closes; nil without error when there is none.
	Take(name string) (*os.File, error)
}

// Lister is a Keeper that can be asked for everything it holds under a prefix.
// It is used when there: Restore then asks once, and drops what no container has.
type Lister interface {
	// TakeAll returns descriptors of all names with the prefix, by whole name, as Take.
	TakeAll(prefix string) (map[string]*os.File, error)
}

// Kept returns how to get at the sockets a keeper, which may be nil, holds for us, and what to do
// when all containers have theirs: sockets of a start that was never recorded go.
func Kept(k Keeper, prefix string, log *slog.Logger) (take func(name string) *os.File, dropRest func()) {
	if k == nil {
		return func(string) *os.File { return nil }, func() {}
	}
	l, ok := k.(Lister)
	if !ok {
		return func(name string) *os.File {
			f, err := k.Take(name)
			if err != nil {
				log.Warn("taking a kept socket back", "name", name, "error", err)
			}
			return f
		}, func() {}
	}
	all, err := l.TakeAll(prefix)
	if err != nil {
		log.Warn("taking kept sockets back", "error", err)
	}
	return func(name string) *os.File {
			f := all[name]
			delete(all, name)
			return f
		}, func() {
			for name, f := range all {
				f.Close()
				if err := k.Drop(name); err != nil {
					log.Warn("dropping a socket that no container has", "name", name, "error", err)
				}
			}
		}
}
