// Package progress reports how far a pull, load or push is, in Docker's terms.
package progress

import (
	"io"
	"sync"
	"time"
)

// Sink receives what a pull, load or push does: the status line of a layer or of the
// whole. Implementations are safe for concurrent use.
type Sink interface {
	// Update reports on one layer (short id, "" for the whole): status such as
	// "Downloading", and how far it is in bytes, both 0 when that is not told.
	Update(id, status string, current, total int64)
	// Aux sends a machine-readable message.
	Aux(v any)
}

// Discard is a Sink that forgets everything.
type Discard struct{}

// Update implements Sink.
func (Discard) Update(string, string, int64, int64) {}

// Aux implements Sink.
func (Discard) Aux(any) {}

// reportEvery bounds how often the progress of one layer is told.
const reportEvery = 100 * time.Millisecond

// Meter tells a Sink how far one layer is, not too often. Safe for concurrent use.
type Meter struct {
	sink   Sink
	id     string
	status string
	total  int64

	mu      sync.Mutex
	current int64
	last    time.Time
	mute    bool
}

// NewMeter returns a meter for a layer of total bytes, current of which are done.
func NewMeter(sink Sink, id, status string, current, total int64) *Meter {
	return &Meter{sink: sink, id: id, status: status, current: current, total: total}
}

// Mute makes the meter count without telling, until Unmute.
func (m *Meter) Mute() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mute = true
}

// Unmute tells how far it is, and goes on telling.
func (m *Meter) Unmute() {
	m.mu.Lock()
	m.mute = false
	m.mu.Unlock()
	m.Report()
}

// Add counts n bytes more.
func (m *Meter) Add(n int) {
	m.mu.Lock()
	m.current += int64(n)
	m.mu.Unlock()
	m.report(false)
}

// Report tells how far it is now, unless the meter is mute.
func (m *Meter) Report() { m.report(true) }

func (m *Meter) report(always bool) {
	m.mu.Lock()
	now := time.Now()
	if m.mute || !always && now.Sub(m.last) < reportEvery && m.current != m.total {
		m.mu.Unlock()
		return
	}
	m.last = now
	current := m.current
	m.mu.Unlock()
	m.sink.Update(m.id, m.status, current, m.total)
}

// Reader counts what is read from r.
func (m *Meter) Reader(r io.Reader) io.Reader { return meterReader{m, r} }

type meterReader struct {
	m *Meter
	r io.Reader
}

func (r meterReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.m.Add(n)
	}
	return n, err
}
