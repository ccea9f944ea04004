package plumb

import (
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/gantry/gantry/internal/rtnl"
	"golang.org/x/sys/unix"
)

// reapDelay is how long a released interface may take to die with its namespace.
// Removing it by hand earlier would only make somebody wait for RCU twice.
const reapDelay = 2 * time.Second

// Reaper removes, beside the requests, host interfaces that outlived their sandbox:
// a namespace that somebody else holds keeps its end of a veth alive.
type Reaper struct {
	nl   *rtnl.Conn
	log  *slog.Logger
	mu   sync.Mutex
	due  []reapItem
	wake chan struct{}
	stop chan struct{}
	done chan struct{}
}

type reapItem struct {
	name string
	at   time.Time
}

// NewReaper starts one that removes by nl. Close it.
func NewReaper(nl *rtnl.Conn, log *slog.Logger) *Reaper {
	r := &Reaper{nl: nl, log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go r.run()
	return r
}

// Later asks for an interface to be gone soon.
func (r *Reaper) Later(name string) {
	r.mu.Lock()
	r.due = append(r.due, reapItem{name, time.Now().Add(reapDelay)})
	first := len(r.due) == 1
	r.mu.Unlock()
	if first {
		select {
		case r.wake <- struct{}{}:
		default:
		}
	}
}

// Close stops the Reaper; what is still due is found again at the next start.
func (r *Reaper) Close() {
	close(r.stop)
	<-r.done
}

func (r *Reaper) run() {
	defer close(r.done)
	for {
		var wait <-chan time.Time
		r.mu.Lock()
		if len(r.due) > 0 {
			wait = time.After(time.Until(r.due[0].at))
		}
		r.mu.Unlock()
		select {
		case <-r.stop:
			return
		case <-r.wake:
			continue
		case <-wait:
		}
		now := time.Now()
		r.mu.Lock()
		n := 0
		for n < len(r.due) && !r.due[n].at.After(now) {
			n++
		}
		batch := append([]reapItem(nil), r.due[:n]...)
		r.due = append(r.due[:0], r.due[n:]...)
		r.mu.Unlock()
		for _, it := range batch {
			if _, err := r.nl.Do(rtnl.DelLink(it.name)); err != nil && !errors.Is(err, unix.ENODEV) {
				r.log.Warn("removing a left-over interface", "interface", it.name, "error", err)
			}
		}
	}
}

// Sweep removes our interfaces that no running container has: a daemon was killed between
// making one and recording it, and somebody holds the namespace. What cannot be is logged.
func Sweep(nl *rtnl.Conn, log *slog.Logger, known func(name string) bool) {
	links, err := nl.Links(0)
	if err != nil {
		log.Warn("listing interfaces", "error", err)
		return
	}
	for _, l := range links {
		if l.Group != rtnl.Group || l.Kind != "veth" || known(l.Name) {
			continue
		}
		if _, err := nl.Do(rtnl.DelLink(l.Name)); err != nil {
			log.Warn("removing a left-over interface", "interface", l.Name, "error", err)
		}
	}
}
