package image

import (
	"context"
	"io"
	"sync"
	"time"
)

const (
	// pipeBuffers is how many chunks a download may be ahead of the unpacking.
	pipeBuffers = 8
	// reportEvery bounds how often the progress of one layer is told.
	reportEvery = 100 * time.Millisecond
)

// pipe takes filled buffers from one goroutine and gives them to another to read.
type pipe struct {
	full chan []byte
	free chan []byte
	quit chan struct{}
	once sync.Once
	eof  sync.Once
	cur  []byte
	rest []byte
}

func newPipe() *pipe {
	p := &pipe{full: make(chan []byte, pipeBuffers), free: make(chan []byte, pipeBuffers+2), quit: make(chan struct{})}
	return p
}

// buffer returns one to fill.
func (p *pipe) buffer() []byte {
	select {
	case b := <-p.free:
		return b
	default:
		return make([]byte, chunkSize)
	}
}

// write gives a buffer away; false when the reader wants no more, or ctx is over.
func (p *pipe) write(ctx context.Context, b []byte) bool {
	select {
	case <-p.quit:
		return false
	default:
	}
	select {
	case p.full <- b:
		return true
	case <-p.quit:
	case <-ctx.Done():
	}
	return false
}

// end is the writer's: the reader gets io.EOF after what was written.
func (p *pipe) end() { p.eof.Do(func() { close(p.full) }) }

// stop ends both sides.
func (p *pipe) stop() { p.once.Do(func() { close(p.quit) }) }

// Read implements io.Reader.
func (p *pipe) Read(b []byte) (int, error) {
	for len(p.rest) == 0 {
		if p.cur != nil {
			select {
			case p.free <- p.cur[:chunkSize]:
			default:
			}
			p.cur = nil
		}
		select {
		case c, ok := <-p.full:
			if !ok {
				return 0, io.EOF
			}
			p.cur, p.rest = c, c
		case <-p.quit:
			return 0, io.ErrClosedPipe
		}
	}
	n := copy(b, p.rest)
	p.rest = p.rest[n:]
	return n, nil
}

// meter tells how far one layer is, not too often.
type meter struct {
	p      Progress
	id     string
	status string
	total  int64

	mu      sync.Mutex
	current int64
	last    time.Time
	mute    bool
}

func (m *meter) add(n int) {
	m.mu.Lock()
	m.current += int64(n)
	m.mu.Unlock()
	m.report(false)
}

func (m *meter) report(always bool) {
	m.mu.Lock()
	now := time.Now()
	if m.mute || !always && now.Sub(m.last) < reportEvery && m.current != m.total {
		m.mu.Unlock()
		return
	}
	m.last = now
	current := m.current
	m.mu.Unlock()
	m.p.Update(m.id, m.status, current, m.total)
}

func (m *meter) unmute() {
	m.mu.Lock()
	m.mute = false
	m.mu.Unlock()
	m.report(true)
}

// reader counts what is read from r.
func (m *meter) reader(r io.Reader) io.Reader { return meterReader{m, r} }

type meterReader struct {
	m *meter
	r io.Reader
}

func (r meterReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if n > 0 {
		r.m.add(n)
	}
	return n, err
}
