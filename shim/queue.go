package shim

import "sync"

// queue is an unbounded channel of events. What it holds is bounded by what the
// shim holds: one Exit a process, one Detached a client.
type queue struct {
	mu   sync.Mutex
	list []Event
	wake chan struct{}
	stop chan struct{}
	once sync.Once
	out  chan Event
}

func newQueue() *queue {
	q := &queue{wake: make(chan struct{}, 1), stop: make(chan struct{}), out: make(chan Event)}
	go q.run()
	return q
}

func (q *queue) push(e Event) {
	q.mu.Lock()
	q.list = append(q.list, e)
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) close() { q.once.Do(func() { close(q.stop) }) }

func (q *queue) run() {
	defer close(q.out)
	for {
		q.mu.Lock()
		list := q.list
		q.list = nil
		q.mu.Unlock()
		for _, e := range list {
			select {
			case q.out <- e:
			case <-q.stop:
				return
			}
		}
		select {
		case <-q.wake:
		case <-q.stop:
			return
		}
	}
}
