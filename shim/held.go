package shim

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/logs"
	"golang.org/x/sys/unix"
)

// held is what the client keeps of one process: enough to hand it to a new shim.
// The descriptors are raw numbers on purpose: as os.File they would be registered
// in the daemon's poller, which would wake up for every byte of output.
type held struct {
	started  Started
	log      *logs.Config
	tty      bool
	once     bool
	paused   bool
	adopted  bool
	lost     bool
	exit     *Exit
	fds      map[string]int
	attach   []AttachSpec
	conns    map[string]int // by AttachSpec.Client
	watching bool           // a goroutine reaps it for the shim
}

func (h *held) closeStdio() {
	for name, fd := range h.fds {
		if name != "pidfd" {
			unix.Close(fd)
			delete(h.fds, name)
		}
	}
}

func (h *held) close() {
	for _, fd := range h.fds {
		unix.Close(fd)
	}
	for _, fd := range h.conns {
		unix.Close(fd)
	}
	h.fds, h.conns = nil, nil
}

// status is the message by which h is handed over to the shim's successor. The descriptors stay h's.
func (h *held) status(key Key) (Status, []int) {
	st := Status{
		Started: h.started, Key: key, Paused: h.paused, Exit: h.exit, Adopted: true, LostOutput: h.lost,
		Terminal: h.tty, StdinOnce: h.once, Log: h.log,
	}
	st.FDs = nil
	var fds []int
	for name, fd := range h.fds {
		st.FDs = append(st.FDs, name)
		fds = append(fds, fd)
	}
	for _, a := range h.attach {
		fd, ok := h.conns[a.Client]
		if !ok || len(fds) >= MaxFDs {
			continue
		}
		a.Prefix = nil
		st.Attach = append(st.Attach, a)
		st.FDs = append(st.FDs, ClientFD(a.Client))
		fds = append(fds, fd)
	}
	return st, fds
}

// clientFD begins the names of descriptors that are clients' connections.
const clientFD = "client:"

// ClientFD is the name in Status.FDs of a client's connection.
func ClientFD(client string) string { return clientFD + client }

// processes is the table of what the client keeps, safe for concurrent use. It owns the
// descriptors in it.
type processes struct {
	mu    sync.Mutex
	byKey map[Key]*held
}

// keep takes h over, in place of what was kept of key.
func (t *processes) keep(key Key, h *held) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if old := t.byKey[key]; old != nil {
		old.close()
	}
	t.byKey[key] = h
}

func (t *processes) forget(key Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.byKey[key]; h != nil {
		h.close()
		delete(t.byKey, key)
	}
}

// retain forgets everything but the keys of seen.
func (t *processes) retain(seen map[Key]bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k, h := range t.byKey {
		if !seen[k] {
			h.close()
			delete(t.byKey, k)
		}
	}
}

// pidfd duplicates the pidfd that is kept of a process.
func (t *processes) pidfd(key Key) (*os.File, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byKey[key]
	if h == nil {
		return nil, notHeld(key)
	}
	old, ok := h.fds["pidfd"]
	if !ok {
		return nil, notHeld(key)
	}
	fd, err := unix.FcntlInt(uintptr(old), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, fmt.Errorf("duplicate pidfd: %w", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// setPaused remembers what a successor of the shim must know, unless err is set, which
// it returns.
func (t *processes) setPaused(key Key, paused bool, err error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if h := t.byKey[key]; h != nil && err == nil {
		h.paused = paused
	}
	return err
}

// addConn keeps a client's connection, which it takes over unless it fails.
func (t *processes) addConn(key Key, a AttachSpec, fd int) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byKey[key]
	if h == nil {
		return notHeld(key)
	}
	if h.conns == nil {
		h.conns = map[string]int{}
	}
	if _, ok := h.conns[a.Client]; ok {
		return errclass.With(errdefs.ErrAlreadyExists, errors.New("client "+a.Client+" is attached already"))
	}
	h.conns[a.Client] = fd
	a.Prefix = nil // it went to stdin with the first request
	h.attach = append(h.attach[:len(h.attach):len(h.attach)], a)
	return nil
}

func (t *processes) dropConn(key Key, client string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byKey[key]
	if h == nil {
		return
	}
	if fd, ok := h.conns[client]; ok {
		unix.Close(fd)
		delete(h.conns, client)
	}
	var rest []AttachSpec
	for _, a := range h.attach {
		if a.Client != client {
			rest = append(rest, a)
		}
	}
	h.attach = rest
}

// dropStdin lets go of the process's input, which ends with the last duplicate.
func (t *processes) dropStdin(key Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byKey[key]
	if h == nil {
		return
	}
	if fd, ok := h.fds["stdin"]; ok {
		unix.Close(fd)
		delete(h.fds, "stdin")
	}
}

func (t *processes) closeAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, h := range t.byKey {
		h.close()
	}
	clear(t.byKey)
}

// ended records an exit and tells whether it is news.
func (t *processes) ended(x *Exit) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := t.byKey[x.Key]
	if h == nil {
		return true
	}
	if h.exit != nil {
		return false
	}
	h.exit = x
	h.closeStdio()
	return true
}

// take keeps one listed process with its descriptors, and tells whether its exit was not
// known before.
func (t *processes) take(st *Status, fds []int) (news bool) {
	h := &held{
		started: st.Started, log: st.Log, tty: st.Terminal, once: st.StdinOnce, paused: st.Paused,
		adopted: st.Adopted, lost: st.LostOutput, attach: st.Attach,
		fds: map[string]int{}, conns: map[string]int{},
	}
	for i, name := range st.FDs {
		if len(name) > len(clientFD) && name[:len(clientFD)] == clientFD {
			h.conns[name[len(clientFD):]] = fds[i]
		} else {
			h.fds[name] = fds[i]
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	old := t.byKey[st.Key]
	news = st.Exit != nil && (old == nil || old.exit == nil)
	h.exit = st.Exit
	if old != nil {
		h.watching = old.watching
		if h.exit == nil && old.exit != nil {
			h.exit = old.exit // it came while the list was under way
			h.closeStdio()
		}
		old.close()
	}
	t.byKey[st.Key] = h
	return news
}

// handedOver is one process as a new shim is given it; the descriptors stay the table's.
type handedOver struct {
	status Status
	fds    []int
}

// all lists everything for a new shim. There is no session meanwhile, so nobody else
// changes the table, and the numbers hold.
func (t *processes) all() []handedOver {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]handedOver, 0, len(t.byKey))
	for key, h := range t.byKey {
		st, fds := h.status(key)
		list = append(list, handedOver{st, fds})
	}
	return list
}

// orphans are the running processes that nobody watches and whose parent is not the shim
// (with all: any), each with a watch, which is the caller's to close. onError hears of
// those that cannot be watched.
func (t *processes) orphans(all bool, onError func(Key, error)) map[Key]*PidWatch {
	t.mu.Lock()
	defer t.mu.Unlock()
	found := map[Key]*PidWatch{}
	for key, h := range t.byKey {
		fd, ok := h.fds["pidfd"]
		if h.exit != nil || h.watching || !ok || !all && !h.adopted {
			continue
		}
		w, err := WatchPidfd(fd)
		if err != nil {
			onError(key, err)
			continue
		}
		h.watching = true
		found[key] = w
	}
	return found
}

func notHeld(key Key) error {
	if key.Exec != "" {
		return errclass.NotFound("exec %s of container %s is not held by the shim", key.Exec, key.Container)
	}
	return errclass.NotFound("container %s is not held by the shim", key.Container)
}
