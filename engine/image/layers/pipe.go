package layers

import (
	"context"
	"io"
	"sync"
)

// pipeBuffers is how many chunks a download may be ahead of the unpacking.
const pipeBuffers = 8

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
