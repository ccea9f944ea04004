package container

import (
	"regexp"
	"slices"
	"sort"
	"strings"
	"sync"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
)

// index finds containers by ID, unambiguous prefix of an ID, and name. Names are
// reserved before a container exists, so that two creates never share one.
type index struct {
	mu    sync.RWMutex
	byID  map[string]*owner
	names map[string]string // name → ID
	ids   []string          // sorted, for prefixes
}

func newIndex() *index {
	return &index{byID: map[string]*owner{}, names: map[string]string{}}
}

// maxName bounds a name, which becomes part of host names and file names.
const maxName = 255

func checkName(name string) error {
	if bare := strings.TrimPrefix(name, "/"); len(bare) > maxName || !validName(bare) {
		return errclass.Invalid("Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed", name)
	}
	return nil
}

func validName(name string) bool {
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return false
		}
	}
	return len(name) > 1
}

// reserve takes a name for a container; class Conflict when it is in use.
func (x *index) reserve(name, cid string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if other, ok := x.names[name]; ok && other != cid {
		return errclass.Conflict("Conflict. The container name \"/%s\" is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", name, other)
	}
	x.names[name] = cid
	return nil
}

// release gives a name back if the container has it.
func (x *index) release(name, cid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.names[name] == cid {
		delete(x.names, name)
	}
}

func (x *index) add(o *owner) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[o.id] = o
	i, _ := slices.BinarySearch(x.ids, o.id)
	x.ids = slices.Insert(x.ids, i, o.id)
}

func (x *index) remove(cid string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, cid)
	if i, ok := slices.BinarySearch(x.ids, cid); ok {
		x.ids = slices.Delete(x.ids, i, i+1)
	}
}

// get finds a container: full ID, then name, then the name another's
// link gives it ("parent/alias"), then prefix of an ID, as Docker.
func (x *index) get(ref string) (*owner, error) {
	x.mu.RLock()
	defer x.mu.RUnlock()
	if o, ok := x.byID[ref]; ok {
		return o, nil
	}
	if cid, ok := x.names[strings.TrimPrefix(ref, "/")]; ok {
		if o, ok := x.byID[cid]; ok {
			return o, nil
		}
	}
	if parent, alias, ok := strings.Cut(strings.TrimPrefix(ref, "/"), "/"); ok {
		if o, ok := x.byID[x.names[parent]]; ok {
			for _, l := range o.rec.Load().Links {
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

// byFullID finds a container by its whole ID only.
func (x *index) byFullID(cid string) *owner {
	x.mu.RLock()
	defer x.mu.RUnlock()
	return x.byID[cid]
}

// all returns every container, in no order.
func (x *index) all() []*owner {
	x.mu.RLock()
	defer x.mu.RUnlock()
	list := make([]*owner, 0, len(x.byID))
	for _, o := range x.byID {
		list = append(list, o)
	}
	return list
}

// matcher is Docker's match of name filters: a regular expression, the text itself
// when it is none.
func matcher(pattern string) func(string) bool {
	re, err := regexp.Compile(pattern)
	if err != nil {
		return func(s string) bool { return s == pattern }
	}
	return re.MatchString
}
