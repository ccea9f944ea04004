package network

import (
	"sync"

	"github.com/gantry/gantry/engine/network/firewall"
	"github.com/gantry/gantry/internal/nft"
)

// fw keeps what the firewall should be and brings the kernel there. Changes that come
// in while a transaction runs share the next one: a commit costs the same for one
// port and for a hundred.
type fw struct {
	conn   *nft.Conn // nil: the firewall is switched off
	direct bool

	commit sync.Mutex // held by the one who talks to the kernel

	mu      sync.Mutex
	ready   bool // Apply has been made once
	bridges map[string]firewall.Bridge
	ports   map[string][]firewall.Port // by owner
	drop    bool
	want    map[string]*fwElem
	dirty   map[string]struct{}
	next    *fwBatch
}

// fwElem is one element of a set, as wanted and as the kernel has it.
type fwElem struct {
	nft.SetElems
	refs    int
	applied bool
}

type fwBatch struct {
	done chan struct{}
	err  error
}

func newFW(conn *nft.Conn, direct bool) *fw {
	return &fw{conn: conn, direct: direct, bridges: map[string]firewall.Bridge{}, ports: map[string][]firewall.Port{},
		want: map[string]*fwElem{}, dirty: map[string]struct{}{}}
}

// setBridge adds or replaces a bridge network.
func (f *fw) setBridge(b firewall.Bridge) error {
	f.mu.Lock()
	if old, ok := f.bridges[b.Name]; ok {
		f.ref(firewall.BridgeElems(old), -1)
	}
	f.bridges[b.Name] = b
	f.ref(firewall.BridgeElems(b), 1)
	err := f.flush()
	if err != nil {
		f.dropBridge(b.Name)
	}
	return err
}

// removeBridge forgets a bridge network.
func (f *fw) removeBridge(name string) error {
	f.mu.Lock()
	if b, ok := f.bridges[name]; ok {
		f.ref(firewall.BridgeElems(b), -1)
		delete(f.bridges, name)
	}
	return f.flush()
}

func (f *fw) dropBridge(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b, ok := f.bridges[name]; ok {
		f.ref(firewall.BridgeElems(b), -1)
		delete(f.bridges, name)
	}
}

// publish adds an owner's ports; with none it costs nothing.
func (f *fw) publish(owner string, ports []firewall.Port) error {
	if len(ports) == 0 {
		return nil
	}
	f.mu.Lock()
	f.ports[owner] = ports
	f.refPorts(ports, 1)
	if err := f.flush(); err != nil {
		f.mu.Lock()
		f.refPorts(ports, -1)
		delete(f.ports, owner)
		f.mu.Unlock()
		return err
	}
	return nil
}

// unpublish removes an owner's ports.
func (f *fw) unpublish(owner string) error {
	f.mu.Lock()
	ports, ok := f.ports[owner]
	if !ok {
		f.mu.Unlock()
		return nil
	}
	f.refPorts(ports, -1)
	delete(f.ports, owner)
	return f.flush()
}

func (f *fw) refPorts(ports []firewall.Port, n int) {
	for _, p := range ports {
		f.ref(firewall.PortElems(p, f.bridges[p.Bridge], f.direct), n)
	}
}

func (f *fw) ref(elems []nft.SetElems, n int) {
	for _, se := range elems {
		key := se.Set + " " + se.Elems[0].String()
		e := f.want[key]
		if e == nil {
			e = &fwElem{SetElems: se}
			f.want[key] = e
		}
		e.refs += n
		f.dirty[key] = struct{}{}
	}
}

// flush is called with mu held and returns without it, when the kernel has what was
// wanted at the call.
func (f *fw) flush() error {
	if f.conn == nil || !f.ready {
		f.mu.Unlock()
		return nil
	}
	b, leader := f.next, false
	if b == nil {
		b, leader = &fwBatch{done: make(chan struct{})}, true
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
func (f *fw) changes() (nft.Changes, func()) {
	var ch nft.Changes
	flipped := map[string]*fwElem{}
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

// apply makes the kernel's table what the state says, from whatever it is.
func (f *fw) apply() error {
	if f.conn == nil {
		return nil
	}
	f.commit.Lock()
	defer f.commit.Unlock()
	return f.applyAll()
}

// applyAll is apply with commit held.
func (f *fw) applyAll() error {
	f.mu.Lock()
	rs := firewall.Compute(f.state())
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

// check applies the table again when somebody removed or flushed it; it returns
// whether that was so.
func (f *fw) check() (bool, error) {
	if f.conn == nil {
		return false, nil
	}
	f.commit.Lock()
	defer f.commit.Unlock()
	f.mu.Lock()
	rs := firewall.Compute(f.state())
	f.mu.Unlock()
	ok, err := f.conn.Intact(rs)
	if err != nil || ok {
		return false, err
	}
	return true, f.applyAll()
}

func (f *fw) state() firewall.State {
	s := firewall.State{DirectRouting: f.direct, DropForward: f.drop}
	for _, b := range f.bridges {
		s.Bridges = append(s.Bridges, b)
	}
	for _, ps := range f.ports {
		s.Ports = append(s.Ports, ps...)
	}
	return s
}
