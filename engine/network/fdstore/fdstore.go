// Package fdstore is the seam to the descriptor store: a process (the shim) that keeps
// sockets while there is no daemon, as systemd's FDSTORE does. So published ports stay taken,
// and the resolvers' sockets stay open.
package fdstore

import (
	"log/slog"
	"os"
)

// Store holds descriptors beyond the daemon's life, by name. Safe for concurrent use; calls
// are made without locks of the callers held. Errors are of no class: callers log them and
// go on, because what is stored is only needed after the daemon's death.
type Store interface {
	// Store keeps a duplicate of f, which stays the caller's, under name; an older one of
	// that name is replaced.
	Store(name string, f *os.File) error
	// Drop closes what is kept under name; an unknown name is no error.
	Drop(name string) error
	// TakeAll returns duplicates of all that is kept under names with the prefix, by whole
	// name. The caller closes them; the store keeps its own until Drop.
	TakeAll(prefix string) (map[string]*os.File, error)
}

// Restored is what a store held under one prefix when the daemon came back. The zero value
// is of a daemon without a store.
type Restored struct {
	from  Store
	files map[string]*os.File
	log   *slog.Logger
}

// Restore takes everything under a prefix from a store, which may be nil. A failure is
// logged.
func Restore(s Store, prefix string, log *slog.Logger) *Restored {
	r := &Restored{from: s, log: log}
	if s == nil {
		return r
	}
	var err error
	if r.files, err = s.TakeAll(prefix); err != nil {
		log.Warn("taking stored sockets back", "error", err)
	}
	return r
}

// Take returns the descriptor of a name, which is the caller's from then on; nil without.
func (r *Restored) Take(name string) *os.File {
	f := r.files[name]
	delete(r.files, name)
	return f
}

// DropRest closes what nobody took and has the store drop it: sockets of a start that was
// never recorded.
func (r *Restored) DropRest() {
	for name, f := range r.files {
		f.Close()
		if err := r.from.Drop(name); err != nil {
			r.log.Warn("dropping a socket that no container has", "name", name, "error", err)
		}
	}
	r.files = nil
}
