package testregistry

import (
	"strings"
	"sync"
)

// Recorder is a progress.Sink that remembers.
type Recorder struct {
	mu    sync.Mutex
	Lines []string
	aux   []any
}

// Update implements it.
func (r *Recorder) Update(id, status string, current, total int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	line := status
	if id != "" {
		line = id + ": " + status
	}
	if n := len(r.Lines); n > 0 && r.Lines[n-1] == line {
		return
	}
	r.Lines = append(r.Lines, line)
}

// Aux implements it.
func (r *Recorder) Aux(v any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.aux = append(r.aux, v)
}

// Has tells whether a line contains part.
func (r *Recorder) Has(part string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.Lines {
		if strings.Contains(l, part) {
			return true
		}
	}
	return false
}
