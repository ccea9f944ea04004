package container

import (
	"context"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/health"
	"github.com/gantry/gantry/engine/container/userdb"
	"github.com/gantry/gantry/engine/network"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	containertypes "github.com/moby/moby/api/types/container"
	networktypes "github.com/moby/moby/api/types/network"
)

// owner is one container: its record, its state, and the one goroutine that changes
// them. Everybody else sends it messages and reads published snapshots.
type owner struct {
	s  *Service
	id string

	mail chan message // unbuffered: what was sent is being handled
	done chan struct{}

	rec  atomic.Pointer[record]
	view atomic.Pointer[view]

	tickets atomic.Uint64
	users   userdb.Cache // of the container's root

	// Of the goroutine only.
	state   fsm.State
	run     *runInfo
	replies map[fsm.Ticket]chan<- fsm.Answer
	saved   lastRecord // what last.json says
	timers  map[fsm.TimerKind]*time.Timer
	health  *health.Watch

	// streams guards what attached clients need.
	streams struct {
		sync.Mutex
		pending []pendingAttach
		live    *shim.Key // set while a process runs
		// arriving counts clients that are being told that they are attached; arrived is
		// closed when there are none left.
		arriving int
		arrived  chan struct{}
	}
	// forgotten is closed when the shim has let go of the run before.
	forgotten atomic.Pointer[chan struct{}]
	// withVolumes: who removes it wants its anonymous volumes removed too.
	withVolumes atomic.Bool
	changed     notifier
}

// view is a snapshot of a container's state. It is never changed.
type view struct {
	fsm.State
	run     *runInfo // of the run that is up, or was last; nil before the first
	started time.Time
	health  *containertypes.Health
}

// runInfo is what is known of one run. It is never changed.
type runInfo struct {
	number    uint64
	pid       int
	started   time.Time
	cgroup    oci.CgroupRef
	sandbox   *network.Record
	endpoints map[string]*networktypes.EndpointSettings
	ports     networktypes.PortMap
	lost      bool // output was lost while both daemon and shim were dead
}

// message is an event for the state machine, a change of the owner's own data, or both.
type message struct {
	ev    fsm.Event
	reply chan<- fsm.Answer // cap 1, for the ticket in t
	t     fsm.Ticket
	do    func(o *owner) // run by the owner before ev
	seen  func(o *owner) // run by the owner when everybody sees what ev made, before anybody is answered
}

// newOwner publishes the first snapshot; start it with go o.loop().
func (s *Service) newOwner(r *record, st fsm.State, run *runInfo, started time.Time) *owner {
	o := &owner{s: s, id: r.ID, mail: make(chan message), done: make(chan struct{}), state: st, run: run, saved: lastOf(st, started)}
	o.rec.Store(r)
	o.health = newWatch(o)
	o.view.Store(&view{State: st, run: run, started: started, health: o.health.Health()})
	return o
}

func (o *owner) loop() {
	defer close(o.done)
	for {
		select {
		case <-o.s.closing:
			stopTimers(o)
			for t, reply := range o.replies {
				delete(o.replies, t)
				reply <- fsm.Answer{T: t, Err: errclass.Unavailable("the daemon is shutting down")}
			}
			return
		case m := <-o.mail:
			o.handle(m)
			if o.state.Phase == fsm.Removed && len(o.replies) == 0 {
				stopTimers(o)
				return
			}
		}
	}
}

func (o *owner) handle(m message) {
	if m.t != 0 {
		if o.replies == nil {
			o.replies = map[fsm.Ticket]chan<- fsm.Answer{}
		}
		o.replies[m.t] = m.reply
	}
	if m.do != nil {
		m.do(o)
	}
	var effects []fsm.Effect
	before := o.state.Phase
	if m.ev != nil {
		o.state, effects = fsm.Step(o.state, m.ev)
	}
	started := o.view.Load().started
	if o.run != nil {
		started = o.run.started
	}
	o.health.Tend(health.Run{Number: o.state.Run, Up: o.state.Phase.Up(), Running: o.state.Phase == fsm.Running, Started: started}, o.rec.Load().Config)
	o.view.Store(&view{State: o.state, run: o.run, started: started, health: o.health.Health()})
	if m.seen != nil {
		m.seen(o)
	}
	if o.state.Phase != before {
		o.changed.notify()
	}
	o.persist(started)
	for _, e := range effects {
		o.perform(e)
	}
}

// persist keeps last.json true: of every end before the shim may forget it, and of
// every start, so that an end that nobody saw can be told from none. Nothing is kept of
// containers that remove themselves.
func (o *owner) persist(started time.Time) {
	st := o.state
	switch st.Phase {
	case fsm.Created, fsm.Exited, fsm.Restarting, fsm.Dead:
	case fsm.Running, fsm.Exiting:
		if st.AutoRemove {
			return
		}
	default:
		return
	}
	last := lastOf(st, started)
	if last == o.saved {
		return
	}
	o.saved = last
	if err := o.s.saveLast(o.id, &last); err != nil {
		o.s.log.Warn("keeping a container's state", "container", o.id, "error", err)
	}
}

func (o *owner) perform(e fsm.Effect) {
	switch e := e.(type) {
	case fsm.Answer:
		if reply, ok := o.replies[e.T]; ok {
			delete(o.replies, e.T)
			reply <- e
		}
	case fsm.Tell:
		o.tell(e)
	case fsm.Timer:
		o.timer(e)
	case fsm.Run:
		o.s.beside(func() { o.runRun(e.Run) })
	case fsm.Signal:
		o.effect(func(ctx context.Context) message {
			return message{ev: fsm.Signaled{Run: e.Run, T: e.T, Err: o.s.deps.Shim.Signal(ctx, o.key(e.Run), e.Signal)}}
		})
	case fsm.Freeze:
		o.effect(func(ctx context.Context) message {
			return message{ev: fsm.Froze{Run: e.Run, T: e.T, Err: o.s.deps.Shim.Pause(ctx, o.key(e.Run))}}
		})
	case fsm.Thaw:
		o.effect(func(ctx context.Context) message {
			return message{ev: fsm.Thawed{Run: e.Run, T: e.T, Err: o.s.deps.Shim.Resume(ctx, o.key(e.Run))}}
		})
	case fsm.Teardown:
		o.effect(func(ctx context.Context) message {
			o.tearDown(ctx, e.Run)
			return message{ev: fsm.TornDown(e)}
		})
	case fsm.Forget:
		forgetRun(o, e.Run)
	case fsm.Delete:
		o.effect(func(ctx context.Context) message {
			return message{ev: fsm.Deleted{Err: o.delete(ctx)}}
		})
	}
}

// effectTimeout bounds an effect that asks the shim or the network.
const effectTimeout = 2 * time.Minute

// effect runs f beside the owner and sends it the result.
func (o *owner) effect(f func(ctx context.Context) message) {
	o.s.beside(func() {
		ctx, cancel := context.WithTimeout(context.Background(), effectTimeout)
		defer cancel()
		o.send(f(ctx))
	})
}

// send hands the owner a message; false when it has ended.
func (o *owner) send(m message) bool {
	select {
	case o.mail <- m:
		return true
	case <-o.done:
		return false
	}
}

func (o *owner) timer(e fsm.Timer) {
	if o.timers == nil {
		o.timers = map[fsm.TimerKind]*time.Timer{}
	}
	if old := o.timers[e.Kind]; old != nil && e.Kind == fsm.Backoff {
		old.Stop()
	}
	o.timers[e.Kind] = time.AfterFunc(e.After, func() { o.send(message{ev: fsm.Fired{Run: e.Run, Kind: e.Kind}}) })
}

func stopTimers(o *owner) {
	o.health.Stop()
	for _, t := range o.timers {
		t.Stop()
	}
}

// ask sends a request and waits for its answer, or for ctx.
func (o *owner) ask(ctx context.Context, ev func(fsm.Ticket) fsm.Event) (fsm.Answer, error) {
	t, reply, err := o.request(ev)
	if err != nil {
		return fsm.Answer{}, err
	}
	select {
	case a := <-reply:
		return a, a.Err
	case <-ctx.Done():
		return fsm.Answer{T: t}, ctx.Err()
	}
}

// request sends a request; its one answer comes on the channel.
func (o *owner) request(ev func(fsm.Ticket) fsm.Event) (fsm.Ticket, <-chan fsm.Answer, error) {
	t := fsm.Ticket(o.tickets.Add(1))
	reply := make(chan fsm.Answer, 1)
	if !o.send(message{ev: ev(t), t: t, reply: reply}) {
		return 0, nil, fsm.ErrGone
	}
	return t, reply, nil
}

func (o *owner) key(run uint64) shim.Key { return shim.Key{Container: o.id, Run: run} }

func (o *owner) name() string { return o.rec.Load().Name }

// notifier tells any number of listeners that something changed.
type notifier struct {
	mu sync.Mutex
	ch chan struct{}
}

// wait returns a channel that is closed at the next notify.
func (n *notifier) wait() <-chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch == nil {
		n.ch = make(chan struct{})
	}
	return n.ch
}

func (n *notifier) notify() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.ch != nil {
		close(n.ch)
		n.ch = nil
	}
}

// delete removes everything of the container. It can be repeated.
func (o *owner) delete(ctx context.Context) error {
	o.waitForgotten(ctx)
	o.closePending()
	s := o.s
	if err := s.deps.Networks.Release(ctx, o.id); err != nil {
		return err
	}
	dir, gone := s.dir(o.id), s.removingDir(o.id)
	if o.rec.Load().HostConfig.AutoRemove || o.withVolumes.Load() {
		if err := os.WriteFile(filepath.Join(dir, withVolumes), nil, 0o600); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	if err := os.Rename(dir, gone); err != nil && !os.IsNotExist(err) {
		return err
	}
	if err := s.removeRest(ctx, o.id); err != nil {
		_ = os.Rename(gone, dir) // it stays, as dead; a start that finds neither forgets it
		return err
	}
	s.execs.dropContainer(o)
	s.index.release(o.name(), o.id)
	s.index.remove(o.id)
	return nil
}
