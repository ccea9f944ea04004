package logfile

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"time"

	"github.com/gantry/gantry/logs"
)

// Cursor reads a log. It is a logs.Cursor.
type Cursor struct {
	path   string
	q      logs.Query
	format Format
	parts  []part // older ones, to be read first
	cur    part
	next   part // what follows cur; none while cur is written, or that is not known yet
	in     input
	mark   mark
	idle   bool // all was read: the mark is set
	done   bool
	watch  *watcher
	rec    logs.Record
}

// OpenCursor opens the log at path for reading.
func OpenCursor(path string, format Format, q logs.Query) (*Cursor, error) {
	c := &Cursor{path: path, q: q, format: format}
	if q.Follow {
		c.watch = watch(filepath.Dir(path)) // before reading, so that no change is missed
	}
	var err error
	if c.parts, err = open(path); err == nil && q.Tail >= 0 {
		c.parts, err = skip(c.parts, format, q.Tail)
	}
	if err == nil && len(c.parts) > 0 {
		err = c.begin(c.parts[0])
		c.parts = c.parts[1:]
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// begin reads p from now on, from where it stands.
func (c *Cursor) begin(p part) error {
	if c.cur.f != nil {
		c.cur.f.Close()
	}
	c.cur, c.next, c.idle = p, part{}, false
	c.format.Reset()
	var src io.Reader = p.f
	at := int64(0)
	if p.gz {
		z, err := unzip(p.f)
		if err != nil {
			if err = torn(err); err != nil {
				return err
			}
			z = eof{}
		}
		src = tornReader{z}
	} else {
		var err error
		if at, err = p.f.Seek(0, io.SeekCurrent); err != nil {
			return err
		}
	}
	c.in.from(src)
	c.in.read = at
	return nil
}

// eof is a file that has nothing.
type eof struct{}

// Read implements io.Reader.
func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// Next implements logs.Cursor.
func (c *Cursor) Next(ctx context.Context) (*logs.Record, error) {
	if c.idle {
		if err := c.wake(); err != nil {
			return nil, err
		}
	}
	for !c.done {
		if c.cur.f == nil {
			if err := c.first(); err != nil {
				return nil, err
			}
		}
		entry, err := c.in.next(c.format)
		switch {
		case errors.Is(err, io.EOF):
			if err = ctx.Err(); err == nil {
				err = c.ended()
			}
			if err != nil {
				return nil, err
			}
		case err != nil:
			return nil, err
		case entry == nil:
			if err := ctx.Err(); err != nil {
				return nil, err
			}
		case c.cur.drop > 0:
			c.cur.drop--
		case c.format.Decode(entry, &c.rec) == nil:
			if !c.q.Since.IsZero() && c.rec.Time.Before(c.q.Since) {
				continue
			}
			if c.done = !c.q.Until.IsZero() && c.rec.Time.After(c.q.Until); !c.done {
				return &c.rec, nil
			}
		}
	}
	return nil, io.EOF
}

// first opens the file of a log that was not there. io.EOF: it still is not.
func (c *Cursor) first() error {
	if !c.q.Follow {
		return io.EOF
	}
	p, err := openNth(c.path, 0)
	if err == nil && p.f == nil {
		err = io.EOF
	}
	if err != nil {
		return err
	}
	return c.begin(p)
}

// ended finds what comes when a file has no more. io.EOF: nothing for now.
func (c *Cursor) ended() error {
	if c.in.final {
		return c.advance()
	}
	if len(c.parts) > 0 || c.next.f != nil || !c.q.Follow {
		c.in.final = true
		return nil
	}
	if c.truncated() {
		return c.again()
	}
	if err := c.look(); err != nil {
		return err
	}
	if c.next.f != nil {
		// Read once more after looking for a successor: then the rotated file is complete.
		return nil
	}
	if !c.cur.gz {
		c.mark.set(c.cur.f, c.in.read)
		c.idle = true
	}
	return io.EOF
}

// look looks for the successor of the file being read.
func (c *Cursor) look() (err error) {
	c.next, err = successor(c.cur, c.path)
	return err
}

// advance goes on with the file after a finished one.
func (c *Cursor) advance() error {
	switch {
	case len(c.parts) > 0:
		p := c.parts[0]
		c.parts = c.parts[1:]
		return c.begin(p)
	case c.next.f != nil:
		return c.begin(c.next)
	}
	c.done = true
	return io.EOF
}

// truncated tells that there is less in the file than was read of it.
func (c *Cursor) truncated() bool {
	st, err := c.cur.f.Stat()
	return err == nil && !c.cur.gz && st.Size() < c.in.read
}

// wake is before reading on after everything was read: a file that was truncated and written
// anew meanwhile is read from its beginning.
func (c *Cursor) wake() error {
	c.idle = false
	if c.mark.holds(c.cur.f) {
		return nil
	}
	return c.again()
}

// again reads the current file from its beginning.
func (c *Cursor) again() error {
	if _, err := c.cur.f.Seek(0, io.SeekStart); err != nil {
		return err
	}
	c.format.Reset()
	c.in.from(c.cur.f)
	return nil
}

// poll is how often a follower looks by itself, should a notification be lost.
const poll = time.Second

// Wait implements logs.Cursor.
func (c *Cursor) Wait(ctx context.Context, wake <-chan struct{}) error {
	d := poll
	if !c.q.Until.IsZero() {
		left := time.Until(c.q.Until)
		if c.done || left <= 0 {
			return io.EOF
		}
		d = min(d, left)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-wake:
	case <-c.watch.ch:
	case <-t.C:
	}
	return nil
}

// Close implements logs.Cursor.
func (c *Cursor) Close() error {
	c.done = true
	closeAll(c.parts)
	c.parts = nil
	for _, p := range []*part{&c.cur, &c.next} {
		if p.f != nil {
			p.f.Close()
			p.f = nil
		}
	}
	if c.watch != nil {
		c.watch.close()
		c.watch = nil
	}
	return nil
}
