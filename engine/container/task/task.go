package task

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/health"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/stream"
	"github.com/gantry/gantry/internal/errclass"
)

// Task runs one container: it owns its state, and is the one goroutine that changes it. Everybody
// else sends it messages and reads the container's snapshots. Safe for concurrent use.
type Task struct {
	m       *Manager
	c       *store.Container
	clients *stream.Clients

	mail    chan message // unbuffered: what was sent is being handled
	tickets atomic.Uint64
	// letGo is closed when the shim has let go of the run before.
	letGo atomic.Pointer[chan struct{}]
	// withVolumes: who removes it wants its anonymous volumes removed too.
	withVolumes atomic.Bool

	// Of the goroutine only.
	state   fsm.State
	current *store.Run
	replies map[fsm.Ticket]chan<- fsm.Answer
	saved   store.Last // what last.json says
	timers  map[fsm.TimerKind]*time.Timer
	health  *health.Watch
}

// message is an event for the state machine, a change of the task's own data, or both.
type message struct {
	ev    fsm.Event
	reply chan<- fsm.Answer // cap 1, for the ticket in t
	t     fsm.Ticket
	do    func() // run by the task before ev
	seen  func() // run by the task when everybody sees what ev made, before anybody is answered
}

// newTask publishes the container's first snapshot; Manager.run starts the goroutine.
func (m *Manager) newTask(r *store.Record, st fsm.State, current *store.Run, started time.Time) *Task {
	t := &Task{m: m, mail: make(chan message), state: st, current: current, saved: store.LastOf(st, started)}
	v := &store.View{State: st, Current: current, Started: started}
	t.c = store.NewContainer(r, v)
	t.health = newWatch(t)
	v.Health = t.health.Health() // nobody reads it yet
	t.clients = stream.New(t.c, m.Shim, m.Bus, m.Log, m.Scope)
	return t
}

// Container is what the task publishes.
func (t *Task) Container() *store.Container { return t.c }

// Clients are those of the container's streams.
func (t *Task) Clients() *stream.Clients { return t.clients }

func (t *Task) loop() {
	defer t.c.End()
	for {
		select {
		case <-t.m.Scope.Context().Done():
			t.stopTimers()
			for ticket, reply := range t.replies {
				delete(t.replies, ticket)
				reply <- fsm.Answer{T: ticket, Err: errclass.Unavailable("the daemon is shutting down")}
			}
			return
		case msg := <-t.mail:
			t.handle(msg)
			if t.state.Phase == fsm.Removed && len(t.replies) == 0 {
				t.stopTimers()
				return
			}
		}
	}
}

func (t *Task) handle(msg message) {
	if msg.t != 0 {
		if t.replies == nil {
			t.replies = map[fsm.Ticket]chan<- fsm.Answer{}
		}
		t.replies[msg.t] = msg.reply
	}
	if msg.do != nil {
		msg.do()
	}
	var effects []fsm.Effect
	before := t.state.Phase
	if msg.ev != nil {
		t.state, effects = fsm.Step(t.state, msg.ev)
	}
	started := t.c.View().Started
	if t.current != nil {
		started = t.current.Started
	}
	t.health.Tend(health.Run{Number: t.state.Run, Up: t.state.Phase.Up(), Running: t.state.Phase == fsm.Running, Started: started}, t.c.Record().Config)
	t.c.SetView(&store.View{State: t.state, Current: t.current, Started: started, Health: t.health.Health()})
	if msg.seen != nil {
		msg.seen()
	}
	if t.state.Phase != before {
		t.c.Notify()
	}
	t.persist(started)
	for _, e := range effects {
		t.perform(e)
	}
}

// persist keeps last.json true: of every end before the shim may forget it, and of
// every start, so that an end that nobody saw can be told from none. Nothing is kept of
// containers that remove themselves.
func (t *Task) persist(started time.Time) {
	st := t.state
	switch st.Phase {
	case fsm.Created, fsm.Exited, fsm.Restarting, fsm.Dead:
	case fsm.Running, fsm.Exiting:
		if st.AutoRemove {
			return
		}
	default:
		return
	}
	last := store.LastOf(st, started)
	if last == t.saved {
		return
	}
	t.saved = last
	if err := t.m.Files.SaveLast(t.c.ID, &last); err != nil {
		t.m.Log.Warn("keeping a container's state", "container", t.c.ID, "error", err)
	}
}

func (t *Task) perform(e fsm.Effect) {
	switch e := e.(type) {
	case fsm.Answer:
		if reply, ok := t.replies[e.T]; ok {
			delete(t.replies, e.T)
			reply <- e
		}
	case fsm.Tell:
		t.tell(e)
	case fsm.Timer:
		t.timer(e)
	case fsm.Run:
		t.m.Scope.Go(func() { t.start(e.Run) })
	case fsm.Signal:
		t.effect(func(ctx context.Context) fsm.Event {
			return fsm.Signaled{Run: e.Run, T: e.T, Err: t.m.Shim.Signal(ctx, t.c.Key(e.Run), e.Signal)}
		})
	case fsm.Freeze:
		t.effect(func(ctx context.Context) fsm.Event {
			return fsm.Froze{Run: e.Run, T: e.T, Err: t.m.Shim.Pause(ctx, t.c.Key(e.Run))}
		})
	case fsm.Thaw:
		t.effect(func(ctx context.Context) fsm.Event {
			return fsm.Thawed{Run: e.Run, T: e.T, Err: t.m.Shim.Resume(ctx, t.c.Key(e.Run))}
		})
	case fsm.Teardown:
		t.effect(func(ctx context.Context) fsm.Event {
			t.tearDown(ctx, e.Run)
			return fsm.TornDown(e)
		})
	case fsm.Forget:
		t.forget(e.Run)
	case fsm.Delete:
		t.effect(func(ctx context.Context) fsm.Event { return fsm.Deleted{Err: t.remove(ctx)} })
	}
}

// effectTimeout bounds an effect that asks the shim or the network.
const effectTimeout = 2 * time.Minute

// effect runs f beside the task and sends it the result.
func (t *Task) effect(f func(ctx context.Context) fsm.Event) {
	t.m.Scope.Go(func() {
		ctx, cancel := t.m.Scope.Timeout(effectTimeout)
		defer cancel()
		t.send(message{ev: f(ctx)})
	})
}

// send hands the task a message; false when it has ended.
func (t *Task) send(msg message) bool {
	select {
	case t.mail <- msg:
		return true
	case <-t.c.Done():
		return false
	}
}

func (t *Task) timer(e fsm.Timer) {
	if t.timers == nil {
		t.timers = map[fsm.TimerKind]*time.Timer{}
	}
	if old := t.timers[e.Kind]; old != nil && e.Kind == fsm.Backoff {
		old.Stop()
	}
	t.timers[e.Kind] = time.AfterFunc(e.After, func() { t.send(message{ev: fsm.Fired{Run: e.Run, Kind: e.Kind}}) })
}

func (t *Task) stopTimers() {
	t.health.Stop()
	for _, timer := range t.timers {
		timer.Stop()
	}
}

// Ask sends a request and waits for its answer, or for ctx. Errors are the state machine's, or
// what an effect answered.
func (t *Task) Ask(ctx context.Context, ev func(fsm.Ticket) fsm.Event) error {
	_, reply, err := t.request(ev)
	if err != nil {
		return err
	}
	select {
	case a := <-reply:
		return a.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// request sends a request; its one answer comes on the channel.
func (t *Task) request(ev func(fsm.Ticket) fsm.Event) (fsm.Ticket, <-chan fsm.Answer, error) {
	ticket := fsm.Ticket(t.tickets.Add(1))
	reply := make(chan fsm.Answer, 1)
	if !t.send(message{ev: ev(ticket), t: ticket, reply: reply}) {
		return 0, nil, fsm.ErrGone
	}
	return ticket, reply, nil
}

// Waiting is a wait that stands.
type Waiting struct {
	t      *Task
	ticket fsm.Ticket
	reply  <-chan fsm.Answer
}

// Wait begins to wait for a condition; fsm.ErrGone when the container is.
func (t *Task) Wait(cond fsm.Condition) (*Waiting, error) {
	ticket, reply, err := t.request(func(ticket fsm.Ticket) fsm.Event { return fsm.Wait{T: ticket, Cond: cond} })
	if err != nil {
		return nil, err
	}
	return &Waiting{t, ticket, reply}, nil
}

// Answer returns the exit code when the condition holds; when ctx ends, its error.
func (w *Waiting) Answer(ctx context.Context) (code int, err error) {
	select {
	case a := <-w.reply:
		return a.Code, a.Err
	case <-ctx.Done():
		w.t.send(message{ev: fsm.CancelWait{T: w.ticket}})
		return -1, ctx.Err()
	}
}

// Remove deletes the container, volumes with its anonymous volumes.
func (t *Task) Remove(ctx context.Context, force, volumes bool) error {
	if volumes {
		t.withVolumes.Store(true)
	}
	err := t.Ask(ctx, func(ticket fsm.Ticket) fsm.Event { return fsm.Remove{T: ticket, Force: force} })
	if err != nil && volumes && !errors.Is(err, fsm.ErrRemoving) {
		t.withVolumes.Store(false)
	}
	return err
}

// call runs f in the task and waits for its answer; fsm.ErrGone when the task has ended.
func (t *Task) call(ctx context.Context, f func() error) error {
	answer := make(chan error, 1)
	if !t.send(message{do: func() { answer <- f() }}) {
		return fsm.ErrGone
	}
	select {
	case err := <-answer:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
