package host

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

// reaper removes, beside the requests, host interfaces that outlived their sandbox:
// a namespace that somebody else holds keeps its end of a veth alive.
type reaper struct {
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

// newReaper starts one that removes by nl. close it.
func newReaper(nl *rtnl.Conn, log *slog.Logger) *reaper {
	r := &reaper{nl: nl, log: log, wake: make(chan struct{}, 1), stop: make(chan struct{}), done: make(chan struct{})}
	go r.run()
	return r
}

// later asks for an interface to be gone soon.
func (r *reaper) later(name string) {
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

// close stops it; what is still due is found again at the next start.
func (r *reaper) close() {
	close(r.stop)
	<-r.done
}

func (r *reaper) run() {
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

// Sweep removes our interfaces that neither a running container nor a network has: a daemon was killed between
// making one and recording it, and somebody holds the namespace. What cannot be is logged.
func (h *Host) Sweep(known map[string]bool) {
	links, err := h.nl.Links(0)
	if err != nil {
		h.log.Warn("listing interfaces", "error", err)
		return
	}
	for _, l := range links {
		if l.Group != rtnl.Group || l.Kind != rtnl.KindVeth || known[l.Name] {
			continue
		}
		if _, err := h.nl.Do(rtnl.DelLink(l.Name)); err != nil {
			h.log.Warn("removing a left-over interface", "interface", l.Name, "error", err)
		}
	}
}
