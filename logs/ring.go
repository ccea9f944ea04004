package logs

import (
	"bytes"
	"sync"
	"time"
)

// NonBlocking puts a queue of limit bytes before w, which it closes with itself. Write never
// waits: what does not fit is dropped, whole lines as far as they can be told, and never so
// that pieces of two lines become one. Output that is larger than the limit by itself is taken
// when nothing else waits.
func NonBlocking(w Writer, limit int64) Writer {
	r := &ring{w: w, limit: limit, done: make(chan struct{})}
	r.more.L = &r.mu
	go r.drain()
	return r
}

type ring struct {
	w     Writer
	limit int64
	done  chan struct{} // closed when everything is written

	mu     sync.Mutex
	more   sync.Cond
	queue  []chunk
	size   int64 // of what waits and what is being written
	closed bool
	open   [2]bool // what was taken last of a stream is an unfinished line
	skip   [2]bool // a line was dropped in its middle: the rest of it goes too
}

// chunk is output that waits; without data it is a flush.
type chunk struct {
	s    Stream
	at   time.Time
	data []byte
}

func (r *ring) Write(s Stream, p []byte, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	if r.skip[s] {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			return
		}
		r.skip[s], p = false, p[i+1:]
	}
	if len(p) == 0 {
		return
	}
	take := p
	if room := max(r.limit-r.size, 0); r.size > 0 && int64(len(p)) > room {
		take = p[:bytes.LastIndexByte(p[:room], '\n')+1]
		r.skip[s] = p[len(p)-1] != '\n'
		if len(take) == 0 && r.open[s] {
			r.put(chunk{s: s, at: at}) // what was taken of the line stands by itself
			r.open[s] = false
		}
	}
	if len(take) > 0 {
		r.put(chunk{s: s, at: at, data: bytes.Clone(take)})
		r.open[s] = take[len(take)-1] != '\n'
	}
}

func (r *ring) Flush(s Stream, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.closed {
		r.put(chunk{s: s, at: at})
		r.open[s] = false
	}
}

// put queues c; r.mu is held.
func (r *ring) put(c chunk) {
	r.queue = append(r.queue, c)
	r.size += int64(len(c.data))
	r.more.Signal()
}

func (r *ring) drain() {
	defer close(r.done)
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for len(r.queue) == 0 {
			if r.closed {
				return
			}
			r.more.Wait()
		}
		batch := r.queue
		r.queue = nil
		for _, c := range batch {
			r.mu.Unlock()
			if len(c.data) == 0 {
				r.w.Flush(c.s, c.at)
			} else {
				r.w.Write(c.s, c.data, c.at)
			}
			r.mu.Lock()
			r.size -= int64(len(c.data))
		}
	}
}

func (r *ring) Close() error {
	r.mu.Lock()
	r.closed = true
	r.more.Signal()
	r.mu.Unlock()
	<-r.done
	return r.w.Close()
}
