package store

import (
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
)

// Index finds containers by ID, unambiguous prefix of an ID, and name. Names are
// reserved before a container exists, so that two creates never share one.
type Index struct {
	mu    sync.RWMutex
	byID  map[string]*Container
	names map[string]string // name → ID
	ids   []string          // sorted, for prefixes
}

// NewIndex is an empty index.
func NewIndex() *Index {
	return &Index{byID: map[string]*Container{}, names: map[string]string{}}
}

// Reserve takes a name for a container; class Conflict when it is in use.
func (x *Index) Reserve(name, cid string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if other, ok := x.names[name]; ok && other != cid {
		return errclass.Conflict("Conflict. The container name \"/%s\" is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", name, other)
	}
	x.names[name] = cid
	return nil
}

// Release gives a name back if the container has it.
func (x *Index) Release(name, cid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.names[name] == cid {
		delete(x.names, name)
	}
}

// Add makes a container one that can be found.
func (x *Index) Add(c *Container) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[c.ID] = c
	i, _ := slices.BinarySearch(x.ids, c.ID)
	x.ids = slices.Insert(x.ids, i, c.ID)
}

// Remove makes it one that cannot; its name is given back by Release.
func (x *Index) Remove(cid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, cid)
	if i, ok := slices.BinarySearch(x.ids, cid); ok {
		x.ids = slices.Delete(x.ids, i, i+1)
	}
}

// Get finds a container: full ID, then name, then the name another's
// link gives it ("parent/alias"), then prefix of an ID, as Docker.
func (x *Index) Get(ref string) (*Container, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if c, ok := x.byID[ref]; ok {
		return c, nil
	}
	if cid, ok := x.names[strings.TrimPrefix(ref, "/")]; ok {
		if c, ok := x.byID[cid]; ok {
			return c, nil
		}
	}
	if parent, alias, ok := strings.Cut(strings.TrimPrefix(ref, "/"), "/"); ok {
		if c, ok := x.byID[x.names[parent]]; ok {
			for _, l := range c.Record().Links {
				if target, ok := x.byID[l.Target]; ok && l.Alias == alias {
					return target, nil
				}
			}
		}
	}
	if ref != "" && len(ref) < id.Len {
		i := sort.SearchStrings(x.ids, ref)
		if i < len(x.ids) && strings.HasPrefix(x.ids[i], ref) {
			if i+1 < len(x.ids) && strings.HasPrefix(x.ids[i+1], ref) {
				return nil, errclass.Invalid("multiple IDs found with provided prefix: %s", ref)
			}
			return x.byID[x.ids[i]], nil
		}
	}
	return nil, errclass.NotFound("No such container: %s", ref)
}

// ByID finds a container by its whole ID only.
func (x *Index) ByID(cid string) *Container {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byID[cid]
}

// All returns every container, in no order.
func (x *Index) All() []*Container {
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := make([]*Container, 0, len(x.byID))
	for _, c := range x.byID {
		list = append(list, c)
	}
	return list
}
