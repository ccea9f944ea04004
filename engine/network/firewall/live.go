package firewall

import (
	"slices"
	"sync"

	"github.com/gantry/gantry/engine/network/driver"
	"github.com/gantry/gantry/engine/network/ports"
	"github.com/gantry/gantry/internal/nft"
)

// Live keeps what the firewall should be and brings the kernel there. Changes that come
// in while a transaction runs share the next one: a commit costs the same for one
// port and for a hundred. Safe for concurrent use.
type Live struct {
	conn     *nft.Conn // nil: the firewall is switched off
	settings Settings

	commit sync.Mutex // held by the one who talks to the kernel

	mu      sync.Mutex
	ready   bool // Apply has been made once
	bridges map[string]driver.Bridge
	ports   map[string][]ports.Mapping // by container ID
	drop    bool
	foreign []string
	links   []Link
	want    map[string]*liveElem
	dirty   map[string]struct{}
	next    *liveBatch
}

// liveElem is one element of a set, as wanted and as the kernel has it.
type liveElem struct {
	nft.SetElems
	refs    int
	applied bool
}

type liveBatch struct {
	done chan struct{}
	err  error
}

// NewLive returns an empty firewall; nothing is applied before Apply, and nothing ever
// when conn is nil.
func NewLive(conn *nft.Conn, settings Settings) *Live {
	return &Live{
		conn: conn, settings: settings, bridges: map[string]driver.Bridge{}, ports: map[string][]ports.Mapping{},
		want: map[string]*liveElem{}, dirty: map[string]struct{}{},
	}
}

// SetBridge adds or replaces a bridge network.
func (f *Live) SetBridge(b driver.Bridge) error {
	f.mu.Lock()
	if old, ok := f.bridges[b.Name]; ok {
		f.ref(bridgeElems(old), -1)
	}
	f.bridges[b.Name] = b
	f.ref(bridgeElems(b), 1)
	err := f.flush()
	if err != nil {
		f.dropBridge(b.Name)
	}
	return err
}

// RemoveBridge forgets a bridge network.
func (f *Live) RemoveBridge(name string) error {
	f.mu.Lock()
	if b, ok := f.bridges[name]; ok {
		f.ref(bridgeElems(b), -1)
		delete(f.bridges, name)
	}
	return f.flush()
}

func (f *Live) dropBridge(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := f.bridges[name]; ok {
		f.ref(bridgeElems(b), -1)
		delete(f.bridges, name)
	}
}

// SetForeign replaces the list of the host's other bridges.
func (f *Live) SetForeign(names []string) error {
	f.mu.Lock()
	f.ref(foreignElems(f.foreign), -1)
	f.foreign = slices.Clone(names)
	f.ref(foreignElems(names), 1)
	return f.flush()
}

// SetLinks replaces what containers may reach of each other although icc is off. When it
// fails they are what they were.
func (f *Live) SetLinks(links []Link) error {
	f.mu.Lock()
	old := f.links
	if len(old) == 0 && len(links) == 0 {
		f.mu.Unlock()
		return nil
	}
	swap := func(from, to []Link) {
		f.ref(linkElems(to), 1)
		f.ref(linkElems(from), -1)
		f.links = to
	}
	swap(old, slices.Clone(links))
	if err := f.flush(); err != nil {
		f.mu.Lock()
		swap(f.links, old)
		f.mu.Unlock()
		return err
	}
	return nil
}

// Publish makes a container's ports these, in one transaction; none where none were cost
// nothing. When it fails the container's are what they were.
func (f *Live) Publish(containerID string, now []ports.Mapping) error {
	f.mu.Lock()
	old := f.ports[containerID]
	if len(now) == 0 && len(old) == 0 {
		f.mu.Unlock()
		return nil
	}
	swap := func(from, to []ports.Mapping) {
		f.refPorts(to, 1)
		f.refPorts(from, -1)
		if f.ports[containerID] = to; len(to) == 0 {
			delete(f.ports, containerID)
		}
	}
	swap(old, now)
	if err := f.flush(); err != nil {
		f.mu.Lock()
		swap(now, old)
		f.mu.Unlock()
		return err
	}
	return nil
}

// Unpublish removes a container's ports.
func (f *Live) Unpublish(containerID string) error {
	f.mu.Lock()
	old, ok := f.ports[containerID]
	if !ok {
		f.mu.Unlock()
		return nil
	}
	f.refPorts(old, -1)
	delete(f.ports, containerID)
	return f.flush()
}

func (f *Live) refPorts(ms []ports.Mapping, n int) {
	for _, m := range ms {
		f.ref(portElems(m, f.bridges[m.Interface], f.settings.DirectRouting), n)
	}
}

func (f *Live) ref(elems []nft.SetElems, n int) {
	for _, se := range elems {
		key := se.Set + " " + se.Elems[0].String()
		e := f.want[key]
		if e == nil {
			e = &liveElem{SetElems: se}
			f.want[key] = e
		}
		e.refs += n
		f.dirty[key] = struct{}{}
	}
}

// flush is called with mu held and returns without it, when the kernel has what was
// wanted at the call.
func (f *Live) flush() error {
	if f.conn == nil || !f.ready {
		f.mu.Unlock()
		return nil
	}
	b, leader := f.next, false
	if b == nil {
		b, leader = &liveBatch{done: make(chan struct{})}, true
		f.next = b
	}
	f.mu.Unlock()
	if !leader {
		<-b.done
		return b.err
	}
	f.commit.Lock()
	defer f.commit.Unlock()
	f.mu.Lock()
	f.next = nil
	ch, undo := f.changes()
	f.mu.Unlock()
	if !ch.Empty() {
		b.err = f.conn.Update(ch)
	}
	if b.err != nil {
		// Somebody changed our table, or one element is refused: start over from the state.
		if err := f.applyAll(); err == nil {
			b.err = nil
		} else {
			f.mu.Lock()
			undo()
			f.mu.Unlock()
		}
	}
	close(b.done)
	return b.err
}

// changes turns the dirty elements into one transaction and takes it as made; undo
// takes that back.
func (f *Live) changes() (nft.Changes, func()) {
	var ch nft.Changes
	flipped := map[string]*liveElem{}
	for key := range f.dirty {
		e := f.want[key]
		switch {
		case e.refs > 0 && !e.applied:
			ch.Add = append(ch.Add, e.SetElems)
			e.applied = true
			flipped[key] = e
		case e.refs <= 0 && e.applied:
			ch.Del = append(ch.Del, e.SetElems)
			e.applied = false
			flipped[key] = e
		}
		if e.refs <= 0 {
			delete(f.want, key)
		}
	}
	clear(f.dirty)
	return merge(ch), func() {
		for key, e := range flipped {
			e.applied = !e.applied
			if f.want[key] == nil {
				f.want[key] = e
			}
			f.dirty[key] = struct{}{}
		}
	}
}

// merge puts the elements of one set together: one message each.
func merge(ch nft.Changes) nft.Changes {
	one := func(list []nft.SetElems) []nft.SetElems {
		at := map[string]int{}
		var out []nft.SetElems
		for _, se := range list {
			i, ok := at[se.Set]
			if !ok {
				i = len(out)
				at[se.Set] = i
				out = append(out, nft.SetElems{Set: se.Set})
			}
			out[i].Elems = append(out[i].Elems, se.Elems...)
		}
		return out
	}
	return nft.Changes{Add: one(ch.Add), Del: one(ch.Del)}
}

// Apply makes the kernel's table what the state says, from whatever it is.
func (f *Live) Apply() error {
	if f.conn == nil {
		return nil
	}
	f.commit.Lock()
	defer f.commit.Unlock()
	return f.applyAll()
}

// applyAll is apply with commit held.
func (f *Live) applyAll() error {
	f.mu.Lock()
	rs := Compute(f.state())
	applied := map[string]bool{}
	for key, e := range f.want {
		applied[key] = e.refs > 0
	}
	f.mu.Unlock()
	if err := f.conn.Apply(rs); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ready = true
	for key, e := range f.want {
		e.applied = applied[key]
	}
	return nil
}

// DropForward sets whether forwarded packets that are none of ours are dropped, from
// the next Apply on.
func (f *Live) DropForward(on bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.drop = on
}

// Ruleset is what the kernel should have now.
func (f *Live) Ruleset() nft.Ruleset {
	f.mu.Lock()
	defer f.mu.Unlock()
	return Compute(f.state())
}

func (f *Live) state() State {
	s := State{Settings: f.settings, DropForward: f.drop, Foreign: f.foreign, Links: f.links}
	for _, b := range f.bridges {
		s.Bridges = append(s.Bridges, b)
	}
	for _, ps := range f.ports {
		s.Ports = append(s.Ports, ps...)
	}
	return s
}
