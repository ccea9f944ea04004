package shimd

import (
	"encoding/binary"
	"errors"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/gantry/gantry/shim"
	"golang.org/x/sys/unix"
)

// Bounds of what is kept for a client that does not read: then the process waits.
const (
	queueLogged = 1 << 20
	queuePlain  = 256 << 10
	// linger is how long after the end a client's input is still read and dropped:
	// closing a socket with unread input would reset it and lose the output's tail.
	linger = 10 * time.Second
)

// client is one attached connection. Output is written by whoever produces it as
// long as the socket takes it; what it does not take waits in a bounded queue, which
// a goroutine writes.
type client struct {
	p    *proc
	spec shim.AttachSpec
	conn *source
	// prefix came with the request: it is input before what the connection brings.
	prefix []byte

	mu      sync.Mutex
	room    *sync.Cond
	queue   []*piece
	queued  int
	writing bool // the goroutine runs
	ending  bool // no more output; shut down when the queue is empty
	gone    bool // shut down, or the other side left
	byKeys  bool // gone since it detached: the process's input stays open
}

type piece struct {
	buf      *buffer
	from, to int
}

func newClient(p *proc, spec shim.AttachSpec, f *os.File) (*client, error) {
	src, err := newSource(f)
	if err != nil {
		return nil, err
	}
	c := &client{p: p, spec: spec, conn: src, prefix: spec.Prefix}
	c.spec.Prefix = nil
	c.room = sync.NewCond(&c.mu)
	return c, nil
}

// wants tells whether the client asked for a stream.
func (c *client) wants(stream byte) bool {
	return stream == streamOut && c.spec.Stdout || stream == streamErr && c.spec.Stderr
}

// send delivers output. It returns when the socket or the queue has it all; while
// the queue is full it waits, unless the process has ended.
func (c *client) send(stream byte, data []byte) {
	var header [8]byte
	hdr := header[:0]
	if c.spec.Mux {
		hdr = header[:]
		hdr[0] = stream
		binary.BigEndian.PutUint32(hdr[4:], uint32(len(data)))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone || c.ending {
		return
	}
	if len(c.queue) == 0 && !c.writing {
		n, ok := c.direct(hdr, data)
		if !ok {
			c.leave(false)
			return
		}
		k := min(n, len(hdr))
		hdr, data = hdr[k:], data[n-k:]
		if len(hdr)+len(data) == 0 {
			return
		}
	}
	c.enqueue(hdr)
	c.enqueue(data)
	if !c.writing {
		c.writing = true
		go c.write()
	}
	limit := queuePlain
	if c.p.log != nil {
		limit = queueLogged
	}
	for c.queued > limit && !c.gone && !c.p.over.Load() {
		c.room.Wait()
	}
}

// direct writes what the socket takes at once.
func (c *client) direct(hdr, data []byte) (n int, ok bool) {
	ok = true
	err := c.conn.raw.Control(func(fd uintptr) {
		for {
			var err error
			n, err = writev(int(fd), hdr, data)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case err == nil:
			case errors.Is(err, unix.EAGAIN):
				n = 0
			default:
				n, ok = 0, false
			}
			return
		}
	})
	return n, ok && err == nil
}

func writev(fd int, hdr, data []byte) (int, error) {
	if len(hdr) == 0 {
		return unix.SendmsgN(fd, data, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	}
	return unix.SendmsgBuffers(fd, [][]byte{hdr, data}, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
}

func (c *client) enqueue(b []byte) {
	c.queued += len(b)
	for len(b) > 0 {
		var last *piece
		if n := len(c.queue); n > 0 {
			last = c.queue[n-1]
		}
		if last == nil || last.to == chunk {
			last = &piece{buf: chunks.Get().(*buffer)}
			c.queue = append(c.queue, last)
		}
		n := copy(last.buf[last.to:], b)
		last.to += n
		b = b[n:]
	}
}

// write empties the queue into the socket, waiting for it.
func (c *client) write() {
	defer c.p.s.guard("client of " + c.p.key.Container)
	for {
		c.mu.Lock()
		if len(c.queue) == 0 || c.gone {
			c.writing = false
			if c.ending && !c.gone {
				c.finish()
			}
			c.mu.Unlock()
			return
		}
		p := c.queue[0]
		c.queue = c.queue[1:]
		if len(c.queue) == 0 {
			c.queue = nil
		}
		c.mu.Unlock()
		size := p.to - p.from
		err := writeAll(c.conn.raw, p.buf[p.from:p.to])
		chunks.Put(p.buf)
		c.mu.Lock()
		c.queued -= size
		c.room.Broadcast()
		if err != nil && !c.gone {
			c.leave(false)
		}
		c.mu.Unlock()
	}
}

func writeAll(raw syscall.RawConn, b []byte) error {
	for len(b) > 0 {
		var n int
		var werr error
		err := raw.Write(func(fd uintptr) bool {
			n, werr = unix.SendmsgN(int(fd), b, nil, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
			return werr != unix.EAGAIN && werr != unix.EINTR
		})
		if err == nil {
			err = werr
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// end lets the client's stream end once its queue is written.
func (c *client) end() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending || c.gone {
		return
	}
	c.ending = true
	if len(c.queue) == 0 && !c.writing {
		c.finish()
	}
}

// finish shuts the stream down after its last byte; the reading goroutine closes it.
func (c *client) finish() {
	_ = c.conn.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
	_ = c.conn.file.SetReadDeadline(time.Now().Add(linger))
	c.leave(false)
}

// leave marks the client as gone and tells the daemon. c.mu is held.
func (c *client) leave(keys bool) {
	if c.gone {
		return
	}
	c.gone, c.byKeys = true, keys
	for _, p := range c.queue {
		chunks.Put(p.buf)
	}
	c.queue, c.queued = nil, 0
	c.room.Broadcast()
	if !c.ending {
		// It left by itself: wake the reading goroutine, nothing is to be delivered.
		_ = c.conn.raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_WR) })
		_ = c.conn.file.SetReadDeadline(time.Now().Add(linger))
	}
	c.p.detached(c, keys)
}

// read is the goroutine of the client's input. It owns the connection's end.
func (c *client) read() {
	defer c.p.s.guard("input of " + c.p.key.Container)
	defer c.conn.file.Close()
	defer func() {
		c.mu.Lock()
		c.leave(false)
		c.mu.Unlock()
	}()
	var d *detacher
	if c.p.pty != nil { // only a terminal's input has keys: elsewhere it is data
		d = newDetacher(c.spec.DetachKeys)
	}
	b := c.prefix
	c.prefix = nil
	c.input(d, b)
	r := newReader(c.conn)
	for {
		b, err := r.next()
		if err == nil {
			c.input(d, b)
			r.release()
			continue
		}
		// A connection that broke ends the input as one that was ended.
		c.inputEnded(d)
		if errors.Is(err, io.EOF) {
			c.awaitHangup()
		}
		return
	}
}

// input hands bytes of the client to the process. Once the client has left, by the
// detach keys too, its input is dropped until it hangs up or has lingered.
func (c *client) input(d *detacher, b []byte) {
	if !c.spec.Stdin || len(b) == 0 {
		return
	}
	c.mu.Lock()
	gone := c.gone
	c.mu.Unlock()
	if gone {
		return
	}
	b, detach := d.feed(b)
	c.p.writeStdin(b)
	if detach {
		c.mu.Lock()
		c.leave(true)
		c.mu.Unlock()
	}
}

func (c *client) inputEnded(d *detacher) {
	if !c.spec.Stdin {
		return
	}
	c.mu.Lock()
	detached := c.byKeys
	c.mu.Unlock()
	if detached {
		return
	}
	c.p.writeStdin(d.rest())
	if c.p.pty == nil && (c.spec.StdinOnce || c.p.key.Exec != "") {
		c.p.closeStdin()
	}
}

// awaitHangup waits, after the client ended its input, until it is gone altogether.
func (c *client) awaitHangup() {
	_ = c.conn.raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
		n, _ := unix.Poll(p, 0)
		return n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) != 0
	})
}
